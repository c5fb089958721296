//! Envoy's matters that the two hosts of a picker (the wasm module and the dynamic module) and the tools around them
//! share: how Envoy reaches what a picker fetches, what its admin interface says of a pool's members, and where a
//! response comes from.
//!
//! May use `epp-core`, which knows nothing of it. No call to Envoy: those are in the hosts.

#![forbid(unsafe_code)]

mod callback;
pub mod callouts;
pub mod clusters;
pub mod fetch;
mod health;
pub mod logging;
pub mod origin;
pub mod survey;

pub use callback::Callback;
