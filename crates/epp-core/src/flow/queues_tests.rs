use super::super::fixture::{arrival, at, band, control, drain, las, queued};
use super::super::Fairness;
use super::*;

fn assert_is_empty(queues: &Queues) {
    assert!(queues.is_empty());
    assert_eq!(queues.highest_waiting(), None);
    assert_eq!(queues.bytes, 0);
    for band in queues.bands() {
        assert_eq!((band.requests, band.bytes, band.oldest), (0, 0, None));
    }
}

#[test]
fn higher_bands_go_first_and_requests_of_a_band_in_the_order_in_which_they_came() {
    let control = control(vec![band(10), band(0)]);
    let requests = [
        (0, "a"),
        (10, "b"),
        (-3, "a"),
        (7, "c"),
        (0, "b"),
        (10, "a"),
    ];
    let mut queues = queued(&control, &requests);
    assert_eq!(queues.len(), 6);
    assert_eq!(queues.highest_waiting(), Some(10));
    assert_eq!(drain(&mut queues, &control, at(10)), [2, 6, 4, 1, 5, 3]);
    assert_is_empty(&queues);
}

#[test]
fn a_departure_says_what_left() {
    let control = control(vec![band(0)]);
    let mut queues = queued(&control, &[(0, "a")]);
    let gone = queues.dispatch(&control, 0.5, at(31)).unwrap();
    assert_eq!(
        (gone.id, gone.priority, gone.bytes),
        (ExchangeId(1), 0, 100)
    );
    assert_eq!(gone.waited, Duration::from_millis(30));
    assert_eq!(queues.label(gone.label), "a");
}

#[test]
fn a_full_pool_shuts_the_gate() {
    let control = control(vec![band(0)]);
    let mut queues = queued(&control, &[(0, "a"), (0, "a")]);
    for saturation in [1.0, 1.01, f64::NAN, f64::INFINITY] {
        assert_eq!(queues.dispatch(&control, saturation, at(5)), None);
    }
    assert!(queues.dispatch(&control, 0.999, at(5)).is_some());
    // A plan without flow control gets rid of what waits.
    assert!(queues.release(at(5)).is_some());
    assert_eq!(queues.release(at(5)), None);
}

#[test]
fn a_band_below_its_ceiling_waits_and_those_below_it_with_it() {
    let mut control = control(vec![band(2), band(1), band(0)]);
    control.usage_limit = UsageLimit::Holdback {
        min: 0.5,
        max: 1.0,
        by_value: false,
    };
    let mut queues = queued(&control, &[(0, "a"), (1, "a"), (2, "a"), (1, "a")]);
    let mut next = |saturation| {
        let gone = queues.dispatch(&control, saturation, at(9));
        gone.map(|gone| gone.id.0)
    };
    assert_eq!(next(0.9), Some(3));
    assert_eq!(next(0.75), None);
    assert_eq!(next(0.74), Some(2));
    assert_eq!(next(0.6), Some(4));
    assert_eq!(next(0.6), None);
    assert_eq!(next(0.49), Some(1));
}

#[test]
fn yielding_bands_have_their_turns() {
    let mut control = control(vec![band(1), band(0)]);
    control.usage_limit = UsageLimit::SoftReflective;
    let mut queues = queued(&control, &[(0, "a"); 8]);
    // The ceiling of the lower band is 0.2, so that it has one turn in four.
    let gone = (0..12).filter(|_| queues.dispatch(&control, 0.8, at(9)).is_some());
    assert_eq!(gone.count(), 3);
    assert_eq!(queues.dispatch(&control, 1.0, at(900)), None);
    let now = at(1_000);
    queues
        .enqueue(&control, &arrival(99, 1, "a", now), now)
        .unwrap();
    let gone = queues.dispatch(&control, 0.99, now);
    assert_eq!(
        gone.map(|gone| gone.id.0),
        Some(99),
        "the highest band never yields"
    );
}

#[test]
fn capacities_hold_to_the_last_byte() {
    let mut small = band(0);
    (small.max_requests, small.max_bytes) = (Some(2), Some(250));
    let mut control = control(vec![small]);
    control.max_requests = Some(3);
    control.max_bytes = Some(10_000);
    let mut queues = Queues::default();
    let mut add = |id, priority, bytes| {
        let request = Arrival {
            bytes,
            ..arrival(id, priority, "a", at(0))
        };
        queues.enqueue(&control, &request, at(0))
    };
    assert_eq!(add(1, 0, 251), Err(Full::Band), "it alone is too large");
    assert_eq!(add(2, 0, u64::MAX), Err(Full::Pool));
    assert_eq!(add(3, 0, 200), Ok(()));
    assert_eq!(add(4, 0, 51), Err(Full::Band));
    assert_eq!(add(5, 0, 50), Ok(()));
    assert_eq!(add(6, 0, 0), Err(Full::Band));
    assert_eq!(add(7, 1, 9_751), Err(Full::Pool));
    assert_eq!(add(8, 1, 9_750), Ok(()));
    assert_eq!(add(9, -1, 0), Err(Full::Pool));
    let mut bands = queues.bands();
    let high = bands.next().unwrap();
    assert_eq!((high.priority, high.requests, high.bytes), (1, 1, 9_750));
    drop(bands);
    assert_eq!(drain(&mut queues, &control, at(1)), [8, 3, 5]);
    assert_is_empty(&queues);
}

