//! The proxy-wasm host of the picker: the module that Envoy loads.
//!
//! Envoy's callbacks become events of a [picker](epp_core), and its effects become host calls. Everything that is
//! specific to Envoy is here: the ABI, buffer modes, the part of a body that is shown twice, callouts,
//! properties, the clock.
//!
//! The crate may use `epp-core`, `epp-sync` (over Envoy's shared data), `epp-envoy` (what tools for Envoy need, too)
//! and `status-page`. With `epp-module`, the other host, it is the only one with unsafe code, and the only one that knows
//! proxy-wasm.

#![cfg(any(target_arch = "wasm32", test))]
// So that a failed allocation panics, which is caught, where it would trap otherwise (guard.rs).
// The module's standard library is built from source in any case (scripts/wasm).
#![cfg_attr(target_arch = "wasm32", feature(alloc_error_hook))]

mod abi;
mod build;
mod callout;
mod configuration;
mod delivery;
mod detached;
mod effects;
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
mod bound_tests;
#[cfg(test)]
mod delivery_tests;
#[cfg(test)]
mod detached_tests;
#[cfg(test)]
mod fake_host;
#[cfg(test)]
mod filter_tests;
#[cfg(test)]
mod header_tests;
#[cfg(test)]
mod load_report_tests;
#[cfg(test)]
mod page_tests;
#[cfg(test)]
mod queue_tests;
#[cfg(test)]
mod reload_tests;
#[cfg(test)]
mod timer_tests;
