//! Errors of a scheduling cycle that chose no endpoint.

use std::fmt;

use crate::flow::Dropped;

/// The reason why a scheduling cycle picked no endpoint. The texts are the Endpoint Picker's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScheduleError {
    /// The pool has no endpoint that may be picked.
    NoCandidates,
    /// The filters of the primary profile left no endpoint.
    AllFiltered,
    /// No endpoint has the labels that a filter of the primary profile looks for.
    NoneMatches,
    /// The profile that the request's own header names left no endpoint.
    NoneChosen,
    /// The profile handler ran no profile, since the request's own header names none.
    NoProfileRan,
    /// The handler expects one result and got another number.
    ManyResults(usize),
    /// No endpoint was found that generates the response.
    NoDecodeEndpoint,
    /// Another endpoint was to compute the prompt, and none was found.
    NoPrefillEndpoint,
    /// The request may only be served from the cache (`Prefer: if-available`), which does not hold its prompt.
    NotCached,
    /// It is dropped, wherever it could be sent.
    Dropped(Dropped),
}

impl fmt::Display for ScheduleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCandidates => {
                f.write_str("failed to find endpoint candidates for serving the request")
            }
            Self::AllFiltered | Self::NoneMatches | Self::NoneChosen => {
                f.write_str("no endpoints available for the given request")
            }
            Self::NoProfileRan => f.write_str("failed to run any scheduler profile"),
            Self::ManyResults(results) => {
                write!(
                    f,
                    "single profile handler got {results} results, expected one"
                )
            }
            Self::NoDecodeEndpoint => f.write_str("failed to find available decode workers"),
            Self::NoPrefillEndpoint => {
                f.write_str("prefill profile was required but produced no result")
            }
            Self::NotCached => f.write_str("no decode worker has the requested KV cache"),
            Self::Dropped(dropped) => dropped.fmt(f),
        }
    }
}

impl std::error::Error for ScheduleError {}
