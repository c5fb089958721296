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

use super::random::shuffle_first;
use crate::plugins::{Build, Capabilities, Capability, Parity, PluginType};
use crate::scheduling::{Chance, PickerPlugin, Scored};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "weighted-random-picker",
    former_names: &[],
    provides: &[Capability::Picker],
    references: &[],
    build,
    parity: Parity::SAME,
};

/// Stands in for a draw of exactly 0, whose key would be 0 whatever the score.
const MIN_DRAW: f64 = 1e-10;

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    let max_endpoints = build.fields.positive_or_default("maxNumOfEndpoints", 1);
    Capabilities::picker(WeightedRandomPicker {
        max_endpoints: max_endpoints as usize,
    })
}

#[derive(Debug)]
struct WeightedRandomPicker {
    max_endpoints: usize,
}

impl PickerPlugin for WeightedRandomPicker {
    fn max_endpoints(&self) -> usize {
        self.max_endpoints
    }

    fn pick(&self, scored: &mut Vec<Scored>, want: usize, chance: &mut Chance) {
        let rng = &mut chance.rng;
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
    rng.f64().max(MIN_DRAW).powf(1.0 / score)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduling::Slot;

    /// Shares of first places over many draws.
    fn shares(scores: &[f64]) -> Vec<f64> {
        const DRAWS: u32 = 20_000;
        let mut first = vec![0_u32; scores.len()];
        let mut chance = Chance::new(fastrand::Rng::with_seed(7));
        for _ in 0..DRAWS {
            let slots = scores.iter().enumerate();
            let mut scored: Vec<Scored> = slots
                .map(|(index, score)| Scored {
                    slot: Slot(index as u32),
                    score: *score,
                })
                .collect();
            WeightedRandomPicker { max_endpoints: 1 }.pick(&mut scored, 1, &mut chance);
            first[scored[0].slot.index()] += 1;
        }
        let share = |count: u32| f64::from(count) / f64::from(DRAWS);
        first.into_iter().map(share).collect()
    }

    #[test]
    fn the_odds_are_the_reference_vectors() {
        for (scores, expected) in [
            ([10.0, 90.0].as_slice(), [0.1, 0.9].as_slice()),
            (&[100.0; 3], &[1.0 / 3.0; 3]),
            (&[30.0, 0.0], &[1.0, 0.0]),
            (&[0.0; 4], &[0.25; 4]),
            (
                &[100.0, 90.0, 50.0, 30.0, 20.0],
                &[0.345, 0.31, 0.172, 0.103, 0.069],
            ),
        ] {
            let found = shares(scores);
            let near = std::iter::zip(&found, expected).all(|(a, b)| (a - b).abs() < 0.02);
            assert!(near, "{scores:?}: {found:?}");
        }
    }

    #[test]
    fn the_choice_waits_while_any_score_can_move() {
        let at = |score| {
            [Scored {
                slot: Slot(0),
                score,
            }]
        };
        let picker = WeightedRandomPicker { max_endpoints: 1 };
        assert!(picker.same_choice(&at(0.5), &at(0.5)));
        assert!(!picker.same_choice(&at(0.5), &at(0.4)));
    }
}
