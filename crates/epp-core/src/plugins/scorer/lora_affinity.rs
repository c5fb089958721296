//! `lora-affinity-scorer`: an endpoint that has the request's LoRA adapter loaded is best, one
//! with room for it is next.
//!
//! Reads the request's target model and each candidate's adapters (`vllm:lora_requests_info`).
//!
//! Score: 1 where the model is among the active adapters; else 0.8 where active and waiting
//! adapters together are fewer than `max_lora`; else 0.6 where the model is among the waiting
//! ones; else 0. A server without the metric has no room: 0. No parameters.
//!
//! ```yaml
//! - type: lora-affinity-scorer
//! ```

use crate::plugins::normalize::score_fresh;
use crate::plugins::{Build, Capabilities, Capability, Parity, PluginType, Standing};
use crate::scheduling::{Basis, Cycle, Endpoint, Lora, Needs, Scorer, Slot};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "lora-affinity-scorer",
    former_names: &[],
    provides: &[Capability::Scorer],
    references: &[],
    build,
    parity: Parity::of(Standing::Differs(
        "endpoints without fresh metrics get the mean score, where the Endpoint Picker treats them as idle",
    )),
};

fn build(_: &mut Build<'_, '_>) -> Capabilities {
    Capabilities::scorer(LoraAffinityScorer)
}

#[derive(Debug)]
struct LoraAffinityScorer;

fn affinity(lora: &Lora, model: &str) -> f64 {
    let among = |adapters: &[String]| adapters.iter().any(|adapter| adapter == model);
    if among(&lora.active) {
        1.0
    } else if lora.active.len() + lora.waiting.len() < lora.max as usize {
        0.8
    } else if among(&lora.waiting) {
        0.6
    } else {
        0.0
    }
}

impl Scorer for LoraAffinityScorer {
    fn score(&self, cycle: &Cycle<'_>, candidates: &[Slot], scores: &mut [f64]) {
        let model = cycle.request.model;
        let value = |endpoint: &Endpoint| Some(affinity(&endpoint.metrics.lora, model));
        score_fresh(cycle, candidates, scores, value, |affinity| affinity);
    }

    fn basis(&self) -> Basis {
        Basis::Model
    }

    fn needs(&self) -> Needs {
        Needs {
            model: true,
            lora: true,
            ..Needs::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::lora;

    #[test]
    fn the_reference_vectors_hold() {
        for (adapters, expected) in [
            (lora("m1 m2", "", 2), 1.0),
            (lora("m2", "", 2), 0.8),
            (lora("m2", "m1", 2), 0.6),
            (lora("m2 m3", "", 2), 0.0),
            (lora("", "", 0), 0.0),
            (lora("", "", 4), 0.8),
            (lora("", "m1", 2), 0.8),
        ] {
            assert_eq!(affinity(&adapters, "m1"), expected, "{adapters:?}");
        }
    }
}
