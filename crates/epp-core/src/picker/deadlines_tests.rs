use std::cell::Cell;
use std::collections::HashMap;
use std::time::Duration;

use super::*;

fn at(nanos: u64) -> Instant {
    Instant::default().after(Duration::from_nanos(nanos))
}

/// The times at which requests are due, and the number of look-ups.
#[derive(Default)]
struct Waiting(HashMap<u32, u64>, Cell<usize>);

impl Waiting {
    fn due(&self, id: u32) -> Option<Instant> {
        self.1.set(self.1.get() + 1);
        self.0.get(&id).copied().map(at)
    }
}

#[test]
fn the_earliest_deadline_is_found_in_any_order_of_insertion() {
    let mut rng = fastrand::Rng::with_seed(7);
    for _ in 0..200 {
        let (mut deadlines, mut waiting) = (Deadlines::default(), Waiting::default());
        let mut now = 0;
        for id in 0..300 {
            now += rng.u64(0..3);
            match rng.u32(0..3) {
                0 => {
                    deadlines.add(id, at(now));
                    waiting.0.insert(id, now);
                }
                1 => {
                    let known = waiting.0.values_mut();
                    known.for_each(|due| *due = rng.u64(*due..=now.max(*due)));
                }
                _ => {
                    let earliest = waiting.0.values().min().copied();
                    let bound = rng.u64(0..=now);
                    let found = deadlines.first_due(at(bound), |id| waiting.due(id));
                    let expected = earliest.filter(|earliest| *earliest <= bound);
                    let had = found.map(|id| waiting.0.remove(&id).unwrap());
                    assert_eq!(had, expected);
                }
            }
        }
    }
}

/// Every held request brings a byte before each newcomer, and each newcomer takes one's place.
#[test]
fn a_flood_of_newcomers_costs_two_looks_each_and_one_for_each_part_that_came() {
    const HELD: u32 = 1_024;
    let (mut deadlines, mut waiting) = (Deadlines::default(), Waiting::default());
    for id in 0..HELD {
        deadlines.add(id, at(0));
        waiting.0.insert(id, 0);
    }
    let (mut parts, mut newcomers) = (0, 0);
    for id in HELD..11 * HELD {
        let now = u64::from(id);
        if id % 64 == 0 {
            waiting.0.values_mut().for_each(|due| *due = now - 1);
            parts += waiting.0.len();
        }
        deadlines.add(id, at(now));
        waiting.0.insert(id, now);
        newcomers += 1;
        let gone = deadlines
            .first_due(Instant::MAX, |id| waiting.due(id))
            .unwrap();
        assert!(gone < id, "the newcomer stays");
        waiting.0.remove(&gone);
        // Its own entry stays until the next look.
        assert!(deadlines.len() <= HELD as usize + 1);
    }
    let looks = waiting.1.get();
    assert!(looks <= parts + 2 * newcomers, "{looks} looks");
}

#[test]
fn a_request_that_ends_at_once_leaves_no_deadline() {
    let mut deadlines = Deadlines::default();
    for id in 0..100_000 {
        deadlines.add(id, at(u64::from(id)));
        if id % 1_000 == 0 {
            deadlines.sweep(0, |_| false);
            assert!(deadlines.len() <= MAX_STALE);
        }
        assert!(deadlines.len() <= 2 * 1_000 + MAX_STALE);
    }
}

/// Each request ends before its deadline; as many as before wait meanwhile.
#[test]
fn sweeping_looks_at_most_twice_at_each_request() {
    const WAITING: u32 = 500;
    const REQUESTS: u32 = 100_000;
    let (mut deadlines, mut looks) = (Deadlines::default(), 0);
    for id in 0..REQUESTS {
        deadlines.add(id, at(u64::from(id)));
        let looked = Cell::new(0);
        deadlines.sweep(WAITING as usize, |known| {
            looked.set(looked.get() + 1);
            known + WAITING > id
        });
        looks += looked.get();
        assert!(deadlines.len() <= 2 * WAITING as usize + MAX_STALE);
    }
    assert!(looks <= 2 * REQUESTS, "{looks} looks");
}
