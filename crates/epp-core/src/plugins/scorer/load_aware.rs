//! `load-aware-scorer`: the shorter the waiting queue, the better, up to a threshold.
//!
//! Reads the waiting count W of each candidate (`vllm:num_requests_waiting` or the engine's own),
//! plus the requests that this Envoy sent since that count was scraped.
//!
//! Score: 0.5 · (1 − min(W, threshold) / threshold), not normalised over the candidates.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `threshold` | 128 | the queue from which on the score is 0; 0 and less mean the default |
//!
//! ```yaml
//! - type: load-aware-scorer
//!   parameters: {threshold: 10}
//! ```

use crate::plugins::normalize::{queue, score_each};
use crate::plugins::{Build, Capabilities, Capability, Parity, PluginType, Standing};
use crate::scheduling::{Cycle, Needs, Scorer, Slot};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "load-aware-scorer",
    former_names: &[],
    provides: &[Capability::Scorer],
    references: &[],
    build,
    parity: Parity::of(Standing::Differs(
        "requests sent since the last scrape count as waiting (envoy-proxy's correctQueue: false \
         turns it off), and endpoints without fresh metrics get the mean score",
    )),
};

#[derive(Debug)]
struct LoadAwareScorer {
    threshold: f64,
}

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    let threshold = build.fields.positive_or_default("threshold", 128);
    Capabilities::scorer(LoadAwareScorer {
        threshold: f64::from(threshold),
    })
}

impl Scorer for LoadAwareScorer {
    fn score(&self, cycle: &Cycle<'_>, candidates: &[Slot], scores: &mut [f64]) {
        let score = |waiting: f64| 0.5 * (1.0 - waiting.min(self.threshold) / self.threshold);
        score_each(candidates, scores, |slot| queue(cycle, slot), score);
    }

    fn needs(&self) -> Needs {
        Needs {
            waiting: true,
            ..Needs::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduling::{DecisionMode, Freshness, InFlight, RequestView};
    use crate::testing::{close, pool, scores, waiting};

    const SCORER: LoadAwareScorer = LoadAwareScorer { threshold: 10.0 };

    #[test]
    fn the_reference_vectors_hold() {
        let pool = pool([2.0, 0.0, 15.0].map(waiting));
        let found = scores(&SCORER, &pool, RequestView::default());
        assert!(close(&found, &[0.4, 0.5, 0.0]), "{found:?}");
    }

    #[test]
    fn a_stale_count_is_neutral_and_with_too_few_fresh_ones_requests_in_flight_count() {
        let mut pool = pool([4.0, 0.0, 9.0].map(waiting));
        pool.get_mut(Slot(2)).unwrap().freshness = Freshness::Stale;
        let load = InFlight {
            requests: 5,
            ..InFlight::default()
        };
        pool.set_load(Slot(1), load);
        let found = scores(&SCORER, &pool, RequestView::default());
        assert!(close(&found, &[0.3, 0.5, 0.4]), "{found:?}");
        pool.mode = DecisionMode::LocalOnly;
        let found = scores(&SCORER, &pool, RequestView::default());
        assert!(close(&found, &[0.5, 0.25, 0.5]), "{found:?}");
    }
}
