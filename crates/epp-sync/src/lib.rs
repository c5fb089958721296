//! What the pickers of one Envoy share, beside the pickers.
//!
//! Envoy runs one VM per worker and one on its main thread, each with a memory of its own and a picker in
//! it. A [`Sharing`] stands beside each picker: it reads what that picker has to tell and writes it to a
//! [`Store`] that all of them reach, and feeds the picker what the others know. The picker never sees the
//! store.

#![forbid(unsafe_code)]

mod avoided;
pub mod delivery;
#[cfg(test)]
mod faulty;
pub mod handover;
#[cfg(test)]
mod intake_tests;
pub mod journal;
#[cfg(test)]
mod layout_tests;
mod lease;
mod local;
mod names;
pub mod pack;
pub mod report;
pub mod seats;
pub mod secret;
pub mod share;
mod sharing;
pub mod snapshot;

pub use local::InProcess;
pub use sharing::Sharing;

/// What all our keys begin with: a name, and the version of what is shared. Two versions of the
/// module do not read each other's.
pub const ROOT: &str = "epp-wasm/4";

/// Values by key that all pickers of one Envoy reach.
pub trait Store {
    /// Returns a value and its version.
    fn get(&mut self, key: &str) -> Option<(Vec<u8>, u32)>;
    /// Sets a value; with a version only if the value still has that version. Returns whether it was set.
    fn set(&mut self, key: &str, value: &[u8], cas: Option<u32>) -> bool;
}
