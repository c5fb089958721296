//! Explanations of why an endpoint was picked.

use std::fmt::Write;
use std::time::Duration;

use crate::scheduling::{
    Decision, Observer, Pool, ProfileId, Ranking, Scored, Slot, Stage, WeightedScorer,
};
use crate::time::whole_millis;

/// Candidates that one header names at most: a pool of a thousand would not fit any header limit.
const MAX_NAMED_CANDIDATES: usize = 16;

/// Returns a score for a text that rounds numbers below half of `unit` to 0: negative weights and the sums of floats
/// would make it -0.
pub fn shown(score: f64, unit: f64) -> f64 {
    match score.abs() < unit / 2.0 {
        true => 0.0,
        false => score,
    }
}

/// A decision with what led to it.
#[derive(Debug, Default)]
pub struct Explanation {
    /// The slots that each filter removed, with the filter's name, in order.
    pub filters: Vec<(String, Vec<Slot>)>,
    /// The scores of each scorer, in order.
    pub scorers: Vec<Scores>,
    /// All candidates with their weighted sums: the picks, the retry targets, then the others by
    /// score.
    pub ranking: Vec<Scored>,
    /// How many of the ranking are picks.
    pub picks: usize,
    /// The parts of the request that other endpoints may do: which do, or why none does.
    pub parts: Vec<(&'static str, Stage, Vec<Slot>)>,
    /// How the request waited in a queue, if it did.
    pub queued: Option<Queued>,
    /// The profiles that ran, with the numbers of filters and scorers before theirs.
    profiles: Vec<(ProfileId, usize, usize)>,
}

/// A request's time in a queue.
#[derive(Debug, Clone, Copy)]
pub struct Queued {
    /// Its priority.
    pub priority: i32,
    /// How many requests waited when it came, in all bands.
    pub behind: usize,
    /// How long it waited.
    pub waited: Duration,
}

impl Queued {
    /// Returns it as a part of an explanation.
    fn text(&self) -> String {
        let Self {
            priority,
            behind,
            waited,
        } = self;
        match (waited.is_zero(), whole_millis(*waited)) {
            (true, _) => format!("queue: sent at once with priority {priority}"),
            (false, millis) => format!(
                "queue: waited {millis} ms with priority {priority}, {behind} waiting before"
            ),
        }
    }
}

/// The scores of one scorer.
#[derive(Debug)]
pub struct Scores {
    /// The plugin's name in the document.
    pub name: String,
    /// Its weight in the profile.
    pub weight: f64,
    /// Raw scores, not yet clamped or weighted.
    pub scores: Vec<Scored>,
}

impl Observer for Explanation {
    fn began(&mut self, profile: ProfileId) {
        let (filters, scorers) = (self.filters.len(), self.scorers.len());
        self.profiles.push((profile, filters, scorers));
    }

    fn filtered(&mut self, filter: &str, before: &[Slot], after: &[Slot]) {
        let removed = before.iter().filter(|slot| !after.contains(slot));
        self.filters
            .push((filter.to_owned(), removed.copied().collect()));
    }

    fn scored(&mut self, scorer: &WeightedScorer, candidates: &[Slot], scores: &[f64]) {
        let pairs = candidates.iter().zip(scores);
        let scored = pairs.map(|(&slot, &score)| Scored { slot, score });
        self.scorers.push(Scores {
            name: scorer.name.clone(),
            weight: scorer.weight,
            scores: scored.collect(),
        });
    }
}

impl Explanation {
    /// Returns the bytes of memory that it has allocated, names left out.
    pub fn allocated(&self) -> usize {
        let filters = self.filters.iter();
        let removed = filters.map(|(_, removed)| removed.capacity() * size_of::<Slot>());
        let scorers = self.scorers.iter();
        let scores = scorers.map(|scorer| scorer.scores.capacity() * size_of::<Scored>());
        let ranking = self.ranking.capacity() * size_of::<Scored>();
        removed.sum::<usize>() + scores.sum::<usize>() + ranking
    }

