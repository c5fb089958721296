//! `static-usage-limit-policy`: all bands stop at the same saturation of the pool.
//!
//! The usage limit where the document names none (`usageLimitPolicyPluginRef`).
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `threshold` | 1 | the saturation from which on requests wait |
//!
//! ```yaml
//! - type: static-usage-limit-policy
//!   parameters: {threshold: 0.9}
//! ```

use crate::flow::UsageLimit;
use crate::plugins::{Build, Capabilities, Capability, Parity, PluginType};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "static-usage-limit-policy",
    former_names: &[],
    provides: &[Capability::UsageLimit],
    references: &[],
    build,
    parity: Parity::SAME,
};

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    let any = (f64::MIN, f64::MAX);
    let threshold = build.fields.number("threshold", 1.0, any);
    Capabilities {
        usage_limit: Some(UsageLimit::Static(threshold)),
        ..Capabilities::default()
    }
}
