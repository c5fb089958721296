//! `prefill-filter`: keeps the endpoints that compute prompts for others.
//!
//! Reads the label `llm-d.ai/role`, which `envoy-cluster-discovery` and `static-discovery` give endpoints.
//! Kept are `prefill`, `encode-prefill`, `prefill-decode`, `both` and `encode-prefill-decode`; an endpoint without
//! the label is dropped. No parameters.
//!
//! ```yaml
//! - type: prefill-filter
//! ```

use crate::plugins::{label_values, Build, Capabilities, Capability, Parity, PluginType};
use crate::scheduling::role::PREFILL;

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "prefill-filter",
    former_names: &[],
    provides: &[Capability::Filter],
    references: &[],
    build,
    parity: Parity::SAME,
};

fn build(_: &mut Build<'_, '_>) -> Capabilities {
    label_values::roles(PREFILL, false)
}

#[cfg(test)]
mod tests {
    use crate::plugins::label_values::ROLES;
    use crate::testing::filtered;

    #[test]
    fn every_role_with_prefill_is_kept() {
        assert_eq!(filtered("prefill-filter", "{}", &ROLES), [1, 3, 4, 5, 6]);
    }
}
