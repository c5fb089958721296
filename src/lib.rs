//! The Endpoint Picker as a WebAssembly filter inside stock Envoy.
//!
//! `filter` is the only module that knows the proxy-wasm ABI; everything below it takes its clock,
//! randomness and host as arguments and runs natively, in tests and in `eppctl`.

// So that a failed allocation panics, which is caught, where it would trap otherwise (filter::guard).
// The module's standard library is built from source in any case (scripts/wasm).
#![cfg_attr(target_arch = "wasm32", feature(alloc_error_hook))]

#[forbid(unsafe_code)]
pub mod datalayer;
#[forbid(unsafe_code)]
pub mod document;
#[forbid(unsafe_code)]
pub mod plugins;
#[forbid(unsafe_code)]
pub mod prefix;
#[forbid(unsafe_code)]
pub mod request;
#[forbid(unsafe_code)]
pub mod response;
#[forbid(unsafe_code)]
pub mod scheduling;
#[forbid(unsafe_code)]
pub mod worker;

#[forbid(unsafe_code)]
pub mod config;
#[forbid(unsafe_code)]
pub mod director;
#[forbid(unsafe_code)]
pub mod envoy;
#[cfg(any(target_arch = "wasm32", test))]
mod filter;
#[forbid(unsafe_code)]
pub mod status;
#[cfg(test)]
mod testing;