    /// Takes in the outcome.
    pub fn set_decision(&mut self, decision: &Decision<'_>) {
        self.ranking.clone_from(&decision.ranking.scored);
        self.picks = decision.ranking.picks;
        if let Some(rest) = self.ranking.get_mut(decision.ranking.ordered..) {
            rest.sort_by(|a, b| b.score.total_cmp(&a.score));
        }
        self.keep_only(decision.profile);
        if let Some(stages) = decision.conclusion.stages {
            let picks = |ranking: Option<&Ranking>, most| {
                let picks = ranking.into_iter().flat_map(Ranking::picks);
                picks.take(most).collect()
            };
            self.parts = vec![
                ("prefill", stages.prefill, picks(decision.prefill, 1)),
                ("encode", stages.encode, picks(decision.encode, usize::MAX)),
            ];
            // What a document has no profile for needs no word.
            self.parts
                .retain(|(_, stage, _)| *stage != Stage::NoProfile);
        }
    }

    /// Leaves out what the plugins of other profiles did.
    fn keep_only(&mut self, profile: ProfileId) {
        let mut ran = self.profiles.iter();
        let Some((_, filters, scorers)) = ran.find(|(ran, ..)| *ran == profile) else {
            return;
        };
        if let Some((_, filters, scorers)) = ran.next() {
            self.filters.truncate(*filters);
            self.scorers.truncate(*scorers);
        }
        self.filters.drain(..(*filters).min(self.filters.len()));
        self.scorers.drain(..(*scorers).min(self.scorers.len()));
    }

    /// Returns what became of the parts that other endpoints may do, each as `part: addresses` or `part: reason`, and how
    /// the request waited.
    pub fn parts(&self, pool: &Pool) -> Vec<String> {
        let part = |(name, stage, slots): &(&str, Stage, Vec<Slot>)| {
            let endpoints = slots.iter().filter_map(|slot| pool.get(*slot));
            let addresses: Vec<&str> = endpoints.map(|endpoint| &*endpoint.address).collect();
            match stage {
                Stage::Picked(_) => format!("{name}: {}", addresses.join(",")),
                _ => format!("{name}: {stage}"),
            }
        };
        let mut parts: Vec<String> = self.parts.iter().map(part).collect();
        if let Some(queued) = &self.queued {
            parts.push(queued.text());
        }
        parts
    }

    /// One line: each candidate as `address=sum(scorer:score,…)`, best first, and then [`Self::parts`], separated by
    /// `; `.
    pub fn text(&self, pool: &Pool) -> String {
        let mut text = String::new();
        for candidate in self.ranking.iter().take(MAX_NAMED_CANDIDATES) {
            let Some(endpoint) = pool.get(candidate.slot) else {
                continue;
            };
            if !text.is_empty() {
                text.push_str("; ");
            }
            // Writing to a String cannot fail.
            let sum = shown(candidate.score, 1e-4);
            let _ = write!(text, "{}={sum:.4}(", endpoint.address);
            for (position, scorer) in self.scorers.iter().enumerate() {
                let mut scores = scorer.scores.iter();
                let own = scores.find(|scored| scored.slot == candidate.slot);
                let comma = if position == 0 { "" } else { "," };
                let score = shown(own.map_or(0.0, |own| own.score), 1e-4);
                let _ = write!(text, "{comma}{}:{score:.4}", scorer.name);
            }
            text.push(')');
        }
        for part in self.parts(pool) {
            text.push_str("; ");
            text.push_str(&part);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn what_a_text_rounds_to_0_has_no_sign() {
        for (score, text) in [
            (-0.0, "0.0000"),
            (0.1 + 0.2 - 0.3 - 1e-16, "0.0000"),
            (-0.000_049, "0.0000"),
            (-0.000_051, "-0.0001"),
            (0.25, "0.2500"),
        ] {
            assert_eq!(format!("{:.4}", shown(score, 1e-4)), text);
        }
    }
}
