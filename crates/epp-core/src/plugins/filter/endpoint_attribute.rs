//! `endpoint-attribute-filter`: keeps the endpoints for which a number on their metrics pages is, say, below a
//! threshold.
//!
//! Reads a custom attribute of each candidate: `customMetrics` of `core-metrics-extractor`. Its last value
//! counts, however old.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `attribute` | required | the attribute's name |
//! | `producer` | `core-metrics-extractor` | whose attribute it is; those of others are missing at every endpoint |
//! | `onMissing` | `Pass` | whether an endpoint without the attribute is kept (`Pass`) or not (`Fail`) |
//! | `fallbackOnEmpty` | false | whether all are kept where none would be |
//! | `algorithm` | required | how values are compared |
//! | `algorithm.type` | required | `threshold` |
//! | `algorithm.threshold` | required | the threshold |
//! | `algorithm.threshold.operator` | required | `LessThan`, `LessThanOrEqual`, `GreaterThan`, `GreaterThanOrEqual`, `Equal` or `NotEqual` |
//! | `algorithm.threshold.value` | 0 | what a kept endpoint's value compares with so |
//!
//! ```yaml
//! - type: endpoint-attribute-filter
//!   parameters:
//!     attribute: temperature
//!     algorithm: {type: threshold, threshold: {operator: LessThan, value: 85}}
//! - type: core-metrics-extractor
//!   parameters:
//!     engineConfigs:
//!     - {name: vllm, customMetrics: [{attributeKey: temperature, metricSpec: gpu_temperature}]}
//! ```

use std::cmp::Ordering;

use crate::plugins::source::core_metrics_extractor;
use crate::plugins::{Build, Capabilities, Capability, Parity, PluginType, Standing};
use crate::scheduling::{AttributeId, Basis, Cycle, Filter, Needs, Slot};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "endpoint-attribute-filter",
    former_names: &[],
    provides: &[Capability::Filter],
    references: &[],
    build,
    parity: Parity {
        plugin: Standing::Same,
        parameters: &[("producer", core_metrics_extractor::ONLY_ITS)],
    },
};

/// How the value of a kept endpoint may compare with the threshold.
type Operator = &'static [Ordering];

const OPERATORS: [(&str, Operator); 6] = [
    ("LessThan", &[Ordering::Less]),
    ("LessThanOrEqual", &[Ordering::Less, Ordering::Equal]),
    ("GreaterThan", &[Ordering::Greater]),
    ("GreaterThanOrEqual", &[Ordering::Greater, Ordering::Equal]),
    ("Equal", &[Ordering::Equal]),
    ("NotEqual", &[Ordering::Less, Ordering::Greater]),
];

#[derive(Debug)]
struct EndpointAttributeFilter {
    attribute: Option<AttributeId>,
    keeps_missing: bool,
    falls_back: bool,
    operator: Operator,
    threshold: f64,
}

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    let mut filter = EndpointAttributeFilter {
        attribute: build.attribute("attribute"),
        keeps_missing: true,
        falls_back: false,
        operator: &[],
        threshold: 0.0,
    };
    let fields = &mut build.fields;
    let words = [("Pass", true), ("Fail", false)];
    filter.keeps_missing = fields.choice("onMissing", true, &words);
    filter.falls_back = fields.boolean("fallbackOnEmpty", false);
    if let Some(mut algorithm) = fields.required_section("algorithm") {
        algorithm.required_choice("type", &[("threshold", ())]);
        if let Some(mut threshold) = algorithm.required_section("threshold") {
            let operator = threshold.required_choice("operator", &OPERATORS);
            filter.operator = operator.unwrap_or_default();
            filter.threshold = threshold.number("value", 0.0, (f64::MIN, f64::MAX));
            threshold.finish();
        }
        algorithm.finish();
    }
    Capabilities::filter(filter)
}

