//! The proxy-wasm host of the picker: the module that Envoy loads.
//!
//! Callbacks in, host calls out. What a request's endpoint is, [`epp_core`] decides; this crate feeds it what
//! Envoy shows and carries out what it says. Everything that is Envoy's own lives here: buffer modes, the
//! part of a body that is shown twice, callouts, properties.

#![cfg(any(target_arch = "wasm32", test))]
// So that a failed allocation panics, which is caught, where it would trap otherwise (guard.rs).
// The module's standard library is built from source in any case (scripts/wasm).
#![cfg_attr(target_arch = "wasm32", feature(alloc_error_hook))]

mod abi;
mod aside;
mod callout;
mod clock;
mod delivery;
#[cfg(target_arch = "wasm32")]
mod exports;
#[cfg(all(feature = "fault-injection", target_arch = "wasm32"))]
mod fault;
mod guard;
mod headers;
mod host;
mod page;
mod pool;
mod shown;
mod stream;
mod upstream;
mod vm;

#[cfg(test)]
mod aside_tests;
#[cfg(test)]
mod bound_tests;
#[cfg(test)]
mod delivery_tests;
#[cfg(test)]
mod fake_host;
#[cfg(test)]
mod filter_tests;
#[cfg(test)]
mod header_tests;
#[cfg(test)]
mod page_tests;
#[cfg(test)]
mod reload_tests;
