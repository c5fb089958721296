//! Why an endpoint was picked, in one header line.

use std::fmt::Write;

use crate::scheduling::{Decision, Observer, Pool, Slot, WeightedScorer};

/// Candidates that one header names at most: a pool of a thousand would not fit any header limit.
const NAMED: usize = 16;

/// Notes what each scorer of the last profile run gave.
#[derive(Debug, Default)]
pub struct Explanation {
    scores: Vec<(String, Vec<(Slot, f64)>)>,
}

impl Observer for Explanation {
    fn filtered(&mut self, _: &str, _: &[Slot], _: &[Slot]) {}

    fn scored(&mut self, scorer: &WeightedScorer, candidates: &[Slot], scores: &[f64]) {
        let pairs = candidates.iter().copied().zip(scores.iter().copied());
        self.scores.push((scorer.name.clone(), pairs.collect()));
    }
}

impl Explanation {
    /// The picks first, each candidate as `address=sum(scorer:score,…)`, separated by `; `.
    pub fn text(&self, decision: &Decision<'_>, pool: &Pool) -> String {
        let mut text = String::new();
        let mut ranked = decision.ranking.scored.clone();
        if let Some(rest) = ranked.get_mut(decision.ranking.ordered..) {
            rest.sort_by(|a, b| b.score.total_cmp(&a.score));
        }
        for candidate in ranked.iter().take(NAMED) {
            let Some(endpoint) = pool.get(candidate.slot) else {
                continue;
            };
            if !text.is_empty() {
                text.push_str("; ");
            }
            // Writing to a String cannot fail.
            let _ = write!(text, "{}={:.4}(", endpoint.address, candidate.score);
            for (position, (name, scores)) in self.scores.iter().enumerate() {
                let own = scores.iter().find(|(slot, _)| *slot == candidate.slot);
                let comma = if position == 0 { "" } else { "," };
                let _ = write!(text, "{comma}{name}:{:.4}", own.map_or(0.0, |own| own.1));
            }
            text.push(')');
        }
        text
    }
}
