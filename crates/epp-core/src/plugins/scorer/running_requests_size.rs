//! `running-requests-size-scorer`: the fewer requests run, the better.
//!
//! Reads the running count R of each candidate (`vllm:num_requests_running` or the engine's own).
//!
//! Score: (max − R) / (max − min) over the candidates that the filters left; 1 for all where all
//! are equal. No parameters.
//!
//! ```yaml
//! - type: running-requests-size-scorer
//! ```

use crate::plugins::normalize::{fresh, score_lower_is_better};
use crate::plugins::{Build, Capabilities, Capability, Parity, PluginType, Standing};
use crate::scheduling::{Basis, Cycle, Needs, Scorer, Slot};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "running-requests-size-scorer",
    former_names: &[],
    provides: &[Capability::Scorer],
    references: &[],
    build,
    parity: Parity::of(Standing::Differs(
        "endpoints without fresh metrics get the mean score, where the Endpoint Picker treats them as idle",
    )),
};

fn build(_: &mut Build<'_, '_>) -> Capabilities {
    Capabilities::scorer(RunningRequestsSizeScorer)
}

#[derive(Debug)]
struct RunningRequestsSizeScorer;

impl Scorer for RunningRequestsSizeScorer {
    fn score(&self, cycle: &Cycle<'_>, candidates: &[Slot], scores: &mut [f64]) {
        score_lower_is_better(cycle, candidates, scores, |slot| {
            fresh(cycle, slot, |endpoint| endpoint.metrics.running)
        });
    }

    fn basis(&self) -> Basis {
        Basis::Pool
    }

    fn needs(&self) -> Needs {
        Needs {
            running: true,
            ..Needs::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduling::{Metrics, RequestView};
    use crate::testing::{close, pool, scores};

    #[test]
    fn the_reference_vectors_hold() {
        for (running, expected) in [
            ([10.0, 5.0, 0.0].as_slice(), [0.0, 0.5, 1.0].as_slice()),
            (&[5.0, 5.0], &[1.0, 1.0]),
            (&[0.0, 0.0], &[1.0, 1.0]),
        ] {
            let metrics = running.iter().map(|running| Metrics {
                running: Some(*running),
                ..Metrics::default()
            });
            let found = scores(
                &RunningRequestsSizeScorer,
                &pool(metrics),
                RequestView::default(),
            );
            assert!(close(&found, expected), "{running:?}: {found:?}");
        }
    }
}
