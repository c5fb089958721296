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

use std::cmp::Ordering;
use std::rc::Rc;

use crate::plugins::role::{Build, Parity, PluginType, Role};
use crate::scheduling::{Picker, Scored};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "max-score-picker",
    build,
    parity: Parity::SAME,
};

/// Up to this many places are filled by one pass over the candidates each; more by sorting. A
/// pass costs about as much as one level of a sort, and pools have at most some 2^10 endpoints.
const PASSES: usize = 8;

fn build(build: &mut Build<'_, '_>) -> Role {
    let max_endpoints = build.fields.positive_or_default("maxNumOfEndpoints", 1);
    Role::Picker(Rc::new(MaxScorePicker {
        max_endpoints: max_endpoints as usize,
    }))
}

#[derive(Debug)]
struct MaxScorePicker {
    max_endpoints: usize,
}

impl Picker for MaxScorePicker {
    fn max_endpoints(&self) -> usize {
        self.max_endpoints
    }

    fn pick(&self, scored: &mut Vec<Scored>, want: usize, rng: &mut fastrand::Rng) {
        if want > PASSES {
            rng.shuffle(scored);
            scored.sort_by(|a, b| descending(a.score, b.score));
            return;
        }
        for place in 0..want.min(scored.len()) {
            let best = best_from(scored, place, rng);
            scored.swap(place, best);
        }
    }

    fn same_choice(&self, shortest: &[Scored], longest: &[Scored]) -> bool {
        same_order(shortest, longest, self.max_endpoints)
    }
}

/// The position of the highest score from `start` on; among equals each is as likely as another.
fn best_from(scored: &[Scored], start: usize, rng: &mut fastrand::Rng) -> usize {
    let mut best = start;
    let mut best_score = f64::NEG_INFINITY;
    let mut equals: u32 = 0;
    for (position, candidate) in scored.iter().enumerate().skip(start) {
        if candidate.score > best_score {
            best = position;
            best_score = candidate.score;
            equals = 1;
        } else if candidate.score == best_score {
            equals += 1;
        }
    }
    if equals < 2 {
        return best;
    }
    // One draw for all: an idle pool is one tie.
    let others = scored.iter().enumerate().skip(best);
    let mut tied = others.filter(|(_, candidate)| candidate.score == best_score);
    let drawn = tied.nth(rng.u32(0..equals) as usize);
    drawn.map_or(best, |(position, _)| position)
}

fn descending(a: f64, b: f64) -> Ordering {
    b.partial_cmp(&a).unwrap_or(Ordering::Equal)
}

/// Whether the first `places` hold the same endpoints in the same order, equal scores included,
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
        for want in [1, PASSES + 1] {
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
        let by_sort = pick(&scores, 1, PASSES + 1, 1);
        assert_eq!(pick(&scores, 1, PASSES, 1), by_sort[..PASSES]);
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
