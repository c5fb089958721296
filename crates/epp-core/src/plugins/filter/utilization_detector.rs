//! `utilization-detector`: in a profile, keeps the endpoints with room in their queue and KV cache. As a saturation
//! detector it has no effect: requests have no priority here, so that none is shed.
//!
//! Reads the waiting queue and the KV-cache utilization of each candidate. An endpoint is kept if its metrics are
//! fresh, its queue is below `queueDepthThreshold` × (1 + `headroom`), and its utilization below
//! `kvCacheUtilThreshold` × (1 + `headroom`). Where none is, all are kept, and so they are while too few endpoints
//! have fresh metrics.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `queueDepthThreshold` | 5 | requests in the queue, above 0 |
//! | `kvCacheUtilThreshold` | 0.8 | above 0, at most 1 |
//! | `headroom` | 0 | share by which an endpoint may exceed the thresholds, 0 or more |
//! | `metricsStalenessThreshold` | – | no effect: metrics are stale by `stalenessThreshold` of `metrics-data-source` |
//! | `inFlightLoadProducerName` | – | no effect: only the saturation of a pool depends on it |
//! | `stalenessPolicy` | – | no effect: as above |
//!
//! ```yaml
//! - type: utilization-detector
//!   parameters: {queueDepthThreshold: 10, kvCacheUtilThreshold: 0.9}
//! ```

use crate::config::NO_SHEDDING;
use crate::config::value::Node;
use crate::plugins::keep::{keep, metric};
use crate::plugins::{Build, Capabilities, Capability, Parity, PluginType, Standing};
use crate::scheduling::{Basis, Cycle, DecisionMode, Filter, Freshness, Needs, Slot};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "utilization-detector",
    former_names: &[],
    provides: &[Capability::Filter],
    references: &[],
    build,
    parity: Parity {
        plugin: Standing::Differs(
            "filters in a profile as there, by this proxy's threshold for stale metrics; sheds no request",
        ),
        parameters: &[
            ("metricsStalenessThreshold", Standing::NoEffect(STALENESS)),
            ("inFlightLoadProducerName", Standing::NoEffect(NO_SHEDDING)),
            ("stalenessPolicy", Standing::NoEffect(NO_SHEDDING)),
        ],
    },
};

const STALENESS: &str = "metrics are stale by stalenessThreshold of metrics-data-source";

#[derive(Debug)]
struct UtilizationDetector {
    queue: f64,
    kv_usage: f64,
}

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    let fields = &mut build.fields;
    let queue = f64::from(fields.positive("queueDepthThreshold", 5));
    let kv_usage = fields.number("kvCacheUtilThreshold", 0.8, (0.0, 1.0));
    if kv_usage <= 0.0 {
        fields.refuse("kvCacheUtilThreshold", &Node::Number(kv_usage), "a number above 0");
    }
    let relaxed = 1.0 + fields.number("headroom", 0.0, (0.0, f64::MAX));
    fields.no_effect("metricsStalenessThreshold", STALENESS);
    fields.no_effect("inFlightLoadProducerName", NO_SHEDDING);
    fields.no_effect("stalenessPolicy", NO_SHEDDING);
    Capabilities::filter(UtilizationDetector {
        queue: queue * relaxed,
        kv_usage: kv_usage * relaxed,
    })
}

impl Filter for UtilizationDetector {
    fn filter(&self, cycle: &Cycle<'_>, candidates: &mut Vec<Slot>) {
        if cycle.pool.mode == DecisionMode::LocalOnly {
            return;
        }
        keep(cycle, candidates, true, &|_, endpoint| {
            let metrics = &endpoint.metrics;
            endpoint.freshness == Freshness::Fresh
                && metric(cycle, endpoint, metrics.waiting) < self.queue
                && metric(cycle, endpoint, metrics.kv_usage) < self.kv_usage
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
    use crate::scheduling::{DecisionMode, Freshness, Metrics, Pool, Slot};
    use crate::testing::{kept, pool, refused};

    fn of(loads: &[(f64, f64)]) -> Pool {
        pool(loads.iter().map(|(waiting, kv_usage)| Metrics {
            waiting: Some(*waiting),
            kv_usage: Some(*kv_usage),
            ..Metrics::default()
        }))
    }

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
