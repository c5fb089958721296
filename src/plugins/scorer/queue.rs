//! `queue-scorer`: the shorter the waiting queue, the better.
//!
//! Reads the waiting count W of each candidate (`vllm:num_requests_waiting` or the engine's own),
//! plus the requests that this Envoy sent since that count was scraped.
//!
//! Score: (max − W) / (max − min) over the candidates that the filters left; 1 for all where all
//! are equal. No parameters.
//!
//! ```yaml
//! - type: queue-scorer
//! ```

use std::rc::Rc;

use crate::plugins::fresh::score_least;
use crate::plugins::role::{Build, PluginType, Role};
use crate::scheduling::{Cycle, Endpoint, Needs, Scorer, Slot};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "queue-scorer",
    build,
};

fn build(_: &mut Build<'_, '_>) -> Role {
    Role::Scorer(Rc::new(QueueScorer))
}

#[derive(Debug)]
struct QueueScorer;

fn waiting(endpoint: &Endpoint) -> Option<f64> {
    let waiting = endpoint.fresh(endpoint.metrics.waiting)?;
    Some(waiting + f64::from(endpoint.unseen))
}

impl Scorer for QueueScorer {
    fn score(&self, cycle: &Cycle<'_>, candidates: &[Slot], scores: &mut [f64]) {
        score_least(cycle, candidates, scores, waiting);
    }

    fn needs(&self) -> Needs {
        Needs {
            waiting: true,
            ..Needs::default()
        }
    }
}
