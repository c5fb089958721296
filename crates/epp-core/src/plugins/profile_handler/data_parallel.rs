//! `data-parallel-profile-handler`: runs the one profile of the plan, and sends requests to one port for all
//! data-parallel ranks at an IP address.
//!
//! Each rank is an endpoint of its own, with its port. The request is sent to `primaryPort` of the picked
//! rank's IP address, and `x-data-parallel-host-port` names the rank itself to what listens there. A
//! client's own header of this name is removed. The profile's picks are named without further retry targets: the header
//! fits the first of them.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `primaryPort` | 8000 | the port that requests are sent to, 0 to 65535 |
//!
//! ```yaml
//! - type: data-parallel-profile-handler
//!   parameters: {primaryPort: 8000}
//! ```

use super::single::{conclude_one, only_one};
use crate::plugins::{Build, Capabilities, Capability, Parity, PluginType};
use crate::scheduling::{
    Conclusion, Cycle, Left, ProfileHandler, ProfileSet, Profiles, Results, ScheduleError,
};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "data-parallel-profile-handler",
    former_names: &[],
    provides: &[Capability::ProfileHandler],
    references: &[],
    build,
    parity: Parity::SAME,
};

#[derive(Debug)]
struct DataParallelProfileHandler {
    port: u16,
}

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    let port = build.fields.whole("primaryPort", 8000, (0, 65_535)) as u16;
    Capabilities::profile_handler(DataParallelProfileHandler { port })
}

impl ProfileHandler for DataParallelProfileHandler {
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
        Ok(Conclusion {
            port: Some(self.port),
            ..conclude_one(profiles)?
        })
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

#[cfg(test)]
mod tests {
    use crate::testing::refused;

    #[test]
    fn a_port_is_a_number_up_to_65535() {
        let document = |port: &str| {
            format!(
                "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n\
                 - type: data-parallel-profile-handler\n  parameters: {{primaryPort: {port}}}\n"
            )
        };
        for port in ["0", "1", "8000", "9000", "65535"] {
            assert!(crate::config::load(&document(port)).is_ok(), "{port}");
        }
        for port in ["-1", "65536", "'8000'", "true"] {
            let error = refused(
                "data-parallel-profile-handler",
                &format!("{{primaryPort: {port}}}"),
            );
            assert!(error.contains("primaryPort"), "{error}");
        }
    }
}
