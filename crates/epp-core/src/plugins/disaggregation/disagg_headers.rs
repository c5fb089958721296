//! `disagg-headers-handler`: names the endpoints that compute the prompt and encode media to the decode endpoint.
//!
//! Needed beside `pd-profile-handler` only. `disagg-profile-handler` sets the headers itself, with or
//! without this plugin.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `prefillProfile` | – | the profile whose pick is named there |
//! | `encodeProfile` | – | the profile whose picks are named there |
//!
//! ```yaml
//! - type: disagg-headers-handler
//! ```

use crate::plugins::{
    Build, Capabilities, Capability, Dialect, FormerName, Parity, PluginType, Standing,
};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "disagg-headers-handler",
    former_names: &[FormerName {
        name: "prefill-header-handler",
        dialect: Dialect::LlmD,
    }],
    provides: &[Capability::HelperHeaders],
    references: &[],
    build,
    parity: Parity {
        plugin: Standing::Same,
        parameters: &[("prefillProfile", KNOWN), ("encodeProfile", KNOWN)],
    },
};

const KNOWN: Standing = Standing::Differs(
    "headers name the picks of the handler's profiles; in llm-d-router the name of another profile sends none",
);

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    // Read as text: a document with the default names is no reason for a warning.
    for name in ["prefillProfile", "encodeProfile"] {
        build.fields.string(name, "");
    }
    Capabilities {
        helper_headers: true,
        ..Capabilities::default()
    }
}