#[test]
fn other_priorities_have_the_bands_of_the_templates() {
    let mut control = control(vec![band(0)]);
    control.default_band.max_requests = Some(1);
    control.negative_band.max_requests = Some(2);
    let mut queues = Queues::default();
    let mut add =
        |id, priority| queues.enqueue(&control, &arrival(id, priority, "a", at(0)), at(0));
    assert_eq!(add(1, 3), Ok(()));
    assert_eq!(add(2, 3), Err(Full::Band));
    assert_eq!(
        (add(3, -2), add(4, -2), add(5, -2)),
        (Ok(()), Ok(()), Err(Full::Band))
    );
    assert_eq!(add(6, 4), Ok(()));
    let priorities: Vec<i32> = queues.bands().map(|band| band.priority).collect();
    assert_eq!(priorities, [4, 3, 0, -2]);
}

#[test]
fn priorities_without_end_share_the_band_of_0() {
    let mut control = control(vec![band(0)]);
    control.bands[0].max_requests = None;
    let mut queues = Queues::default();
    for priority in 1..10_000 {
        let request = arrival(priority as u32, priority, "a", at(0));
        queues.enqueue(&control, &request, at(0)).unwrap();
    }
    assert_eq!(queues.bands().count(), MAX_BANDS);
    let zero = queues.bands().last().unwrap();
    assert_eq!(
        (zero.priority, zero.requests),
        (0, 10_000 - MAX_BANDS as u64)
    );
    assert_eq!(drain(&mut queues, &control, at(0)).len(), 9_999);
}

#[test]
fn a_request_leaves_from_anywhere() {
    for fairness in [Fairness::GlobalStrict, Fairness::RoundRobin, las(0.8, 0.2)] {
        let mut fair = band(0);
        fair.fairness = fairness;
        let control = control(vec![fair]);
        let mut queues = queued(
            &control,
            &[(0, "a"), (0, "b"), (0, "a"), (0, "a"), (3, "a")],
        );
        let gone = queues.remove(ExchangeId(3), at(13)).unwrap();
        assert_eq!((gone.id.0, gone.priority), (3, 0));
        assert_eq!(gone.waited, Duration::from_millis(10));
        assert_eq!(queues.remove(ExchangeId(3), at(13)), None);
        assert!(!queues.contains(ExchangeId(3)));
        assert_eq!(queues.remove(ExchangeId(1), at(13)).unwrap().id.0, 1);
        let oldest = queues.bands().nth(1).unwrap().oldest;
        assert_eq!(oldest, Some(at(2)), "of those that are left");
        let rest = drain(&mut queues, &control, at(14));
        assert_eq!(rest.len(), 3);
        assert_is_empty(&queues);
    }
}

#[test]
fn a_number_can_be_used_again() {
    let control = control(vec![band(0)]);
    let mut queues = queued(&control, &[(0, "a"), (0, "a")]);
    queues.remove(ExchangeId(1), at(5));
    queues
        .enqueue(&control, &arrival(1, 0, "a", at(6)), at(6))
        .unwrap();
    assert_eq!(drain(&mut queues, &control, at(7)), [2, 1]);
    // Even too early: it counts once.
    for millis in [10, 11] {
        queues
            .enqueue(&control, &arrival(1, 0, "a", at(millis)), at(millis))
            .unwrap();
    }
    assert_eq!(queues.len(), 1);
    assert_eq!(drain(&mut queues, &control, at(12)), [1]);
    assert_is_empty(&queues);
}

/// The numbers of all that have waited long enough.
fn expired(queues: &mut Queues, control: &FlowControl, empty: bool, now: Instant) -> Vec<u32> {
    let next = || queues.expired(control, empty, now);
    std::iter::from_fn(next)
        .map(|(gone, _)| gone.id.0)
        .collect()
}

