//! Simulates how a configuration performs on a pool under a load: discrete events, model servers as a
//! [model](pod), and the picker of `epp-core` itself, from the bytes of bodies and metrics pages on.
//!
//! Differences between policies under the same load are meaningful; absolute times only as far as the
//! model fits. The trace, the settings and the seed determine every result: the crate uses no clock, no
//! network and no files. `fake-model-server` has model servers that respond over HTTP.

pub mod adapters;
pub mod bands;
pub mod cache;
pub mod engine;
pub mod picker;
pub mod pod;
pub mod policy;
pub mod report;
mod ring;
pub mod shares;
pub mod trace;

pub use bands::Band;
pub use engine::{simulate, PoolModel, Progress};
pub use pod::Model;
pub use policy::{Kind, Policy, Servers};
pub use report::Outcome;
pub use shares::Objective;
pub use trace::Trace;

/// Nanoseconds per second. All times are in nanoseconds since the beginning of the trace.
pub const SECOND: u64 = 1_000_000_000;
