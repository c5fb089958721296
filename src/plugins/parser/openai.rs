//! `openai-parser`: reads OpenAI chat completions, completions, responses, conversations and embeddings.
//!
//! Always on here: the path alone decides how a body is read. No parameters.
//!
//! ```yaml
//! - type: openai-parser
//! ```

use crate::plugins::role::{Build, PluginType, Role};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "openai-parser",
    build: |_: &mut Build<'_, '_>| Role::Inert,
};
