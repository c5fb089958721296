//! `max-score-picker`: picks the endpoints with the highest weighted sums.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `maxNumOfEndpoints` | 1 | how many to name, best first; zero and less count as 1 |
//! | `ties` | `rotate` | the order of equal sums. `rotate`: as the endpoints are listed, from the next one on with each request of a worker; `draw`: at random, which is the default under `inference.networking.x-k8s.io/v1alpha1` |
//!
//! ```yaml
//! - type: max-score-picker
//!   parameters: {maxNumOfEndpoints: 1}
//! ```

use crate::plugins::{Build, Capabilities, Capability, Dialect, Parity, PluginType, Standing};
use crate::scheduling::{Chance, PickerPlugin, Scored};
use std::cmp::Ordering;

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "max-score-picker",
    former_names: &[],
    provides: &[Capability::Picker],
    references: &[],
    build,
    parity: Parity {
        plugin: Standing::Same,
        parameters: &[(
            "ties",
            Standing::Ours("llm-d-router drew in August 2026, and rotates since September"),
        )],
    },
};

/// Up to this many places are filled one after the other; more by sorting.
const MAX_PASSES: usize = 8;

/// Parts of the candidates whose highest scores are known: about the root of a large pool's size, so
/// that to look through these and through one part takes least. A pass over all candidates for each
/// place instead costs a request over 1,000 endpoints 15 % more instructions (173,000, not 150,000:
/// `short-1000` of scripts/instructions).
const PARTS: usize = 16;

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    let ties = match build.dialect {
        Dialect::GieV1 => Ties::Draw,
        Dialect::LlmD => Ties::Rotate,
    };
    let max_endpoints = build.fields.positive_or_default("maxNumOfEndpoints", 1);
    let words = [("rotate", Ties::Rotate), ("draw", Ties::Draw)];
    Capabilities::picker(MaxScorePicker {
        max_endpoints: max_endpoints as usize,
        ties: build.fields.choice("ties", ties, &words),
    })
}

/// The order of candidates with equal sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ties {
    /// That of their slots, from the one on whose turn it is.
    Rotate,
    /// Drawn.
    Draw,
}

#[derive(Debug)]
struct MaxScorePicker {
    max_endpoints: usize,
    ties: Ties,
}

impl PickerPlugin for MaxScorePicker {
    fn max_endpoints(&self) -> usize {
        self.max_endpoints
    }

    fn pick(&self, scored: &mut Vec<Scored>, want: usize, chance: &mut Chance) {
        if want > MAX_PASSES {
            return self.sort(scored, want, chance);
        }
        let mut picks = Picks::default();
        let mut tops = Tops::of(scored);
        let mut group = Top::NONE.score;
        let mut nth = 0;
        for place in 0..want.min(scored.len()) {
            if place > 0 {
                tops.look(scored, &picks);
            }
            let most = tops.most();
            // One draw for all: an idle pool is one tie.
            nth = match (self.ties, most.equals) {
                (_, 0 | 1) => 0,
                (Ties::Draw, equals) => chance.rng.u32(0..equals),
                // Behind the one that was picked from the same tie is the next.
                (Ties::Rotate, equals) if most.score == group => nth % equals,
                (Ties::Rotate, equals) => chance.turn % equals,
            };
            group = most.score;
            picks.push(tops.nth(scored, group, nth, &picks));
        }
        picks.bring_forward(scored);
    }

    fn same_choice(&self, shortest: &[Scored], longest: &[Scored]) -> bool {
        same_order(shortest, longest, self.max_endpoints)
    }
}

impl MaxScorePicker {
    fn sort(&self, scored: &mut [Scored], want: usize, chance: &mut Chance) {
        if self.ties == Ties::Draw {
            chance.rng.shuffle(scored);
        }
        scored.sort_by(|a, b| descending(a.score, b.score));
        if self.ties == Ties::Rotate {
            let mut left = want;
            for tie in scored.chunk_by_mut(|a, b| a.score == b.score) {
                tie.rotate_left(chance.turn as usize % tie.len());
                left = left.saturating_sub(tie.len());
                if left == 0 {
                    return;
                }
            }
        }
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

    fn of<'a>(candidates: impl Iterator<Item = &'a Scored>) -> Self {
        let tops = candidates.map(|candidate| Self {
            score: candidate.score,
            equals: 1,
        });
        tops.fold(Self::NONE, Self::join)
    }
}

/// The positions of the picks so far. The candidates stay in slot order meanwhile.
#[derive(Default)]
struct Picks {
    positions: [usize; MAX_PASSES],
    len: usize,
}

impl Picks {
    fn push(&mut self, position: usize) {
        if let Some(place) = self.positions.get_mut(self.len) {
            *place = position;
            self.len += 1;
        }
    }

    fn all(&self) -> &[usize] {
        self.positions.get(..self.len).unwrap_or_default()
    }

