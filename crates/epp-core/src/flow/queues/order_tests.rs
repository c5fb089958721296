//! Which request of a band goes next.

use std::time::Duration;

use super::super::fixture::{arrival, at, band, control, drain, las, queued};
use super::super::{Arrival, Fairness, Ordering, ProgramAware, Queues, Strategy};

#[test]
fn the_earliest_deadline_goes_first_and_none_goes_last() {
    let mut edf = band(0);
    edf.ordering = Ordering::Edf;
    edf.ttl = Some(None);
    let control = control(vec![edf]);
    let mut queues = Queues::default();
    // The last two are due at once: the first goes first.
    let requests = [
        None,
        Some(500),
        Some(100),
        None,
        Some(99),
        Some(398),
        Some(397),
    ];
    for (id, ttl) in (0..).zip(requests) {
        let request = Arrival {
            ttl: ttl.map(Duration::from_millis),
            ..arrival(id, 0, "a", at(id.into()))
        };
        queues.enqueue(&control, &request, at(id.into())).unwrap();
    }
    assert_eq!(drain(&mut queues, &control, at(10)), [2, 4, 5, 6, 1, 0, 3]);
}

#[test]
fn the_first_token_that_is_due_goes_first() {
    let mut slo = band(0);
    slo.ordering = Ordering::SloDeadline;
    let control = control(vec![slo]);
    let mut queues = Queues::default();
    let years = Duration::from_secs(u64::MAX);
    let slos = [
        None,
        Some(Duration::from_millis(500)),
        Some(years),
        Some(Duration::from_millis(100)),
        None,
    ];
    for (id, slo_ttft) in (0..).zip(slos) {
        let now = at(id.into());
        let request = Arrival {
            slo_ttft,
            received: at(0),
            ..arrival(id, 0, "a", now)
        };
        queues.enqueue(&control, &request, now).unwrap();
    }
    assert_eq!(drain(&mut queues, &control, at(10)), [3, 1, 2, 0, 4]);
}

#[test]
fn flows_take_turns() {
    let mut fair = band(0);
    fair.fairness = Fairness::RoundRobin;
    let control = control(vec![fair]);
    let requests = [
        (0, "a"),
        (0, "a"),
        (0, "a"),
        (0, "c"),
        (0, "b"),
        (0, "b"),
        (0, "c"),
    ];
    let mut queues = queued(&control, &requests);
    assert_eq!(drain(&mut queues, &control, at(9)), [1, 5, 4, 2, 6, 7, 3]);
    // It goes on behind the flow that went last.
    for (id, flow) in [(11, "a"), (12, "b")] {
        queues
            .enqueue(&control, &arrival(id, 0, flow, at(10)), at(10))
            .unwrap();
    }
    assert_eq!(drain(&mut queues, &control, at(11)), [12, 11]);
}

#[test]
fn without_fairness_flows_do_not_matter() {
    let control = control(vec![band(0)]);
    let mut queues = queued(&control, &[(0, "b"), (0, "a"), (0, "a"), (0, "b")]);
    assert_eq!(drain(&mut queues, &control, at(9)), [1, 2, 3, 4]);
}

#[test]
fn the_flow_with_the_least_service_goes_first() {
    let mut fair = band(0);
    fair.fairness = las(0.8, 0.2);
    let control = control(vec![fair]);
    let mut queues = queued(&control, &[(0, "a"), (0, "b"), (0, "c")]);
    drain(&mut queues, &control, at(9));
    queues.served(0, "a", 100, 100, at(10));
    queues.served(0, "b", 250, 0, at(10));
    queues.served(0, "absent", 250, 0, at(10));
    queues.served(9, "a", 250, 0, at(10));
    for (id, flow) in [(11, "a"), (12, "b"), (13, "a"), (14, "c")] {
        queues
            .enqueue(&control, &arrival(id, 0, flow, at(20)), at(20))
            .unwrap();
    }
    assert_eq!(drain(&mut queues, &control, at(20)), [14, 12, 11, 13]);
    // Having waited counts, too.
    let served = [("a", 300), ("b", 290), ("c", 0)];
    for (flow, tokens) in served {
        queues.served(0, flow, tokens, 0, at(30));
    }
    for (id, flow, now) in [(21, "a", 40), (22, "b", 1_030), (23, "c", 1_040)] {
        queues
            .enqueue(&control, &arrival(id, 0, flow, at(now)), at(now))
            .unwrap();
    }
    let mut waited = control.clone();
    waited.bands[0].fairness = las(0.2, 0.8);
    queues.reinstall(&waited);
    assert_eq!(drain(&mut queues, &waited, at(1_040)), [21, 22, 23]);
}

#[test]
fn equal_programs_go_in_the_order_in_which_they_came() {
    let mut fair = band(0);
    fair.fairness = las(0.8, 0.0);
    let control = control(vec![fair]);
    let mut queues = queued(&control, &[(0, "c"), (0, "b"), (0, "a")]);
    assert_eq!(drain(&mut queues, &control, at(9)), [1, 2, 3]);
}

#[test]
fn deep_sessions_go_first_until_another_has_waited_long() {
    let mut fair = band(0);
    fair.fairness = Fairness::ProgramAware(ProgramAware {
        strategy: Strategy::TurnPriority {
            time_weight: 0.05,
            inactivity: Some(Duration::from_secs(120)),
        },
        idle: None,
    });
    let mut control = control(vec![fair]);
    control.ttl = None;
    let mut queues = queued(&control, &[(0, "deep"); 5]);
    drain(&mut queues, &control, at(5));
    queues.served(0, "deep", 1, 1, at(10));
    let mut add = |id, flow, now| {
        queues
            .enqueue(&control, &arrival(id, 0, flow, now), now)
            .unwrap()
    };
    add(11, "new", at(20));
    add(12, "deep", at(30));
    add(13, "deep", at(30));
    // 6 turns against 1, until a second flow has waited for 100 s longer.
    let next = queues.dispatch(&control, 0.0, at(99_000));
    assert_eq!(next.map(|gone| gone.id.0), Some(12));
    assert_eq!(drain(&mut queues, &control, at(99_001)), [13, 11]);
    // After 120 s without a turn it begins again.
    for (id, flow, millis) in [(21, "other", 219_500), (22, "deep", 219_900)] {
        queues
            .enqueue(&control, &arrival(id, 0, flow, at(millis)), at(millis))
            .unwrap();
    }
    assert_eq!(drain(&mut queues, &control, at(220_000)), [21, 22]);
}
