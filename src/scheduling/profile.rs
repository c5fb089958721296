//! One scheduling profile: filters in order, scorers on the survivors, one picker.

use std::rc::Rc;

use super::cycle::{Cycle, Scored};
use super::endpoint::Slot;
use super::plugin::{Filter, Needs, Picker, Scorer};
use super::ScheduleError;

/// A scorer and what its score counts for in this profile.
#[derive(Debug, Clone)]
pub struct WeightedScorer {
    /// The plugin's name in the document.
    pub name: String,
    /// The plugin.
    pub scorer: Rc<dyn Scorer>,
    /// Its weight; the document's default is 1.
    pub weight: f64,
}

/// A filter under its name in the document.
#[derive(Debug, Clone)]
pub struct NamedFilter {
    /// The plugin's name in the document.
    pub name: String,
    /// The plugin.
    pub filter: Rc<dyn Filter>,
}

/// A named set of plugins that ranks the candidates.
#[derive(Debug, Clone)]
pub struct Profile {
    /// Its name in the document.
    pub name: String,
    /// Run in this order, each on the survivors of the one before.
    pub filters: Vec<NamedFilter>,
    /// Run in this order on the survivors.
    pub scorers: Vec<WeightedScorer>,
    /// Chooses among the scored.
    pub picker: Rc<dyn Picker>,
}

/// Is told what happens inside a run; the `explain` views are made of it.
pub trait Observer {
    /// A filter ran; `before` are its candidates, `after` the survivors.
    fn filtered(&mut self, filter: &str, before: &[Slot], after: &[Slot]);
    /// A scorer ran; `scores` are its raw scores in the order of `candidates`.
    fn scored(&mut self, scorer: &WeightedScorer, candidates: &[Slot], scores: &[f64]);
}

/// Buffers of a run, kept from request to request.
#[derive(Debug, Default)]
pub struct RunBuffers {
    pub(super) candidates: Vec<Slot>,
    pub(super) scores: Vec<f64>,
}

impl Profile {
    /// What its plugins read, together.
    pub fn needs(&self) -> Needs {
        let filters = self.filters.iter().map(|named| named.filter.needs());
        let scorers = self.scorers.iter().map(|weighted| weighted.scorer.needs());
        filters.chain(scorers).fold(Needs::default(), Needs::union)
    }

    /// Filters and scores: `scored` gets every survivor with its weighted sum, in slot order.
    pub fn rank(
        &self,
        cycle: &Cycle<'_>,
        buffers: &mut RunBuffers,
        scored: &mut Vec<Scored>,
        mut observer: Option<&mut (dyn Observer + '_)>,
    ) -> Result<(), ScheduleError> {
        let RunBuffers { candidates, scores } = buffers;
        scored.clear();
        // Who is avoided is a candidate where nobody else is left.
        let others = self.filter(cycle, candidates, false, &mut observer);
        if others.is_err() && cycle.pool.iter().any(|(_, endpoint)| endpoint.avoided) {
            self.filter(cycle, candidates, true, &mut observer)?;
        } else {
            others?;
        }
        scored.extend(candidates.iter().map(|&slot| Scored { slot, score: 0.0 }));
        for weighted in &self.scorers {
            scores.clear();
            scores.resize(candidates.len(), 0.0);
            weighted.scorer.score(cycle, candidates, scores);
            if let Some(observer) = observer.as_deref_mut() {
                observer.scored(weighted, candidates, scores);
            }
            for (candidate, score) in scored.iter_mut().zip(scores.iter()) {
                candidate.score += clamp(*score) * weighted.weight;
            }
        }
        Ok(())
    }

    /// Leaves the candidates that pass all filters.
    fn filter(
        &self,
        cycle: &Cycle<'_>,
        candidates: &mut Vec<Slot>,
        avoided: bool,
        observer: &mut Option<&mut (dyn Observer + '_)>,
    ) -> Result<(), ScheduleError> {
        candidates.clear();
        let available = cycle
            .pool
            .iter()
            .filter(|(_, endpoint)| endpoint.available && (avoided || !endpoint.avoided));
        candidates.extend(available.map(|(slot, _)| slot));
        if candidates.is_empty() {
            return Err(ScheduleError::NoCandidates);
        }
        for named in &self.filters {
            let before = observer.as_ref().map(|_| candidates.clone());
            named.filter.filter(cycle, candidates);
            if let (Some(observer), Some(before)) = (observer.as_deref_mut(), before) {
                observer.filtered(&named.name, &before, candidates);
            }
            if candidates.is_empty() {
                return Err(ScheduleError::AllFiltered);
            }
        }
        Ok(())
    }
}

/// A score outside 0 to 1 counts as the nearer end; one that is no number counts as 0.
fn clamp(score: f64) -> f64 {
    if score.is_nan() {
        0.0
    } else {
        score.clamp(0.0, 1.0)
    }
}
