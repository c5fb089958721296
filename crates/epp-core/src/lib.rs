//! The picker without a host: reads `EndpointPickerConfig`, scans metrics pages and requests, matches
//! prefixes, runs scheduling profiles, and says where each request goes.
//!
//! No clock, no randomness of its own, no unsafe code and no host: time, seeds and what a host can show
//! are arguments. It runs the same in Envoy's wasm VMs, in tests, and in `eppctl`.

#![forbid(unsafe_code)]

pub mod body;
pub mod config;
pub mod endpoints;
pub mod picker;
pub mod plugins;
pub mod prefix;
pub mod protocol;
pub mod request;
pub mod response;
pub mod scheduling;
pub mod time;

#[cfg(test)]
mod testing;
