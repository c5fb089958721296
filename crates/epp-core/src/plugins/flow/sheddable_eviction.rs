//! `sheddable-eviction-filter`: only requests of priorities below 0 are evicted.
//!
//! With `flowControl.enableEviction`, requests in flight are evicted for queued ones of a higher priority. This rule always
//! holds then, whether the plugin is declared or not. It has no parameters.
//!
//! ```yaml
//! - type: sheddable-eviction-filter
//! ```

use crate::plugins::{
    Build, Capabilities, Capability, Dialect, FormerName, Parity, PluginType,
};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "sheddable-eviction-filter",
    former_names: &[FormerName {
        name: "eviction-sheddable-filter",
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
