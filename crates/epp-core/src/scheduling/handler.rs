//! Profile handlers: which profiles run for a request, and what their results mean for it.

use super::candidates::Candidates;
use super::cycle::Cycle;
use super::decider::Stages;
use super::endpoint::Slot;
use super::plugin::Needs;
use super::profile::{Profile, Ranking};
use super::ScheduleError;

/// A profile of the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProfileId(pub usize);

/// The plan's profiles, in the document's order.
#[derive(Debug, Clone, Copy)]
pub struct Profiles<'a>(pub(super) &'a [Profile]);

impl<'a> Profiles<'a> {
    /// Returns how many profiles there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there are no profiles.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns all profiles.
    pub fn ids(&self) -> impl Iterator<Item = ProfileId> {
        (0..self.0.len()).map(ProfileId)
    }

    /// Returns the profile of this name.
    pub fn find(&self, name: &str) -> Option<ProfileId> {
        let position = self.0.iter().position(|profile| profile.name == name);
        position.map(ProfileId)
    }

    /// Returns a profile.
    pub fn get(&self, profile: ProfileId) -> Option<&'a Profile> {
        self.0.get(profile.0)
    }
}

/// The results of the profiles that ran.
#[derive(Debug, Default)]
pub struct Results {
    by_profile: Vec<Option<Result<Ranking, ScheduleError>>>,
    /// The profiles that ran, in turn.
    ran: Vec<ProfileId>,
}

impl Results {
    /// Returns what a profile found; `None` for one that has not run.
    pub fn get(&self, profile: ProfileId) -> Option<&Result<Ranking, ScheduleError>> {
        self.by_profile.get(profile.0)?.as_ref()
    }

    /// Returns the best endpoint that a profile has found.
    pub fn first(&self, profile: ProfileId) -> Option<Slot> {
        let ranking = self.get(profile)?.as_ref().ok()?;
        ranking.picks().next()
    }

    /// Returns whether any profile has run.
    pub fn any(&self) -> bool {
        !self.ran.is_empty()
    }

    /// Returns the profiles that have run, in turn.
    pub fn ran(&self) -> &[ProfileId] {
        &self.ran
    }

    /// Empties it for this many profiles. The rankings' buffers go to `spare`, to be used again.
    pub(super) fn reset(&mut self, profiles: usize, spare: &mut Vec<Ranking>) {
        spare.extend(self.by_profile.drain(..).flatten().flatten());
        self.by_profile.resize_with(profiles, || None);
        self.ran.clear();
    }

    pub(super) fn set(&mut self, profile: ProfileId, result: Result<Ranking, ScheduleError>) {
        if let Some(entry) = self.by_profile.get_mut(profile.0) {
            *entry = Some(result);
            self.ran.push(profile);
        }
    }
}

/// Profiles to run next, each once and in the order in which they were added.
#[derive(Debug, Default)]
pub struct ProfileSet(Vec<(ProfileId, Option<Slot>)>);

impl ProfileSet {
    /// Adds a profile.
    pub fn insert(&mut self, profile: ProfileId) {
        self.insert_beside(profile, None);
    }

    /// Adds a profile whose plugins are to see the endpoint that another one has picked
    /// ([`Cycle::peer`]).
    pub fn insert_beside(&mut self, profile: ProfileId, peer: Option<Slot>) {
        if self.0.iter().all(|(added, _)| *added != profile) {
            self.0.push((profile, peer));
        }
    }

    /// Returns whether no profile is to run.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn get(&self, position: usize) -> Option<(ProfileId, Option<Slot>)> {
        self.0.get(position).copied()
    }
}

/// The endpoints that the filters of each profile leave for the shortest prompt that is still possible.
#[derive(Debug)]
pub struct Left<'a> {
    pub(super) profiles: Profiles<'a>,
    pub(super) cycle: &'a Cycle<'a>,
    pub(super) candidates: &'a mut Candidates,
}

impl Left<'_> {
    /// Returns those of one profile.
    pub fn by(&mut self, profile: ProfileId) -> &[Slot] {
        let left = self.profiles.get(profile).map(|profile| {
            let left = self.candidates.of(&profile.filters, self.cycle, None);
            left.map_or(&[][..], |left| left.slots)
        });
        left.unwrap_or_default()
    }
}

