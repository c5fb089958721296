//! Outlier detection by one worker.

use super::probe::PROBE_TIMEOUT;
use super::*;
use crate::scheduling::{Health, Metrics};
use crate::testing;
use crate::time::whole_millis;

const SETTINGS: OutlierSettings = OutlierSettings {
    first: Duration::from_secs(1),
    max: Duration::from_secs(60),
};

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// Returns a duration in milliseconds.
const fn millis(duration: Duration) -> u64 {
    whole_millis(duration)
}

/// A detector and a pool of this many endpoints.
fn worker(endpoints: u32) -> (OutlierDetector, Pool) {
    let mut detector = OutlierDetector::new(Some(SETTINGS), fastrand::Rng::with_seed(5));
    (0..endpoints).for_each(|slot| detector.add_endpoint(Slot(slot), u64::from(slot) + 1));
    let pool = testing::pool((0..endpoints).map(|_| Metrics::default()));
    (detector, pool)
}

/// The outcome of a request without a known prompt: served, or failed like this.
fn outcome(request: u32, failure: Option<Failure>) -> Outcome {
    Outcome {
        request,
        failure,
        served: true,
        prompt: None,
    }
}

/// A failure, certain if no request can cause it.
fn failure(reason: Reason) -> Option<Failure> {
    let certain = reason == Reason::Unserved;
    Some(Failure { reason, certain })
}

fn record(
    detector: &mut OutlierDetector,
    slot: u32,
    request: u32,
    reason: Option<Reason>,
    now: u64,
) {
    let outcome = outcome(request, reason.and_then(failure));
    detector.record_outcome(Slot(slot), &outcome, Freshness::Fresh, at(now));
}

fn fail(detector: &mut OutlierDetector, slot: u32, times: usize, now: u64) {
    for _ in 0..times {
        record(detector, slot, 0, Some(Reason::Errors), now);
    }
}

fn serve(detector: &mut OutlierDetector, slot: u32, times: usize, now: u64) {
    for _ in 0..times {
        record(detector, slot, 0, None, now);
    }
}

/// Long after everything that was served at 1,000 ms.
const LATER: u64 = 1_000 + millis(SILENT_AFTER);

fn ejected(detector: &mut OutlierDetector, pool: &mut Pool) -> Vec<u32> {
    detector.flag_ejected(pool, at(LATER));
    let flagged = pool.iter().filter(|(_, endpoint)| endpoint.ejected);
    flagged.map(|(slot, _)| slot.0).collect()
}

/// Claims all due probes, as if this were the only worker.
fn claim(detector: &mut OutlierDetector, pool: &Pool, now: u64) -> Vec<Slot> {
    let due = detector.due_probes(pool, at(now));
    for slot in &due {
        let entry = detector.claim(*slot, at(now)).unwrap();
        detector.accept_claim(*slot, entry);
    }
    due
}

/// Returns the time from `now` to the next probe, which is then claimed.
fn wait_for_probe(detector: &mut OutlierDetector, pool: &Pool, now: u64) -> u64 {
    let mut later = now;
    while claim(detector, pool, later).is_empty() {
        later += 10;
        assert!(later < now + 200_000);
    }
    later - now
}

#[test]
fn four_failures_in_a_row_are_enough_and_three_are_not() {
    let (mut detector, mut pool) = worker(4);
    fail(&mut detector, 1, 3, 1_000);
    assert!(detector.is_suspect(Slot(1), at(4_000)) && !detector.is_suspect(Slot(0), at(4_000)));
    assert!(ejected(&mut detector, &mut pool).is_empty());
    fail(&mut detector, 1, 1, 1_000);
    assert_eq!(ejected(&mut detector, &mut pool), [1]);
    assert_eq!(detector.reason(Slot(1)), Some(Reason::Errors));
    assert_eq!(detector.new_ejections, [(Slot(1), Reason::Errors)]);
}

