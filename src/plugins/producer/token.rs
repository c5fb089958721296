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

use crate::document::Node;
use crate::plugins::role::{Build, PluginType, Role};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "token-producer",
    build,
};

/// The forms that ask a tokenizer, and what stands in their parameters.
const REMOTE: [&str; 3] = ["vllm", "udsTokenizerConfig", "modelName"];

fn build(build: &mut Build<'_, '_>) -> Role {
    let fields = &mut build.fields;
    for name in REMOTE {
        if fields.node(name).is_some() {
            let path = fields.path().key(name);
            let advice =
                "asking a tokenizer for each request is not supported here; use `estimate: {}`";
            fields.problems().error(&path, advice);
        }
    }
    match fields.node("estimate") {
        None | Some(Node::Null) => {}
        Some(Node::Map(settings)) => {
            for (key, _) in settings {
                let path = fields.path().key("estimate").key(key);
                let advice = "tuning the estimate of images and videos is not supported here; leave it out for the Endpoint Picker's defaults";
                fields.problems().error(&path, advice);
            }
        }
        Some(other) => fields.refuse("estimate", other, "a mapping"),
    }
    Role::Inert
}
