//! `encode-filter`: keeps the endpoints that encode images and other media.
//!
//! Reads the label `llm-d.ai/role`, which `envoy-cluster-discovery` and `static-discovery` give endpoints.
//! Kept are `encode`, `encode-prefill` and `encode-prefill-decode`; an endpoint without the label is dropped. No
//! parameters.
//!
//! ```yaml
//! - type: encode-filter
//! ```

use crate::plugins::{label_values, Build, Capabilities, Capability, Parity, PluginType};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "encode-filter",
    former_names: &[],
    provides: &[Capability::Filter],
    references: &[],
    build,
    parity: Parity::SAME,
};

const ROLES: &[&str] = &["encode", "encode-prefill", "encode-prefill-decode"];

fn build(_: &mut Build<'_, '_>) -> Capabilities {
    label_values::roles(ROLES, false)
}

#[cfg(test)]
mod tests {
    use crate::plugins::label_values::ROLES;
    use crate::testing::filtered;

    #[test]
    fn every_role_with_encode_is_kept() {
        assert_eq!(filtered("encode-filter", "{}", &ROLES), [2, 5, 6]);
    }
}
