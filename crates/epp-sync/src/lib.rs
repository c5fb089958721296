//! Sharing between the pickers of one Envoy.
//!
//! Envoy runs a VM for each worker and one on its main thread, each with its own memory and picker. A
//! [`Sharing`] accompanies each picker: before and after each tick, it publishes the picker's state in a
//! [`Store`] that all VMs can access, and updates the picker from the state of the others. The picker does not
//! access the store.
//!
//! The crate may use `epp-core`, and a host only through a [`Store`], of which there are two: Envoy's shared data
//! (in the wasm module) and [`InProcess`] (in the dynamic module). It uses no clock: time is counted in ticks of 50 ms.
//!
//! The keys under `epp-wasm/VERSION/PLUGIN/CLUSTER/` are:
//!
//! | key | value | module |
//! |---|---|---|
//! | `secret` | the secret that keys digests and indexes | `secret` |
//! | `lease` | which VM polls, and its heartbeat | `lease` |
//! | `members`, `metrics` | the endpoints, and their metrics | [`snapshot`] |
//! | `delivery` | whether Envoy delivers bodies before it routes requests | `delivery` |
//! | `ejections` | which endpoints are ejected, and which VM probes them | `ejections` |
//! | `models` | the models with separate statistics | `models` |
//! | `worker/N` | a VM's presence: heartbeat, journal length, requests in flight and queued | [`presence`] |
//! | `worker/N/0` … `15` | its journal: the latest updates of its indexes | [`journal`] |
//! | `worker/N/findings`, `findings` | what a VM finds wrong, and what is wrong with the pool | [`findings`] |
//! | `worker/N/report`, `plan` | its state for the status page, and the plan in force | [`report`] |
//! | `announced` | the plan that was last logged as in force, with its build and warnings | the host |
//! | `index`, `index/P` | a prefix index or an archive, handed over to a VM that starts | [`handover`] |
//!
//! The keys for all pools are `epp-wasm/VERSION/watched` and `epp-wasm/VERSION/pools` ([`report`]), and [`BUILD`], which
//! all versions share. One codec ([`codec`]) seals every value but those of the
//! host, and one wrapper ([`shared`]) reads them and counts corrupt and unrecognised ones.

#![forbid(unsafe_code)]

mod archive;
pub mod codec;
pub mod delivery;
mod ejections;
#[cfg(test)]
mod faulty;
pub mod findings;
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
#[cfg(test)]
mod queue_tests;
pub mod report;
mod scribble;
mod secret;
pub mod shared;
mod sharing;
pub mod snapshot;
mod store;
mod timer;

pub use scribble::scribble;
pub use sharing::Sharing;
pub use store::{InProcess, Store};
pub use timer::Timer;

/// The key of the build of the module whose picker has started last, as it is logged.
pub const BUILD: &str = "epp-wasm/build";

/// The beginning of all other keys: a name, and the version of everything that is shared. Two versions of the module do
/// not read each other's values; any change to a value's bytes or meaning increases it.
pub const ROOT: &str = "epp-wasm/16";
