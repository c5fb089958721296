//! `global-strict-fairness-policy`: requests of a band go by its ordering, whichever flow they belong to.
//!
//! The fairness policy of bands that name none (`fairnessPolicyRef`): a client that sends much gets much. It has no
//! parameters.
//!
//! ```yaml
//! - type: global-strict-fairness-policy
//! ```

use crate::flow::Fairness;
use crate::plugins::{Build, Capabilities, Capability, Parity, PluginType};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "global-strict-fairness-policy",
    former_names: &[],
    provides: &[Capability::Fairness],
    references: &[],
    build,
    parity: Parity::SAME,
};

fn build(_: &mut Build<'_, '_>) -> Capabilities {
    Capabilities {
        fairness: Some(Fairness::GlobalStrict),
        ..Capabilities::default()
    }
}
