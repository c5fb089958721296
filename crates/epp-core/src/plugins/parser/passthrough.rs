//! `passthrough-parser`: reads any other path, whose body is not looked into.
//!
//! Always on here: the path alone decides how a body is read. No parameters.
//!
//! ```yaml
//! - type: passthrough-parser
//! ```

use crate::plugins::role::{Build, Parity, PluginType, Role, Standing};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "passthrough-parser",
    build: |_: &mut Build<'_, '_>| Role::Inert,
    parity: Parity::of(Standing::NoEffect("always on: the path alone tells how a body is read")),
};
