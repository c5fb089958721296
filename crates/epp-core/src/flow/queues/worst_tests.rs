//! What clients may craft.

use std::time::Duration;

use super::super::fixture::{arrival, at, band, control, drain, las};
use super::super::{Arrival, Fairness, FlowControl, Ordering};
use super::Queues;
use crate::prefix::key::{Key, Secret};
use crate::ExchangeId;

/// Each fairness policy, with a band that has room for any number.
fn controls() -> Vec<FlowControl> {
    let policies = [Fairness::GlobalStrict, Fairness::RoundRobin, las(0.8, 0.2)];
    let controls = policies.map(|fairness| {
        let mut all = band(0);
        (all.max_requests, all.max_bytes) = (None, None);
        all.fairness = fairness;
        control(vec![all])
    });
    controls.into()
}

fn keyed() -> Queues {
    Queues::new(Key::Secret(Secret::from(3)))
}

/// The entries of all lines, which are what memory is spent on.
fn entries(queues: &mut Queues) -> usize {
    let bands = queues.bands.iter_mut();
    let bands: usize = bands.map(|band| band.entries()).sum();
    bands + queues.deadlines.len() + queues.arrivals.len()
}

#[test]
fn five_thousand_flows_of_one_request_all_go() {
    for control in controls() {
        let mut queues = keyed();
        for id in 0..5_000 {
            let flow = format!("flow {id}");
            let request = arrival(id, 0, &flow, at(id.into()));
            queues.enqueue(&control, &request, at(id.into())).unwrap();
        }
        assert!(queues.bands[0].flows.len() <= 1_024 + 64);
        let mut gone = drain(&mut queues, &control, at(5_000));
        if control.bands[0].fairness == Fairness::GlobalStrict {
            assert!(gone.is_sorted(), "in the order in which they came");
        }
        gone.sort_unstable();
        assert_eq!(gone, (0..5_000).collect::<Vec<_>>());
        assert_eq!(entries(&mut queues), 0);
    }
}

#[test]
fn a_tenant_that_came_late_has_its_turn_all_the_same() {
    let control = &controls()[1];
    let mut queues = keyed();
    for id in 0..5_000 {
        let flow = format!("{id}");
        queues
            .enqueue(control, &arrival(id, 0, &flow, at(0)), at(0))
            .unwrap();
    }
    queues
        .enqueue(control, &arrival(9_999, 0, "tenant", at(1)), at(1))
        .unwrap();
    let gone = drain(&mut queues, control, at(2));
    // It shared one of 64 flows with its part of the 4,000 that had no flow of their own either.
    assert!(gone.contains(&9_999));
    // Next time idle flows make room for it.
    for id in 0..5_000 {
        let flow = format!("{}", id % 1_000);
        queues
            .enqueue(control, &arrival(id, 0, &flow, at(3)), at(3))
            .unwrap();
    }
    queues
        .enqueue(control, &arrival(9_999, 0, "tenant", at(4)), at(4))
        .unwrap();
    let gone = drain(&mut queues, control, at(5));
    let place = gone.iter().position(|id| *id == 9_999).unwrap();
    assert!(place <= 1_000, "{place}");
}

#[test]
fn an_id_of_64_kb_is_a_flow_like_any_other() {
    let long = "\u{7f}".repeat(64 << 10);
    for control in controls() {
        let mut queues = keyed();
        for (id, flow) in [(1, long.as_str()), (2, ""), (3, long.as_str())] {
            queues
                .enqueue(&control, &arrival(id, 0, flow, at(0)), at(0))
                .unwrap();
        }
        assert_eq!(queues.bands[0].flows.len(), 2);
        queues.served(0, &long, u64::MAX, u64::MAX, at(1));
        assert_eq!(drain(&mut queues, &control, at(1)).len(), 3);
    }
}

#[test]
fn coming_and_going_leaves_nothing_behind() {
    for control in controls() {
        let mut queues = keyed();
        queues
            .enqueue(&control, &arrival(0, 0, "stays", at(0)), at(0))
            .unwrap();
        let flows: Vec<String> = (0..100).map(|flow| format!("{flow}")).collect();
        for round in 0..30_000_u32 {
            let flow = &flows[round as usize % flows.len()];
            let now = at(u64::from(round) / 100);
            let id = 1 + round % 7;
            queues
                .enqueue(&control, &arrival(id, 0, flow, now), now)
                .unwrap();
            if round % 3 != 0 {
                queues.remove(ExchangeId(id), now);
            }
            assert!(queues.len() <= 8);
        }
        assert!(
            entries(&mut queues) < 64 * (100 + 3),
            "{}",
            entries(&mut queues)
        );
    }
}

#[test]
fn a_crowd_that_leaves_gives_its_memory_back() {
    for control in controls() {
        let mut queues = keyed();
        for flow in ["a", "b", "c", "d"] {
            for id in 1..10_000 {
                queues
                    .enqueue(&control, &arrival(id, 0, flow, at(0)), at(0))
                    .unwrap();
            }
            queues
                .enqueue(&control, &arrival(0, 0, flow, at(0)), at(0))
                .unwrap();
            for id in 1..10_000 {
                queues.remove(ExchangeId(id), at(1));
            }
        }
        assert!(entries(&mut queues) < 500);
        let kept: usize = queues.bands.iter_mut().map(|band| band.capacity()).sum();
        assert!(kept < 2_000, "{kept}");
    }
}

#[test]
fn any_limit_of_a_client_is_one() {
    let mut control = controls().remove(0);
    control.bands[0].ordering = Ordering::Edf;
    control.ttl = None;
    let mut queues = keyed();
    let years = Duration::from_secs(10_000 * 365 * 86_400);
    let ttls = [
        Duration::ZERO,
        Duration::MAX,
        years,
        Duration::from_nanos(1),
    ];
    for (id, ttl) in (0..).zip(ttls) {
        let request = Arrival {
            ttl: Some(ttl),
            slo_ttft: Some(ttl),
            bytes: u64::MAX / 8,
            ..arrival(id, 0, "a", at(0))
        };
        queues.enqueue(&control, &request, at(0)).unwrap();
    }
    let (expired, _) = queues.expired(&control, false, at(1)).unwrap();
    assert_eq!(expired.id, ExchangeId(3));
    assert_eq!(
        queues.expired(&control, false, at(u64::MAX / 4_000_000)),
        None
    );
    assert_eq!(drain(&mut queues, &control, at(1)), [1, 2, 0]);
}

#[test]
fn a_pool_that_flaps_moves_nothing_in_a_long_queue() {
    for control in controls() {
        let mut queues = keyed();
        for id in 0..20_000 {
            let flow = format!("flow {}", id % 1_000);
            queues
                .enqueue(&control, &arrival(id, 0, &flow, at(0)), at(0))
                .unwrap();
        }
        // In a debug build, even one look at each request would take minutes.
        for millis in 0..20_000 {
            let empty = millis % 2 == 0;
            assert_eq!(queues.expired(&control, empty, at(millis)), None);
        }
        assert_eq!(queues.len(), 20_000);
    }
}
