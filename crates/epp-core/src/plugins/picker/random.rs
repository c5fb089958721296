//! `random-picker`: picks endpoints at random, whatever their scores.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `maxNumOfEndpoints` | 1 | how many to name; zero and less count as 1 |
//!
//! ```yaml
//! - type: random-picker
//!   parameters: {maxNumOfEndpoints: 2}
//! ```

use crate::plugins::{Build, Capabilities, Capability, Parity, PluginType};
use crate::scheduling::{Chance, PickerPlugin, Scored};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "random-picker",
    former_names: &[],
    provides: &[Capability::Picker],
    references: &[],
    build,
    parity: Parity::SAME,
};

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    let max_endpoints = build.fields.positive_or_default("maxNumOfEndpoints", 1);
    Capabilities::picker(RandomPicker {
        max_endpoints: max_endpoints as usize,
    })
}

#[derive(Debug)]
struct RandomPicker {
    max_endpoints: usize,
}

impl PickerPlugin for RandomPicker {
    fn max_endpoints(&self) -> usize {
        self.max_endpoints
    }

    fn pick(&self, scored: &mut Vec<Scored>, want: usize, chance: &mut Chance) {
        shuffle_first(scored, want, &mut chance.rng);
    }

    fn same_choice(&self, _: &[Scored], _: &[Scored]) -> bool {
        true
    }
}

/// Draws the first `want` places without replacement.
pub(super) fn shuffle_first(scored: &mut [Scored], want: usize, rng: &mut fastrand::Rng) {
    for place in 0..want.min(scored.len()) {
        scored.swap(place, rng.usize(place..scored.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduling::Slot;

    #[test]
    fn picks_are_distinct_and_all_come_up() {
        let all: Vec<Scored> = (0..5)
            .map(|slot| Scored {
                slot: Slot(slot),
                score: f64::from(slot),
            })
            .collect();
        let mut first = [0; 5];
        for seed in 0..5_000 {
            let mut scored = all.clone();
            let mut chance = Chance::new(fastrand::Rng::with_seed(seed));
            RandomPicker { max_endpoints: 9 }.pick(&mut scored, 9, &mut chance);
            first[scored[0].slot.index()] += 1;
            scored.sort_by_key(|candidate| candidate.slot);
            assert_eq!(scored, all);
        }
        assert!(first.iter().all(|n| (850..1150).contains(n)), "{first:?}");
    }
}
