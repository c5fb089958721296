//! Errors of a scheduling cycle that chose no endpoint.

use std::fmt;

/// The reason why a scheduling cycle picked no endpoint. The texts are the Endpoint Picker's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScheduleError {
    /// The pool has no endpoint that may be picked.
    NoCandidates,
    /// The filters of the primary profile left no endpoint.
    AllFiltered,
    /// The profile handler ran no profile.
    NoProfileRan,
    /// The handler expects one result and got another number.
    ManyResults(usize),
}

impl fmt::Display for ScheduleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCandidates => {
                f.write_str("failed to find endpoint candidates for serving the request")
            }
            Self::AllFiltered => f.write_str("no endpoints available for the given request"),
            Self::NoProfileRan => f.write_str("failed to run any scheduler profile"),
            Self::ManyResults(results) => {
                write!(
                    f,
                    "single profile handler got {results} results, expected one"
                )
            }
        }
    }
}

impl std::error::Error for ScheduleError {}
