//! `openai-parser`: reads OpenAI chat completions, completions, responses, conversations and embeddings.
//!
//! Always on here: the path alone decides how a body is read. No parameters.
//!
//! ```yaml
//! - type: openai-parser
//! ```

use crate::plugins::{Build, Capabilities, Capability, Parity, PluginType, Standing};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "openai-parser",
    former_names: &[],
    provides: &[Capability::Parser],
    references: &[],
    build: |_: &mut Build<'_, '_>| Capabilities::parser(),
    parity: Parity::of(Standing::Differs(
        "always on: the request path selects the parser",
    )),
};
