//! Which held requests to look at: the one that has brought least for its time, and those of which a part
//! was left unread.
//!
//! Clients choose how many requests are held and how often their bytes come. No tick may therefore
//! walk over all requests under way: each queue costs a push at the request's headers, and a tick
//! looks only at what is due. Entries of requests that have been released stay until they come up;
//! whether one is still held, the caller says.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Entries of released requests beyond as many as there are held ones that are put up with before
/// the queue is swept. Any small number does: sweeping costs a look-up an entry.
const STALE: usize = 64;

/// The requests that are held for their bodies.
#[derive(Debug, Default)]
pub struct Holds {
    /// Each with a time up to which it had paid when it was looked at last, the least first. What it
    /// has paid only grows, so that the entry is a lower bound, and a body callback changes nothing
    /// here.
    paid: BinaryHeap<Reverse<(u64, u32)>>,
    /// Those of which a part was left unread.
    unread: Vec<u32>,
}

impl Holds {
    /// A request is held from `now` on.
    pub fn add(&mut self, id: u32, now: u64) {
        self.paid.push(Reverse((now, id)));
    }

    /// Takes out the held request that has paid least, if that is not after `bound`. `paid` is what
    /// a request has paid by now; none where it is not held.
    ///
    /// An entry is moved at most once for what came of its request since it was looked at last.
    pub fn take(&mut self, bound: u64, paid: impl Fn(u32) -> Option<u64>) -> Option<u32> {
        while let Some(Reverse((known, id))) = self.paid.peek().copied() {
            if known > bound {
                return None;
            }
            self.paid.pop();
            match paid(id) {
                Some(paid) if paid > known => self.paid.push(Reverse((paid, id))),
                Some(_) => return Some(id),
                None => {}
            }
        }
        None
    }

    /// A part of a request's body was left unread. Once for each request.
    pub fn leave_unread(&mut self, id: u32) {
        self.unread.push(id);
    }

    /// Looks at all of which a part was left unread, in the order in which that was, and keeps those
    /// for which `stays` says so.
    pub fn retain_unread(&mut self, mut stays: impl FnMut(u32) -> bool) {
        self.unread.retain(|id| stays(*id));
    }

    /// Gives back what entries of released requests take; `held` of all are held.
    pub fn sweep(&mut self, held: usize, is_held: impl Fn(u32) -> bool) {
        if self.paid.len() > 2 * held + STALE {
            self.paid.retain(|Reverse((_, id))| is_held(*id));
        }
    }

    /// How many entries there are.
    #[cfg(test)]
    pub fn entries(&self) -> usize {
        self.paid.len() + self.unread.len()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::HashMap;

    use super::*;

    /// What requests have paid, and how often that was asked.
    #[derive(Default)]
    struct Paid(HashMap<u32, u64>, Cell<usize>);

    impl Paid {
        fn of(&self, id: u32) -> Option<u64> {
            self.1.set(self.1.get() + 1);
            self.0.get(&id).copied()
        }
    }

    #[test]
    fn the_least_is_found_whatever_came_meanwhile() {
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..200 {
            let (mut holds, mut paid) = (Holds::default(), Paid::default());
            let mut now = 0;
            for id in 0..300 {
                now += rng.u64(0..3);
                match rng.u32(0..3) {
                    0 => {
                        holds.add(id, now);
                        paid.0.insert(id, now);
                    }
                    1 => {
                        let known = paid.0.values_mut();
                        known.for_each(|paid| *paid = rng.u64(*paid..=now.max(*paid)));
                    }
                    _ => {
                        let least = paid.0.values().min().copied();
                        let bound = rng.u64(0..=now);
                        let found = holds.take(bound, |id| paid.of(id));
                        let expected = least.filter(|least| *least <= bound);
                        let had = found.map(|id| paid.0.remove(&id).unwrap());
                        assert_eq!(had, expected);
                    }
                }
            }
        }
    }

    /// Every held request brings a byte before each newcomer, and each newcomer takes one's place.
    #[test]
    fn a_flood_of_newcomers_costs_a_look_each_and_one_for_each_part_that_came() {
        const HELD: u32 = 1_024;
        let (mut holds, mut paid) = (Holds::default(), Paid::default());
        for id in 0..HELD {
            holds.add(id, 0);
            paid.0.insert(id, 0);
        }
        let (mut parts, mut newcomers) = (0, 0);
        for id in HELD..11 * HELD {
            let now = u64::from(id);
            if id % 64 == 0 {
                paid.0.values_mut().for_each(|paid| *paid = now - 1);
                parts += paid.0.len();
            }
            holds.add(id, now);
            paid.0.insert(id, now);
            newcomers += 1;
            let gone = holds.take(u64::MAX, |id| paid.of(id)).unwrap();
            assert!(gone < id, "the newcomer stays");
            paid.0.remove(&gone);
            assert_eq!(holds.entries(), HELD as usize);
        }
        let looks = paid.1.get();
        assert!(looks <= parts + newcomers, "{looks} looks");
    }

    #[test]
    fn what_is_released_at_once_leaves_nothing_behind() {
        let mut holds = Holds::default();
        for id in 0..100_000 {
            holds.add(id, u64::from(id));
            if id % 1_000 == 0 {
                holds.sweep(0, |_| false);
                assert!(holds.entries() <= STALE);
            }
            assert!(holds.entries() <= 2 * 1_000 + STALE);
        }
    }
}
