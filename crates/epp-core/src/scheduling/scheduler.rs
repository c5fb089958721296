//! The scheduler: the profile handler names profiles, they run, and it concludes whose picks serve the request.

use std::sync::Arc;

use super::cycle::{Cycle, Scored};
use super::endpoint::Slot;
use super::handler::{
    ByRole, Conclusion, Left, ProfileHandler, ProfileId, ProfileSet, Profiles, Results,
};
use super::plugin::{Chance, Needs, UnreadPrompt};
use super::profile::{Observer, Profile, Ranking, RunBuffers};
use super::ScheduleError;

/// Endpoints chosen for a request.
#[derive(Debug, Clone, Copy)]
pub struct Decision<'a> {
    /// The profile whose picks the request is sent to.
    pub profile: ProfileId,
    /// The first pick, to which the request is sent.
    pub primary: Slot,
    /// Its ranking.
    pub ranking: &'a Ranking,
    /// How the profile handler concluded.
    pub conclusion: Conclusion,
    /// The ranking whose first pick computes the prompt, if another endpoint does.
    pub prefill: Option<&'a Ranking>,
    /// The ranking whose picks encode media, if other endpoints do.
    pub encode: Option<&'a Ranking>,
    profiles: Profiles<'a>,
    results: &'a Results,
}

impl<'a> Decision<'a> {
    fn new(
        conclusion: Conclusion,
        profiles: Profiles<'a>,
        results: &'a Results,
    ) -> Result<Self, ScheduleError> {
        let ranking = |profile: ProfileId| match results.get(profile) {
            Some(Ok(ranking)) => Ok(ranking),
            Some(Err(error)) => Err(*error),
            None => Err(ScheduleError::NoProfileRan),
        };
        let picks = ranking(conclusion.primary)?;
        let primary = picks.picks().next().ok_or(ScheduleError::AllFiltered)?;
        let stages = conclusion.stages;
        let prefill = stages.and_then(|stages| stages.prefill.picked());
        let encode = stages.and_then(|stages| stages.encode.picked());
        Ok(Self {
            profile: conclusion.primary,
            primary,
            ranking: picks,
            conclusion,
            prefill: prefill.map(ranking).transpose()?,
            encode: encode.map(ranking).transpose()?,
            profiles,
            results,
        })
    }

    /// Returns the ranking of the profile of this name, or of the primary one where the name is empty; `None` if that
    /// profile has not run or has found no endpoint.
    pub fn ranking_of(&self, profile: &str) -> Option<&'a Ranking> {
        if profile.is_empty() {
            return Some(self.ranking);
        }
        self.results
            .get(self.profiles.find(profile)?)?
            .as_ref()
            .ok()
    }

    /// Returns what the last profile found that ran with this scorer; `None` if it has scored no endpoint.
    pub fn scored_by(&self, scorer: &str) -> Option<&'a Ranking> {
        let ran = self.results.ran().iter().rev();
        let mut rankings = ran.filter_map(|id| {
            let mut scorers = self.profiles.get(*id)?.scorers.iter();
            scorers.find(|own| own.name == scorer)?;
            self.results.get(*id)?.as_ref().ok()
        });
        rankings.next()
    }

    /// Returns the picks, best first: what the Endpoint Picker's destination header would name.
    pub fn picks(&self) -> impl Iterator<Item = Slot> + 'a {
        self.ranking.picks()
    }

    /// Returns the picks and then the next best endpoints, as retry targets.
    pub fn targets(&self) -> impl Iterator<Item = Slot> + 'a {
        self.ranking.targets()
    }

    /// Returns the endpoints that serve the request: the first pick, the endpoint that computes the prompt, and
    /// those that encode media.
    pub fn by_role(&self) -> ByRole<Slot> {
        let encode = self.encode.into_iter().flat_map(Ranking::picks);
        ByRole {
            primary: self.primary,
            prefill: self.prefill.and_then(|ranking| ranking.picks().next()),
            encode: encode.collect(),
        }
    }
}

/// Buffers, caches and randomness of the scheduler, kept from request to request.
#[derive(Debug)]
pub struct Scratch {
    pub(super) buffers: RunBuffers,
    results: Results,
    spare: Vec<Ranking>,
    next: ProfileSet,
    bounds: [Vec<Scored>; 2],
    chance: Chance,
}

impl Scratch {
    /// Returns the randomness that decisions draw from.
    pub fn rng(&mut self) -> &mut fastrand::Rng {
        &mut self.chance.rng
    }

    /// Returns empty buffers; ties and random pickers draw from `rng`.
    pub fn new(rng: fastrand::Rng) -> Self {
        Self {
            buffers: RunBuffers::default(),
            results: Results::default(),
            spare: Vec::new(),
            next: ProfileSet::default(),
            bounds: [Vec::new(), Vec::new()],
            chance: Chance::new(rng),
        }
    }
}