impl Filter for EndpointAttributeFilter {
    fn filter(&self, cycle: &Cycle<'_>, candidates: &mut Vec<Slot>) {
        let value = |slot| cycle.pool.get(slot)?.metrics.attribute(self.attribute?);
        let is_kept = |slot: &Slot| match value(*slot) {
            Some(value) => {
                let compared = value.partial_cmp(&self.threshold);
                compared.is_some_and(|compared| self.operator.contains(&compared))
            }
            None => self.keeps_missing,
        };
        if !self.falls_back || candidates.iter().any(is_kept) {
            candidates.retain(is_kept);
        }
    }

    fn basis(&self) -> Basis {
        Basis::Pool
    }

    fn needs(&self) -> Needs {
        Needs {
            attributes: self.attribute.is_some(),
            ..Needs::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduling::{Metrics, RequestView};
    use crate::testing::{pool, refused};

    fn kept(filter: &EndpointAttributeFilter, values: &[Option<f64>]) -> Vec<u32> {
        let pool = pool(values.iter().map(|value| Metrics {
            attributes: value.map(|value| (AttributeId::of("a"), value)).into_iter().collect(),
            ..Metrics::default()
        }));
        let mut candidates: Vec<Slot> = pool.iter().map(|(slot, _)| slot).collect();
        let request = RequestView::default();
        let cycle = Cycle::new(&pool, request);
        filter.filter(&cycle, &mut candidates);
        candidates.iter().map(|slot| slot.0).collect()
    }

    const VALUES: [Option<f64>; 4] = [Some(1.0), Some(2.0), Some(3.0), None];

    fn filter(operator: &str, threshold: f64) -> EndpointAttributeFilter {
        let operator = OPERATORS.iter().find(|(name, _)| *name == operator).unwrap().1;
        EndpointAttributeFilter {
            attribute: Some(AttributeId::of("a")),
            keeps_missing: false,
            falls_back: false,
            operator,
            threshold,
        }
    }

    #[test]
    fn each_operator_keeps_what_compares_so() {
        for (operator, expected) in [
            ("LessThan", [0].as_slice()),
            ("LessThanOrEqual", &[0, 1]),
            ("GreaterThan", &[2]),
            ("GreaterThanOrEqual", &[1, 2]),
            ("Equal", &[1]),
            ("NotEqual", &[0, 2]),
        ] {
            assert_eq!(kept(&filter(operator, 2.0), &VALUES), expected, "{operator}");
        }
    }

    #[test]
    fn what_is_missing_passes_if_it_may_and_all_are_kept_where_none_would_be() {
        let mut filter = filter("GreaterThan", 9.0);
        assert_eq!(kept(&filter, &VALUES), [0; 0]);
        filter.falls_back = true;
        assert_eq!(kept(&filter, &VALUES), [0, 1, 2, 3]);
        filter.keeps_missing = true;
        assert_eq!(kept(&filter, &VALUES), [3]);
        filter.attribute = None;
        assert_eq!(kept(&filter, &VALUES), [0, 1, 2, 3]);
    }

    #[test]
    fn impossible_parameters_are_refused() {
        let threshold = "algorithm: {type: threshold, threshold: {operator: Equal}}";
        for (parameters, place) in [
            (format!("{{{threshold}}}"), "attribute"),
            (format!("{{attribute: a/b, {threshold}}}"), "attribute"),
            (format!("{{attribute: a, onMissing: Keep, {threshold}}}"), "onMissing"),
            ("{attribute: a}".to_owned(), "algorithm"),
            (
                "{attribute: a, algorithm: {type: topK, threshold: {operator: Equal}}}".to_owned(),
                "algorithm.type",
            ),
            (
                "{attribute: a, algorithm: {type: threshold}}".to_owned(),
                "algorithm.threshold",
            ),
            (
                "{attribute: a, algorithm: {type: threshold, threshold: {operator: Above}}}".to_owned(),
                "algorithm.threshold.operator",
            ),
        ] {
            let error = refused(TYPE.name, &parameters);
            assert!(error.contains(place), "{parameters}: {error}");
        }
    }
}
