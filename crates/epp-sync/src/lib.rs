//! What the pickers of one Envoy share, beside the pickers.
//!
//! Envoy runs one VM per worker and one on its main thread, each with a memory of its own and a picker in
//! it. A [`Sharing`] stands beside each picker: the host drives it before and after each tick; it reads what
//! that picker has to tell and writes it to a [`Store`] that all of them reach, and feeds the picker what
//! the others know. The picker never sees the store.
//!
//! This crate may use epp-core, and nothing of a host but a [`Store`]. There are two: Envoy's shared data
//! (in the wasm module) and [`InProcess`]. No clock is involved: time is counted in ticks of 50 ms.
//!
//! Under `epp-wasm/VERSION/PLUGIN/CLUSTER/` stand:
//!
//! | key | value | module |
//! |---|---|---|
//! | `secret` | the secret that keys digests and indexes | `secret` |
//! | `lease` | which VM polls, and its heartbeat | `lease` |
//! | `members`, `metrics` | the endpoints, and what their pages said | [`snapshot`] |
//! | `delivery` | whether Envoy delivers bodies before it routes | `delivery` |
//! | `ejections` | which endpoints are ejected, and which VM probes them | `ejections` |
//! | `models` | the models that have statistics of their own | `models` |
//! | `worker/N` | a VM's presence: heartbeat, journal length, requests in flight | [`presence`] |
//! | `worker/N/0` … `15` | its journal: what its indexes learnt last | [`journal`] |
//! | `worker/N/report`, `plan` | its state for the status page, and the plan in force | [`report`] |
//! | `index`, `index/P` | a prefix index, handed over to a VM that starts | [`handover`] |
//!
//! Beside these, for all pools: `epp-wasm/VERSION/watched` and `epp-wasm/VERSION/pools` ([`report`]). Every
//! value is sealed by one codec ([`codec`]) and read through one wrapper ([`shared`]), which counts what is
//! corrupt or not ours.

#![forbid(unsafe_code)]

pub mod codec;
pub mod delivery;
mod ejections;
#[cfg(test)]
mod faulty;
pub mod handover;
#[cfg(test)]
mod intake_tests;
pub mod journal;
#[cfg(test)]
mod layout_tests;
mod lease;
mod models;
pub mod peers;
pub mod presence;
pub mod report;
mod secret;
pub mod shared;
mod sharing;
pub mod snapshot;
mod store;

pub use sharing::Sharing;
pub use store::{InProcess, Store};

/// Where all keys begin: a name, and the version of everything that is shared. Two versions of the module do
/// not read each other's values; whatever changes a value's bytes or meaning raises it.
pub const ROOT: &str = "epp-wasm/5";
