//! Who is avoided, by one worker.

use super::*;
use crate::scheduling::Metrics;
use crate::testing;

const SETTINGS: Settings = Settings {
    first: 1_000,
    most: 60_000,
};

/// A worker that knows the endpoints of a pool of so many.
fn worker(endpoints: u32) -> (Avoider, Pool) {
    let mut avoider = Avoider::new(SETTINGS, fastrand::Rng::with_seed(5));
    (0..endpoints).for_each(|slot| avoider.join(Slot(slot), u64::from(slot) + 1));
    let pool = testing::pool((0..endpoints).map(|_| Metrics::default()));
    (avoider, pool)
}

fn fail(avoider: &mut Avoider, slot: u32, times: usize, now: u64) {
    for _ in 0..times {
        avoider.note(Slot(slot), 0, Some(Reason::Errors), true, now);
    }
}

fn serve(avoider: &mut Avoider, slot: u32, times: usize, now: u64) {
    for _ in 0..times {
        avoider.note(Slot(slot), 0, None, true, now);
    }
}

fn marked(avoider: &mut Avoider, pool: &mut Pool) -> Vec<u32> {
    avoider.mark(pool);
    let avoided = pool.iter().filter(|(_, endpoint)| endpoint.avoided);
    avoided.map(|(slot, _)| slot.0).collect()
}

/// This worker's word is the pool's: it may try whoever is due.
fn claim(avoider: &mut Avoider, pool: &Pool, now: u64) -> Vec<Slot> {
    let due = avoider.due(pool, now);
    for slot in &due {
        let entry = avoider.claim(*slot, now).unwrap();
        avoider.claimed(*slot, entry);
    }
    due
}

/// How long an endpoint is avoided from `now` on, before its next trial.
fn wait(avoider: &mut Avoider, pool: &Pool, now: u64) -> u64 {
    let mut later = now;
    while claim(avoider, pool, later).is_empty() {
        later += 10;
        assert!(later < now + 200_000);
    }
    later - now
}

#[test]
fn four_failures_in_a_row_are_enough_and_three_are_not() {
    let (mut avoider, mut pool) = worker(4);
    fail(&mut avoider, 1, 3, 1_000);
    assert!(avoider.suspects(Slot(1)) && !avoider.suspects(Slot(0)));
    assert!(marked(&mut avoider, &mut pool).is_empty());
    fail(&mut avoider, 1, 1, 1_000);
    assert_eq!(marked(&mut avoider, &mut pool), [1]);
    assert_eq!(avoider.reason(Slot(1)), Some(Reason::Errors));
    assert_eq!(avoider.begun, [(Slot(1), Reason::Errors)]);
}

#[test]
fn a_few_failures_among_many_answers_are_not_enough() {
    let (mut avoider, mut pool) = worker(2);
    let mut rng = fastrand::Rng::with_seed(1);
    for now in 0..10_000 {
        let failed = rng.u32(0..50) == 0;
        let failure = failed.then_some(Reason::Errors);
        avoider.note(Slot(rng.u32(0..2)), 0, failure, true, now);
    }
    assert!(marked(&mut avoider, &mut pool).is_empty());
    serve(&mut avoider, 0, 30, 10_000);
    assert!(!avoider.suspects(Slot(0)));
}

#[test]
fn where_all_fail_alike_nobody_is_avoided() {
    let (mut avoider, mut pool) = worker(4);
    for now in 0..100 {
        (0..4).for_each(|slot| fail(&mut avoider, slot, 1, now));
    }
    assert!(marked(&mut avoider, &mut pool).is_empty());
}

#[test]
fn at_least_half_stays() {
    for (endpoints, most) in [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (10, 5)] {
        let (mut avoider, mut pool) = worker(endpoints);
        // One after the other, so that each is far above its peers.
        for slot in 0..endpoints {
            fail(&mut avoider, slot, 8, 1_000);
        }
        let marked = marked(&mut avoider, &mut pool);
        assert!(marked.len() <= most, "{endpoints}: {marked:?}");
        assert!(endpoints == 1 || !marked.is_empty(), "{endpoints}");
    }
    // What is down already does not count as staying.
    let (mut avoider, mut pool) = worker(4);
    for slot in [2, 3] {
        pool.get_mut(Slot(slot)).unwrap().available = false;
    }
    fail(&mut avoider, 0, 8, 1_000);
    fail(&mut avoider, 1, 8, 1_000);
    assert_eq!(marked(&mut avoider, &mut pool), [0]);
}

