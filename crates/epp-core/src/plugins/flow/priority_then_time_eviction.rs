//! `priority-then-time-eviction-order-policy`: the request of the lowest priority is evicted first, and of one priority the one that was sent last.
//!
//! With `flowControl.enableEviction`, requests in flight are evicted for queued ones of a higher priority. This rule always
//! holds then, whether the plugin is declared or not. It has no parameters.
//!
//! ```yaml
//! - type: priority-then-time-eviction-order-policy
//! ```

use crate::plugins::{
    Build, Capabilities, Capability, Dialect, FormerName, Parity, PluginType,
};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "priority-then-time-eviction-order-policy",
    former_names: &[FormerName {
        name: "eviction-priority-then-time-ordering",
        dialect: Dialect::GieV1,
    }],
    provides: &[Capability::Eviction],
    references: &[],
    build,
    parity: Parity::SAME,
};

fn build(_: &mut Build<'_, '_>) -> Capabilities {
    Capabilities {
        eviction: true,
        ..Capabilities::default()
    }
}
