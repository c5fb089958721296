//! Who is avoided, by one worker.

use super::trials::TRIAL_MS;
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

/// A request of no known prompt that was answered, or failed so.
fn outcome(request: u32, failure: Option<Failure>) -> Outcome {
    Outcome {
        request,
        failure,
        bodied: true,
        prompt: None,
    }
}

/// A failure that a request can cause, or one that it cannot.
fn failure(reason: Reason) -> Option<Failure> {
    let certain = reason == Reason::Unserved;
    Some(Failure { reason, certain })
}

fn note(avoider: &mut Avoider, slot: u32, request: u32, reason: Option<Reason>, now: u64) {
    let outcome = outcome(request, reason.and_then(failure));
    avoider.note(Slot(slot), &outcome, Freshness::Fresh, now);
}

fn fail(avoider: &mut Avoider, slot: u32, times: usize, now: u64) {
    for _ in 0..times {
        note(avoider, slot, 0, Some(Reason::Errors), now);
    }
}

fn serve(avoider: &mut Avoider, slot: u32, times: usize, now: u64) {
    for _ in 0..times {
        note(avoider, slot, 0, None, now);
    }
}

/// Long after whatever was served by then.
const LATER: u64 = 1_000 + SILENT_MS;

fn marked(avoider: &mut Avoider, pool: &mut Pool) -> Vec<u32> {
    avoider.mark(pool, LATER);
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
    assert!(avoider.suspects(Slot(1), 4_000) && !avoider.suspects(Slot(0), 4_000));
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
        let reason = failed.then_some(Reason::Errors);
        note(&mut avoider, rng.u32(0..2), 0, reason, now);
    }
    assert!(marked(&mut avoider, &mut pool).is_empty());
    serve(&mut avoider, 0, 30, 10_000);
    assert!(!avoider.suspects(Slot(0), 20_000));
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
            for _ in 0..8 {
                note(&mut avoider, slot, 0, Some(Reason::Unserved), 1_000);
            }
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
    for slot in [0, 1] {
        for _ in 0..8 {
            note(&mut avoider, slot, 0, Some(Reason::Unserved), 1_000);
        }
    }
    assert_eq!(marked(&mut avoider, &mut pool), [0]);
}

#[test]
fn all_stay_where_more_than_half_would_be_avoided_for_what_requests_can_cause() {
    let (mut avoider, mut pool) = worker(4);
    // As other workers may say it of other endpoints each.
    for slot in 0..3 {
        let entry = Entry {
            endpoint: u64::from(slot) + 1,
            reason: Reason::Errors,
            level: 1,
            until: 5_000,
            changed: 1_000,
            ..Entry::default()
        };
        assert!(avoider.merge(Slot(slot), entry, 1_000));
        let expected: &[u32] = [&[0][..], &[0, 1], &[]][slot as usize];
        assert_eq!(marked(&mut avoider, &mut pool), expected);
    }
    let blamed = Blamed {
        majorities: 1,
        prompts: 0,
    };
    assert_eq!(avoider.take_blamed(), blamed);
    marked(&mut avoider, &mut pool);
    assert_eq!(avoider.take_blamed(), Blamed::default(), "once");
    // What no request can cause counts all the same.
    avoider.hangs(Slot(3), 1_000);
    assert_eq!(marked(&mut avoider, &mut pool), [3]);
}

/// The endpoint in the first slot refuses a request, and its page does not come.
fn refuse(avoider: &mut Avoider, request: u32, now: u64) {
    let outcome = outcome(request, failure(Reason::Unserved));
    avoider.note(Slot(0), &outcome, Freshness::Stale, now);
}

