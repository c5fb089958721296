//! `kv-cache-utilization-scorer`: the emptier the KV cache, the better.
//!
//! Reads the KV-cache utilization, 0 to 1 (`vllm:kv_cache_usage_perc` or the engine's own).
//!
//! Score: 1 − utilization, not normalised over the candidates. No parameters.
//!
//! ```yaml
//! - type: kv-cache-utilization-scorer
//! ```

use std::rc::Rc;

use crate::plugins::fresh::score_fresh;
use crate::plugins::role::{Build, PluginType, Role};
use crate::scheduling::{Cycle, Endpoint, Needs, Scorer, Slot};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "kv-cache-utilization-scorer",
    build,
};

fn build(_: &mut Build<'_, '_>) -> Role {
    Role::Scorer(Rc::new(KvCacheUtilizationScorer))
}

#[derive(Debug)]
struct KvCacheUtilizationScorer;

impl Scorer for KvCacheUtilizationScorer {
    fn score(&self, cycle: &Cycle<'_>, candidates: &[Slot], scores: &mut [f64]) {
        let usage = |endpoint: &Endpoint| endpoint.fresh(endpoint.metrics.kv_usage);
        score_fresh(cycle, candidates, scores, usage, |usage| 1.0 - usage);
    }

    fn needs(&self) -> Needs {
        Needs {
            kv_usage: true,
            ..Needs::default()
        }
    }
}
