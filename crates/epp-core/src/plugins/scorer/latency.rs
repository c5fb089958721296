//! `latency-scorer`: a composite of KV-cache utilization, waiting queue and prefix match.
//!
//! The Endpoint Picker has a latency predictor to ask, and this score for when that does not respond. Here there is
//! no predictor, and always this score.
//!
//! Reads the KV-cache utilization and the waiting count W of each candidate, plus the requests that this Envoy
//! sent since it was scraped, and the prefix match: `match` blocks of the prompt's `total`.
//!
//! Score, rounded to two places: wk · (1 − utilization) + wq · (max − W) / max + wp · match / total, with the
//! weights divided by their sum, and max the longest queue of the candidates; the term of the queue is wq where
//! all queues are empty. Weights that sum up to 0 or less count as 1, 0 and 0.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `compositeKVWeight` | 1 | wk |
//! | `compositeQueueWeight` | 1 | wq |
//! | `compositePrefixWeight` | 1 | wp |
//! | `prefixMatchInfoProducerName` | the only producer | whose matches |
//! | `ttftWeight`, `tpotWeight`, `headroomSelectionStrategy` | – | no effect: weigh predictions |
//! | `latencyPredictionInfoProducerName` | – | no effect |
//!
//! ```yaml
//! - type: latency-scorer
//!   parameters: {compositeQueueWeight: 2}
//! ```

use crate::plugins::normalize::{fresh, neutralise, queue};
use crate::plugins::producer::approx_prefix_cache;
use crate::plugins::{Build, Capabilities, Capability, Parity, PluginType, Standing};
use crate::scheduling::{
    Cycle, DecisionMode, Needs, ProducerId, Scored, Scorer, Slot, UnreadPrompt,
};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "latency-scorer",
    former_names: &[],
    provides: &[Capability::Scorer],
    references: &[approx_prefix_cache::REFERENCE],
    build,
    parity: Parity {
        plugin: Standing::Approximated(
            "always the composite score, which the Endpoint Picker falls back to without predictions; endpoints \
             without fresh metrics get the mean score",
        ),
        parameters: &[
            ("ttftWeight", UNPREDICTED),
            ("tpotWeight", UNPREDICTED),
            ("headroomSelectionStrategy", UNPREDICTED),
            ("latencyPredictionInfoProducerName", UNPREDICTED),
        ],
    },
};

/// The reason why weights of predictions have no effect.
const NO_PREDICTOR: &str = "no latency predictor is asked";

const UNPREDICTED: Standing = Standing::NoEffect(NO_PREDICTOR);

#[derive(Debug)]
struct LatencyScorer {
    /// Whose matches it reads; `None` only in a plan that is refused.
    producer: Option<ProducerId>,
    kv_weight: f64,
    queue_weight: f64,
    prefix_weight: f64,
}

impl LatencyScorer {
    fn new(producer: Option<ProducerId>, weights: [f64; 3]) -> Self {
        let sum: f64 = weights.iter().sum();
        let [kv_weight, queue_weight, prefix_weight] = match sum > 0.0 {
            true => weights.map(|weight| weight / sum),
            false => [1.0, 0.0, 0.0],
        };
        Self {
            producer,
            kv_weight,
            queue_weight,
            prefix_weight,
        }
    }
}

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    let producer = build.refer(&approx_prefix_cache::REFERENCE);
    let producer = producer.unwrap_or_else(|| build.add(&approx_prefix_cache::TYPE));
    let fields = &mut build.fields;
    for (name, _) in TYPE.parity.parameters {
        fields.no_effect(name, NO_PREDICTOR);
    }
    let weights = [
        "compositeKVWeight",
        "compositeQueueWeight",
        "compositePrefixWeight",
    ];
    let weights = weights.map(|name| fields.number(name, 1.0, (f64::MIN, f64::MAX)));
    let producer = producer.capabilities.prefix_producer;
    Capabilities::scorer(LatencyScorer::new(producer, weights))
}

impl Scorer for LatencyScorer {
    fn score(&self, cycle: &Cycle<'_>, candidates: &[Slot], scores: &mut [f64]) {
        let queues = candidates.iter().map(|slot| queue(cycle, *slot));
        let longest = queues.fold(0.0, |most, queue| if queue > most { queue } else { most });
        let prefix = self.producer.and_then(|id| cycle.request.prefix_match(id));
        let mut known = 0;
        for (slot, score) in candidates.iter().zip(scores.iter_mut()) {
            let usage = match cycle.pool.mode {
                // Triton does not report it: that counts as idle, as in the Endpoint Picker.
                DecisionMode::Metrics => fresh(cycle, *slot, |endpoint| {
                    Some(endpoint.metrics.kv_usage.unwrap_or(0.0))
                }),
                DecisionMode::LocalOnly => 0.0,
            };
            let waiting = queue(cycle, *slot);
            let idle = match longest > 0.0 {
                true => (longest - waiting) / longest,
                // Still missing where the count is.
                false => 1.0 - waiting,
            };
            let matched = prefix.map_or(0.0, |prefix| prefix.share(*slot));
            let sum = self.kv_weight * (1.0 - usage)
                + self.queue_weight * idle
                + self.prefix_weight * matched;
            *score = (100.0 * sum).round() / 100.0;
            known += usize::from(!score.is_nan());
        }
        neutralise(scores, known);
    }

