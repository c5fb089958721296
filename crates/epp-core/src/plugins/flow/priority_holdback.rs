//! `priority-holdback-policy`: lower bands stop at a lower saturation of the pool, which keeps room for higher ones.
//!
//! The highest band stops at `maxCeiling`, the lowest at `minCeiling`. With `domain: rank`, those between stop at even
//! distances; with `domain: value`, in proportion to their priorities. A single band stops at `maxCeiling`. The document
//! names it as its `usageLimitPolicyPluginRef`.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `minCeiling` | required | the saturation at which the lowest band stops, 0 or more, below 1 and below `maxCeiling` |
//! | `maxCeiling` | 1 | the saturation at which the highest band stops, above 0, at most 1 |
//! | `domain` | `rank` | what the distances between bands depend on: `rank` or `value` |
//! | `shape` | `linear` | the only shape |
//!
//! ```yaml
//! - type: priority-holdback-policy
//!   parameters: {minCeiling: 0.6}
//! ```

use crate::config::value::Node;
use crate::flow::UsageLimit;
use crate::plugins::{Build, Capabilities, Capability, Parity, PluginType};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "priority-holdback-policy",
    former_names: &[],
    provides: &[Capability::UsageLimit],
    references: &[],
    build,
    parity: Parity::SAME,
};

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    let fields = &mut build.fields;
    let min = fields.required_number("minCeiling", (0.0, 1.0));
    fields.note("minCeiling", Node::Number(min));
    let max = fields.number("maxCeiling", 1.0, (0.0, 1.0));
    if min >= max && fields.has("minCeiling") {
        fields.refuse("minCeiling", &Node::Number(min), "a number below maxCeiling");
    }
    fields.choice("shape", true, &[("linear", true)]);
    let by_value = fields.choice("domain", false, &[("rank", false), ("value", true)]);
    Capabilities {
        usage_limit: Some(UsageLimit::Holdback { min, max, by_value }),
        ..Capabilities::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{loaded, refused};

    #[test]
    fn parameters_have_the_bounds_of_the_endpoint_picker() {
        for parameters in [
            "{}",
            "{minCeiling: null}",
            "{minCeiling: -0.1}",
            "{minCeiling: 1}",
            "{minCeiling: half}",
            "{minCeiling: 0, maxCeiling: 0}",
            "{minCeiling: 0.5, maxCeiling: 1.1}",
            "{minCeiling: 0.5, maxCeiling: 0.5}",
            "{minCeiling: 0.5, shape: sigmoid}",
            "{minCeiling: 0.5, domain: log}",
        ] {
            refused("priority-holdback-policy", parameters);
        }
        let limit = |parameters| loaded("priority-holdback-policy", parameters).capabilities.usage_limit;
        let holdback = |min, max, by_value| Some(UsageLimit::Holdback { min, max, by_value });
        assert_eq!(limit("{minCeiling: 0}"), holdback(0.0, 1.0, false));
        let all = "{minCeiling: 0.8, maxCeiling: 0.9, shape: linear, domain: value}";
        assert_eq!(limit(all), holdback(0.8, 0.9, true));
    }
}
