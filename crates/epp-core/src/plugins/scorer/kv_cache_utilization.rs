//! `kv-cache-utilization-scorer`: the emptier the KV cache, the better.
//!
//! Reads the KV-cache utilization, 0 to 1 (`vllm:kv_cache_usage_perc` or the engine's own).
//!
//! Score: 1 − utilization, not normalised over the candidates. No parameters.
//!
//! ```yaml
//! - type: kv-cache-utilization-scorer
//! ```

use crate::plugins::normalize::score_fresh;
use crate::plugins::{Build, Capabilities, Capability, Dialect, FormerName, Parity, PluginType, Standing};
use crate::scheduling::{Basis, Cycle, Endpoint, Needs, Scorer, Slot};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "kv-cache-utilization-scorer",
    former_names: &[FormerName {
        name: "kv-cache-scorer",
        dialect: Dialect::GieV1,
    }],
    provides: &[Capability::Scorer],
    references: &[],
    build,
    parity: Parity::of(Standing::Differs(
        "endpoints without fresh metrics get the mean score, where the Endpoint Picker treats them as idle",
    )),
};

fn build(_: &mut Build<'_, '_>) -> Capabilities {
    Capabilities::scorer(KvCacheUtilizationScorer)
}

#[derive(Debug)]
struct KvCacheUtilizationScorer;

impl Scorer for KvCacheUtilizationScorer {
    fn score(&self, cycle: &Cycle<'_>, candidates: &[Slot], scores: &mut [f64]) {
        let usage = |endpoint: &Endpoint| endpoint.metrics.kv_usage;
        score_fresh(cycle, candidates, scores, usage, |usage| 1.0 - usage);
    }

    fn basis(&self) -> Basis {
        Basis::Pool
    }

    fn needs(&self) -> Needs {
        Needs {
            kv_usage: true,
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
        for (usage, expected) in [
            ([0.8, 0.5, 0.0].as_slice(), [0.2, 0.5, 1.0].as_slice()),
            (&[0.6, 0.6], &[0.4, 0.4]),
            (&[0.0, 0.0], &[1.0, 1.0]),
            (&[1.0, 0.5], &[0.0, 0.5]),
        ] {
            let metrics = usage.iter().map(|usage| Metrics {
                kv_usage: Some(*usage),
                ..Metrics::default()
            });
            let found = scores(
                &KvCacheUtilizationScorer,
                &pool(metrics),
                RequestView::default(),
            );
            assert!(close(&found, expected), "{usage:?}: {found:?}");
        }
    }

    #[test]
    fn a_missing_value_does_not_count_as_an_idle_cache() {
        let metrics = [Some(0.9), None].map(|kv_usage| Metrics {
            kv_usage,
            ..Metrics::default()
        });
        let found = scores(
            &KvCacheUtilizationScorer,
            &pool(metrics),
            RequestView::default(),
        );
        assert!(close(&found, &[0.1, 0.1]), "{found:?}");
    }
}
