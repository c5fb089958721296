//! `session-affinity-filter`: keeps only the endpoint that served a client's session before.
//!
//! Keeps all candidates if the request has no session or a new one, or if the session's endpoint is not a candidate. See
//! `session-affinity-scorer`, which prefers the endpoint where this insists, for how the endpoint is known.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `strategy` | `encoded_endpoint_header` | or `session_id` |
//! | `encodedEndpointHeaderConfig` | `{}` | settings of the strategy `encoded_endpoint_header` |
//! | `encodedEndpointHeaderConfig.header` | `x-session-token` | the header of requests and responses |
//! | `sessionIdConfig` | `{}` | settings of the strategy `session_id` |
//! | `sessionIdConfig.sources` | the header `x-session-id` | where requests name their session; the first that is not blank counts |
//! | `sessionIdConfig.sources[].header` | none | a request header |
//! | `sessionIdConfig.sources[].attribute` | none | or what a plugin finds: `agent-identity`, or `SessionIDDataKey` of a `session-id-producer` |
//! | `sessionIdConfig.sources[].producer` | any | the plugin's name; llm-d-router finds `SessionIDDataKey` only with it and `agent-identity` only without |
//! | `sessionIdConfig.evictionTtlSeconds` | 300 | how long a session without requests is remembered; 0 for the default |
//! | `sessionIdConfig.evictionSweepSeconds` | – | no effect: sessions are forgotten with the tick after their time |
//! | `profileName` | the primary one | the profile whose pick the session stays at, such as `prefill` |
//!
//! ```yaml
//! - type: session-affinity-filter
//!   parameters:
//!     strategy: session_id
//!     sessionIdConfig:
//!       sources: [{header: x-session-id}]
//! ```

use std::sync::Arc;

use crate::plugins::session::{self, SessionAffinity};
use crate::plugins::{Build, Capabilities, Capability, PluginType};
use crate::scheduling::{Cycle, Filter, Slot};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "session-affinity-filter",
    former_names: &[],
    provides: &[Capability::Filter],
    references: &[session::REFERENCE],
    build,
    parity: session::PARITY,
};

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    let affinity = Arc::new(SessionAffinity::read(build));
    Capabilities {
        filter: Some(affinity.clone()),
        hook: Some(affinity),
        ..Capabilities::default()
    }
}

impl Filter for SessionAffinity {
    fn filter(&self, cycle: &Cycle<'_>, candidates: &mut Vec<Slot>) {
        if let Some(own) = self.endpoint(cycle, candidates) {
            candidates.clear();
            candidates.push(own);
        }
    }
}