#[test]
fn a_few_failures_among_many_responses_are_not_enough() {
    let (mut detector, mut pool) = worker(2);
    let mut rng = fastrand::Rng::with_seed(1);
    for now in 0..10_000 {
        let failed = rng.u32(0..50) == 0;
        let reason = failed.then_some(Reason::Errors);
        record(&mut detector, rng.u32(0..2), 0, reason, now);
    }
    assert!(ejected(&mut detector, &mut pool).is_empty());
    serve(&mut detector, 0, 30, 10_000);
    assert!(!detector.is_suspect(Slot(0), at(20_000)));
}

#[test]
fn endpoints_that_all_fail_alike_are_not_ejected() {
    let (mut detector, mut pool) = worker(4);
    for now in 0..100 {
        (0..4).for_each(|slot| fail(&mut detector, slot, 1, now));
    }
    assert!(ejected(&mut detector, &mut pool).is_empty());
}

#[test]
fn at_least_half_of_the_endpoints_stay() {
    for (endpoints, most) in [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (10, 5)] {
        let (mut detector, mut pool) = worker(endpoints);
        // One endpoint after the other, so that each is far above its peers.
        for slot in 0..endpoints {
            for _ in 0..8 {
                record(&mut detector, slot, 0, Some(Reason::Unserved), 1_000);
            }
        }
        let ejected = ejected(&mut detector, &mut pool);
        assert!(ejected.len() <= most, "{endpoints}: {ejected:?}");
        assert!(endpoints == 1 || !ejected.is_empty(), "{endpoints}");
    }
    // Unavailable endpoints do not count among those that stay.
    let (mut detector, mut pool) = worker(4);
    for slot in [2, 3] {
        pool.get_mut(Slot(slot)).unwrap().health = Health::Unhealthy;
    }
    for slot in [0, 1] {
        for _ in 0..8 {
            record(&mut detector, slot, 0, Some(Reason::Unserved), 1_000);
        }
    }
    assert_eq!(ejected(&mut detector, &mut pool), [0]);
}

#[test]
fn all_stay_if_more_than_half_would_be_ejected_for_what_requests_can_cause() {
    let (mut detector, mut pool) = worker(4);
    // As if each of several workers had ejected another endpoint.
    for slot in 0..3 {
        let ejection = Ejection {
            reason: Reason::Errors,
            certain: false,
            until: at(5_000),
            prober: None,
        };
        let entry = EjectionRecord {
            endpoint: u64::from(slot) + 1,
            level: 1,
            ejection: Some(ejection),
            changed: Some(at(1_000)),
        };
        assert!(detector.merge(Slot(slot), entry, at(1_000)));
        let expected: &[u32] = [&[0][..], &[0, 1], &[]][slot as usize];
        assert_eq!(ejected(&mut detector, &mut pool), expected);
    }
    let faults = RequestFaults {
        majorities: 1,
        prompts: 0,
    };
    assert_eq!(detector.take_request_faults(), faults);
    ejected(&mut detector, &mut pool);
    assert_eq!(
        detector.take_request_faults(),
        RequestFaults::default(),
        "once"
    );
    // A failure that no request can cause still ejects.
    detector.mark_hung(Slot(3), at(1_000));
    assert_eq!(ejected(&mut detector, &mut pool), [3]);
}

/// The endpoint in the first slot refuses a request, and its page does not come.
fn refuse(detector: &mut OutlierDetector, request: u32, now: u64) {
    let outcome = outcome(request, failure(Reason::Unserved));
    detector.record_outcome(Slot(0), &outcome, Freshness::Stale, at(now));
}

