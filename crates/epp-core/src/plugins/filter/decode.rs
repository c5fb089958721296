//! `decode-filter`: keeps the endpoints that generate tokens.
//!
//! Reads the label `llm-d.ai/role`, which `envoy-cluster-discovery` and `static-discovery` give endpoints.
//! Kept are `decode`, `prefill-decode`, `both` and `encode-prefill-decode`; an endpoint without the label is kept,
//! too. No parameters.
//!
//! ```yaml
//! - type: decode-filter
//! ```

use crate::plugins::{label_values, Build, Capabilities, Capability, Parity, PluginType};
use crate::scheduling::role::DECODE;

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "decode-filter",
    former_names: &[],
    provides: &[Capability::Filter],
    references: &[],
    build,
    parity: Parity::SAME,
};

fn build(_: &mut Build<'_, '_>) -> Capabilities {
    label_values::roles(DECODE, true)
}

#[cfg(test)]
mod tests {
    use crate::plugins::label_values::ROLES;
    use crate::testing::filtered;

    #[test]
    fn every_role_with_decode_and_none_is_kept() {
        assert_eq!(filtered("decode-filter", "{}", &ROLES), [0, 3, 4, 6, 7]);
    }
}