#[test]
fn a_request_waits_as_long_as_its_band_or_its_client_lets_it() {
    let mut patient = band(5);
    patient.ttl = Some(None);
    let mut quick = band(0);
    quick.ttl = Some(Some(Duration::from_millis(200)));
    let mut control = control(vec![patient, quick]);
    control.ttl = Some(Duration::from_millis(1_000));
    let mut queues = Queues::default();
    let millis = |millis| Some(Duration::from_millis(millis));
    let requests = [
        (0, None),
        (0, millis(50)),
        (0, millis(5_000)),
        (5, None),
        (5, millis(700)),
        (1, None),
        (1, millis(0)),
        (1, Some(Duration::MAX)),
    ];
    for (id, (priority, ttl)) in (1..).zip(requests) {
        let request = Arrival {
            ttl,
            ..arrival(id, priority, "a", at(0))
        };
        queues.enqueue(&control, &request, at(0)).unwrap();
    }
    let mut at_millis = |millis| expired(&mut queues, &control, false, at(millis));
    assert_eq!(at_millis(49), [0; 0]);
    assert_eq!(at_millis(50), [2]);
    assert_eq!(at_millis(200), [1, 3], "clients only shorten it");
    assert_eq!(at_millis(699), [0; 0]);
    assert_eq!(at_millis(700), [5]);
    assert_eq!(at_millis(999), [0; 0]);
    assert_eq!(at_millis(1_000), [6, 7, 8]);
    assert_eq!(at_millis(1_000_000_000), [0; 0]);
    assert_eq!(queues.len(), 1);
}

/// Flow control in which requests wait for a pool with endpoints for 100 ms, and for one without for a second.
fn short() -> FlowControl {
    let mut control = control(vec![band(0)]);
    control.ttl = Some(Duration::from_millis(100));
    control.empty_pool_ttl = Some(Duration::from_millis(1_000));
    control
}

fn add(queues: &mut Queues, control: &FlowControl, id: u32, millis: u64) {
    let request = arrival(id, 0, "a", at(millis));
    queues.enqueue(control, &request, at(millis)).unwrap();
}

/// The number of one that has waited long enough, and why it goes.
fn expires(
    queues: &mut Queues,
    control: &FlowControl,
    empty: bool,
    millis: u64,
) -> Option<(u32, Dropped)> {
    let gone = queues.expired(control, empty, at(millis));
    gone.map(|(gone, dropped)| (gone.id.0, dropped))
}

#[test]
fn an_empty_pool_has_a_limit_of_its_own() {
    use Dropped::{Expired, ExpiredWithoutEndpoints as Without};
    let control = short();
    let mut queues = Queues::default();
    let expires = |queues: &mut Queues, empty, millis| expires(queues, &control, empty, millis);
    assert_eq!(expires(&mut queues, true, 0), None);
    add(&mut queues, &control, 1, 0);
    add(&mut queues, &control, 2, 500);
    assert_eq!(expires(&mut queues, true, 999), None);
    assert_eq!(expires(&mut queues, true, 1_000), Some((1, Without)));
    // An endpoint is there: what has waited for it is not refused at once.
    assert_eq!(expires(&mut queues, false, 1_200), None);
    add(&mut queues, &control, 3, 1_260);
    assert_eq!(expires(&mut queues, false, 1_299), None);
    assert_eq!(expires(&mut queues, false, 1_300), Some((2, Expired)));
    // It is gone again: the last one has 10 ms left with endpoints, and a second without.
    assert_eq!(expires(&mut queues, true, 1_350), None);
    assert_eq!(expires(&mut queues, true, 2_349), None);
    assert_eq!(expires(&mut queues, true, 2_350), Some((3, Without)));
    let mut forever = control.clone();
    forever.empty_pool_ttl = None;
    add(&mut queues, &control, 4, 3_000);
    assert_eq!(expired(&mut queues, &forever, true, at(999_999)), [0; 0]);
}

#[test]
fn a_client_does_not_shorten_how_long_its_request_waits_for_an_empty_pool() {
    let control = short();
    let mut queues = Queues::default();
    assert_eq!(expires(&mut queues, &control, true, 0), None);
    let request = Arrival {
        ttl: Some(Duration::from_millis(10)),
        ..arrival(1, 0, "a", at(0))
    };
    queues.enqueue(&control, &request, at(0)).unwrap();
    assert_eq!(expires(&mut queues, &control, true, 900), None);
    assert_eq!(expires(&mut queues, &control, false, 901), None);
    let gone = expires(&mut queues, &control, false, 911);
    assert_eq!(gone, Some((1, Dropped::Expired)));
}

