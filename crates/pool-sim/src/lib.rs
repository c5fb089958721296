//! What a configuration would do to a pool under a load: discrete-event simulation of model servers,
//! with the very code that routes in Envoy, from the bytes of bodies and metrics pages on.
//!
//! The servers are a model ([`pod`] says which, and where its numbers come from): differences between
//! policies under one load mean something, absolute times only as much as the model fits. Everything
//! is determined by the trace, the settings and the seed.

pub mod cache;
pub mod engine;
pub mod picker;
pub mod pod;
pub mod policy;
pub mod report;
pub mod trace;

pub use engine::{simulate, Progress};
pub use pod::Model;
pub use policy::{Kind, Policy};
pub use report::Outcome;
pub use trace::Trace;

/// Nanoseconds of a second. All times are in nanoseconds since the trace's beginning.
pub const SECOND: u64 = 1_000_000_000;
