//! `max-score-picker`: picks the endpoints with the highest weighted sums; equal ones are in
//! random order.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `maxNumOfEndpoints` | 1 | how many to name, best first; zero and less count as 1 |
//!
//! ```yaml
//! - type: max-score-picker
//!   parameters: {maxNumOfEndpoints: 1}
//! ```

use crate::plugins::{Build, Capabilities, Capability, Parity, PluginType};
use crate::scheduling::{PickerPlugin, Scored};
use std::cmp::Ordering;
use std::ops::Range;

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "max-score-picker",
    former_names: &[],
    provides: &[Capability::Picker],
    references: &[],
    build,
    parity: Parity::SAME,
};

/// Up to this many places are filled one after the other; more by sorting.
const MAX_PASSES: usize = 8;

/// Parts of the candidates whose highest scores are known: about the root of a large pool's size, so
/// that to look through these and through one part takes least. A pass over all candidates for each
/// place instead costs a request over 1,000 endpoints 15 % more instructions (173,000, not 150,000:
/// `short-1000` of scripts/instructions).
const PARTS: usize = 16;

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    let max_endpoints = build.fields.positive_or_default("maxNumOfEndpoints", 1);
    Capabilities::picker(MaxScorePicker {
        max_endpoints: max_endpoints as usize,
    })
}

#[derive(Debug)]
struct MaxScorePicker {
    max_endpoints: usize,
}

impl PickerPlugin for MaxScorePicker {
    fn max_endpoints(&self) -> usize {
        self.max_endpoints
    }

    fn pick(&self, scored: &mut Vec<Scored>, want: usize, rng: &mut fastrand::Rng) {
        if want > MAX_PASSES {
            rng.shuffle(scored);
            scored.sort_by(|a, b| descending(a.score, b.score));
            return;
        }
        let mut tops = Tops::of(scored);
        for place in 0..want.min(scored.len()) {
            let best = tops.best(scored, place, rng);
            scored.swap(place, best);
            tops.look(scored, best, place + 1);
            tops.look(scored, place, place + 1);
        }
    }

    fn same_choice(&self, shortest: &[Scored], longest: &[Scored]) -> bool {
        same_order(shortest, longest, self.max_endpoints)
    }
}

/// A highest score, and how many candidates have it.
#[derive(Clone, Copy)]
struct Top {
    score: f64,
    equals: u32,
}

impl Top {
    const NONE: Self = Self {
        score: f64::NEG_INFINITY,
        equals: 0,
    };

    /// The top of both.
    fn join(self, other: Self) -> Self {
        let (higher, equal) = (other.score > self.score, other.score == self.score);
        Self {
            // f64::max is a call in wasm.
            score: if higher { other.score } else { self.score },
            equals: if higher { 0 } else { self.equals }
                + if higher | equal { other.equals } else { 0 },
        }
    }

    fn of(candidates: &[Scored]) -> Self {
        let tops = candidates.iter().map(|candidate| Self {
            score: candidate.score,
            equals: 1,
        });
        tops.fold(Self::NONE, Self::join)
    }
}

/// The top of each part of the candidates.
struct Tops {
    /// Candidates of a part.
    size: usize,
    tops: [Top; PARTS],
}

impl Tops {
    fn of(scored: &[Scored]) -> Self {
        let size = scored.len().div_ceil(PARTS).max(1);
        let mut tops = [Top::NONE; PARTS];
        for (top, part) in tops.iter_mut().zip(scored.chunks(size)) {
            *top = Top::of(part);
        }
        Self { size, tops }
    }

    /// The positions of a part, from `start` on.
    fn range(&self, part: usize, start: usize) -> Range<usize> {
        (part * self.size).max(start)..(part + 1) * self.size
    }

    /// Looks again at the part that a position is in; only what is from `start` on counts.
    fn look(&mut self, scored: &[Scored], position: usize, start: usize) {
        let part = position / self.size;
        let Range { start, end } = self.range(part, start);
        let candidates = scored.get(start..end.min(scored.len()));
        if let Some(top) = self.tops.get_mut(part) {
            *top = Top::of(candidates.unwrap_or_default());
        }
    }

    /// The position of the highest score from `start` on; among equals each is as likely as another.
    fn best(&self, scored: &[Scored], start: usize, rng: &mut fastrand::Rng) -> usize {
        let most = self.tops.iter().copied().fold(Top::NONE, Top::join);
        // One draw for all: an idle pool is one tie.
        let mut before = match most.equals {
            0 | 1 => 0,
            equals => rng.u32(0..equals),
        };
        let tops = self.tops.iter().enumerate();
        for (part, top) in tops.filter(|(_, top)| top.score == most.score) {
            if before >= top.equals {
                before -= top.equals;
                continue;
            }
            let range = self.range(part, start);
            let candidates = scored.iter().enumerate().take(range.end).skip(range.start);
            let mut ties = candidates.filter(|(_, candidate)| candidate.score == most.score);
            return ties
                .nth(before as usize)
                .map_or(start, |(position, _)| position);
        }
        start
    }
}

fn descending(a: f64, b: f64) -> Ordering {
    b.partial_cmp(&a).unwrap_or(Ordering::Equal)
}

