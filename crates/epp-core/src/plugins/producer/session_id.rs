//! `session-id-producer`: reads the identifier of a request's session from a header or a cookie.
//!
//! A source of `session-affinity-scorer` or `session-affinity-filter` names it: `attribute: SessionIDDataKey`. Those
//! remember where sessions went. Exactly one of the first two parameters is given:
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `headerName` | none | the header |
//! | `cookieName` | none | the cookie |
//! | `lruSize` | – | no effect: the plugins that use the identifier remember sessions |
//! | `ttl` | – | no effect, as above |
//!
//! ```yaml
//! - type: session-id-producer
//!   parameters: {headerName: x-session-id}
//! ```

use crate::plugins::session::SessionId;
use crate::plugins::{Build, Capabilities, Capability, Parity, PluginType};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "session-id-producer",
    former_names: &[],
    provides: &[Capability::SessionId],
    references: &[],
    build,
    parity: Parity::SAME,
};

const REMEMBERED: &str = "the plugins that use the identifier remember sessions";

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    let fields = &mut build.fields;
    let header = fields.string("headerName", "");
    let cookie = fields.string("cookieName", "");
    fields.no_effect("lruSize", REMEMBERED);
    fields.no_effect("ttl", REMEMBERED);
    let source = match (header.trim(), cookie.trim()) {
        (header, "") if !header.is_empty() => build.header("headerName", header),
        ("", cookie) if !cookie.is_empty() => build.cookie("cookieName", cookie),
        _ => {
            let path = fields.path().clone();
            let message = "expected exactly one of headerName and cookieName";
            fields.problems().error(&path, message);
            return Capabilities::session_id("SessionIDDataKey", SessionId::default());
        }
    };
    Capabilities::session_id("SessionIDDataKey", SessionId(vec![source]))
}
