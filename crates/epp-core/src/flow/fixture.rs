//! Flow control for tests.

use std::sync::Arc;
use std::time::Duration;

use super::{
    Arrival, BandSpec, Departure, Fairness, FlowControl, Ordering, ProgramAware, Queues,
    SaturationDetector, Strategy, UsageLimit,
};
use crate::scheduling::{Endpoint, InFlight, Needs};
use crate::time::Instant;
use crate::ExchangeId;

/// Measures nothing: tests name the saturation.
#[derive(Debug)]
struct Unused;

impl SaturationDetector for Unused {
    fn value(&self, _: &Endpoint, _: InFlight) -> Option<f64> {
        None
    }

    fn saturation_at(&self, _: f64) -> f64 {
        0.0
    }

    fn needs(&self) -> Needs {
        Needs::default()
    }
}

/// A band with the Endpoint Picker's defaults.
pub fn band(priority: i32) -> BandSpec {
    BandSpec {
        priority,
        max_requests: Some(5_000),
        max_bytes: Some(1_000_000_000),
        ttl: None,
        ordering: Ordering::Fcfs,
        fairness: Fairness::GlobalStrict,
    }
}

/// Flow control with these bands.
pub fn control(bands: Vec<BandSpec>) -> FlowControl {
    FlowControl {
        max_requests: None,
        max_bytes: None,
        ttl: Some(Duration::from_secs(60)),
        empty_pool_ttl: Some(Duration::from_secs(60)),
        bands,
        default_band: band(0),
        negative_band: band(-1),
        usage_limit: UsageLimit::Static(1.0),
        detector: Arc::new(Unused),
        detector_name: "unused".to_owned(),
        eviction: false,
        eviction_grace: Duration::ZERO,
    }
}

/// So many milliseconds after a start.
pub fn at(millis: u64) -> Instant {
    Instant::default().after(Duration::from_millis(1_000_000 + millis))
}

/// A small request.
pub fn arrival(id: u32, priority: i32, fairness_id: &str, now: Instant) -> Arrival<'_> {
    Arrival {
        id: ExchangeId(id),
        priority,
        fairness_id,
        bytes: 100,
        received: now,
        slo_ttft: None,
        ttl: None,
    }
}

/// The numbers of all that go, in order, with the gate open.
pub fn drain(queues: &mut Queues, control: &FlowControl, now: Instant) -> Vec<u32> {
    let next = || queues.dispatch(control, 0.0, now);
    std::iter::from_fn(next)
        .map(|gone: Departure| gone.id.0)
        .collect()
}

/// Queues the requests 1, 2…, each of a priority and a fairness id, a millisecond apart.
pub fn queued(control: &FlowControl, requests: &[(i32, &str)]) -> Queues {
    let mut queues = Queues::default();
    for (id, (priority, flow)) in (1..).zip(requests) {
        let now = at(id.into());
        let result = queues.enqueue(control, &arrival(id, *priority, flow, now), now);
        assert_eq!(result, Ok(()));
    }
    queues
}

/// Least attained service with these weights, half of it after a minute.
pub fn las(service_weight: f64, wait_weight: f64) -> Fairness {
    Fairness::ProgramAware(ProgramAware {
        strategy: Strategy::Las {
            service_weight,
            wait_weight,
            half_life: Some(Duration::from_secs(60)),
        },
        idle: Some(Duration::from_secs(3_600)),
    })
}
