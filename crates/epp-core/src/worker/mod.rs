//! What the workers of one Envoy share: who polls, and what the poll found.
//!
//! Envoy runs one VM per worker and one on its main thread, each with its own memory. One of them
//! holds the [`lease::Lease`] and polls; it publishes what it found as a [`snapshot`] in shared
//! data, and the others take it over on their next tick.

pub mod avoided;
#[cfg(test)]
mod faulty;
pub mod handover;
#[cfg(test)]
mod intake_tests;
pub mod journal;
#[cfg(test)]
mod layout_tests;
pub mod lease;
mod local;
pub mod names;
pub mod pack;
pub mod report;
pub mod seats;
pub mod secret;
pub mod share;
pub mod snapshot;
pub mod watch;

pub use local::Local;
pub use watch::{Events, Request, Scrape, Watch};

/// What all our keys begin with: a name, and the version of what is shared. Two versions of the
/// module do not read each other's.
pub const ROOT: &str = "epp-wasm/3";

/// Data that all VMs of one Envoy share.
pub trait SharedData {
    /// A value and its version.
    fn get(&mut self, key: &str) -> Option<(Vec<u8>, u32)>;
    /// Sets a value; with a version only if nobody else was quicker. Whether it was set.
    fn set(&mut self, key: &str, value: &[u8], cas: Option<u32>) -> bool;
}
