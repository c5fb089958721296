//! `single-profile-handler`: runs the one profile of the plan, whose picks serve the request.
//!
//! Added by itself where a document has one profile and no profile handler. No parameters.
//!
//! ```yaml
//! - type: single-profile-handler
//! ```

use crate::plugins::{Build, Capabilities, Capability, Parity, PluginType};
use crate::scheduling::{
    Conclusion, Cycle, Left, ProfileHandler, ProfileSet, Profiles, Results, ScheduleError,
};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "single-profile-handler",
    former_names: &[],
    provides: &[Capability::ProfileHandler],
    references: &[],
    build,
    parity: Parity::SAME,
};

fn build(_: &mut Build<'_, '_>) -> Capabilities {
    Capabilities::profile_handler(SingleProfileHandler)
}

#[derive(Debug)]
struct SingleProfileHandler;

impl ProfileHandler for SingleProfileHandler {
    fn check(&self, profiles: Profiles<'_>) -> Result<(), String> {
        only_one(TYPE.name, profiles)
    }

    fn next(&self, _: &Cycle<'_>, profiles: Profiles<'_>, _: &Results, run: &mut ProfileSet) {
        profiles.ids().for_each(|profile| run.insert(profile));
    }

    fn conclude(
        &self,
        _: &Cycle<'_>,
        profiles: Profiles<'_>,
        _: &Results,
    ) -> Result<Conclusion, ScheduleError> {
        conclude_one(profiles)
    }

    fn settled(
        &self,
        _: &Cycle<'_>,
        _: &Cycle<'_>,
        _: Profiles<'_>,
        _: &mut Left<'_>,
    ) -> bool {
        true
    }
}

/// Returns an error unless there is one profile, as a handler of this type requires.
pub fn only_one(kind: &str, profiles: Profiles<'_>) -> Result<(), String> {
    match profiles.len() {
        1 => Ok(()),
        found => Err(format!(
            "found {found} profiles, expected one: {kind} supports exactly one"
        )),
    }
}

/// Returns the conclusion that the picks of the only profile serve the request.
pub fn conclude_one(profiles: Profiles<'_>) -> Result<Conclusion, ScheduleError> {
    let mut ids = profiles.ids();
    match (ids.next(), ids.next()) {
        (Some(only), None) => Ok(Conclusion::of(only)),
        _ => Err(ScheduleError::ManyResults(profiles.len())),
    }
}
