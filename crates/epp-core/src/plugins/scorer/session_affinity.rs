//! `session-affinity-scorer`: prefers the endpoint that served a client's session before.
//!
//! By default the client carries the endpoint's name: each response has a header with it in base64, which the client
//! sends back with its next request. With `strategy: session_id` the client names its session, and the workers of a
//! proxy remember where each session went, 65,536 sessions at most. A session stays at its endpoint until that is
//! no candidate; a request that is sent elsewhere because other scorers outweigh this one does not move it.
//!
//! Score: 1 for the session's endpoint, 0 for all others; 0 for all if the request has no session, or a new one.
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
//! - type: session-affinity-scorer
//! ```

use std::sync::Arc;

use crate::plugins::session::{self, SessionAffinity};
use crate::plugins::{Build, Capabilities, Capability, PluginType};
use crate::scheduling::{Cycle, Needs, Scorer, Slot};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "session-affinity-scorer",
    former_names: &[],
    provides: &[Capability::Scorer],
    references: &[session::REFERENCE],
    build,
    parity: session::PARITY,
};

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    let affinity = Arc::new(SessionAffinity::read(build));
    Capabilities {
        scorer: Some(affinity.clone()),
        hook: Some(affinity),
        ..Capabilities::default()
    }
}

impl Scorer for SessionAffinity {
    fn score(&self, cycle: &Cycle<'_>, candidates: &[Slot], scores: &mut [f64]) {
        let own = self.endpoint(cycle, candidates);
        for (slot, score) in candidates.iter().zip(scores) {
            *score = f64::from(u8::from(own == Some(*slot)));
        }
    }

    fn needs(&self) -> Needs {
        Needs::default()
    }
}
