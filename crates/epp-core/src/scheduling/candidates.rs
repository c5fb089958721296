//! Candidates: the endpoints that a profile's filters leave.
//!
//! Filters whose result depends on the pool alone, or on the pool and the model, give the same
//! candidates for each request until the pool changes, which it does some times a second while
//! requests come a hundred times as often. Those sets are kept, with a number that no other set has,
//! so that scores of their endpoints can be kept as well.

use std::sync::Arc;

use super::cycle::Cycle;
use super::endpoint::{DecisionMode, Slot, SnapshotId};
use super::plugin::{Basis, UnreadPrompt};
use super::profile::{NamedFilter, Observer};
use super::ScheduleError;

/// Sets that are kept. A profile takes one, or one for each model where a filter looks at the model; a
/// plan of three profiles with two models each still fits.
const MAX_SETS: usize = 8;

/// The endpoints that filters leave.
#[derive(Debug)]
pub struct Survivors<'a> {
    /// In slot order.
    pub slots: &'a [Slot],
    /// The identity of the set; `None` for one that holds for this request alone.
    pub set: Option<SetId>,
}

/// The identity of a set of candidates that holds from request to request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetId {
    /// All endpoints that may be picked. Its number is no other set's.
    Whole(u64),
    /// Those that filters leave.
    Filtered {
        /// The position of the set in the cache.
        place: usize,
        /// The number of this filling, which no other set has or had.
        filling: u64,
    },
}

impl SetId {
    /// Returns whether a newer set of the same profile takes this one's place.
    pub fn same_place(self, other: Self) -> bool {
        match (self, other) {
            (Self::Whole(_), Self::Whole(_)) => true,
            (Self::Filtered { place, .. }, Self::Filtered { place: other, .. }) => place == other,
            _ => false,
        }
    }
}

/// A filter's input and result, for explanations of a decision with a cached set.
#[derive(Debug)]
struct Step {
    filter: usize,
    before: Vec<Slot>,
    after: Vec<Slot>,
}

/// One profile's candidates, for one model where a filter looks at it.
#[derive(Debug)]
struct Set {
    filters: Arc<[NamedFilter]>,
    /// Empty if the model does not matter.
    model: String,
    /// The snapshot that the set was made from; `None` before the first.
    snapshot: Option<SnapshotId>,
    filling: u64,
    outcome: Result<(), ScheduleError>,
    slots: Vec<Slot>,
    steps: Vec<Step>,
    /// The time of its last use.
    used: u64,
}

/// Buffers for candidates, and the sets that hold from request to request.
#[derive(Debug, Default)]
pub struct Candidates {
    sets: Vec<Set>,
    /// The number of look-ups so far.
    asked: u64,
    /// How often one was filled, or the whole pool was another one.
    fillings: u64,
    /// The snapshot of the whole pool that was seen last, and its number.
    whole: Option<(SnapshotId, u64)>,
    /// The candidates of the current request, if they hold for it alone.
    own: Vec<Slot>,
}

impl Candidates {
    /// Returns what a profile's filters leave.
    pub fn of<'s, 'p: 's>(
        &'s mut self,
        filters: &Arc<[NamedFilter]>,
        cycle: &Cycle<'p>,
        observer: Option<&mut (dyn Observer + '_)>,
    ) -> Result<Survivors<'s>, ScheduleError> {
        let snapshot = cycle.pool.snapshot();
        // Metrics do not count in the other mode, so that what was made from them does not hold.
        let holds = cycle.pool.mode == DecisionMode::Metrics;
        if filters.is_empty() && !snapshot.candidates.is_empty() {
            return Ok(Survivors {
                slots: &snapshot.candidates,
                set: holds.then(|| self.whole(&snapshot.id)),
            });
        }
        let basis = filters.iter().map(|named| named.filter.basis());
        let model = match basis.min().unwrap_or(Basis::Pool) {
            Basis::Request => None,
            Basis::Model => Some(cycle.request.model),
            Basis::Pool => Some(""),
        };
        if let Some(model) = model.filter(|_| holds) {
            return self.kept(filters, model, cycle, observer);
        }
        let mut steps = observer.is_some().then(Vec::new);
        let outcome = survivors(filters, cycle, &mut self.own, &mut steps);
        show(filters, &steps.unwrap_or_default(), observer);
        // A filter that looks at the requests in flight mostly keeps all, and scores that hold for all endpoints hold then.
        let all = outcome == Ok(Left::All);
        let set = (all && holds).then(|| self.whole(&snapshot.id));
        outcome.map(|_| Survivors {
            slots: &self.own,
            set,
        })
    }

    /// Returns the identity of the set of all endpoints that may be picked.
    fn whole(&mut self, snapshot: &SnapshotId) -> SetId {
        let known = self.whole.as_ref().filter(|(known, _)| known == snapshot);
        let number = known.map(|(_, number)| *number).unwrap_or_else(|| {
            self.fillings += 1;
            self.whole = Some((snapshot.clone(), self.fillings));
            self.fillings
        });
        SetId::Whole(number)
    }

    fn kept(
        &mut self,
        filters: &Arc<[NamedFilter]>,
        model: &str,
        cycle: &Cycle<'_>,
        observer: Option<&mut (dyn Observer + '_)>,
    ) -> Result<Survivors<'_>, ScheduleError> {
        self.asked += 1;
        let place = self.place(filters, model);
        let Some(set) = self.sets.get_mut(place) else {
            return Err(ScheduleError::NoCandidates);
        };
        set.used = self.asked;
        let snapshot = &cycle.pool.snapshot().id;
        if set.snapshot.as_ref() != Some(snapshot) {
            self.fillings += 1;
            set.snapshot = Some(snapshot.clone());
            set.filling = self.fillings;
            let mut steps = Some(std::mem::take(&mut set.steps));
            let left = survivors(filters, cycle, &mut set.slots, &mut steps);
            set.outcome = left.map(|_| ());
            set.steps = steps.unwrap_or_default();
        }
        show(filters, &set.steps, observer);
        set.outcome?;
        Ok(Survivors {
            slots: &set.slots,
            set: Some(SetId::Filtered {
                place,
                filling: set.filling,
            }),
        })
    }

    /// Returns where the set of these filters and this model is. A new one takes the place of the one
    /// that was used longest ago.
    fn place(&mut self, filters: &Arc<[NamedFilter]>, model: &str) -> usize {
        let same = |set: &Set| Arc::ptr_eq(&set.filters, filters) && set.model == model;
        if let Some(place) = self.sets.iter().position(same) {
            return place;
        }
        let new = Set {
            filters: filters.clone(),
            model: model.to_owned(),
            snapshot: None,
            filling: 0,
            outcome: Ok(()),
            slots: Vec::new(),
            steps: Vec::new(),
            used: 0,
        };
        if self.sets.len() < MAX_SETS {
            self.sets.push(new);
            return self.sets.len() - 1;
        }
        let sets = self.sets.iter_mut().enumerate();
        let Some((place, set)) = sets.min_by_key(|(_, set)| set.used) else {
            return 0;
        };
        *set = new;
        place
    }
}