#[test]
fn ejections_grow_up_to_the_maximum_and_are_forgotten_in_the_end() {
    let (mut detector, mut pool) = worker(4);
    let mut now = 1_000;
    (0..4).for_each(|_| refuse(&mut detector, 0, now));
    let mut times = Vec::new();
    for _ in 0..9 {
        let time = wait_for_probe(&mut detector, &pool, now);
        now += time;
        times.push(time);
        assert!(
            ejected(&mut detector, &mut pool).is_empty(),
            "it may be probed"
        );
        assert!(detector.start_probe(Slot(0), 7, at(now)));
        assert_eq!(ejected(&mut detector, &mut pool), [0], "by one request");
        assert!(!detector.start_probe(Slot(0), 8, at(now)));
        refuse(&mut detector, 7, now);
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
    now += wait_for_probe(&mut detector, &pool, now);
    detector.start_probe(Slot(0), 9, at(now));
    record(&mut detector, 0, 9, None, now);
    assert!(ejected(&mut detector, &mut pool).is_empty());
    assert!(!detector.is_suspect(Slot(0), at(now + millis(ALERT) + 1)));
    // Soon after recovery a failure counts as a repetition, long after it does not.
    (0..4).for_each(|_| refuse(&mut detector, 0, now + 1_000));
    let again = wait_for_probe(&mut detector, &pool, now + 1_000);
    assert!(again > 40_000, "{again}");
    now += 1_000 + again;
    detector.start_probe(Slot(0), 10, at(now));
    record(&mut detector, 0, 10, None, now);
    now += millis(FORGET_AFTER) + 1_000;
    (0..4).for_each(|_| refuse(&mut detector, 0, now));
    assert!(wait_for_probe(&mut detector, &pool, now) < 1_300);
}

#[test]
fn an_endpoint_that_is_alive_is_back_within_seconds() {
    for reason in [Reason::Overloaded, Reason::Errors, Reason::Unserved] {
        let (mut detector, pool) = worker(2);
        let mut now = 1_000;
        for _ in 0..4 {
            record(&mut detector, 0, 0, Some(reason), now);
        }
        for _ in 0..6 {
            let time = wait_for_probe(&mut detector, &pool, now);
            assert!(time <= millis(MAX_ALIVE) * 6 / 5 + 10, "{reason:?}: {time}");
            now += time;
            detector.start_probe(Slot(0), 7, at(now));
            record(&mut detector, 0, 7, Some(reason), now);
        }
    }
}

#[test]
fn an_endpoint_that_refused_is_not_probed_while_its_pages_fail_up_to_a_limit() {
    let (mut detector, mut pool) = worker(2);
    for _ in 0..4 {
        refuse(&mut detector, 0, 1_000);
    }
    pool.get_mut(Slot(0)).unwrap().freshness = Freshness::Stale;
    assert!(detector.due_probes(&pool, at(30_000)).is_empty());
    assert_eq!(detector.due_probes(&pool, at(70_000)), [Slot(0)]);
    pool.get_mut(Slot(0)).unwrap().freshness = Freshness::Fresh;
    assert_eq!(detector.due_probes(&pool, at(30_000)), [Slot(0)]);
}

#[test]
fn a_hung_endpoint_is_ejected_until_it_responds() {
    let (mut detector, mut pool) = worker(2);
    detector.mark_hung(Slot(1), at(1_000));
    assert_eq!(ejected(&mut detector, &mut pool), [1]);
    serve(&mut detector, 1, 1, 1_500);
    assert!(ejected(&mut detector, &mut pool).is_empty());
}

#[test]
fn a_probe_without_a_response_proves_nothing() {
    let (mut detector, mut pool) = worker(2);
    fail(&mut detector, 0, 4, 1_000);
    let now = 1_000 + wait_for_probe(&mut detector, &pool, 1_000);
    assert!(detector.start_probe(Slot(0), 7, at(now)));
    let now = now + millis(PROBE_TIMEOUT);
    detector.abandon_probe(Slot(0), 7, at(now));
    assert_eq!(ejected(&mut detector, &mut pool), [0]);
    let again = wait_for_probe(&mut detector, &pool, now);
    assert!(
        (900..1_100).contains(&again),
        "no longer than the first: {again}"
    );
}

#[test]
fn a_client_that_gives_up_or_never_ends_does_not_block_probes() {
    let (mut detector, mut pool) = worker(2);
    fail(&mut detector, 0, 4, 1_000);
    let mut now = 1_000 + wait_for_probe(&mut detector, &pool, 1_000);
    for request in 7..100 {
        assert!(detector.start_probe(Slot(0), request, at(now)));
        assert_eq!(ejected(&mut detector, &mut pool), [0]);
        detector.abandon_probe(Slot(0), request, at(now + 1));
        assert!(ejected(&mut detector, &mut pool).is_empty(), "the next one");
        now += 1;
    }
    // One request that never ends, and one that is served meanwhile.
    assert!(detector.start_probe(Slot(0), 200, at(now)));
    let since = now;
    while !detector.start_probe(Slot(0), 201, at(now)) {
        now += 50;
        detector.renew_claims(at(now));
        assert!(now < since + 2 * millis(PROBE_TIMEOUT));
    }
    record(&mut detector, 0, 201, None, now);
    assert_eq!(detector.reason(Slot(0)), None);
}

#[test]
fn removing_an_endpoint_removes_its_state() {
    let (mut detector, mut pool) = worker(2);
    fail(&mut detector, 0, 4, 1_000);
    detector.remove_endpoint(Slot(0));
    detector.add_endpoint(Slot(0), 9);
    assert!(ejected(&mut detector, &mut pool).is_empty());
    assert!(!detector.is_suspect(Slot(0), at(10_000)));
}

#[test]
fn a_clock_that_is_set_back_does_not_prolong_an_ejection() {
    let (mut detector, pool) = worker(2);
    fail(&mut detector, 0, 4, 10_000_000);
    assert_eq!(detector.due_probes(&pool, at(5_000)), [Slot(0)]);
}

#[test]
fn no_endpoint_is_ejected_when_switched_off() {
    let (mut detector, mut pool) = worker(2);
    fail(&mut detector, 0, 4, 1_000);
    assert_eq!(ejected(&mut detector, &mut pool), [0]);
    detector.configure(None);
    fail(&mut detector, 0, 9, 1_000);
    detector.mark_hung(Slot(0), at(1_000));
    assert!(ejected(&mut detector, &mut pool).is_empty());
}

/// A record of the first endpoint, ejected, from this millisecond.
fn record_from(changed: u64) -> EjectionRecord {
    let ejection = Ejection {
        reason: Reason::Unserved,
        certain: true,
        until: at(1),
        prober: None,
    };
    EjectionRecord {
        endpoint: 1,
        level: 1,
        ejection: Some(ejection),
        changed: Some(at(changed)),
    }
}

#[test]
fn a_record_from_far_ahead_of_the_clock_is_not_taken_over() {
    const NOW: u64 = 1_000_000;
    for changed in [u64::MAX, u64::MAX / 1_000_000, NOW + 5_001] {
        let (mut detector, mut pool) = worker(4);
        // This worker has no record that could replace it.
        assert!(detector.merge(Slot(0), record_from(changed), at(NOW)));
        assert_eq!(detector.reason(Slot(0)), None);
        detector.mark_hung(Slot(0), at(NOW));
        assert!(!detector.merge(Slot(0), record_from(changed), at(NOW)));
        assert_eq!(detector.reason(Slot(0)), Some(Reason::Hung));
        serve(&mut detector, 0, 1, NOW);
        assert!(ejected(&mut detector, &mut pool).is_empty());
    }
    let (mut detector, _) = worker(4);
    assert!(detector.merge(Slot(0), record_from(NOW + 5_000), at(NOW)));
    assert_eq!(detector.reason(Slot(0)), Some(Reason::Unserved));
}

#[test]
fn a_record_from_just_ahead_of_the_clock_pins_no_ejection() {
    let now = 1_000_000;
    let (mut first, _) = worker(4);
    let (mut second, _) = worker(4);
    for detector in [&mut first, &mut second] {
        assert!(detector.merge(Slot(0), record_from(now + 5_000), at(now)));
    }
    let claim = first.claim(Slot(0), at(now)).unwrap();
    let now = now + 50;
    assert!(second.merge(Slot(0), claim, at(now)));
    first.accept_claim(Slot(0), claim);
    assert!(first.start_probe(Slot(0), 7, at(now)));
    record(&mut first, 0, 7, None, now);
    let (_, recovered) = first.records().next().unwrap();
    assert!(second.merge(Slot(0), recovered, at(now + 50)));
    assert_eq!(second.reason(Slot(0)), None);
}
