//! A real Envoy with the real module, for the tests that need one: started, changed while it runs,
//! looked at, and stopped again whatever happens.
//!
//! `make test` builds what this needs and says where it is (ENVOY, EPP_WASM).

// Tests fail loudly, and this is a part of tests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

pub mod client;
mod pieces;
pub mod proxy;
