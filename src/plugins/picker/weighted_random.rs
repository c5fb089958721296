//! `weighted-random-picker`: draws endpoints with odds in proportion to their weighted sums.
//!
//! Weighted sampling without replacement (A-Res, Efraimidis and Spirakis): each candidate gets the
//! key U^(1/score) with U uniform in (0, 1), and the largest keys win; a score of zero or less has
//! key 0, so that it comes last. Where no score is above zero it picks as `random-picker` does.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `maxNumOfEndpoints` | 1 | how many to name; zero and less count as 1 |
//!
//! ```yaml
//! - type: weighted-random-picker
//! ```

use std::rc::Rc;

use super::random::shuffle_first;
use crate::plugins::role::{Build, PluginType, Role};
use crate::scheduling::{Picker, Scored};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "weighted-random-picker",
    build,
};

/// Stands in for a draw of exactly 0, whose key would be 0 whatever the score.
const LEAST_DRAW: f64 = 1e-10;

fn build(build: &mut Build<'_, '_>) -> Role {
    let max_endpoints = build.fields.positive_or_default("maxNumOfEndpoints", 1);
    Role::Picker(Rc::new(WeightedRandomPicker {
        max_endpoints: max_endpoints as usize,
    }))
}

#[derive(Debug)]
struct WeightedRandomPicker {
    max_endpoints: usize,
}

impl Picker for WeightedRandomPicker {
    fn max_endpoints(&self) -> usize {
        self.max_endpoints
    }

    fn pick(&self, scored: &mut Vec<Scored>, want: usize, rng: &mut fastrand::Rng) {
        if !scored.iter().any(|candidate| candidate.score > 0.0) {
            return shuffle_first(scored, want, rng);
        }
        let mut keyed: Vec<(f64, Scored)> = scored
            .iter()
            .map(|candidate| (key(candidate.score, rng), *candidate))
            .collect();
        keyed.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        scored.clear();
        scored.extend(keyed.into_iter().map(|(_, candidate)| candidate));
    }

    /// The odds are the same where every score is.
    fn same_choice(&self, shortest: &[Scored], longest: &[Scored]) -> bool {
        shortest == longest
    }
}

fn key(score: f64, rng: &mut fastrand::Rng) -> f64 {
    if score <= 0.0 {
        return 0.0;
    }
    rng.f64().max(LEAST_DRAW).powf(1.0 / score)
}