#[test]
fn each_time_lasts_longer_up_to_the_most_and_is_forgotten_in_the_end() {
    let (mut avoider, mut pool) = worker(4);
    let mut now = 1_000;
    fail(&mut avoider, 0, 4, now);
    let mut times = Vec::new();
    for _ in 0..9 {
        let time = wait(&mut avoider, &pool, now);
        now += time;
        times.push(time);
        assert!(
            marked(&mut avoider, &mut pool).is_empty(),
            "it may be tried"
        );
        assert!(avoider.sent(Slot(0), 7));
        assert_eq!(marked(&mut avoider, &mut pool), [0], "by one request");
        assert!(!avoider.sent(Slot(0), 8));
        avoider.note(Slot(0), 7, Some(Reason::Errors), true, now);
    }
    for (time, expected) in times.iter().zip([1, 2, 4, 8, 16, 32, 60, 60, 60]) {
        let expected = f64::from(expected) * 1_000.0;
        let ratio = *time as f64 / expected;
        assert!((0.79..1.21).contains(&ratio), "{times:?}");
    }
    let exact = times.iter().zip([1_000, 2_000, 4_000, 8_000]);
    assert!(
        exact.clone().any(|(time, exact)| time.abs_diff(exact) > 20),
        "no jitter"
    );
    now += wait(&mut avoider, &pool, now);
    avoider.sent(Slot(0), 9);
    avoider.note(Slot(0), 9, None, true, now);
    assert!(marked(&mut avoider, &mut pool).is_empty());
    assert!(!avoider.suspects(Slot(0)));
    // Soon after it counts as a repetition, long after it does not.
    fail(&mut avoider, 0, 4, now + 1_000);
    let again = wait(&mut avoider, &pool, now + 1_000);
    assert!(again > 40_000, "{again}");
    now += 1_000 + again;
    avoider.sent(Slot(0), 10);
    avoider.note(Slot(0), 10, None, true, now);
    now += FORGET_MS + 1_000;
    fail(&mut avoider, 0, 4, now);
    assert!(wait(&mut avoider, &pool, now) < 1_300);
}

#[test]
fn who_is_full_is_back_within_seconds() {
    let (mut avoider, pool) = worker(2);
    let mut now = 1_000;
    for _ in 0..4 {
        avoider.note(Slot(0), 0, Some(Reason::Overloaded), true, now);
    }
    for _ in 0..6 {
        let time = wait(&mut avoider, &pool, now);
        assert!(time <= MOST_ALIVE_MS * 6 / 5 + 10, "{time}");
        now += time;
        avoider.sent(Slot(0), 7);
        avoider.note(Slot(0), 7, Some(Reason::Overloaded), true, now);
    }
}

#[test]
fn who_refused_is_not_tried_while_its_pages_fail_but_not_for_ever() {
    let (mut avoider, mut pool) = worker(2);
    for _ in 0..4 {
        avoider.note(Slot(0), 0, Some(Reason::Unserved), false, 1_000);
    }
    pool.get_mut(Slot(0)).unwrap().freshness = Freshness::Stale;
    assert!(avoider.due(&pool, 30_000).is_empty());
    assert_eq!(avoider.due(&pool, 70_000), [Slot(0)]);
    pool.get_mut(Slot(0)).unwrap().freshness = Freshness::Fresh;
    assert_eq!(avoider.due(&pool, 30_000), [Slot(0)]);
}

#[test]
fn who_hangs_is_avoided_until_it_answers() {
    let (mut avoider, mut pool) = worker(2);
    avoider.hangs(Slot(1), 1_000);
    assert_eq!(marked(&mut avoider, &mut pool), [1]);
    serve(&mut avoider, 1, 1, 1_500);
    assert!(marked(&mut avoider, &mut pool).is_empty());
}

#[test]
fn a_trial_that_ends_without_an_answer_says_nothing() {
    let (mut avoider, mut pool) = worker(2);
    fail(&mut avoider, 0, 4, 1_000);
    let now = 1_000 + wait(&mut avoider, &pool, 1_000);
    assert!(avoider.sent(Slot(0), 7));
    avoider.ended(Slot(0), 7, now);
    assert_eq!(marked(&mut avoider, &mut pool), [0]);
    let again = wait(&mut avoider, &pool, now);
    assert!(
        (900..1_100).contains(&again),
        "no longer than the first: {again}"
    );
}

#[test]
fn an_endpoint_that_leaves_takes_all_with_it() {
    let (mut avoider, mut pool) = worker(2);
    fail(&mut avoider, 0, 4, 1_000);
    avoider.leave(Slot(0));
    avoider.join(Slot(0), 9);
    assert!(marked(&mut avoider, &mut pool).is_empty());
    assert!(!avoider.suspects(Slot(0)));
}

#[test]
fn a_clock_that_is_set_back_makes_nobody_wait_for_ever() {
    let (mut avoider, pool) = worker(2);
    fail(&mut avoider, 0, 4, 10_000_000);
    assert_eq!(avoider.due(&pool, 5_000), [Slot(0)]);
}

#[test]
fn switched_off_nobody_is_avoided() {
    let (mut avoider, mut pool) = worker(2);
    fail(&mut avoider, 0, 4, 1_000);
    assert_eq!(marked(&mut avoider, &mut pool), [0]);
    avoider.set(Settings {
        first: 0,
        ..SETTINGS
    });
    fail(&mut avoider, 0, 9, 1_000);
    avoider.hangs(Slot(0), 1_000);
    assert!(marked(&mut avoider, &mut pool).is_empty());
}
