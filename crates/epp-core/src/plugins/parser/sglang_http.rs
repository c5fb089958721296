//! `sglanghttp-parser`: reads SGLang's `/generate`.
//!
//! Always on here: the path alone decides how a body is read. No parameters.
//!
//! ```yaml
//! - type: sglanghttp-parser
//! ```

use crate::plugins::{Build, Capabilities, Capability, Parity, PluginType, Standing};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "sglanghttp-parser",
    former_names: &[],
    provides: &[Capability::Parser],
    references: &[],
    build: |_: &mut Build<'_, '_>| Capabilities::parser(),
    parity: Parity::of(Standing::Differs(
        "always on: the request path selects the parser",
    )),
};