/// Shows what each filter did.
fn show(filters: &[NamedFilter], steps: &[Step], observer: Option<&mut (dyn Observer + '_)>) {
    let Some(observer) = observer else {
        return;
    };
    for step in steps {
        if let Some(named) = filters.get(step.filter) {
            observer.filtered(&named.name, &step.before, &step.after);
        }
    }
}

/// What filters have left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// All candidates of the snapshot.
    All,
    /// Some of them, or ejected endpoints.
    Others,
}

/// Leaves in `slots` the endpoints that pass all filters. Ejected endpoints are candidates only where
/// no other is left.
fn survivors(
    filters: &[NamedFilter],
    cycle: &Cycle<'_>,
    slots: &mut Vec<Slot>,
    steps: &mut Option<Vec<Step>>,
) -> Result<Left, ScheduleError> {
    if let Some(steps) = steps {
        steps.clear();
    }
    let candidates = &cycle.pool.snapshot().candidates;
    slots.clone_from(candidates);
    let passed = pass(filters, cycle, slots, steps);
    if passed.is_err() && cycle.pool.iter().any(|(_, endpoint)| endpoint.ejected) {
        with_ejected(cycle, slots);
        return pass(filters, cycle, slots, steps).map(|()| Left::Others);
    }
    // Filters only remove candidates.
    passed.map(|()| match slots.len() == candidates.len() {
        true => Left::All,
        false => Left::Others,
    })
}

/// Puts all endpoints that may be picked into `slots`, ejected ones included.
fn with_ejected(cycle: &Cycle<'_>, slots: &mut Vec<Slot>) {
    let endpoints = cycle.pool.iter();
    let available = endpoints.filter(|(_, endpoint)| endpoint.is_available());
    slots.clear();
    slots.extend(available.map(|(slot, _)| slot));
}

fn pass(
    filters: &[NamedFilter],
    cycle: &Cycle<'_>,
    slots: &mut Vec<Slot>,
    steps: &mut Option<Vec<Step>>,
) -> Result<(), ScheduleError> {
    if slots.is_empty() {
        return Err(ScheduleError::NoCandidates);
    }
    for (filter, named) in filters.iter().enumerate() {
        let before = steps.as_ref().map(|_| slots.clone());
        named.filter.filter(cycle, slots);
        if let (Some(steps), Some(before)) = (steps.as_mut(), before) {
            steps.push(Step {
                filter,
                before,
                after: slots.clone(),
            });
        }
        if slots.is_empty() {
            return Err(match matches_none(filters, cycle) {
                true => ScheduleError::NoneMatches,
                false => ScheduleError::AllFiltered,
            });
        }
    }
    Ok(())
}

/// Returns whether no endpoint has the labels that filters look for, whatever the other filters leave.
fn matches_none(filters: &[NamedFilter], cycle: &Cycle<'_>) -> bool {
    let mut slots = Vec::new();
    with_ejected(cycle, &mut slots);
    for NamedFilter { filter, .. } in filters {
        if filter.needs().labels && filter.basis() == Basis::Pool {
            filter.filter(cycle, &mut slots);
        }
    }
    slots.is_empty()
}

/// Returns whether each filter leaves the same endpoints for the shortest and the longest prompt, and
/// so (see [`UnreadPrompt::Length`]) for all between.
pub fn same_survivors(filters: &[NamedFilter], shortest: &Cycle<'_>, longest: &Cycle<'_>) -> bool {
    let moves = |named: &NamedFilter| named.filter.needs().unread != UnreadPrompt::Irrelevant;
    if !filters.iter().any(moves) {
        return true;
    }
    let mut slots = shortest.pool.snapshot().candidates.clone();
    // The filters see the same candidates at both ends as long as all before left the same.
    let agree = |slots: &mut Vec<Slot>| {
        filters.iter().all(|named| {
            let filter = &named.filter;
            if !filter.moves_evenly(shortest, longest, slots) {
                return false;
            }
            let mut other = slots.clone();
            filter.filter(shortest, slots);
            filter.filter(longest, &mut other);
            *slots == other
        })
    };
    if !agree(&mut slots) {
        return false;
    }
    if slots.is_empty() {
        with_ejected(shortest, &mut slots);
        return agree(&mut slots);
    }
    true
}

#[cfg(test)]
#[path = "candidates_tests.rs"]
mod tests;
