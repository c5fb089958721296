use std::time::Duration;

use crate::flow::fixture::{arrival, at, band, control, las};
use crate::flow::Arrival;
use crate::flow::{
    BandSpec, Departure, Fairness, FlowControl, Ordering, ProgramAware, Queues, Strategy,
    UsageLimit,
};
use crate::time::Instant;

/// Sends a request at once, or else queues it and tries to dispatch.
fn pass_or_queue(
    queues: &mut Queues,
    control: &FlowControl,
    arrival: &Arrival<'_>,
    (saturation, now): (f64, Instant),
) -> (bool, Option<Departure>) {
    if let Some(departure) = queues.pass(control, arrival, saturation, now) {
        return (true, Some(departure));
    }
    (false, queue(queues, control, arrival, (saturation, now)))
}

fn queue(
    queues: &mut Queues,
    control: &FlowControl,
    arrival: &Arrival<'_>,
    (saturation, now): (f64, Instant),
) -> Option<Departure> {
    let _ = queues.enqueue(control, arrival, now);
    queues.dispatch(control, saturation, now)
}

/// Settings of all kinds, with bands of few requests.
fn controls() -> Vec<FlowControl> {
    let turns = Fairness::ProgramAware(ProgramAware {
        strategy: Strategy::TurnPriority {
            time_weight: 1.0,
            inactivity: Some(Duration::from_millis(40)),
        },
        idle: None,
    });
    let fairness = [
        Fairness::GlobalStrict,
        Fairness::RoundRobin,
        las(0.7, 0.3),
        turns,
    ];
    let limits = [
        UsageLimit::Static(0.8),
        UsageLimit::Holdback {
            min: 0.4,
            max: 1.0,
            by_value: true,
        },
        UsageLimit::SoftReflective,
    ];
    let settings = fairness
        .into_iter()
        .flat_map(|fairness| limits.map(|limit| (fairness, limit)));
    let settings = settings.map(|(fairness, usage_limit)| {
        let band = |priority| BandSpec {
            fairness,
            ordering: Ordering::Edf,
            max_bytes: Some(1_000),
            ..band(priority)
        };
        FlowControl {
            usage_limit,
            max_requests: Some(12),
            max_bytes: Some(1_200),
            default_band: band(0),
            negative_band: band(-1),
            ..control(vec![band(0), band(5)])
        }
    });
    settings.collect()
}

#[test]
fn a_request_that_goes_at_once_leaves_the_queues_as_if_it_had_been_queued() {
    let mut random = fastrand::Rng::with_seed(7);
    let (mut passed, mut refused) = (0, 0);
    for control in controls() {
        let (mut one, mut other) = (Queues::default(), Queues::default());
        one.reinstall(&control);
        other.reinstall(&control);
        for id in 0..3_000 {
            let now = at(u64::from(id) * 5);
            let mut saturation = random.f64() * 1.2;
            // Empty queues are as common as full ones.
            if random.u8(..) < 8 {
                while one.dispatch(&control, 0.0, now).is_some() {}
                while other.dispatch(&control, 0.0, now).is_some() {}
                saturation = 0.0;
            }
            let priority = *random.choice([-7, 0, 0, 5].iter()).unwrap();
            let flow = *random.choice(["", "a", "b", "c"].iter()).unwrap();
            let request = Arrival {
                bytes: random.u64(..300),
                ..arrival(id, priority, flow, now)
            };
            let (at_once, gone) = pass_or_queue(&mut one, &control, &request, (saturation, now));
            assert_eq!(
                gone,
                queue(&mut other, &control, &request, (saturation, now)),
                "{id}"
            );
            passed += usize::from(at_once);
            refused += usize::from(gone.is_none());
            for queues in [&mut one, &mut other] {
                queues.served(priority, flow, request.bytes, 10, now);
            }
            let waiting = |queues: &Queues| queues.waiting().collect::<Vec<_>>();
            assert_eq!(waiting(&one), waiting(&other), "{id}");
        }
        assert_eq!(one.labels, other.labels);
    }
    assert!(passed > 1_000 && refused > 1_000, "{passed} {refused}");
}
