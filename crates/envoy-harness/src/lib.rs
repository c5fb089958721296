//! Starts, configures, awaits and stops Envoys, and sends them requests: for tests, the demo, the
//! benchmarks and the fault suite.
//!
//! - [`process`] runs a program and keeps its log; [`envoy`] builds the command line of an Envoy;
//!   [`config`] has parts of Envoy configurations.
//! - [`proxy`] is a whole Envoy with the module in front of a cluster of model servers, whose members and
//!   listener can be changed while it runs.
//! - [`host`] is where the picker runs: the wasm module, or the dynamic module with `HOST=module`.
//! - [`client`] sends requests from tests, [`traffic`] from asynchronous loads.
//!
//! The crate does not depend on the filter's code: it sees the module from outside, as Envoy does. It uses
//! processes, files below `target/`, the clock, and the network of this machine. The environment variables
//! `ENVOY`, `EPP_WASM` and `EPP_MODULE`, which `make` sets, locate Envoy and the modules.

// Most of this crate serves tests, which fail by panicking. The parts that other programs use return errors.
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
pub mod host;
mod ports;
pub mod process;
pub mod proxy;
pub mod statistics;
pub mod traffic;
mod wait;

pub use envoy::path_of;
pub use folder::Folder;
pub use ports::free_port;
pub use process::Process;
pub use wait::{wait_until, PATIENCE};
