//! `endpoint-attribute-scorer`: rates endpoints by a number on their metrics pages.
//!
//! Reads a custom attribute of each candidate: `customMetrics` of `core-metrics-extractor`.
//!
//! Score: (value − min) / (max − min), cut off at 0 and 1, or 1 minus that where lower is better. Min and
//! max are a fixed range, or the least and the greatest value of the candidates; then all get 1 where they are
//! equal. An endpoint without a fresh value gets 0.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `attributeKey` | required | the attribute's name |
//! | `producer` | `core-metrics-extractor` | whose attribute it is; those of others are missing at every endpoint |
//! | `algorithm` | required | how values become scores |
//! | `algorithm.type` | required | `linear_lower_is_better` or `linear_higher_is_better` |
//! | `algorithm.normalization` | `{}` | the range: `fixedRange` or `adaptiveRange` |
//! | `algorithm.normalization.fixedRange` | none | a range that does not depend on the candidates |
//! | `algorithm.normalization.fixedRange.min`, `max` | 0 | the range, min below max |
//! | `algorithm.normalization.adaptiveRange` | `{}` | no fixed range, which is also the default |
//!
//! ```yaml
//! - type: endpoint-attribute-scorer
//!   parameters:
//!     attributeKey: temperature
//!     algorithm:
//!       type: linear_lower_is_better
//!       normalization: {fixedRange: {min: 30, max: 90}}
//! - type: core-metrics-extractor
//!   parameters:
//!     engineConfigs:
//!     - {name: vllm, customMetrics: [{attributeKey: temperature, metricSpec: gpu_temperature}]}
//! ```

use crate::config::value::{Fields, Node};
use crate::plugins::normalize::{extremes, fresh};
use crate::plugins::source::core_metrics_extractor;
use crate::plugins::{Build, Capabilities, Capability, Parity, PluginType, Standing};
use crate::scheduling::{AttributeId, Basis, Cycle, DecisionMode, Needs, Scorer, Slot};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "endpoint-attribute-scorer",
    former_names: &[],
    provides: &[Capability::Scorer],
    references: &[],
    build,
    parity: Parity {
        plugin: Standing::Differs("a value that is not fresh counts as missing"),
        parameters: &[("producer", core_metrics_extractor::ONLY_ITS)],
    },
};

#[derive(Debug)]
struct EndpointAttributeScorer {
    attribute: Option<AttributeId>,
    lower_is_better: bool,
    fixed: Option<(f64, f64)>,
}

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    let attribute = build.attribute("attributeKey");
    let mut fixed = None;
    let mut lower_is_better = false;
    if let Some(mut algorithm) = build.fields.required_section("algorithm") {
        let types = [
            ("linear_lower_is_better", true),
            ("linear_higher_is_better", false),
        ];
        lower_is_better = algorithm.required_choice("type", &types).unwrap_or(false);
        if let Some(mut normalization) = algorithm.section("normalization") {
            fixed = read_range(&mut normalization);
            normalization.finish();
        }
        algorithm.finish();
    }
    Capabilities::scorer(EndpointAttributeScorer {
        attribute,
        lower_is_better,
        fixed,
    })
}

fn read_range(normalization: &mut Fields<'_>) -> Option<(f64, f64)> {
    const FIXED: &str = "fixedRange";
    let given = |node: Option<&Node>| !matches!(node, None | Some(Node::Null));
    let is_adaptive = given(normalization.any("adaptiveRange"));
    let is_fixed = given(normalization.node(FIXED));
    let mut fixed = normalization.section(FIXED)?;
    let min = fixed.number("min", 0.0, (f64::MIN, f64::MAX));
    let max = fixed.number("max", 0.0, (f64::MIN, f64::MAX));
    fixed.finish();
    if is_fixed && (is_adaptive || min >= max) {
        let message = match is_adaptive {
            true => "found adaptiveRange beside it, expected one of them".to_owned(),
            false => format!("found {min} to {max}, expected min below max"),
        };
        let path = normalization.path().key(FIXED);
        normalization.problems().error(&path, message);
    }
    is_fixed.then_some((min, max))
}

