//! One scheduling profile: filters in order, scorers on the survivors, one picker.

use std::sync::Arc;

use super::cycle::{Cycle, Scored};
use super::endpoint::{DecisionMode, Slot};
use super::plugin::{Filter, Needs, Picker, Scorer};
use super::score_cache::{clamp, ScoreCache};
use super::ScheduleError;

/// A scorer and what its score counts for in this profile.
#[derive(Debug, Clone)]
pub struct WeightedScorer {
    /// The plugin's name in the document.
    pub name: String,
    /// The plugin.
    pub scorer: Arc<dyn Scorer>,
    /// Its weight; the document's default is 1.
    pub weight: f64,
}

/// A filter under its name in the document.
#[derive(Debug, Clone)]
pub struct NamedFilter {
    /// The plugin's name in the document.
    pub name: String,
    /// The plugin.
    pub filter: Arc<dyn Filter>,
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
    pub picker: Arc<dyn Picker>,
}

/// Is told what happens inside a run; the `explain` views are made of it.
pub trait Observer {
    /// A filter ran; `before` are its candidates, `after` the survivors.
    fn filtered(&mut self, filter: &str, before: &[Slot], after: &[Slot]);
    /// A scorer ran; `scores` are its raw scores in the order of `candidates`.
    fn scored(&mut self, scorer: &WeightedScorer, candidates: &[Slot], scores: &[f64]);
}

/// Buffers of a run, cache from request to request.
#[derive(Debug, Default)]
pub struct RunBuffers {
    survivors: Vec<Slot>,
    scores: Vec<f64>,
    sums: Vec<f64>,
    pub(super) cache: ScoreCache,
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
        scored.clear();
        let all = &cycle.pool.snapshot().candidates;
        let whole = self.filters.is_empty() && !all.is_empty();
        let RunBuffers {
            survivors,
            scores,
            sums,
            cache,
        } = buffers;
        let candidates = if whole {
            all
        } else {
            self.survivors(cycle, survivors, &mut observer)?;
            survivors
        };
        sums.clear();
        sums.resize(candidates.len(), 0.0);
        // An observer is shown what the scorers gave, not what it counts as.
        let keeps = whole && observer.is_none() && cycle.pool.mode == DecisionMode::Metrics;
        for weighted in &self.scorers {
            let WeightedScorer { scorer, weight, .. } = weighted;
            let known = if keeps {
                cache.scores(scorer, cycle)
            } else {
                None
            };
            if let Some(known) = known {
                add(sums, known, *weight);
                continue;
            }
            scores.resize(candidates.len(), 0.0);
            scorer.score(cycle, candidates, scores);
            if let Some(observer) = observer.as_deref_mut() {
                observer.scored(weighted, candidates, scores);
            }
            clamp(scores);
            add(sums, scores, *weight);
        }
        let sums = candidates.iter().zip(sums);
        scored.extend(sums.map(|(&slot, &mut score)| Scored { slot, score }));
        Ok(())
    }

    /// Leaves the candidates that pass all filters.
    fn survivors(
        &self,
        cycle: &Cycle<'_>,
        candidates: &mut Vec<Slot>,
        observer: &mut Option<&mut (dyn Observer + '_)>,
    ) -> Result<(), ScheduleError> {
        candidates.clone_from(&cycle.pool.snapshot().candidates);
        let others = self.filter(cycle, candidates, observer);
        // Who is avoided is a candidate where nobody else is left.
        if others.is_err() && cycle.pool.iter().any(|(_, endpoint)| endpoint.avoided) {
            let endpoints = cycle.pool.iter();
            let available = endpoints.filter(|(_, endpoint)| endpoint.available);
            candidates.clear();
            candidates.extend(available.map(|(slot, _)| slot));
            return self.filter(cycle, candidates, observer);
        }
        others
    }

    fn filter(
        &self,
        cycle: &Cycle<'_>,
        candidates: &mut Vec<Slot>,
        observer: &mut Option<&mut (dyn Observer + '_)>,
    ) -> Result<(), ScheduleError> {
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

fn add(sums: &mut [f64], scores: &[f64], weight: f64) {
    for (sum, score) in sums.iter_mut().zip(scores) {
        *sum += score * weight;
    }
}
