//! `always-disagg-pd-decider`: the prompt of every request is computed by an endpoint of the prefill
//! profile.
//!
//! For `deciders.prefill` of `disagg-profile-handler`. No parameters.
//!
//! ```yaml
//! - type: always-disagg-pd-decider
//! - type: disagg-profile-handler
//!   parameters:
//!     deciders: {prefill: always-disagg-pd-decider}
//! schedulingProfiles: [{name: prefill}, {name: decode}]
//! ```

use crate::plugins::{Build, Capabilities, Capability, Parity, PluginType};
use crate::scheduling::{Cycle, Decider, Declined, Slot};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "always-disagg-pd-decider",
    former_names: &[],
    provides: &[Capability::Decider],
    references: &[],
    build,
    parity: Parity::SAME,
};

/// Decides for other endpoints, always.
#[derive(Debug)]
pub struct Always;

fn build(_: &mut Build<'_, '_>) -> Capabilities {
    Capabilities::decider(Always)
}

impl Decider for Always {
    fn decide(&self, _: &Cycle<'_>, _: Option<Slot>) -> Result<(), Declined> {
        Ok(())
    }
}
