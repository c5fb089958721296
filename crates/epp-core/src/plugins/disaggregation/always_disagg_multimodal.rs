//! `always-disagg-multimodal-decider`: images, videos and sounds of a prompt are encoded by endpoints of
//! the encode profile.
//!
//! For `deciders.encode` of `disagg-profile-handler`: it says yes if a prompt holds any such media. Media
//! beyond the prompt window (131072 tokens by default) are not seen. No parameters.
//!
//! ```yaml
//! - type: always-disagg-multimodal-decider
//! - type: disagg-profile-handler
//!   parameters:
//!     deciders: {encode: always-disagg-multimodal-decider}
//! schedulingProfiles: [{name: encode}, {name: decode}]
//! ```

use crate::plugins::{Build, Capabilities, Capability, Parity, PluginType, Standing};
use crate::scheduling::{Cycle, Decider, Declined, Needs, Slot, UnreadPrompt};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "always-disagg-multimodal-decider",
    former_names: &[],
    provides: &[Capability::Decider],
    references: &[],
    build,
    parity: Parity::of(Standing::Differs(
        "media beyond the prompt window are not seen",
    )),
};

#[derive(Debug)]
struct AlwaysDisaggMultimodalDecider;

fn build(_: &mut Build<'_, '_>) -> Capabilities {
    Capabilities::decider(AlwaysDisaggMultimodalDecider)
}

impl Decider for AlwaysDisaggMultimodalDecider {
    fn decide(&self, cycle: &Cycle<'_>, _: Option<Slot>) -> Result<(), Declined> {
        match cycle.request.media {
            true => Ok(()),
            false => Err(Declined::NoMedia),
        }
    }

    fn needs(&self) -> Needs {
        Needs {
            prompt: true,
            media: true,
            unread: UnreadPrompt::Length,
            ..Needs::default()
        }
    }
}
