//! Compares the picker's decisions with the Endpoint Picker's.
//!
//! A scenario is data: a configuration, the values of the endpoints' metrics over time, requests, and the
//! decisions of a real Endpoint Picker (tests/parity has them, and the format). [`mod@play`] plays
//! scenarios through the whole picker of `epp-core`, [`vectors`] runs cases of the Endpoint Picker's own
//! tests; tests/parity.rs and `eppctl parity` run both.
//!
//! The crate may use `epp-core` and read files; no clock, no network.

pub mod chance;
pub mod compare;
pub mod play;
pub mod replay;
pub mod report;
pub mod scenario;
pub mod vectors;

pub use play::{replay, replay_as_it_is, Outcome};
pub use replay::Replay;
pub use report::Report;
pub use scenario::Scenario;
pub use vectors::{Held, Section};

/// The greatest difference of scores that agree.
pub const TOLERANCE: f64 = 1e-9;
