//! `utilization-detector`: measures how full the queues and KV caches of the endpoints are. In a profile, keeps the
//! endpoints with room in both.
//!
//! The saturation of an endpoint is the greater of queue ÷ `queueDepthThreshold` and KV-cache utilization ÷
//! `kvCacheUtilThreshold`, at most 100; that of the pool is the mean over its endpoints, and 1 without any. The queue is
//! the waiting count of the metrics page, or, where that is more, what this Envoy has in flight there beyond the running count: so
//! requests count from when they are sent, not from the next page on. At a saturation of 1, requests below priority 0
//! are dropped; with the feature gate `flowControl`, requests wait. It is the detector where the document names none,
//! except under the Gateway API Inference Extension's `apiVersion` without that gate.
//!
//! As a filter, it keeps an endpoint if its metrics are fresh, its waiting count is below `queueDepthThreshold` × (1 +
//! `headroom`), and its utilization below `kvCacheUtilThreshold` × (1 + `headroom`). Where none is, all are kept, and so
//! they are while too few endpoints have fresh metrics.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `queueDepthThreshold` | 5 | requests in the queue, above 0 |
//! | `kvCacheUtilThreshold` | 0.8 | above 0, at most 1 |
//! | `headroom` | 0 | share by which an endpoint may exceed the thresholds as a filter sees it, 0 or more |
//! | `stalenessPolicy` | `saturated` | what an endpoint without fresh metrics counts as: `saturated` as 1; `ignore` leaves it out, and a pool without any fresh metrics is at 0 |
//! | `metricsStalenessThreshold` | – | no effect: metrics are stale by `stalenessThreshold` of `metrics-data-source` |
//! | `inFlightLoadProducerName` | the only producer | whose counts of requests in flight |
//!
//! ```yaml
//! - type: utilization-detector
//!   parameters: {queueDepthThreshold: 10, kvCacheUtilThreshold: 0.9, stalenessPolicy: ignore}
//! ```

use std::sync::Arc;

use crate::config::value::Node;
use crate::flow::{rounded, SaturationDetector};
use crate::plugins::keep::{keep, metric};
use crate::plugins::producer::inflight_load;
use crate::plugins::{Build, Capabilities, Capability, Parity, PluginType, Standing};
use crate::scheduling::{
    Basis, Cycle, DecisionMode, Endpoint, Filter, Freshness, InFlight, Needs, Slot,
};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "utilization-detector",
    former_names: &[],
    provides: &[Capability::SaturationDetector, Capability::Filter],
    references: &[inflight_load::REFERENCE],
    build,
    parity: Parity {
        plugin: Standing::Differs("metrics are stale by this proxy's threshold"),
        parameters: &[("metricsStalenessThreshold", Standing::NoEffect(STALENESS))],
    },
};

/// The saturation that one endpoint has at most.
const MOST: f64 = 100.0;

/// Why the threshold for stale metrics has no effect.
pub const STALENESS: &str = "metrics are stale by stalenessThreshold of metrics-data-source";

/// What an endpoint without fresh metrics counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stale {
    Saturated,
    Ignored,
}

const POLICIES: [(&str, Stale); 2] = [("saturated", Stale::Saturated), ("ignore", Stale::Ignored)];

/// Measures queues and KV caches.
#[derive(Debug, Clone, Copy)]
pub struct UtilizationDetector {
    queue: f64,
    kv_usage: f64,
    /// By how much an endpoint may exceed these, as a filter sees it.
    relaxed: f64,
    stale: Stale,
}

impl UtilizationDetector {
    /// Returns the detector with these thresholds of queue and KV-cache utilization, and all else by default.
    pub fn new(queue: f64, kv_usage: f64) -> Self {
        Self {
            queue,
            kv_usage,
            relaxed: 1.0,
            stale: Stale::Saturated,
        }
    }

}

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    build.refer(&inflight_load::REFERENCE);
    let fields = &mut build.fields;
    let queue = f64::from(fields.positive("queueDepthThreshold", 5));
    let kv_usage = fields.number("kvCacheUtilThreshold", 0.8, (0.0, 1.0));
    if kv_usage <= 0.0 {
        fields.refuse("kvCacheUtilThreshold", &Node::Number(kv_usage), "a number above 0");
    }
    let relaxed = 1.0 + fields.number("headroom", 0.0, (0.0, f64::MAX));
    let stale = fields.choice("stalenessPolicy", Stale::Saturated, &POLICIES);
    fields.no_effect("metricsStalenessThreshold", STALENESS);
    let detector = UtilizationDetector {
        relaxed,
        stale,
        ..UtilizationDetector::new(queue, kv_usage)
    };
    Capabilities {
        saturation_detector: Some(Arc::new(detector)),
        ..Capabilities::filter(detector)
    }
}

