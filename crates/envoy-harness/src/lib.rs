//! Starts, configures, awaits and stops Envoys: for tests, the demo, the benchmarks and the fault suite.
//!
//! - [`process`] runs any program and keeps its log; [`envoy`] is the command line of an Envoy;
//!   [`config`] has the parts of a configuration that several need.
//! - [`proxy`] is a whole Envoy with the module over a cluster of model servers, whose members and
//!   listener tests change while it runs; [`client`] asks it.
//!
//! The crate knows nothing of the filter's code: it sees the module from outside, as Envoy does. `make`
//! builds what it needs and says where it is (`ENVOY`, `EPP_WASM`).

// Tests fail loudly, and most of this is a part of tests. What other programs use returns errors.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

pub mod client;
pub mod config;
pub mod envoy;
mod folder;
mod ports;
pub mod process;
pub mod proxy;
pub mod statistics;
mod wait;

pub use envoy::path_of;
pub use folder::Folder;
pub use ports::free_port;
pub use process::Process;
pub use wait::{wait_until, PATIENCE};
