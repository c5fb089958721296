//! Hooks: what a plugin does when a request is sent.

use super::cycle::Cycle;
use super::scheduler::Decision;
use super::state::StateId;
use super::Slot;

/// A key that a request binds to an endpoint in a plugin's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// The plugin's state.
    pub state: StateId,
    /// The key.
    pub key: u64,
    /// The endpoint.
    pub slot: Slot,
}

/// What hooks add to a request that is sent.
#[derive(Debug, Default)]
pub struct Additions {
    /// Keys that it binds.
    pub records: Vec<Record>,
    /// Headers of its response, each a name in lower case and a value.
    pub response_headers: Vec<(String, String)>,
}

/// A plugin that does something when a request is sent.
pub trait Hook: Send + Sync {
    /// Adds what follows from a decision, before the request is sent.
    fn before_request(&self, cycle: &Cycle<'_>, decision: &Decision<'_>, additions: &mut Additions);
}
