//! `fcfs-ordering-policy`: of a flow's requests, the one that came first goes first.
//!
//! The ordering of bands that name none (`orderingPolicyRef`). It has no parameters.
//!
//! ```yaml
//! - type: fcfs-ordering-policy
//! ```

use crate::flow::Ordering;
use crate::plugins::{Build, Capabilities, Capability, Parity, PluginType};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "fcfs-ordering-policy",
    former_names: &[],
    provides: &[Capability::Ordering],
    references: &[],
    build,
    parity: Parity::SAME,
};

fn build(_: &mut Build<'_, '_>) -> Capabilities {
    Capabilities {
        ordering: Some(Ordering::Fcfs),
        ..Capabilities::default()
    }
}