#[test]
fn a_pool_that_flaps_gives_no_request_its_time_again() {
    let control = short();
    // The pool has endpoints during the first 10 ms of every 30 ms.
    for (offset, expected) in [(0, 280), (7, 307), (10, 310), (25, 310)] {
        let mut queues = Queues::default();
        let gone = (0..10_000).find_map(|millis| {
            let gone = expires(&mut queues, &control, millis % 30 >= 10, millis);
            if millis == offset {
                add(&mut queues, &control, 1, millis);
            }
            gone.map(|gone| (millis, gone))
        });
        let (millis, gone) = gone.unwrap();
        assert_eq!(gone, (1, Dropped::Expired));
        assert!(millis.abs_diff(expected) <= 1, "{millis} from {offset}");
    }
    // And for so little that the other limit comes first.
    let mut queues = Queues::default();
    add(&mut queues, &control, 1, 0);
    let mut flaps = (0..10_000).map(|millis| (millis, millis % 100 > 0));
    let gone = flaps.find_map(|(millis, empty)| {
        let gone = expires(&mut queues, &control, empty, millis);
        gone.map(|gone| (millis, gone))
    });
    assert_eq!(gone, Some((1_011, (1, Dropped::ExpiredWithoutEndpoints))));
}

#[test]
fn another_plan_keeps_what_waits() {
    let mut old = control(vec![band(5), band(0)]);
    old.ttl = Some(Duration::from_millis(100));
    let mut queues = queued(
        &old,
        &[(0, "b"), (5, "a"), (-7, "a"), (0, "a"), (0, "a"), (0, "b")],
    );
    queues.remove(ExchangeId(4), at(7));
    let mut fair = band(0);
    fair.fairness = Fairness::RoundRobin;
    fair.max_requests = Some(1);
    let mut new = control(vec![band(9), fair]);
    new.ttl = None;
    queues.reinstall(&new);
    let bands: Vec<(i32, u64)> = queues
        .bands()
        .map(|band| (band.priority, band.requests))
        .collect();
    assert_eq!(bands, [(9, 0), (5, 1), (0, 3), (-7, 1)]);
    assert_eq!(queues.bands().nth(2).unwrap().oldest, Some(at(1)));
    let full = queues.enqueue(&new, &arrival(9, 0, "a", at(8)), at(8));
    assert_eq!(full, Err(Full::Band));
    // Each keeps the time that it had.
    assert_eq!(expired(&mut queues, &new, false, at(101)), [1]);
    assert_eq!(drain(&mut queues, &new, at(101)), [2, 5, 6, 3]);
    assert_is_empty(&queues);
}

#[test]
fn what_is_idle_is_forgotten() {
    let control = control(vec![band(0)]);
    let mut queues = queued(&control, &[(3, "a"), (3, "b"), (0, "a")]);
    drain(&mut queues, &control, at(0));
    queues.sweep(at(60_000));
    assert_eq!(queues.bands().count(), 2);
    queues.sweep(at(599_000));
    assert_eq!(queues.bands().count(), 2);
    queues.sweep(at(660_000));
    let left: Vec<i32> = queues.bands().map(|band| band.priority).collect();
    assert_eq!(left, [0], "the document's bands stay");
    assert!(queues.bands.iter().all(|band| band.flows.len() == 0));
}

#[test]
fn metrics_name_so_many_flows_of_those_that_were_dispatched() {
    let control = control(vec![band(0)]);
    let mut queues = Queues::default();
    let long = "x".repeat(1_000);
    let mut label = |id: &str, dispatched: bool| {
        queues
            .enqueue(&control, &arrival(1, 0, id, at(0)), at(0))
            .unwrap();
        let gone = match dispatched {
            true => queues.dispatch(&control, 0.0, at(0)),
            false => queues.remove(ExchangeId(1), at(0)),
        };
        queues.label(gone.unwrap().label).to_owned()
    };
    assert_eq!(label("a", false), "other");
    assert_eq!(label("a", true), "a");
    assert_eq!(label("a", false), "a");
    assert_eq!(label(&long, true), "other");
    for id in 0..MAX_LABELS - 1 {
        assert_eq!(label(&format!("{id}"), true), format!("{id}"));
    }
    assert_eq!(label("one more", true), "other");
    assert_eq!(label("a", true), "a");
    assert_eq!(queues.labels.len(), MAX_LABELS);
}

#[test]
fn the_highest_blocked_band_is_known() {
    let mut control = control(vec![band(2), band(1), band(0)]);
    control.usage_limit = UsageLimit::Holdback {
        min: 0.5,
        max: 1.0,
        by_value: false,
    };
    let mut queues = queued(&control, &[(0, "a"), (1, "a")]);
    assert_eq!(queues.blocked(&control), None);
    assert_eq!(queues.dispatch(&control, 0.75, at(3)), None);
    let blocked = queues.blocked(&control).unwrap();
    assert_eq!((blocked.priority, blocked.ceiling), (1, 0.75));
    let ceilings: Vec<f64> = queues.bands().map(|band| band.ceiling).collect();
    assert_eq!(ceilings, [1.0, 0.75, 0.5]);
}
