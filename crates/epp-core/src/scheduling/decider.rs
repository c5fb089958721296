//! Deciders: whether endpoints of other profiles do a part of a request for its primary one.

use std::fmt;
use std::sync::Arc;

use super::cycle::Cycle;
use super::endpoint::Slot;
use super::headers::HeaderId;
use super::plugin::{Needs, UnreadPrompt};
use super::{ProfileId, ScheduleError};

/// Decides whether a part of a request is to be done by an endpoint of another profile.
pub trait Decider: Send + Sync {
    /// Returns why the part is left to the primary endpoint, if it is; `primary` is `None` where none was picked yet.
    fn decide(&self, cycle: &Cycle<'_>, primary: Option<Slot>) -> Result<(), Declined>;

    /// Returns whether so much of a request's prompt is missing in the cache of its primary endpoint that the request is
    /// refused if it is to be served from the cache ([`Gate`]).
    fn misses(&self, _: &Cycle<'_>, _: Slot) -> bool {
        false
    }

    /// Returns what it reads. If its decision depends on the unread rest of a prompt, it changes at most once as the
    /// prompt grows.
    fn needs(&self) -> Needs {
        Needs::default()
    }
}

/// Refuses requests that are to be served from the cache, or not at all (`Prefer: if-available`), where the decider says
/// that too much is missing there.
#[derive(Debug, Clone)]
pub struct Gate {
    /// The header with the preferences of a request.
    pub prefer: HeaderId,
    /// The decider.
    pub decider: Arc<dyn Decider>,
}

impl Gate {
    /// Returns whether it refuses a request that would go to this endpoint; one whose prompt could not be read, as
    /// `unread` says.
    pub fn refuses(&self, cycle: &Cycle<'_>, primary: Slot, unread: bool) -> bool {
        self.is_asked(cycle)
            && match is_unread(cycle) {
                true => unread,
                false => self.decider.misses(cycle, primary),
            }
    }

    /// Returns whether it does the same for the shortest and the longest prompt that is still possible, wherever the
    /// request goes.
    pub fn is_settled(&self, shortest: &Cycle<'_>, longest: &Cycle<'_>) -> bool {
        let misses = |cycle, slot| self.decider.misses(cycle, slot);
        let mut slots = shortest.pool.iter().map(|(slot, _)| slot);
        !self.is_asked(shortest)
            || is_unread(shortest) == is_unread(longest)
                && slots.all(|slot| misses(shortest, slot) == misses(longest, slot))
    }

    fn is_asked(&self, cycle: &Cycle<'_>) -> bool {
        let prefer = cycle.request.header(self.prefer);
        prefer.is_some_and(prefers_cached)
    }
}

fn is_unread(cycle: &Cycle<'_>) -> bool {
    cycle.request.cost.prompt <= 0.0
}

/// Returns whether a `Prefer` header has the preference `if-available`, with a value or parameters or without.
fn prefers_cached(value: &[u8]) -> bool {
    let mut preferences = value.split(|byte| *byte == b',');
    preferences.any(|preference| {
        let mut token = preference.split(|byte| matches!(byte, b';' | b'='));
        let token = token.next().unwrap_or_default().trim_ascii();
        token.eq_ignore_ascii_case(b"if-available")
    })
}

/// Returns whether a decider says the same for the shortest and the longest prompt that is still possible, whichever
/// of these is the primary endpoint.
pub fn same_decision(
    decider: &dyn Decider,
    (shortest, longest): (&Cycle<'_>, &Cycle<'_>),
    mut primaries: impl Iterator<Item = Option<Slot>>,
) -> bool {
    let says = |cycle, primary| decider.decide(cycle, primary).is_ok();
    decider.needs().unread == UnreadPrompt::Irrelevant
        || primaries.all(|primary| says(shortest, primary) == says(longest, primary))
}

/// The reason why a part of a request is left to its primary endpoint.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Declined {
    /// No decider is set.
    NoDecider,
    /// The decider's threshold turns it off.
    TurnedOff,
    /// The decider compares with the primary endpoint, and none was picked yet.
    NoPrimary,
    /// The prompt has fewer tokens than it takes.
    Short {
        /// Its tokens.
        tokens: f64,
        /// Tokens that it takes.
        least: u32,
    },
    /// The primary endpoint holds all of the prompt but fewer tokens than it takes.
    Cached {
        /// Tokens that it does not hold.
        missing: f64,
        /// Tokens that it takes.
        least: u32,
    },
    /// The prompts hold no images or other media.
    NoMedia,
}

impl fmt::Display for Declined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDecider => f.write_str("no decider"),
            Self::TurnedOff => f.write_str("turned off"),
            Self::NoPrimary => f.write_str("no primary endpoint yet"),
            Self::Short { tokens, least } => write!(f, "{tokens} tokens of prompt, under {least}"),
            Self::Cached { missing, least } => {
                write!(f, "{missing} tokens not cached, under {least}")
            }
            Self::NoMedia => f.write_str("no media"),
        }
    }
}

/// What becomes of a part of a request that an endpoint of another profile may do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Stage {
    /// There is no profile for it.
    NoProfile,
    /// The primary endpoint does it, for this reason.
    Declined(Declined),
    /// An endpoint of another profile was to do it, and the profile has found none.
    NoEndpoint(ScheduleError),
    /// The picks of this profile do it.
    Picked(ProfileId),
}

impl Stage {
    /// Returns the profile whose picks do it, if any do.
    pub fn picked(self) -> Option<ProfileId> {
        match self {
            Self::Picked(profile) => Some(profile),
            Self::NoProfile | Self::Declined(_) | Self::NoEndpoint(_) => None,
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoProfile => f.write_str("no profile"),
            Self::Declined(reason) => reason.fmt(f),
            Self::NoEndpoint(_) => f.write_str("no endpoint"),
            Self::Picked(_) => f.write_str("picked"),
        }
    }
}

/// The parts of a request that endpoints of other profiles may do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stages {
    /// Computing the prompt, which the first pick does.
    pub prefill: Stage,
    /// Encoding media, which all picks do.
    pub encode: Stage,
}

#[cfg(test)]
mod tests {
    use super::prefers_cached;

    #[test]
    fn a_preference_is_found_among_others_in_any_case() {
        for value in [
            "if-available",
            "respond-async, IF-Available",
            "a,if-available; x=1",
        ] {
            assert!(prefers_cached(value.as_bytes()), "{value}");
        }
        for value in ["", "if-available-soon", "x=if-available", "available"] {
            assert!(!prefers_cached(value.as_bytes()), "{value}");
        }
    }
}
