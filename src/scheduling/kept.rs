//! Scores that hold from one request to the next.
//!
//! What an endpoint's metrics are worth changes with its page, some times a second, and requests come
//! a hundred times as often. The scores of all candidates are kept with the version of the pool's
//! columns that they were made from; a scorer says by its [`Basis`] whether they may be.

use std::rc::Rc;

use super::cycle::Cycle;
use super::plugin::{Basis, Scorer};

/// Columns kept at a time. A scorer takes one, or one for each model that is asked for often.
const MOST: usize = 16;

/// One scorer's scores of all candidates.
#[derive(Debug)]
struct Column {
    /// Held, so that nobody else comes to its address.
    scorer: Rc<dyn Scorer>,
    /// Empty where it does not matter.
    model: String,
    /// The columns' of the pool that they were made from.
    version: u64,
    scores: Vec<f64>,
}

/// The scores that hold.
#[derive(Debug, Default)]
pub struct Kept {
    columns: Vec<Column>,
    /// Whose place is taken next.
    next: usize,
}

impl Kept {
    /// The scores of all candidates, between 0 and 1; `None` where they have to be made for this
    /// request.
    pub fn scores(&mut self, scorer: &Rc<dyn Scorer>, cycle: &Cycle<'_>) -> Option<&[f64]> {
        let model = match scorer.basis() {
            Basis::Request => return None,
            Basis::Model => cycle.request.model,
            Basis::Metrics => "",
        };
        let place = self.place(scorer, model);
        let column = self.columns.get_mut(place)?;
        let known = cycle.pool.columns();
        if column.version != known.version {
            column.version = known.version;
            column.scores.clear();
            column.scores.resize(known.candidates.len(), 0.0);
            scorer.score(cycle, &known.candidates, &mut column.scores);
            clamp(&mut column.scores);
        }
        Some(&column.scores)
    }

    /// Where a scorer's column for a model is.
    fn place(&mut self, scorer: &Rc<dyn Scorer>, model: &str) -> usize {
        let mut columns = self.columns.iter();
        let same = |column: &Column| Rc::ptr_eq(&column.scorer, scorer) && column.model == model;
        if let Some(place) = columns.position(same) {
            return place;
        }
        let column = Column {
            scorer: scorer.clone(),
            model: model.to_owned(),
            version: 0,
            scores: Vec::new(),
        };
        if self.columns.len() < MOST {
            self.columns.push(column);
            return self.columns.len() - 1;
        }
        self.next = (self.next + 1) % MOST;
        if let Some(place) = self.columns.get_mut(self.next) {
            *place = column;
        }
        self.next
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
#[path = "kept_tests.rs"]
mod tests;
