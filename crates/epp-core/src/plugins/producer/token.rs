//! `token-producer`: turns prompts into tokens for the prefix producers.
//!
//! Only its `estimate` form runs in a proxy, which is also its default: four bytes of the
//! flattened prompt count as one token. `vllm` and `udsTokenizerConfig` ask a tokenizer for each
//! request, which a filter cannot wait for: they are refused.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `estimate` | `{}` | the form; its `image` and `video` settings are refused unless empty |
//!
//! ```yaml
//! - type: token-producer
//!   parameters: {estimate: {}}
//! ```

use crate::plugins::{Build, Capabilities, Parity, PluginType};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "token-producer",
    former_names: &[],
    provides: &[],
    references: &[],
    build,
    parity: Parity::SAME,
};

/// The parameters of the forms that call a tokenizer.
const REMOTE: [&str; 3] = ["vllm", "udsTokenizerConfig", "modelName"];

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    let fields = &mut build.fields;
    let mut refused = false;
    for name in REMOTE {
        // Once is enough: they belong together.
        if refused {
            fields.node(name);
            continue;
        }
        let advice =
            "calling a tokenizer for each request is not supported here; use `estimate: {}`";
        fields.unsupported(name, advice);
        refused = fields.has(name);
    }
    if let Some(mut estimate) = fields.section("estimate") {
        for name in ["image", "video"] {
            estimate.unsupported(name, "tuning the estimate of images and videos is not supported here; leave it out for the Endpoint Picker's defaults");
        }
        estimate.finish();
    }
    Capabilities::default()
}