/// The compiled scheduling part of a plan.
#[derive(Debug, Clone)]
pub struct Scheduler {
    profiles: Vec<Profile>,
    handler: Arc<dyn ProfileHandler>,
    /// Whether the choice of a profile may depend both on another profile's pick, which is not known before they run,
    /// and on the unread rest of a prompt.
    follows_peer: bool,
}

impl Scheduler {
    /// Returns a scheduler of these profiles.
    pub fn new(profiles: Vec<Profile>, handler: Arc<dyn ProfileHandler>) -> Self {
        let mut needs = profiles.iter().map(Profile::needs);
        let follows = |needs: Needs| needs.peer && needs.unread != UnreadPrompt::Irrelevant;
        Self {
            follows_peer: needs.any(follows),
            profiles,
            handler,
        }
    }

    /// Returns the profiles, in the document's order.
    pub fn profiles(&self) -> Profiles<'_> {
        Profiles(&self.profiles)
    }

    /// Returns the profiles, to change their plugins: for tools that decide again what was decided before.
    pub fn profiles_mut(&mut self) -> &mut [Profile] {
        &mut self.profiles
    }

    /// Returns what all profiles and their handler read, together.
    pub fn needs(&self) -> Needs {
        let needs = self.profiles.iter().map(Profile::needs);
        needs.fold(self.handler.needs(), Needs::union)
    }

    /// Returns whether the profile handler names the other endpoints to the primary one.
    pub fn names_helpers(&self) -> bool {
        self.handler.names_helpers()
    }

    /// Runs one cycle. `fallbacks` is the number of next best endpoints to add after the picks.
    pub fn schedule<'s>(
        &'s self,
        cycle: &Cycle<'_>,
        fallbacks: usize,
        scratch: &'s mut Scratch,
        mut observer: Option<&mut (dyn Observer + '_)>,
    ) -> Result<Decision<'s>, ScheduleError> {
        let profiles = self.profiles();
        scratch.chance.turn = scratch.chance.turn.wrapping_add(1);
        scratch.results.reset(profiles.len(), &mut scratch.spare);
        loop {
            scratch.next.clear();
            self.handler
                .next(cycle, profiles, &scratch.results, &mut scratch.next);
            let mut ran = false;
            for position in 0.. {
                let Some((id, peer)) = scratch.next.get(position) else {
                    break;
                };
                // A handler that names a profile again would never end.
                let Some(profile) = self
                    .profiles
                    .get(id.0)
                    .filter(|_| scratch.results.get(id).is_none())
                else {
                    continue;
                };
                ran = true;
                let observer = observer.as_deref_mut().map(|observer| observer as _);
                let cycle = Cycle { peer, ..*cycle };
                run(id, profile, &cycle, fallbacks, scratch, observer);
            }
            if !ran {
                break;
            }
        }
        if !scratch.results.any() {
            return Err(ScheduleError::NoProfileRan);
        }
        let conclusion = self.handler.conclude(cycle, profiles, &scratch.results)?;
        Decision::new(conclusion, profiles, &scratch.results)
    }

    /// Returns whether the choice is the same for the shortest and the longest prompt still possible,
    /// and so (scores are linear in 1 / total, see [`super::UnreadPrompt::Length`]) for every one
    /// between.
    pub fn same_choice(
        &self,
        shortest: &Cycle<'_>,
        longest: &Cycle<'_>,
        scratch: &mut Scratch,
    ) -> bool {
        let Scratch {
            buffers, bounds, ..
        } = scratch;
        let mut profiles = self.profiles.iter();
        let mut left = Left {
            profiles: self.profiles(),
            cycle: shortest,
            candidates: &mut buffers.candidates,
        };
        !self.follows_peer
            && self
                .handler
                .settled(shortest, longest, self.profiles(), &mut left)
            && profiles.all(|profile| profile.same_choice(shortest, longest, buffers, bounds))
    }
}

/// Runs one profile and records its result.
fn run(
    id: ProfileId,
    profile: &Profile,
    cycle: &Cycle<'_>,
    fallbacks: usize,
    scratch: &mut Scratch,
    mut observer: Option<&mut (dyn Observer + '_)>,
) {
    if let Some(observer) = observer.as_deref_mut() {
        observer.began(id);
    }
    let mut ranking = scratch.spare.pop().unwrap_or_default();
    let scored = &mut ranking.scored;
    let outcome = profile.rank(cycle, &mut scratch.buffers, scored, observer);
    let outcome = outcome.map(|()| {
        let all = ranking.scored.len();
        ranking.picks = profile.picker.max_endpoints().min(all);
        ranking.ordered = ranking.picks.saturating_add(fallbacks).min(all);
        let want = ranking.ordered;
        profile
            .picker
            .pick(&mut ranking.scored, want, &mut scratch.chance);
        ranking
    });
    scratch.results.set(id, outcome);
}

#[cfg(test)]
#[path = "scheduler_tests.rs"]
mod tests;
