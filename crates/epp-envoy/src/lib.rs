//! Envoy's matters that its filter and the tools around it share: how Envoy reaches what a picker fetches, and what
//! its admin interface says of a pool's members.
//!
//! May use `epp-core`, which knows nothing of it. No proxy-wasm: that is in the filter itself.

#![forbid(unsafe_code)]

pub mod callouts;
pub mod clusters;
mod health;
pub mod survey;
