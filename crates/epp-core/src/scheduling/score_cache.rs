//! The score cache: scores that hold from one request to the next.
//!
//! What an endpoint's metrics are worth changes with its page, some times a second, and requests come
//! a hundred times as often. The scores of a set of candidates are kept with the set's identity; a
//! scorer says by its [`Basis`] whether they may be.

use std::sync::Arc;

use super::candidates::{SetId, Survivors};
use super::cycle::Cycle;
use super::plugin::{Basis, Scorer};

/// Columns that are kept. A scorer takes one for each profile, or one for each model that is often
/// requested.
const MAX_COLUMNS: usize = 16;

/// One scorer's scores of a set of candidates.
#[derive(Debug)]
pub struct Column {
    /// Held, so that no other scorer gets its address.
    scorer: Arc<dyn Scorer>,
    /// Empty if the model does not matter.
    model: String,
    /// The candidates that they are the scores of.
    set: SetId,
    scores: Vec<f64>,
    /// The scores as the scorer gave them, where they count as others.
    raw: Vec<f64>,
    /// The time of its last use.
    used: u64,
}

impl Column {
    /// Returns the scores as they count, between 0 and 1.
    pub fn clamped(&self) -> &[f64] {
        &self.scores
    }

    /// Returns the scores as the scorer gave them.
    pub fn raw(&self) -> &[f64] {
        if self.raw.is_empty() {
            &self.scores
        } else {
            &self.raw
        }
    }

    fn fill(&mut self, cycle: &Cycle<'_>, candidates: &Survivors<'_>) {
        self.scores.clear();
        self.scores.resize(candidates.slots.len(), 0.0);
        self.scorer.score(cycle, candidates.slots, &mut self.scores);
        self.raw.clear();
        if !self.scores.iter().all(|score| (0.0..=1.0).contains(score)) {
            self.raw.extend_from_slice(&self.scores);
        }
        for score in &mut self.scores {
            *score = clamped(*score);
        }
    }
}

/// The scores that hold.
#[derive(Debug, Default)]
pub struct ScoreCache {
    columns: Vec<Column>,
    /// The number of look-ups so far.
    asked: u64,
}

impl ScoreCache {
    /// Returns a scorer's scores of the candidates; `None` where they have to be made for this request.
    pub fn scores(
        &mut self,
        scorer: &Arc<dyn Scorer>,
        cycle: &Cycle<'_>,
        candidates: &Survivors<'_>,
    ) -> Option<&Column> {
        let set = candidates.set?;
        let model = match scorer.basis() {
            Basis::Request => return None,
            Basis::Model => cycle.request.model,
            Basis::Pool => "",
        };
        self.asked += 1;
        let mut columns = self.columns.iter();
        let place = columns.position(|column| {
            Arc::ptr_eq(&column.scorer, scorer)
                && column.set.same_place(set)
                && column.model == model
        });
        let (place, holds) = match place {
            Some(place) => (place, true),
            None => (self.make_room(scorer, model, set), false),
        };
        let column = self.columns.get_mut(place)?;
        column.used = self.asked;
        if !holds || column.set != set {
            column.set = set;
            column.fill(cycle, candidates);
        }
        Some(column)
    }

    /// Makes an empty column and returns its place. It replaces the one that was used
    /// longest ago, and its memory.
    fn make_room(&mut self, scorer: &Arc<dyn Scorer>, model: &str, set: SetId) -> usize {
        if self.columns.len() < MAX_COLUMNS {
            self.columns.push(Column {
                scorer: scorer.clone(),
                model: model.to_owned(),
                set,
                scores: Vec::new(),
                raw: Vec::new(),
                used: 0,
            });
            return self.columns.len() - 1;
        }
        let columns = self.columns.iter_mut().enumerate();
        let Some((place, column)) = columns.min_by_key(|(_, column)| column.used) else {
            return 0;
        };
        column.scorer = scorer.clone();
        model.clone_into(&mut column.model);
        place
    }
}

/// Returns a score as it counts, between 0 and 1; one that is not a number counts as 0.
pub fn clamped(score: f64) -> f64 {
    // f64::clamp checks twice whether it is a number.
    let above = if score > 0.0 { score } else { 0.0 };
    if above < 1.0 {
        above
    } else {
        1.0
    }
}

#[cfg(test)]
#[path = "score_cache_tests.rs"]
mod tests;
