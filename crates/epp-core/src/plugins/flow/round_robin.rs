//! `round-robin-fairness-policy`: the flows of a band take turns, one request each.
//!
//! A flow is the requests with one fairness id. Flows take turns in the order of their ids; those without a request that
//! waits are passed over. A band names it as its `fairnessPolicyRef`. It has no parameters.
//!
//! ```yaml
//! - type: round-robin-fairness-policy
//! ```

use crate::flow::Fairness;
use crate::plugins::{Build, Capabilities, Capability, Parity, PluginType};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "round-robin-fairness-policy",
    former_names: &[],
    provides: &[Capability::Fairness],
    references: &[],
    build,
    parity: Parity::SAME,
};

fn build(_: &mut Build<'_, '_>) -> Capabilities {
    Capabilities {
        fairness: Some(Fairness::RoundRobin),
        ..Capabilities::default()
    }
}