/// Returns whether the first `places` hold the same endpoints in the same order, equal scores included,
/// at both ends and so everywhere between: two lines that compare alike at both ends of an
/// interval compare alike inside it.
fn same_order(shortest: &[Scored], longest: &[Scored], places: usize) -> bool {
    let mut taken = vec![false; shortest.len()];
    let mut left = places.min(shortest.len());
    while left > 0 {
        let (Some(low), Some(high)) = (top(shortest, &taken), top(longest, &taken)) else {
            return false;
        };
        let mut size = 0;
        let pairs = shortest.iter().zip(longest).zip(taken.iter_mut());
        for ((short, long), taken) in pairs.filter(|(_, taken)| !**taken) {
            let ties = (short.score == low, long.score == high);
            match ties {
                (true, true) => {
                    *taken = true;
                    size += 1;
                }
                (false, false) => {}
                _ => return false,
            }
        }
        left = left.saturating_sub(size);
    }
    true
}

fn top(scored: &[Scored], taken: &[bool]) -> Option<f64> {
    let open = scored.iter().zip(taken).filter(|(_, taken)| !**taken);
    open.map(|(scored, _)| scored.score).reduce(f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduling::Slot;

    fn scored(scores: &[f64]) -> Vec<Scored> {
        let slots = scores.iter().enumerate();
        slots
            .map(|(index, score)| Scored {
                slot: Slot(index as u32),
                score: *score,
            })
            .collect()
    }

    /// Picks as the picker should: it compares all that are left for each place.
    fn picked_plainly(scored: &mut [Scored], want: usize, rng: &mut fastrand::Rng) {
        for place in 0..want.min(scored.len()) {
            let left = scored.iter().enumerate().skip(place);
            let most = left.clone().map(|(_, candidate)| candidate.score);
            let most = most.reduce(f64::max).unwrap();
            let ties = left.filter(|(_, candidate)| candidate.score == most);
            let ties: Vec<usize> = ties.map(|(position, _)| position).collect();
            let drawn = match ties.len() as u32 {
                1 => 0,
                equals => rng.u32(0..equals),
            };
            scored.swap(place, ties[drawn as usize]);
        }
    }

    #[test]
    fn the_search_by_parts_equals_a_full_search() {
        let mut random = fastrand::Rng::with_seed(3);
        for seed in 0..3_000 {
            let levels = random.u32(1..40);
            let scores: Vec<f64> = (0..random.usize(0..200))
                .map(|_| f64::from(random.u32(..levels)) / 4.0)
                .collect();
            let want = random.usize(0..=MAX_PASSES);
            let (mut found, mut expected) = (scored(&scores), scored(&scores));
            let picker = MaxScorePicker { max_endpoints: 1 };
            picker.pick(&mut found, want, &mut fastrand::Rng::with_seed(seed));
            picked_plainly(&mut expected, want, &mut fastrand::Rng::with_seed(seed));
            assert_eq!(found, expected, "{want} of {scores:?}");
        }
    }

    fn pick(scores: &[f64], max_endpoints: usize, want: usize, seed: u64) -> Vec<u32> {
        let mut scored = scored(scores);
        let mut rng = fastrand::Rng::with_seed(seed);
        MaxScorePicker { max_endpoints }.pick(&mut scored, want, &mut rng);
        let first = scored.iter().take(want);
        first.map(|candidate| candidate.slot.0).collect()
    }

    #[test]
    fn the_reference_vectors_hold() {
        assert_eq!(pick(&[10.0, 25.0, 15.0], 1, 1, 0), [1]);
        assert_eq!(pick(&[20.0, 25.0, 30.0], 2, 2, 0), [2, 1]);
        assert_eq!(pick(&[20.0, 25.0, 30.0], 4, 3, 0), [2, 1, 0]);
        for seed in 0..20 {
            let picks = pick(&[30.0, 25.0, 30.0], 3, 3, seed);
            assert!(picks == [0, 2, 1] || picks == [2, 0, 1], "{picks:?}");
        }
    }

    #[test]
    fn equal_scores_are_drawn_evenly_by_passes_and_by_sorting() {
        for want in [1, MAX_PASSES + 1] {
            let mut first = [0; 12];
            for seed in 0..12_000 {
                let picks = pick(&[1.0; 12], 1, want, seed);
                first[picks[0] as usize] += 1;
            }
            assert!(first.iter().all(|n| (800..1200).contains(n)), "{first:?}");
        }
    }

    #[test]
    fn the_passes_and_the_sort_agree() {
        let scores = [0.3, 2.5, 1.0, 0.9, 7.0, 0.1, 3.3, 4.4, 6.5, 5.5, 0.2];
        let by_sort = pick(&scores, 1, MAX_PASSES + 1, 1);
        assert_eq!(pick(&scores, 1, MAX_PASSES, 1), by_sort[..MAX_PASSES]);
    }

    #[test]
    fn a_choice_is_the_same_only_if_no_line_crosses_within_the_picks() {
        let same = |low: &[f64], high: &[f64], max_endpoints| {
            MaxScorePicker { max_endpoints }.same_choice(&scored(low), &scored(high))
        };
        assert!(same(&[3.0, 2.0, 1.0], &[3.0, 1.0, 2.0], 1));
        assert!(!same(&[3.0, 2.0, 1.0], &[3.0, 1.0, 2.0], 2));
        assert!(!same(&[3.0, 2.0], &[2.0, 3.0], 1));
        // A tie at one end only is another draw.
        assert!(!same(&[3.0, 3.0], &[3.0, 2.0], 1));
        assert!(same(&[3.0, 3.0, 1.0], &[2.0, 2.0, 1.0], 1));
    }
}
