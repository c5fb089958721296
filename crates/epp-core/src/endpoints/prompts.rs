//! Prompts that failed lately: whether another failure of one says anything of the endpoint.
//!
//! A prompt is told from others by its first block, so that one with a random end is still the same
//! one. Its failures count once per second and endpoint; always, where another endpoint serves
//! prompts that begin so; and not at all once it has failed at two endpoints and none has served it,
//! because then it is the prompt.
//!
//! The table has a fixed size. Prompts are chosen by clients, who may send more than it holds: then
//! the oldest of a row is forgotten, and counts as new when it comes again.

use crate::scheduling::Slot;

/// Rows, and prompts of each: 256 prompts in 10 KB per VM. Which row a prompt is in is secret, so
/// that no client can push out another one's prompt with four of its own.
const ROWS: usize = 64;
const WAYS: usize = 4;

/// A repeated failure of a prompt counts after this long.
const WINDOW_MS: u64 = 1_000;

/// A prompt is forgotten after so long without a failure.
const FORGET_MS: u64 = 60_000;

#[derive(Debug, Clone, Copy)]
struct Prompt {
    key: u64,
    /// Where it failed first.
    slot: Slot,
    /// When a failure last counted, and when it last failed.
    counted: u64,
    failed: u64,
    /// Whether it failed at another endpoint as well, and none has served it since.
    spread: bool,
    /// Which other endpoint served it.
    served: Option<Slot>,
}

/// The prompts that failed lately.
#[derive(Debug)]
pub struct Prompts {
    secret: u64,
    rows: Vec<[Option<Prompt>; WAYS]>,
    /// Prompts that turned out to be the cause, to be counted.
    pub blamed: u64,
}

impl Prompts {
    /// No prompt yet. The table is made with the first failure.
    pub fn new(secret: u64) -> Self {
        Self {
            secret,
            rows: Vec::new(),
            blamed: 0,
        }
    }

    fn row(&mut self, key: u64) -> Option<&mut [Option<Prompt>; WAYS]> {
        // Two rounds of multiplication and folding: every bit of the key reaches the row's number.
        let mut mixed = key ^ self.secret;
        for _ in 0..2 {
            mixed = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            mixed ^= mixed >> 29;
        }
        self.rows.get_mut((mixed >> 32) as usize % ROWS)
    }

    /// A prompt failed at an endpoint. Returns whether that counts against the endpoint.
    pub fn fail(&mut self, key: u64, slot: Slot, now: u64) -> bool {
        if self.rows.is_empty() {
            self.rows.resize(ROWS, [None; WAYS]);
        }
        let Some(row) = self.row(key) else {
            return true;
        };
        let recent = |prompt: &Prompt| now.abs_diff(prompt.failed) <= FORGET_MS;
        let known = row.iter_mut().flatten();
        let known = known
            .filter(|prompt| recent(prompt))
            .find(|known| known.key == key);
        let Some(prompt) = known else {
            let new = Prompt {
                key,
                slot,
                counted: now,
                failed: now,
                spread: false,
                served: None,
            };
            let age = |place: &Option<Prompt>| place.map_or(0, |prompt| prompt.failed + 1);
            if let Some(oldest) = row.iter_mut().min_by_key(|place| age(place)) {
                *oldest = Some(new);
            }
            return true;
        };
        prompt.failed = now;
        if prompt.served.is_some_and(|served| served != slot) {
            return true;
        }
        if prompt.slot != slot {
            let first = !std::mem::replace(&mut prompt.spread, true);
            self.blamed += u64::from(first);
            return false;
        }
        let counts = !prompt.spread && now.abs_diff(prompt.counted) >= WINDOW_MS;
        if counts {
            prompt.counted = now;
        }
        counts
    }

    /// An endpoint served a prompt.
    pub fn serve(&mut self, key: u64, slot: Slot) {
        let known = self.row(key).into_iter().flatten().flatten();
        for prompt in known.filter(|prompt| prompt.key == key && prompt.slot != slot) {
            prompt.served = Some(slot);
            prompt.spread = false;
        }
    }

    /// An endpoint is gone; another one may come into its slot.
    pub fn leave(&mut self, slot: Slot) {
        for place in self.rows.iter_mut().flatten() {
            *place = place.filter(|prompt| prompt.slot != slot && prompt.served != Some(slot));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Slot = Slot(0);
    const B: Slot = Slot(1);

    #[test]
    fn a_prompt_counts_once_per_window_and_endpoint() {
        let mut prompts = Prompts::new(7);
        let counted = (0..1_000).filter(|now| prompts.fail(1, A, 5_000 + now));
        assert_eq!(counted.count(), 1);
        assert!(prompts.fail(1, A, 6_000));
        assert!(prompts.fail(2, A, 6_000), "another prompt");
    }

    #[test]
    fn a_prompt_that_fails_at_two_endpoints_is_the_cause_until_one_serves_it() {
        let mut prompts = Prompts::new(7);
        assert!(prompts.fail(1, A, 5_000));
        assert!(!prompts.fail(1, B, 5_010));
        assert!(!prompts.fail(1, A, 9_000) && !prompts.fail(1, B, 9_000));
        assert_eq!(prompts.blamed, 1);
        prompts.serve(1, B);
        let counted = (0..10).filter(|now| prompts.fail(1, A, 9_000 + now));
        assert_eq!(counted.count(), 10, "the endpoint is the cause");
    }

    #[test]
    fn after_a_minute_it_is_new_and_so_it_is_after_its_endpoint_has_left() {
        let mut prompts = Prompts::new(7);
        assert!(prompts.fail(1, A, 5_000));
        assert!(!prompts.fail(1, B, 5_010));
        assert!(prompts.fail(1, B, 5_010 + FORGET_MS + 1));
        prompts.leave(B);
        assert!(prompts.fail(1, B, 5_010 + FORGET_MS + 2));
    }

    #[test]
    fn more_prompts_than_it_holds_take_no_more_memory() {
        let mut prompts = Prompts::new(7);
        for key in 0..100_000 {
            assert!(prompts.fail(key, A, 5_000 + key));
        }
        let kept = prompts.rows.iter().flatten().flatten().count();
        assert_eq!(kept, ROWS * WAYS);
        assert!(!prompts.fail(99_999, A, 105_000), "the newest are kept");
    }

    #[test]
    fn which_prompts_share_a_row_depends_on_the_secret() {
        // Sixteen prompts that share a row under one secret are spread under another.
        let row = |prompts: &mut Prompts, key| prompts.row(key).unwrap() as *const _ as usize;
        let table = |secret| {
            let mut prompts = Prompts::new(secret);
            prompts.fail(0, A, 1);
            prompts
        };
        let (mut one, mut other) = (table(1), table(0x5eed_0000_0000_0001));
        let first = row(&mut one, 0);
        let together = (0..10_000).filter(|key| row(&mut one, *key) == first);
        let together: Vec<u64> = together.take(16).collect();
        let mut rows: Vec<usize> = together.iter().map(|key| row(&mut other, *key)).collect();
        rows.sort_unstable();
        rows.dedup();
        assert!(rows.len() > 8, "{}", rows.len());
    }
}
