//! Prompts that failed lately, and whether another failure of a prompt counts against the endpoint.
//!
//! Failing prompts are identified by their first block, so that a prompt with a random end is still the same one.
//! Its failures count once per second and endpoint. They always count if another endpoint serves prompts that
//! begin alike. They do not count once the prompt has failed at two endpoints and none has served it, because
//! then the prompt is at fault.
//!
//! The table has a fixed size. Clients choose the prompts and may send more than fit: then the oldest of a row
//! is forgotten, and counts as new when it comes again.

use std::time::Duration;

use crate::number_hash::GOLDEN_RATIO;
use crate::scheduling::Slot;
use crate::time::Timestamp;

/// The table's rows, and prompts per row: 256 prompts in 10 KB per VM. A secret decides which row a prompt
/// is in, so that no client can evict another client's prompt with four of its own.
const ROWS: usize = 64;
const PROMPTS_PER_ROW: usize = 4;

/// A repeated failure of a prompt counts again after this long.
const REPEAT_AFTER: Duration = Duration::from_secs(1);

/// A prompt is forgotten after this long without a failure.
const FORGET_AFTER: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy)]
struct FailingPrompt {
    /// Hash of the first block.
    key: u64,
    /// The endpoint at which the prompt failed first.
    slot: Slot,
    /// When a failure last counted.
    counted_at: Timestamp,
    /// When the prompt last failed.
    failed_at: Timestamp,
    /// Whether the prompt failed at another endpoint as well, and none has served it since.
    spread: bool,
    /// Another endpoint that served the prompt.
    served_by: Option<Slot>,
}

/// The table of prompts that failed lately.
#[derive(Debug)]
pub struct FailingPrompts {
    secret: u64,
    rows: Vec<[Option<FailingPrompt>; PROMPTS_PER_ROW]>,
    /// Prompts that turned out to be at fault, to be counted.
    blamed: u64,
}

impl FailingPrompts {
    /// Creates an empty table. Its memory is allocated with the first failure.
    pub fn new(secret: u64) -> Self {
        Self {
            secret,
            rows: Vec::new(),
            blamed: 0,
        }
    }

    fn row(&mut self, key: u64) -> Option<&mut [Option<FailingPrompt>; PROMPTS_PER_ROW]> {
        // Two rounds of multiplication and folding: every bit of the key reaches the row's number.
        let mut mixed = key ^ self.secret;
        for _ in 0..2 {
            mixed = mixed.wrapping_mul(GOLDEN_RATIO);
            mixed ^= mixed >> 29;
        }
        self.rows.get_mut((mixed >> 32) as usize % ROWS)
    }

    /// Returns and resets the number of prompts that turned out to be at fault.
    pub fn take_blamed(&mut self) -> u64 {
        std::mem::take(&mut self.blamed)
    }

    /// Records that a prompt failed at an endpoint. Returns whether that counts against the endpoint.
    pub fn record_failure(&mut self, key: u64, slot: Slot, now: Timestamp) -> bool {
        if self.rows.is_empty() {
            self.rows.resize(ROWS, [None; PROMPTS_PER_ROW]);
        }
        let Some(row) = self.row(key) else {
            return true;
        };
        let recent = |prompt: &FailingPrompt| now.is_near(prompt.failed_at, FORGET_AFTER);
        let known = row.iter_mut().flatten();
        let known = known
            .filter(|prompt| recent(prompt))
            .find(|known| known.key == key);
        let Some(prompt) = known else {
            let new = FailingPrompt {
                key,
                slot,
                counted_at: now,
                failed_at: now,
                spread: false,
                served_by: None,
            };
            let used_at = |entry: &Option<FailingPrompt>| entry.map(|it| it.failed_at);
            if let Some(oldest) = row.iter_mut().min_by_key(|entry| used_at(entry)) {
                *oldest = Some(new);
            }
            return true;
        };
        prompt.failed_at = now;
        if prompt.served_by.is_some_and(|served| served != slot) {
            return true;
        }
        if prompt.slot != slot {
            let first = !std::mem::replace(&mut prompt.spread, true);
            self.blamed += u64::from(first);
            return false;
        }
        let counts = !prompt.spread && now.abs_diff(prompt.counted_at) >= REPEAT_AFTER;
        if counts {
            prompt.counted_at = now;
        }
        counts
    }

    /// Records that an endpoint served a prompt.
    pub fn record_served(&mut self, key: u64, slot: Slot) {
        let known = self.row(key).into_iter().flatten().flatten();
        for prompt in known.filter(|prompt| prompt.key == key && prompt.slot != slot) {
            prompt.served_by = Some(slot);
            prompt.spread = false;
        }
    }

    /// Removes an endpoint, whose slot another one may take.
    pub fn remove_endpoint(&mut self, slot: Slot) {
        for entry in self.rows.iter_mut().flatten() {
            *entry = entry.filter(|it| it.slot != slot && it.served_by != Some(slot));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Slot = Slot(0);
    const B: Slot = Slot(1);

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn a_prompt_counts_once_per_second_and_endpoint() {
        let mut prompts = FailingPrompts::new(7);
        let counted = (0..1_000).filter(|now| prompts.record_failure(1, A, at(5_000 + now)));
        assert_eq!(counted.count(), 1);
        assert!(prompts.record_failure(1, A, at(6_000)));
        assert!(prompts.record_failure(2, A, at(6_000)), "another prompt");
    }

    #[test]
    fn a_prompt_that_fails_at_two_endpoints_is_at_fault_until_one_serves_it() {
        let mut prompts = FailingPrompts::new(7);
        assert!(prompts.record_failure(1, A, at(5_000)));
        assert!(!prompts.record_failure(1, B, at(5_010)));
        assert!(
            !prompts.record_failure(1, A, at(9_000)) && !prompts.record_failure(1, B, at(9_000))
        );
        assert_eq!(prompts.blamed, 1);
        prompts.record_served(1, B);
        let counted = (0..10).filter(|now| prompts.record_failure(1, A, at(9_000 + now)));
        assert_eq!(counted.count(), 10, "the endpoint is at fault");
    }

    #[test]
    fn a_prompt_is_new_after_a_minute_and_after_its_endpoint_is_removed() {
        let mut prompts = FailingPrompts::new(7);
        assert!(prompts.record_failure(1, A, at(5_000)));
        assert!(!prompts.record_failure(1, B, at(5_010)));
        assert!(prompts.record_failure(1, B, at(5_011).after(FORGET_AFTER)));
        prompts.remove_endpoint(B);
        assert!(prompts.record_failure(1, B, at(5_012).after(FORGET_AFTER)));
    }

    #[test]
    fn more_prompts_than_the_table_holds_take_no_more_memory() {
        let mut prompts = FailingPrompts::new(7);
        for key in 0..100_000 {
            assert!(prompts.record_failure(key, A, at(5_000 + key)));
        }
        let kept = prompts.rows.iter().flatten().flatten().count();
        assert_eq!(kept, ROWS * PROMPTS_PER_ROW);
        assert!(
            !prompts.record_failure(99_999, A, at(105_000)),
            "the newest are kept"
        );
    }

    #[test]
    fn which_prompts_share_a_row_depends_on_the_secret() {
        // Sixteen prompts that share a row under one secret are spread under another.
        let row =
            |prompts: &mut FailingPrompts, key| prompts.row(key).unwrap() as *const _ as usize;
        let table = |secret| {
            let mut prompts = FailingPrompts::new(secret);
            prompts.record_failure(0, A, at(1));
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