/// The endpoints that serve a request, or what is kept of each, by their part in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByRole<T> {
    /// The request is sent to it.
    pub primary: T,
    /// It computes the prompt's KV cache for the primary one, if that is another endpoint's part.
    pub prefill: Option<T>,
    /// They encode images and other media of the prompt.
    pub encode: Vec<T>,
}

impl<T> IntoIterator for ByRole<T> {
    type Item = T;
    type IntoIter = std::iter::Chain<
        std::iter::Chain<std::iter::Once<T>, std::option::IntoIter<T>>,
        std::vec::IntoIter<T>,
    >;

    fn into_iter(self) -> Self::IntoIter {
        std::iter::once(self.primary)
            .chain(self.prefill)
            .chain(self.encode)
    }
}

impl<T> ByRole<T> {
    /// Returns the primary one alone.
    pub fn primary(primary: T) -> Self {
        Self {
            primary,
            prefill: None,
            encode: Vec::new(),
        }
    }

    /// Returns what this makes of each.
    pub fn map<U>(self, mut make: impl FnMut(T) -> U) -> ByRole<U> {
        ByRole {
            primary: make(self.primary),
            prefill: self.prefill.map(&mut make),
            encode: self.encode.into_iter().map(make).collect(),
        }
    }

    /// Returns all of them, the primary one first, to change.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        std::iter::once(&mut self.primary)
            .chain(&mut self.prefill)
            .chain(&mut self.encode)
    }

    /// Removes all but the primary one, and returns them.
    pub fn take_helpers(&mut self) -> impl Iterator<Item = T> {
        let encode = std::mem::take(&mut self.encode);
        self.prefill.take().into_iter().chain(encode)
    }
}

/// The profiles whose picks serve a request, with their roles.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Conclusion {
    /// The profile whose picks the request is sent to.
    pub primary: ProfileId,
    /// What endpoints of other profiles do; `None` for a handler that knows no such parts.
    pub stages: Option<Stages>,
    /// The port that the request is sent to instead of its targets' own. Their own addresses are then named in a
    /// header: one process at that port leads to several endpoints at one IP address.
    pub port: Option<u16>,
    /// The error of a part of the request that another endpoint was to do, and that none can.
    pub missing: Option<ScheduleError>,
}

impl Conclusion {
    /// Returns the conclusion that one profile's picks serve the whole request.
    pub fn of(primary: ProfileId) -> Self {
        Self {
            primary,
            stages: None,
            port: None,
            missing: None,
        }
    }
}

/// Decides which profiles run, and what their results mean.
pub trait ProfileHandler: Send + Sync {
    /// Checks the plan's profiles when a configuration is loaded. An error says what was found and
    /// what was expected.
    fn check(&self, profiles: Profiles<'_>) -> Result<(), String>;

    /// Adds to `run` the profiles to run next; the cycle ends when it adds none that has not run.
    fn next(&self, cycle: &Cycle<'_>, profiles: Profiles<'_>, done: &Results, run: &mut ProfileSet);

    /// Returns whose picks serve the request, once all profiles have run.
    fn conclude(
        &self,
        cycle: &Cycle<'_>,
        profiles: Profiles<'_>,
        done: &Results,
    ) -> Result<Conclusion, ScheduleError>;

    /// Returns whether [`Self::next`] and [`Self::conclude`] do the same for the shortest and the
    /// longest prompt that is still possible and all between, given that each profile picks the
    /// same for all of them, one of `left`. A request is not sent to an endpoint before its prompt has ended
    /// unless this is so.
    fn settled(
        &self,
        shortest: &Cycle<'_>,
        longest: &Cycle<'_>,
        profiles: Profiles<'_>,
        left: &mut Left<'_>,
    ) -> bool;

    /// Returns what it reads of requests, beside what the plugins of the profiles read.
    fn needs(&self) -> Needs {
        Needs::default()
    }

    /// Returns whether it tells the primary endpoint itself which other ones serve the request. Otherwise another
    /// plugin of the document does, or none.
    fn names_helpers(&self) -> bool {
        true
    }
}
