//! `single-profile-handler`: runs the one profile of the plan, whose picks serve the request.
//!
//! Added by itself where a document has one profile and no profile handler. No parameters.
//!
//! ```yaml
//! - type: single-profile-handler
//! ```

use std::sync::Arc;

use crate::plugins::role::{Build, Parity, PluginType, Role};
use crate::scheduling::scheduler::ProfileResults;
use crate::scheduling::{ProfileHandler, ScheduleError};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "single-profile-handler",
    build,
    parity: Parity::SAME,
};

fn build(_: &mut Build<'_, '_>) -> Role {
    Role::ProfileHandler(Arc::new(SingleProfileHandler))
}

#[derive(Debug)]
struct SingleProfileHandler;

impl ProfileHandler for SingleProfileHandler {
    fn pick(&self, profiles: usize, results: &ProfileResults, next: &mut Vec<usize>) {
        let not_run = |index: &usize| !matches!(results.get(*index), Some(Some(_)));
        next.extend((0..profiles).filter(not_run));
    }

    fn primary(&self, results: &ProfileResults) -> Result<usize, ScheduleError> {
        match results {
            [_] => Ok(0),
            _ => Err(ScheduleError::ManyResults(results.len())),
        }
    }
}