impl SaturationDetector for UtilizationDetector {
    /// Returns requests of a queue rather than a fraction: sums of whole numbers are exact.
    fn value(&self, endpoint: &Endpoint, load: InFlight) -> Option<f64> {
        if endpoint.freshness != Freshness::Fresh {
            return (self.stale == Stale::Saturated).then_some(self.queue);
        }
        let metrics = &endpoint.metrics;
        let sent = f64::from(load.requests) + f64::from(load.unreported);
        let queue = metrics.waiting.unwrap_or(0.0).max(sent - metrics.running.unwrap_or(0.0));
        let kv_usage = metrics.kv_usage.unwrap_or(0.0) / self.kv_usage * self.queue;
        Some(rounded(queue.max(kv_usage).min(MOST * self.queue)))
    }

    fn saturation_at(&self, mean: f64) -> f64 {
        mean / self.queue
    }

    fn needs(&self) -> Needs {
        Needs {
            waiting: true,
            running: true,
            kv_usage: true,
            in_flight: true,
            ..Needs::default()
        }
    }
}

impl Filter for UtilizationDetector {
    fn filter(&self, cycle: &Cycle<'_>, candidates: &mut Vec<Slot>) {
        if cycle.pool.mode == DecisionMode::LocalOnly {
            return;
        }
        let (queue, kv_usage) = (self.queue * self.relaxed, self.kv_usage * self.relaxed);
        keep(cycle, candidates, true, &|_, endpoint| {
            let metrics = &endpoint.metrics;
            endpoint.freshness == Freshness::Fresh
                && metric(cycle, endpoint, metrics.waiting) < queue
                && metric(cycle, endpoint, metrics.kv_usage) < kv_usage
        });
    }

    fn basis(&self) -> Basis {
        Basis::Pool
    }

    fn needs(&self) -> Needs {
        Needs {
            waiting: true,
            kv_usage: true,
            ..Needs::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::scheduling::{DecisionMode, Freshness, Slot};
    use crate::testing::{kept, pool_with_loads as of, refused};

    #[test]
    fn the_reference_vectors_hold() {
        let pool = of(&[(5.0, 0.8), (5.0, 0.9), (7.0, 0.1), (1.0, 0.97)]);
        let relaxed = "{headroom: 0.2}";
        assert_eq!(kept("utilization-detector", relaxed, &pool), [0, 1]);
        let strict = "{queueDepthThreshold: 8, kvCacheUtilThreshold: 0.9}";
        assert_eq!(kept("utilization-detector", strict, &pool), [0, 2]);
        // All are saturated, and so all are kept.
        assert_eq!(kept("utilization-detector", "{}", &of(&[(5.0, 0.1), (1.0, 0.8)])), [0, 1]);
    }

    #[test]
    fn endpoints_with_old_metrics_are_kept_only_where_none_is_left() {
        let mut pool = of(&[(0.0, 0.1), (0.0, 0.1), (9.0, 0.1)]);
        pool.get_mut(Slot(0)).unwrap().freshness = Freshness::Stale;
        assert_eq!(kept("utilization-detector", "{}", &pool), [1]);
        pool.mode = DecisionMode::LocalOnly;
        assert_eq!(kept("utilization-detector", "{}", &pool), [0, 1, 2]);
        pool.mode = DecisionMode::Metrics;
        pool.get_mut(Slot(1)).unwrap().freshness = Freshness::Unknown;
        assert_eq!(kept("utilization-detector", "{}", &pool), [0, 1, 2]);
    }

    #[test]
    fn thresholds_have_the_bounds_of_the_endpoint_picker() {
        for parameters in [
            "{queueDepthThreshold: 0}",
            "{kvCacheUtilThreshold: 0}",
            "{kvCacheUtilThreshold: 1.1}",
            "{headroom: -0.1}",
        ] {
            refused("utilization-detector", parameters);
        }
    }
}