    /// Puts the picks before the other candidates.
    fn bring_forward(mut self, scored: &mut [Scored]) {
        let mut rest = self.positions.get_mut(..self.len).unwrap_or_default();
        let mut place = 0;
        while let Some((from, later)) = rest.split_first_mut() {
            scored.swap(place, *from);
            for moved in later.iter_mut().filter(|later| **later == place) {
                *moved = *from;
            }
            place += 1;
            rest = later;
        }
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
            *top = Top::of(part.iter());
        }
        Self { size, tops }
    }

    /// The candidates of a part that are not picked, with their positions.
    fn left<'a>(
        &self,
        scored: &'a [Scored],
        part: usize,
        picks: &'a Picks,
    ) -> impl Iterator<Item = (usize, &'a Scored)> {
        let candidates = scored.iter().enumerate().skip(part * self.size);
        let candidates = candidates.take(self.size);
        candidates.filter(|(position, _)| !picks.all().contains(position))
    }

    /// Looks again at the part of the last pick.
    fn look(&mut self, scored: &[Scored], picks: &Picks) {
        let part = picks.all().last().map_or(0, |last| last / self.size);
        let left = self.left(scored, part, picks);
        let top = Top::of(left.map(|(_, candidate)| candidate));
        if let Some(place) = self.tops.get_mut(part) {
            *place = top;
        }
    }

    fn most(&self) -> Top {
        self.tops.iter().copied().fold(Top::NONE, Top::join)
    }

    /// The position of the nth of the candidates with this score that are left.
    fn nth(&self, scored: &[Scored], score: f64, nth: u32, picks: &Picks) -> usize {
        let mut before = nth;
        let tops = self.tops.iter().enumerate();
        for (part, top) in tops.filter(|(_, top)| top.score == score) {
            if before >= top.equals {
                before -= top.equals;
                continue;
            }
            let left = self.left(scored, part, picks);
            let mut ties = left.filter(|(_, candidate)| candidate.score == score);
            let found = ties.nth(before as usize);
            return found.map_or(0, |(position, _)| position);
        }
        0
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

    fn chance(seed: u64, turn: u32) -> Chance {
        Chance {
            rng: fastrand::Rng::with_seed(seed),
            turn,
        }
    }

    /// Draws as the picker should: it compares all that are left for each place.
    fn drawn_plainly(scored: &[Scored], want: usize, chance: &mut Chance) -> Vec<Scored> {
        let mut left = scored.to_vec();
        let places = (0..want.min(scored.len())).map(|_| {
            let most = left.iter().map(|candidate| candidate.score);
            let most = most.reduce(f64::max).unwrap();
            let ties = left.iter().filter(|candidate| candidate.score == most);
            let nth = match ties.clone().count() as u32 {
                1 => 0,
                equals => chance.rng.u32(0..equals),
            };
            let pick = *ties.clone().nth(nth as usize).unwrap();
            left.retain(|candidate| candidate.slot != pick.slot);
            pick
        });
        places.collect()
    }

    /// Rotates as the picker should: by sorting.
    fn rotated_plainly(scored: &[Scored], want: usize, turn: u32) -> Vec<Scored> {
        let mut sorted = scored.to_vec();
        sorted.sort_by(|a, b| descending(a.score, b.score));
        for tie in sorted.chunk_by_mut(|a, b| a.score == b.score) {
            tie.rotate_left(turn as usize % tie.len());
        }
        sorted.truncate(want);
        sorted
    }

    #[test]
    fn the_search_by_parts_equals_a_full_search() {
        let mut random = fastrand::Rng::with_seed(3);
        for seed in 0..3_000 {
            let levels = random.u32(1..40);
            let scores: Vec<f64> = (0..random.usize(0..200))
                .map(|_| f64::from(random.u32(..levels)) / 4.0)
                .collect();
            let want = random.usize(0..=MAX_PASSES + 3);
            let first = |picked: &[Scored]| picked[..want.min(picked.len())].to_vec();
            let all = scored(&scores);
            let mut found = all.clone();
            let turn = random.u32(..);
            picker(1, Ties::Rotate).pick(&mut found, want, &mut chance(seed, turn));
            let expected = rotated_plainly(&all, want, turn);
            assert_eq!(first(&found), expected, "{want} of {scores:?}");
            found.sort_by_key(|candidate| candidate.slot);
            assert_eq!(found, all, "none is lost");
            let want = want.min(MAX_PASSES);
            picker(1, Ties::Draw).pick(&mut found, want, &mut chance(seed, turn));
            let expected = drawn_plainly(&all, want, &mut chance(seed, turn));
            assert_eq!(found[..want.min(found.len())], expected, "{want} of {scores:?}");
        }
    }

    fn picker(max_endpoints: usize, ties: Ties) -> MaxScorePicker {
        MaxScorePicker {
            max_endpoints,
            ties,
        }
    }

    fn pick(scores: &[f64], max_endpoints: usize, want: usize, seed: u64) -> Vec<u32> {
        let mut scored = scored(scores);
        picker(max_endpoints, Ties::Draw).pick(&mut scored, want, &mut chance(seed, 0));
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
    fn each_of_equal_endpoints_has_its_turn_whatever_else_is_left() {
        let scores = [2.0, 1.0, 2.0, 0.0, 2.0];
        let mut first = [0; 5];
        for turn in 0..30 {
            let mut scored = scored(&scores);
            picker(1, Ties::Rotate).pick(&mut scored, 3, &mut chance(0, turn));
            first[scored[0].slot.index()] += 1;
            // The others of the tie follow in order.
            let next = |slot: u32| (slot + 2) % 6;
            assert_eq!(scored[1].slot.0, next(scored[0].slot.0));
            assert_eq!(scored[2].slot.0, next(scored[1].slot.0));
        }
        assert_eq!(first, [10, 0, 10, 0, 10]);
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
            picker(max_endpoints, Ties::Rotate).same_choice(&scored(low), &scored(high))
        };
        assert!(same(&[3.0, 2.0, 1.0], &[3.0, 1.0, 2.0], 1));
        assert!(!same(&[3.0, 2.0, 1.0], &[3.0, 1.0, 2.0], 2));
        assert!(!same(&[3.0, 2.0], &[2.0, 3.0], 1));
        // A tie at one end only is another draw.
        assert!(!same(&[3.0, 3.0], &[3.0, 2.0], 1));
        assert!(same(&[3.0, 3.0, 1.0], &[2.0, 2.0, 1.0], 1));
    }
}