    /// What is rounded moves in steps, at lengths of its own for each endpoint that holds a part of the prompt.
    fn moves_evenly(&self, longest: &Cycle<'_>, candidates: &[Scored]) -> bool {
        let prefix = self.producer.and_then(|id| longest.request.prefix_match(id));
        let mut candidates = candidates.iter();
        self.prefix_weight == 0.0
            || prefix.is_none_or(|prefix| candidates.all(|one| prefix.blocks(one.slot) == 0))
    }

    fn needs(&self) -> Needs {
        Needs {
            model: true,
            prompt: true,
            unread: UnreadPrompt::Length,
            waiting: true,
            kv_usage: true,
            cache_info: true,
            ..Needs::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduling::{Freshness, InFlight, Metrics, Pool, PrefixMatch, RequestView};
    use crate::testing::{close, pool, scores};

    fn endpoints(values: &[(f64, f64)]) -> Pool {
        pool(values.iter().map(|(kv_usage, waiting)| Metrics {
            kv_usage: Some(*kv_usage),
            waiting: Some(*waiting),
            ..Metrics::default()
        }))
    }

    fn score(weights: [f64; 3], pool: &Pool, matched: &[u32], total: f64) -> Vec<f64> {
        let prefix = [PrefixMatch {
            matched,
            total,
            block_tokens: Some(16),
        }];
        let request = RequestView {
            prefix: &prefix,
            ..RequestView::default()
        };
        let scorer = LatencyScorer::new(Some(ProducerId(0)), weights);
        scores(&scorer, pool, request)
    }

    #[test]
    fn the_composite_is_a_weighted_mean_of_two_places() {
        let pool = endpoints(&[(0.2, 0.0), (0.8, 10.0), (0.5, 5.0)]);
        for (weights, matched, expected) in [
            // (0.8 + 1 + 0) / 3, (0.2 + 0 + 0.5) / 3, (0.5 + 0.5 + 1) / 3.
            ([1.0; 3], [0, 2, 4], [0.6, 0.23, 0.67]),
            ([2.0; 3], [0, 2, 4], [0.6, 0.23, 0.67]),
            ([1.0, 0.0, 0.0], [4, 0, 0], [0.8, 0.2, 0.5]),
            ([0.0, 1.0, 0.0], [4, 0, 0], [1.0, 0.0, 0.5]),
            ([0.0, 0.0, 3.0], [1, 3, 0], [0.25, 0.75, 0.0]),
            ([0.0; 3], [4, 4, 4], [0.8, 0.2, 0.5]),
            ([1.0, -2.0, 0.0], [4, 4, 4], [0.8, 0.2, 0.5]),
        ] {
            let found = score(weights, &pool, &matched, 4.0);
            assert!(close(&found, &expected), "{weights:?}: {found:?}");
        }
        let idle = endpoints(&[(0.0, 0.0), (1.0, 0.0)]);
        let found = score([1.0; 3], &idle, &[], 0.0);
        assert!(close(&found, &[0.67, 0.33]), "{found:?}");
    }

    #[test]
    fn an_endpoint_without_fresh_metrics_is_neutral_and_without_any_requests_in_flight_count() {
        let mut pool = endpoints(&[(0.2, 0.0), (0.8, 10.0), (0.0, 0.0)]);
        pool.get_mut(Slot(2)).unwrap().freshness = Freshness::Stale;
        let found = score([1.0, 1.0, 0.0], &pool, &[], 0.0);
        assert!(close(&found, &[0.9, 0.1, 0.5]), "{found:?}");
        pool.mode = DecisionMode::LocalOnly;
        let load = InFlight {
            requests: 4,
            ..InFlight::default()
        };
        pool.set_load(Slot(0), load);
        let found = score([1.0, 1.0, 0.0], &pool, &[], 0.0);
        assert!(close(&found, &[0.5, 1.0, 1.0]), "{found:?}");
    }

    #[test]
    fn it_waits_for_the_end_of_a_prompt_that_an_endpoint_holds_a_part_of() {
        let pool = endpoints(&[(0.2, 0.0), (0.8, 10.0)]);
        let candidates = [0, 1].map(|slot| Scored {
            slot: Slot(slot),
            score: 0.0,
        });
        let evenly = |weights, matched: &[u32]| {
            let prefix = [PrefixMatch {
                matched,
                total: 9.0,
                block_tokens: Some(16),
            }];
            let request = RequestView {
                prefix: &prefix,
                ..RequestView::default()
            };
            let cycle = Cycle::new(&pool, request);
            LatencyScorer::new(Some(ProducerId(0)), weights).moves_evenly(&cycle, &candidates)
        };
        assert!(evenly([1.0; 3], &[0, 0]));
        assert!(!evenly([1.0; 3], &[0, 1]));
        assert!(evenly([1.0, 1.0, 0.0], &[0, 1]));
    }
}
