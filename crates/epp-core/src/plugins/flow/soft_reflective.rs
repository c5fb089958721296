//! `soft-reflective-ceiling-policy`: the fuller the pool is, the earlier lower bands yield, and the rarer are their turns.
//!
//! The band of rank i of N, from 0 for the highest, yields from a saturation of 1 − i × saturation ÷ (N − 1) on. Bands
//! that yield have one turn in saturation ÷ (1 − saturation) opportunities, of which there is one each millisecond and
//! one with each event that may have made room. In a full pool no band has turns. The document names it as its
//! `usageLimitPolicyPluginRef`. It has no parameters.
//!
//! ```yaml
//! - type: soft-reflective-ceiling-policy
//! ```

use crate::flow::UsageLimit;
use crate::plugins::{Build, Capabilities, Capability, Parity, PluginType};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "soft-reflective-ceiling-policy",
    former_names: &[],
    provides: &[Capability::UsageLimit],
    references: &[],
    build,
    parity: Parity::SAME,
};

fn build(_: &mut Build<'_, '_>) -> Capabilities {
    Capabilities {
        usage_limit: Some(UsageLimit::SoftReflective),
        ..Capabilities::default()
    }
}