#[test]
fn each_time_lasts_longer_up_to_the_most_and_is_forgotten_in_the_end() {
    let (mut avoider, mut pool) = worker(4);
    let mut now = 1_000;
    (0..4).for_each(|_| refuse(&mut avoider, 0, now));
    let mut times = Vec::new();
    for _ in 0..9 {
        let time = wait(&mut avoider, &pool, now);
        now += time;
        times.push(time);
        assert!(
            marked(&mut avoider, &mut pool).is_empty(),
            "it may be tried"
        );
        assert!(avoider.sent(Slot(0), 7, now));
        assert_eq!(marked(&mut avoider, &mut pool), [0], "by one request");
        assert!(!avoider.sent(Slot(0), 8, now));
        refuse(&mut avoider, 7, now);
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
    avoider.sent(Slot(0), 9, now);
    note(&mut avoider, 0, 9, None, now);
    assert!(marked(&mut avoider, &mut pool).is_empty());
    assert!(!avoider.suspects(Slot(0), now + ALERT_MS + 1));
    // Soon after it counts as a repetition, long after it does not.
    (0..4).for_each(|_| refuse(&mut avoider, 0, now + 1_000));
    let again = wait(&mut avoider, &pool, now + 1_000);
    assert!(again > 40_000, "{again}");
    now += 1_000 + again;
    avoider.sent(Slot(0), 10, now);
    note(&mut avoider, 0, 10, None, now);
    now += FORGET_MS + 1_000;
    (0..4).for_each(|_| refuse(&mut avoider, 0, now));
    assert!(wait(&mut avoider, &pool, now) < 1_300);
}

#[test]
fn one_that_is_alive_is_back_within_seconds() {
    for reason in [Reason::Overloaded, Reason::Errors, Reason::Unserved] {
        let (mut avoider, pool) = worker(2);
        let mut now = 1_000;
        for _ in 0..4 {
            note(&mut avoider, 0, 0, Some(reason), now);
        }
        for _ in 0..6 {
            let time = wait(&mut avoider, &pool, now);
            assert!(time <= MOST_ALIVE_MS * 6 / 5 + 10, "{reason:?}: {time}");
            now += time;
            avoider.sent(Slot(0), 7, now);
            note(&mut avoider, 0, 7, Some(reason), now);
        }
    }
}

#[test]
fn who_refused_is_not_tried_while_its_pages_fail_but_not_for_ever() {
    let (mut avoider, mut pool) = worker(2);
    for _ in 0..4 {
        refuse(&mut avoider, 0, 1_000);
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
    assert!(avoider.sent(Slot(0), 7, now));
    let now = now + TRIAL_MS;
    avoider.ended(Slot(0), 7, now);
    assert_eq!(marked(&mut avoider, &mut pool), [0]);
    let again = wait(&mut avoider, &pool, now);
    assert!(
        (900..1_100).contains(&again),
        "no longer than the first: {again}"
    );
}

#[test]
fn a_client_that_gives_up_or_never_ends_keeps_nobody_from_trying() {
    let (mut avoider, mut pool) = worker(2);
    fail(&mut avoider, 0, 4, 1_000);
    let mut now = 1_000 + wait(&mut avoider, &pool, 1_000);
    for request in 7..100 {
        assert!(avoider.sent(Slot(0), request, now));
        assert_eq!(marked(&mut avoider, &mut pool), [0]);
        avoider.ended(Slot(0), request, now + 1);
        assert!(marked(&mut avoider, &mut pool).is_empty(), "the next one");
        now += 1;
    }
    // One that takes for ever, and one that is served meanwhile.
    assert!(avoider.sent(Slot(0), 200, now));
    let since = now;
    while !avoider.sent(Slot(0), 201, now) {
        now += 50;
        avoider.hold_claims(now);
        assert!(now < since + 2 * TRIAL_MS);
    }
    note(&mut avoider, 0, 201, None, now);
    assert_eq!(avoider.reason(Slot(0)), None);
}

#[test]
fn an_endpoint_that_leaves_takes_all_with_it() {
    let (mut avoider, mut pool) = worker(2);
    fail(&mut avoider, 0, 4, 1_000);
    avoider.leave(Slot(0));
    avoider.join(Slot(0), 9);
    assert!(marked(&mut avoider, &mut pool).is_empty());
    assert!(!avoider.suspects(Slot(0), 10_000));
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
