//! Discovery through the proxy's admin interface: what it has found, and what is wrong with it.

use std::time::Duration;

use super::fetch_error::FetchError;
use super::store::Member;
use crate::time::Instant;

/// The interval of surveys while one is wanted: the page is longer than the pool's own, and nothing changes but what
/// an operator is told.
const SURVEY_INTERVAL: Duration = Duration::from_secs(60);

/// The members of the pool's clusters, as the admin interface lists them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// The members.
    pub members: Vec<Member>,
    /// The clusters that the interface does not have: a bit for each, by its place in the document.
    pub missing: u32,
}

/// What the admin interface has instead of a cluster that it does not list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Survey {
    /// The interface is this proxy's own. Some clusters have names that are similar to the missing one.
    Own(Vec<String>),
    /// The interface is another proxy's: it lists clusters, but not the one through which it was reached.
    Foreign,
    /// It is no admin interface.
    None,
}

/// What discovery found last.
#[derive(Debug, Default)]
pub struct DiscoveryState {
    /// The clusters that were missing on the last page, or why there was none; `None` before the first response.
    last: Option<Result<u32, FetchError>>,
    /// Whether the last two responses were none: a single one may be lost.
    fails: bool,
    survey: Option<Survey>,
    /// When the last survey was requested.
    surveyed: Option<Instant>,
}

impl DiscoveryState {
    /// A response has come, or none in time.
    pub fn record(&mut self, result: Result<u32, FetchError>) {
        let fails = result.is_err() && self.last.is_some_and(|last| last.is_err());
        if self.last.is_some_and(|last| last != result) {
            // What is missing now may have another cause.
            *self = Self::default();
        }
        (self.last, self.fails) = (Some(result), fails);
    }

    /// A survey has ended; a failed one says nothing.
    pub fn record_survey(&mut self, survey: Option<Survey>) {
        self.survey = survey;
    }

    /// Returns which clusters were missing on the last page, or why there were no pages twice in a row.
    pub fn lasting(&self) -> Option<Result<u32, FetchError>> {
        self.last.filter(|last| last.is_ok() || self.fails)
    }

    /// Returns the result of the last survey.
    pub fn survey(&self) -> Option<&Survey> {
        self.survey.as_ref()
    }

    /// Returns the number of the cluster for which a survey is due now, true only once per interval: the first one that
    /// is missing.
    pub fn take_survey_due(&mut self, now: Instant) -> Option<usize> {
        let missing = match self.last? {
            Ok(0) => return None,
            Ok(missing) => missing.trailing_zeros() as usize,
            Err(FetchError::NotListed) => 0,
            Err(_) => return None,
        };
        let waits = |at| now.since(at) < SURVEY_INTERVAL;
        if self.surveyed.is_some_and(waits) {
            return None;
        }
        self.surveyed = Some(now);
        Some(missing)
    }
}
