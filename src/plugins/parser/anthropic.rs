//! `anthropic-parser`: reads Anthropic `v1/messages` and `v1/messages/count_tokens`.
//!
//! Always on here: the path alone decides how a body is read. No parameters.
//!
//! ```yaml
//! - type: anthropic-parser
//! ```

use crate::plugins::role::{Build, PluginType, Role};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "anthropic-parser",
    build: |_: &mut Build<'_, '_>| Role::Inert,
};
