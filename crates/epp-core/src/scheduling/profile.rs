//! Scheduling profiles: filters in order, scorers on the survivors, one picker plugin.

use std::sync::Arc;

use super::candidates::{same_survivors, Candidates};
use super::cycle::{Cycle, Scored};
use super::endpoint::Slot;
use super::handler::ProfileId;
use super::plugin::{Filter, Needs, PickerPlugin, Scorer};
use super::score_cache::{clamped, ScoreCache};
use super::ScheduleError;

/// A scorer with its weight in a profile.
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
    /// Run in this order, each on the survivors of the one before. Shared with the caches, which
    /// distinguish the profiles' candidates by it.
    pub filters: Arc<[NamedFilter]>,
    /// Run in this order on the survivors.
    pub scorers: Vec<WeightedScorer>,
    /// Chooses among the scored.
    pub picker: Arc<dyn PickerPlugin>,
}

/// The candidates of one profile after its run.
#[derive(Debug, Clone, Default)]
pub struct Ranking {
    /// The picks first, best first; then the retry targets in order; the rest in any order.
    pub scored: Vec<Scored>,
    /// How many of the first are the picks.
    pub picks: usize,
    /// How many of the first are in order, picks included.
    pub ordered: usize,
}

impl Ranking {
    /// Returns the picks, best first.
    pub fn picks(&self) -> impl Iterator<Item = Slot> + '_ {
        let picks = self.scored.iter().take(self.picks);
        picks.map(|scored| scored.slot)
    }

    /// Returns the picks and then the next best endpoints, as retry targets.
    pub fn targets(&self) -> impl Iterator<Item = Slot> + '_ {
        let ordered = self.scored.iter().take(self.ordered);
        ordered.map(|scored| scored.slot)
    }
}

/// Observes a run, for the `explain` views.
pub trait Observer {
    /// The plugins of this profile run from here on.
    fn began(&mut self, _: ProfileId) {}
    /// A filter ran; `before` are its candidates, `after` the survivors.
    fn filtered(&mut self, filter: &str, before: &[Slot], after: &[Slot]);
    /// A scorer ran; `scores` are its raw scores in the order of `candidates`.
    fn scored(&mut self, scorer: &WeightedScorer, candidates: &[Slot], scores: &[f64]);
}

/// Buffers and caches of a run, kept from request to request.
#[derive(Debug, Default)]
pub struct RunBuffers {
    pub(super) candidates: Candidates,
    scores: Vec<f64>,
    sums: Vec<f64>,
    pub(super) cache: ScoreCache,
}

impl Profile {
    /// Returns what its plugins read, together.
    pub fn needs(&self) -> Needs {
        let filters = self.filters.iter().map(|named| named.filter.needs());
        let scorers = self.scorers.iter().map(|weighted| weighted.scorer.needs());
        filters.chain(scorers).fold(Needs::default(), Needs::union)
    }

    /// Filters and scores. `scored` gets every survivor with its weighted sum, in slot order.
    pub fn rank(
        &self,
        cycle: &Cycle<'_>,
        buffers: &mut RunBuffers,
        scored: &mut Vec<Scored>,
        mut observer: Option<&mut (dyn Observer + '_)>,
    ) -> Result<(), ScheduleError> {
        scored.clear();
        let RunBuffers {
            candidates,
            scores,
            sums,
            cache,
        } = buffers;
        let observed = observer.as_deref_mut().map(|observer| observer as _);
        let survivors = candidates.of(&self.filters, cycle, observed)?;
        let slots = survivors.slots;
        sums.clear();
        sums.resize(slots.len(), 0.0);
        for weighted in &self.scorers {
            let WeightedScorer { scorer, weight, .. } = weighted;
            if let Some(known) = cache.scores(scorer, cycle, &survivors) {
                if let Some(observer) = observer.as_deref_mut() {
                    observer.scored(weighted, slots, known.raw());
                }
                add(sums, known.clamped(), *weight);
                continue;
            }
            scores.resize(slots.len(), 0.0);
            scorer.score(cycle, slots, scores);
            if let Some(observer) = observer.as_deref_mut() {
                observer.scored(weighted, slots, scores);
            }
            for (sum, score) in sums.iter_mut().zip(scores.iter()) {
                *sum += clamped(*score) * weight;
            }
        }
        let sums = slots.iter().zip(sums);
        scored.extend(sums.map(|(&slot, &mut score)| Scored { slot, score }));
        Ok(())
    }

    /// Returns whether the profile picks the same for the shortest and the longest prompt still
    /// possible, and so for all between. `low` and `high` are buffers.
    pub fn same_choice(
        &self,
        shortest: &Cycle<'_>,
        longest: &Cycle<'_>,
        buffers: &mut RunBuffers,
        [low, high]: &mut [Vec<Scored>; 2],
    ) -> bool {
        if !same_survivors(&self.filters, shortest, longest) {
            return false;
        }
        let low_outcome = self.rank(shortest, buffers, low, None);
        let high_outcome = self.rank(longest, buffers, high, None);
        match (low_outcome, high_outcome) {
            (Ok(()), Ok(())) => {
                let mut scorers = self.scorers.iter();
                scorers.all(|weighted| weighted.scorer.moves_evenly(longest, high))
                    && self.picker.same_choice(low, high)
            }
            (low_outcome, high_outcome) => low_outcome == high_outcome,
        }
    }
}

fn add(sums: &mut [f64], scores: &[f64], weight: f64) {
    for (sum, score) in sums.iter_mut().zip(scores) {
        *sum += score * weight;
    }
}
