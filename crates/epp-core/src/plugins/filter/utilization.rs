//! `utilization-filter`: keeps the endpoints below limits of their load.
//!
//! Reads the metrics of each candidate, and the requests that this Envoy has in flight there, over all workers. An
//! endpoint is kept if each of the metrics is at most its limit. A metric that is missing, or whose page is too old,
//! counts as 0; so do all metrics of model servers while too few endpoints have fresh ones.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `conditions` | required | the limits, at least one |
//! | `conditions[].metric` | required | `active-requests` (in flight), `running-requests`, `waiting-queue` or `kv-cache-utilization` |
//! | `conditions[].maxValue` | required | the limit, 0 or more; for `kv-cache-utilization` at most 1 |
//! | `fallbackOnEmpty` | false | whether all candidates are kept where none is within the limits |
//! | `inFlightLoadProducerName` | the only producer | whose counts `active-requests` are |
//!
//! ```yaml
//! - type: utilization-filter
//!   parameters:
//!     conditions:
//!     - {metric: waiting-queue, maxValue: 10}
//!     - {metric: kv-cache-utilization, maxValue: 0.95}
//!     fallbackOnEmpty: true
//! ```

use crate::config::value::Fields;
use crate::plugins::keep::{keep, metric};
use crate::plugins::producer::inflight_load;
use crate::plugins::{Build, Capabilities, Capability, Parity, PluginType, Standing};
use crate::scheduling::{Basis, Cycle, Endpoint, Filter, Needs, Slot};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "utilization-filter",
    former_names: &[],
    provides: &[Capability::Filter],
    references: &[inflight_load::REFERENCE],
    build,
    parity: Parity::of(Standing::Differs(
        "metrics whose page is too old count as 0, not as their last value",
    )),
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Metric {
    Active,
    Running,
    Waiting,
    KvUsage,
}

const METRICS: [(&str, Metric); 4] = [
    ("active-requests", Metric::Active),
    ("running-requests", Metric::Running),
    ("waiting-queue", Metric::Waiting),
    ("kv-cache-utilization", Metric::KvUsage),
];

#[derive(Debug)]
struct Condition {
    metric: Metric,
    most: f64,
}

#[derive(Debug)]
struct UtilizationFilter {
    conditions: Vec<Condition>,
    all_if_none: bool,
}

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    build.refer(&inflight_load::REFERENCE);
    let fields = &mut build.fields;
    if let Some(node) = fields.node("conditions") {
        fields.note("conditions", node.clone());
    }
    let mut conditions = Vec::new();
    for (entry, path) in fields.required_list("conditions", "conditions", 1) {
        let condition = Fields::new(Some(entry), path, fields.problems());
        conditions.extend(read_condition(condition));
    }
    Capabilities::filter(UtilizationFilter {
        conditions,
        all_if_none: fields.boolean("fallbackOnEmpty", false),
    })
}

fn read_condition(mut fields: Fields<'_>) -> Option<Condition> {
    let metric = fields.required_choice("metric", &METRICS);
    let bound = match metric {
        Some(Metric::KvUsage) => 1.0,
        _ => f64::MAX,
    };
    let most = fields.required_number("maxValue", (0.0, bound));
    fields.finish();
    Some(Condition {
        metric: metric?,
        most,
    })
}

impl UtilizationFilter {
    fn reads(&self, wanted: Metric) -> bool {
        let mut conditions = self.conditions.iter();
        conditions.any(|condition| condition.metric == wanted)
    }
}

impl Filter for UtilizationFilter {
    fn filter(&self, cycle: &Cycle<'_>, candidates: &mut Vec<Slot>) {
        let value = |kind: Metric, slot: Slot, endpoint: &Endpoint| {
            let metrics = &endpoint.metrics;
            match kind {
                Metric::Active => f64::from(cycle.pool.load(slot).requests),
                Metric::Running => metric(cycle, endpoint, metrics.running),
                Metric::Waiting => metric(cycle, endpoint, metrics.waiting),
                Metric::KvUsage => metric(cycle, endpoint, metrics.kv_usage),
            }
        };
        keep(cycle, candidates, self.all_if_none, &|slot, endpoint| {
            let mut conditions = self.conditions.iter();
            conditions.all(|one| value(one.metric, slot, endpoint) <= one.most)
        });
    }

    fn basis(&self) -> Basis {
        match self.reads(Metric::Active) {
            true => Basis::Request,
            false => Basis::Pool,
        }
    }

    fn needs(&self) -> Needs {
        Needs {
            in_flight: self.reads(Metric::Active),
            running: self.reads(Metric::Running),
            waiting: self.reads(Metric::Waiting),
            kv_usage: self.reads(Metric::KvUsage),
            ..Needs::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::scheduling::{Freshness, InFlight, Metrics, Slot};
    use crate::testing::{kept, pool, refused};

    #[test]
    fn endpoints_within_all_limits_are_kept() {
        let metrics = |waiting, kv_usage| Metrics {
            waiting,
            kv_usage,
            running: Some(3.0),
            ..Metrics::default()
        };
        let mut pool = pool([
            metrics(Some(2.0), Some(0.5)),
            metrics(Some(3.0), None),
            metrics(Some(0.0), Some(0.81)),
            metrics(None, None),
        ]);
        let load = InFlight {
            requests: 4,
            ..InFlight::default()
        };
        pool.set_load(Slot(3), load);
        let condition = |metric: &str, most: &str| format!("{{metric: {metric}, maxValue: {most}}}");
        for (conditions, expected) in [
            (condition("waiting-queue", "2"), [0, 2, 3].as_slice()),
            (condition("kv-cache-utilization", "0.8"), &[0, 1, 3]),
            (condition("running-requests", "2.9"), &[]),
            (condition("active-requests", "3"), &[0, 1, 2]),
            (
                [condition("waiting-queue", "2"), condition("active-requests", "3"), condition("kv-cache-utilization", "1")].join(","),
                &[0, 2],
            ),
        ] {
            let parameters = format!("{{conditions: [{conditions}]}}");
            assert_eq!(kept("utilization-filter", &parameters, &pool), expected, "{conditions}");
        }
        let all = "{conditions: [{metric: running-requests, maxValue: 0}], fallbackOnEmpty: true}";
        assert_eq!(kept("utilization-filter", all, &pool), [0, 1, 2, 3]);
        pool.get_mut(Slot(1)).unwrap().freshness = Freshness::Stale;
        let found = kept("utilization-filter", "{conditions: [{metric: waiting-queue, maxValue: 2}]}", &pool);
        assert_eq!(found, [0, 1, 2, 3], "an old page says nothing");
    }

    #[test]
    fn limits_have_the_bounds_of_the_endpoint_picker() {
        for (parameters, place) in [
            ("{}", "conditions"),
            ("{conditions: []}", "conditions"),
            ("{conditions: [{maxValue: 1}]}", "conditions[0].metric"),
            ("{conditions: [{metric: queue, maxValue: 1}]}", "conditions[0].metric"),
            ("{conditions: [{metric: waiting-queue}]}", "conditions[0].maxValue"),
            ("{conditions: [{metric: waiting-queue, maxValue: -1}]}", "conditions[0].maxValue"),
            ("{conditions: [{metric: kv-cache-utilization, maxValue: 1.5}]}", "conditions[0].maxValue"),
        ] {
            let error = refused("utilization-filter", parameters);
            assert!(error.contains(place), "{parameters}: {error}");
        }
    }
}
