//! Scores that hold from one request to the next.
//!
//! What an endpoint's metrics are worth changes with its page, some times a second, and requests come
//! a hundred times as often. The scores of all candidates are kept with the version of the pool's
//! columns that they were made from; a scorer says by its [`Basis`] whether they may be.

use std::sync::Arc;

use super::cycle::Cycle;
use super::plugin::{Basis, Scorer};

/// PoolSnapshot kept at a time. A scorer takes one, or one for each model that is asked for often.
const MOST: usize = 16;

/// One scorer's scores of all candidates.
#[derive(Debug)]
struct Column {
    /// Held, so that nobody else comes to its address.
    scorer: Arc<dyn Scorer>,
    /// Empty where it does not matter.
    model: String,
    /// The columns' of the pool that they were made from.
    version: u64,
    scores: Vec<f64>,
    /// When it was asked for last.
    used: u64,
}

/// The scores that hold.
#[derive(Debug, Default)]
pub struct ScoreCache {
    columns: Vec<Column>,
    /// How often columns were asked for.
    asked: u64,
}

impl ScoreCache {
    /// The scores of all candidates, between 0 and 1; `None` where they have to be made for this
    /// request.
    pub fn scores(&mut self, scorer: &Arc<dyn Scorer>, cycle: &Cycle<'_>) -> Option<&[f64]> {
        let model = match scorer.basis() {
            Basis::Request => return None,
            Basis::Model => cycle.request.model,
            Basis::Pool => "",
        };
        self.asked += 1;
        let place = self.place(scorer, model);
        let column = self.columns.get_mut(place)?;
        column.used = self.asked;
        let known = cycle.pool.snapshot();
        if column.version != known.version {
            column.version = known.version;
            column.scores.clear();
            column.scores.resize(known.candidates.len(), 0.0);
            scorer.score(cycle, &known.candidates, &mut column.scores);
            clamp(&mut column.scores);
        }
        Some(&column.scores)
    }

    /// Where a scorer's column for a model is; a new one takes the place of the one that nobody has asked
    /// for for the longest time, and its memory.
    fn place(&mut self, scorer: &Arc<dyn Scorer>, model: &str) -> usize {
        let mut columns = self.columns.iter();
        let same = |column: &Column| Arc::ptr_eq(&column.scorer, scorer) && column.model == model;
        if let Some(place) = columns.position(same) {
            return place;
        }
        if self.columns.len() < MOST {
            self.columns.push(Column {
                scorer: scorer.clone(),
                model: model.to_owned(),
                version: 0,
                scores: Vec::new(),
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
        column.version = 0;
        place
    }
}

/// A score outside 0 to 1 counts as the nearer end; one that is no number counts as 0.
pub fn clamp(scores: &mut [f64]) {
    for score in scores {
        // f64::clamp asks twice whether it is a number.
        let above = if *score > 0.0 { *score } else { 0.0 };
        *score = if above < 1.0 { above } else { 1.0 };
    }
}

#[cfg(test)]
#[path = "score_cache_tests.rs"]
mod tests;
