//! `agent-identity`: reads the identifier of an agent's session from the headers that agents send.
//!
//! Reads these headers, of which the first counts that is not blank: the given ones, `x-claude-code-session-id`,
//! `x-session-affinity`, `session-id`, `session_id`. A source of `session-affinity-scorer` or
//! `session-affinity-filter` names it: `attribute: agent-identity`. With the feature gate `flowControl`, the identifier is
//! also the fairness id of requests without one.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `additionalSessionHeaders` | none | further headers, which go before the others |
//!
//! ```yaml
//! - type: agent-identity
//! ```

use crate::plugins::session::SessionId;
use crate::plugins::{Build, Capabilities, Capability, Parity, PluginType};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "agent-identity",
    former_names: &[],
    provides: &[Capability::SessionId],
    references: &[],
    build,
    parity: Parity::SAME,
};

/// The headers of Claude Code, OpenCode and Codex, of which the last is Codex's former one.
const HEADERS: [&str; 4] = [
    "x-claude-code-session-id",
    "x-session-affinity",
    "session-id",
    "session_id",
];

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    const PARAMETER: &str = "additionalSessionHeaders";
    let further = build.fields.strings(PARAMETER, &[]);
    let further = further.iter().map(|name| name.trim());
    let further = further.filter(|name| !name.is_empty());
    let names = further.chain(HEADERS);
    let headers = names.map(|name| build.header(PARAMETER, name));
    let sources = headers.collect();
    Capabilities::session_id("agent-identity", SessionId(sources))
}
