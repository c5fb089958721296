//! `openai-parser`: reads OpenAI chat completions, completions, responses, conversations and embeddings.
//!
//! Always on here: the path alone decides how a body is read. No parameters.
//!
//! ```yaml
//! - type: openai-parser
//! ```

use crate::plugins::role::{Build, Parity, PluginType, Role, Standing};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "openai-parser",
    build: |_: &mut Build<'_, '_>| Role::Inert,
    parity: Parity::of(Standing::NoEffect("always on: the path alone tells how a body is read")),
};