impl Scorer for EndpointAttributeScorer {
    fn score(&self, cycle: &Cycle<'_>, candidates: &[Slot], scores: &mut [f64]) {
        let id = self.attribute.filter(|_| cycle.pool.mode == DecisionMode::Metrics);
        let Some(id) = id else {
            return scores.fill(0.0);
        };
        for (slot, score) in candidates.iter().zip(scores.iter_mut()) {
            *score = fresh(cycle, *slot, |endpoint| endpoint.metrics.attribute(id));
        }
        let (min, max) = self.fixed.unwrap_or_else(|| extremes(scores));
        for score in scores {
            *score = if score.is_nan() {
                0.0
            } else if min < max {
                let share = ((*score - min) / (max - min)).clamp(0.0, 1.0);
                if self.lower_is_better { 1.0 - share } else { share }
            } else {
                1.0
            };
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
    use crate::scheduling::{Freshness, Metrics, Pool, RequestView};
    use crate::testing::{close, pool, refused, scores, warned};

    fn endpoints(values: &[Option<f64>]) -> Pool {
        pool(values.iter().map(|value| Metrics {
            attributes: value.map(|value| (AttributeId::of("a"), value)).into_iter().collect(),
            ..Metrics::default()
        }))
    }

    fn score(lower_is_better: bool, fixed: Option<(f64, f64)>, values: &[Option<f64>]) -> Vec<f64> {
        let scorer = EndpointAttributeScorer {
            attribute: Some(AttributeId::of("a")),
            lower_is_better,
            fixed,
        };
        scores(&scorer, &endpoints(values), RequestView::default())
    }

    #[test]
    fn the_reference_vectors_hold() {
        let some = |values: &[f64]| values.iter().copied().map(Some).collect::<Vec<_>>();
        for (lower, fixed, values, expected) in [
            (true, None, some(&[10.0, 5.0, 0.0]), [0.0, 0.5, 1.0].as_slice()),
            (false, None, some(&[10.0, 5.0, 0.0]), &[1.0, 0.5, 0.0]),
            (true, None, some(&[5.0, 5.0]), &[1.0, 1.0]),
            (true, None, vec![Some(5.0), None], &[1.0, 0.0]),
            (true, None, vec![Some(2.0), None, Some(4.0)], &[1.0, 0.0, 0.0]),
            (true, None, vec![None, None], &[0.0, 0.0]),
            (true, Some((0.0, 1.0)), some(&[0.8, 0.5, 0.0]), &[0.2, 0.5, 1.0]),
            (false, Some((0.0, 1.0)), some(&[0.8, 1.5, -2.0]), &[0.8, 1.0, 0.0]),
            (true, Some((0.0, 1.0)), some(&[1.5, -2.0]), &[0.0, 1.0]),
            (false, Some((-10.0, 10.0)), vec![Some(0.0), None], &[0.5, 0.0]),
        ] {
            let found = score(lower, fixed, &values);
            assert!(close(&found, expected), "{values:?}: {found:?}");
        }
    }

    #[test]
    fn a_stale_value_and_one_with_too_few_others_is_missing() {
        let mut pool = endpoints(&[Some(1.0), Some(2.0)]);
        pool.get_mut(Slot(0)).unwrap().freshness = Freshness::Stale;
        let scorer = EndpointAttributeScorer {
            attribute: Some(AttributeId::of("a")),
            lower_is_better: true,
            fixed: None,
        };
        let request = RequestView::default;
        assert!(close(&scores(&scorer, &pool, request()), &[0.0, 1.0]));
        pool.mode = DecisionMode::LocalOnly;
        assert!(close(&scores(&scorer, &pool, request()), &[0.0, 0.0]));
    }

    #[test]
    fn impossible_parameters_are_refused() {
        let range = |of: &str| {
            format!("{{attributeKey: a, algorithm: {{type: linear_lower_is_better, normalization: {of}}}}}")
        };
        let min = "algorithm.normalization.fixedRange";
        for (parameters, place) in [
            ("{algorithm: {type: linear_lower_is_better}}".to_owned(), "attributeKey"),
            ("{attributeKey: a}".to_owned(), "algorithm"),
            ("{attributeKey: a, algorithm: {}}".to_owned(), "algorithm.type"),
            ("{attributeKey: a, algorithm: {type: square}}".to_owned(), "algorithm.type"),
            (
                "{attributeKey: a/b, algorithm: {type: linear_lower_is_better}}".to_owned(),
                "attributeKey",
            ),
            (range("{fixedRange: {}}"), min),
            (range("{fixedRange: {min: 2, max: 1}}"), min),
            (range("{fixedRange: {min: 0, max: 1}, adaptiveRange: {}}"), min),
        ] {
            let error = refused(TYPE.name, &parameters);
            assert!(error.contains(place), "{parameters}: {error}");
        }
    }

    #[test]
    fn an_attribute_that_no_endpoint_has_is_warned_of() {
        let of = |producer: &str| {
            format!("{{attributeKey: a/b, producer: {producer}, algorithm: {{type: linear_lower_is_better}}}}")
        };
        for (producer, why) in [
            ("core-metrics-extractor", "no customMetrics"),
            ("dcgm-extractor", "approximated"),
            ("\"\"", "approximated"),
        ] {
            let warning = warned(TYPE.name, &of(producer));
            assert!(warning.contains(why), "{warning}");
        }
    }
}
