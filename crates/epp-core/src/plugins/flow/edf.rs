//! `edf-ordering-policy`: of a flow's requests, the one goes first whose time to wait ends first.
//!
//! That time is the band's or the client's limit, whichever is shorter; requests without a limit go last, in the order in
//! which they came. A band names it as its `orderingPolicyRef`. It has no parameters.
//!
//! ```yaml
//! - type: edf-ordering-policy
//! ```

use crate::flow::Ordering;
use crate::plugins::{Build, Capabilities, Capability, Parity, PluginType};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "edf-ordering-policy",
    former_names: &[],
    provides: &[Capability::Ordering],
    references: &[],
    build,
    parity: Parity::SAME,
};

fn build(_: &mut Build<'_, '_>) -> Capabilities {
    Capabilities {
        ordering: Some(Ordering::Edf),
        ..Capabilities::default()
    }
}
