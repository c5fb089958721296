//! `anthropic-parser`: reads Anthropic `v1/messages` and `v1/messages/count_tokens`.
//!
//! Always on here: the path alone decides how a body is read. No parameters.
//!
//! ```yaml
//! - type: anthropic-parser
//! ```

use crate::plugins::role::{Build, Parity, PluginType, Role, Standing};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "anthropic-parser",
    build: |_: &mut Build<'_, '_>| Role::Inert,
    parity: Parity::of(Standing::NoEffect("always on: the path alone tells how a body is read")),
};
