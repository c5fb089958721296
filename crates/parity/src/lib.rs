//! Does epp-wasm decide as the Endpoint Picker does?
//!
//! Scenarios are data: a configuration, what the endpoints' metrics pages say over time, requests,
//! and what a real Endpoint Picker decided (tests/parity/recorded/README.md has the format). They are
//! replayed here through the native core; tests/e2e/parity.rs replays them through a real Envoy.

pub mod replay;
pub mod report;
pub mod scenario;
pub mod vectors;

pub use replay::{replay, Outcome, Replay};
pub use report::Report;
pub use scenario::Scenario;
pub use vectors::{Held, Section};

/// Scores agree to this.
pub const TOLERANCE: f64 = 1e-9;
