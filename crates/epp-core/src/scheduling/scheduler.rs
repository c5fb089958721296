//! The cycle: the profile handler picks profiles, they run, it names the primary one.

use std::sync::Arc;

use super::cycle::{Cycle, Scored};
use super::endpoint::Slot;
use super::plugin::{Needs, ProfileHandler};
use super::profile::{Observer, Profile, RunBuffers};
use super::ScheduleError;

/// What each profile found, by its index; `None` for one that did not run.
pub type ProfileResults = [Option<Result<Ranking, ScheduleError>>];

/// The candidates of one profile after its run.
#[derive(Debug, Clone, Default)]
pub struct Ranking {
    /// The picks first, best first; then who should be tried next; the rest in any order.
    pub scored: Vec<Scored>,
    /// How many of the first are the picks.
    pub picks: usize,
    /// How many of the first are in order, picks included.
    pub ordered: usize,
}

/// Endpoints chosen for a request.
#[derive(Debug, Clone, Copy)]
pub struct Decision<'a> {
    /// Index of the primary profile.
    pub profile: usize,
    /// Its ranking.
    pub ranking: &'a Ranking,
}

impl Decision<'_> {
    /// The picks, best first: what the Endpoint Picker's destination header would name.
    pub fn picks(&self) -> impl Iterator<Item = Slot> + '_ {
        let picks = self.ranking.scored.iter().take(self.ranking.picks);
        picks.map(|scored| scored.slot)
    }

    /// The picks and then the next best ones, as retry targets.
    pub fn targets(&self) -> impl Iterator<Item = Slot> + '_ {
        let ordered = self.ranking.scored.iter().take(self.ranking.ordered);
        ordered.map(|scored| scored.slot)
    }

    /// The first pick, which the prefix index learns.
    pub fn first(&self) -> Option<Slot> {
        self.picks().next()
    }
}

/// Buffers and randomness of the scheduler, kept from request to request.
#[derive(Debug)]
pub struct Scratch {
    pub(super) buffers: RunBuffers,
    results: Vec<Option<Result<Ranking, ScheduleError>>>,
    spare: Vec<Ranking>,
    next: Vec<usize>,
    bounds: [Vec<Scored>; 2],
    rng: fastrand::Rng,
}

impl Scratch {
    /// The randomness that decisions draw from.
    pub fn rng(&mut self) -> &mut fastrand::Rng {
        &mut self.rng
    }

    /// Empty buffers; ties and random pickers draw from `rng`.
    pub fn new(rng: fastrand::Rng) -> Self {
        Self {
            buffers: RunBuffers::default(),
            results: Vec::new(),
            spare: Vec::new(),
            next: Vec::new(),
            bounds: [Vec::new(), Vec::new()],
            rng,
        }
    }
}

/// The compiled scheduling part of a plan.
#[derive(Debug, Clone)]
pub struct Scheduler {
    profiles: Vec<Profile>,
    handler: Arc<dyn ProfileHandler>,
}

impl Scheduler {
    /// A scheduler over these profiles.
    pub fn new(profiles: Vec<Profile>, handler: Arc<dyn ProfileHandler>) -> Self {
        Self { profiles, handler }
    }

    /// The profiles, in the document's order.
    pub fn profiles(&self) -> &[Profile] {
        &self.profiles
    }

    /// What all profiles read, together.
    pub fn needs(&self) -> Needs {
        let needs = self.profiles.iter().map(Profile::needs);
        needs.fold(Needs::default(), Needs::union)
    }

    /// Runs one cycle. `fallbacks` asks for that many next best endpoints after the picks.
    pub fn schedule<'s>(
        &self,
        cycle: &Cycle<'_>,
        fallbacks: usize,
        scratch: &'s mut Scratch,
        mut observer: Option<&mut (dyn Observer + '_)>,
    ) -> Result<Decision<'s>, ScheduleError> {
        recycle(
            &mut scratch.results,
            &mut scratch.spare,
            self.profiles.len(),
        );
        let mut ran = false;
        loop {
            scratch.next.clear();
            let next = &mut scratch.next;
            self.handler
                .pick(self.profiles.len(), &scratch.results, next);
            if scratch.next.is_empty() {
                break;
            }
            for index in 0..scratch.next.len() {
                let Some(&index) = scratch.next.get(index) else {
                    break;
                };
                let Some(profile) = self.profiles.get(index) else {
                    break;
                };
                ran = true;
                let mut ranking = scratch.spare.pop().unwrap_or_default();
                let scored = &mut ranking.scored;
                let observer = observer.as_deref_mut().map(|o| o as &mut dyn Observer);
                let outcome = profile.rank(cycle, &mut scratch.buffers, scored, observer);
                let outcome = outcome.map(|()| {
                    let all = ranking.scored.len();
                    ranking.picks = profile.picker.max_endpoints().min(all);
                    ranking.ordered = ranking.picks.saturating_add(fallbacks).min(all);
                    let want = ranking.ordered;
                    profile
                        .picker
                        .pick(&mut ranking.scored, want, &mut scratch.rng);
                    ranking
                });
                if let Some(place) = scratch.results.get_mut(index) {
                    *place = Some(outcome);
                }
            }
        }
        if !ran {
            return Err(ScheduleError::NoProfileRan);
        }
        let profile = self.handler.primary(&scratch.results)?;
        match scratch.results.get(profile) {
            Some(Some(Ok(ranking))) => Ok(Decision { profile, ranking }),
            Some(Some(Err(error))) => Err(error.clone()),
            _ => Err(ScheduleError::NoProfileRan),
        }
    }

    /// Whether the choice is the same for the shortest and the longest prompt still possible, and
    /// so (scores are linear in 1 / total, see [`super::UnreadPrompt::Length`]) for every one between.
    pub fn same_choice(
        &self,
        shortest: &Cycle<'_>,
        longest: &Cycle<'_>,
        scratch: &mut Scratch,
    ) -> bool {
        let [low, high] = &mut scratch.bounds;
        self.profiles.iter().all(|profile| {
            let low_outcome = profile.rank(shortest, &mut scratch.buffers, low, None);
            let high_outcome = profile.rank(longest, &mut scratch.buffers, high, None);
            match (low_outcome, high_outcome) {
                (Ok(()), Ok(())) => {
                    let mut scorers = profile.scorers.iter();
                    scorers.all(|weighted| weighted.scorer.moves_evenly(longest, high))
                        && profile.picker.same_choice(low, high)
                }
                (low_outcome, high_outcome) => low_outcome == high_outcome,
            }
        })
    }
}

/// Takes back the rankings of the cycle before, so that their buffers serve again.
fn recycle(
    results: &mut Vec<Option<Result<Ranking, ScheduleError>>>,
    spare: &mut Vec<Ranking>,
    profiles: usize,
) {
    spare.extend(results.drain(..).flatten().flatten());
    results.resize_with(profiles, || None);
}

#[cfg(test)]
#[path = "scheduler_tests.rs"]
mod tests;
