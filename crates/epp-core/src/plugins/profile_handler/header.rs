//! `header-profile-handler`: a request header names the profile that runs.
//!
//! Without the header, or with a blank one, the default profile runs. Where the document has one profile
//! only, that one always runs. A request whose header names no profile fails with 429, as does each
//! one without the header if there is no default profile, and one whose header names a profile that leaves no endpoint:
//! in every failure mode, so that no header makes the filters void.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `headerName` | `EPP-Profile` | the header; with the former type name `EPP-Phase` |
//! | `defaultProfile` | `decode` | the profile of requests without it |
//!
//! ```yaml
//! - type: header-profile-handler
//!   parameters: {headerName: EPP-Profile, defaultProfile: decode}
//! ```

use crate::plugins::{Build, Capabilities, Capability, Dialect, FormerName, Parity, PluginType};
use crate::scheduling::{
    Conclusion, Cycle, HeaderId, Left, ProfileHandler, ProfileId, ProfileSet, Profiles, Results,
    ScheduleError,
};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "header-profile-handler",
    former_names: &[FormerName {
        name: FORMER_NAME,
        dialect: Dialect::LlmD,
    }],
    provides: &[Capability::ProfileHandler],
    references: &[],
    build,
    parity: Parity::SAME,
};

const FORMER_NAME: &str = "header-phase-profile-handler";

#[derive(Debug)]
struct HeaderProfileHandler {
    header: HeaderId,
    default: String,
}

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    let default_header = match build.kind {
        FORMER_NAME => "EPP-Phase",
        _ => "EPP-Profile",
    };
    let mut text = |name, default: &str| {
        let given = build.fields.string(name, default);
        match given.trim() {
            "" => default.to_owned(),
            given => given.to_owned(),
        }
    };
    let header = text("headerName", default_header);
    let default = text("defaultProfile", super::disagg::DECODE);
    let header = build.header("headerName", &header);
    Capabilities::profile_handler(HeaderProfileHandler { header, default })
}

impl HeaderProfileHandler {
    fn value<'c>(&self, cycle: &'c Cycle<'_>) -> &'c [u8] {
        let value = cycle.request.header(self.header);
        value.unwrap_or_default().trim_ascii()
    }

    fn named(&self, cycle: &Cycle<'_>, profiles: Profiles<'_>) -> Option<ProfileId> {
        if profiles.len() == 1 {
            return profiles.ids().next();
        }
        match self.value(cycle) {
            [] => profiles.find(&self.default),
            name => profiles.find(std::str::from_utf8(name).ok()?),
        }
    }
}

impl ProfileHandler for HeaderProfileHandler {
    fn check(&self, _: Profiles<'_>) -> Result<(), String> {
        Ok(())
    }

    fn next(&self, cycle: &Cycle<'_>, profiles: Profiles<'_>, _: &Results, run: &mut ProfileSet) {
        if let Some(profile) = self.named(cycle, profiles) {
            run.insert(profile);
        }
    }

    fn conclude(
        &self,
        cycle: &Cycle<'_>,
        profiles: Profiles<'_>,
        results: &Results,
    ) -> Result<Conclusion, ScheduleError> {
        let profile = self.named(cycle, profiles);
        let profile = profile.ok_or(ScheduleError::NoProfileRan)?;
        match results.get(profile) {
            Some(Err(ScheduleError::AllFiltered | ScheduleError::NoneMatches))
                if profiles.len() > 1 && !self.value(cycle).is_empty() =>
            {
                Err(ScheduleError::NoneChosen)
            }
            _ => Ok(Conclusion::of(profile)),
        }
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
