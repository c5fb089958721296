//! The picker as a dynamic module of Envoy: its second host, beside the wasm module.
//!
//! The module runs as native code in Envoy's process. Envoy's hooks become events of a [picker](epp_core), and its
//! effects become calls to Envoy.
//!
//! - `hooks` has the functions that Envoy calls, `abi` those that the module calls; only these have unsafe code.
//! - A `pool` is what one filter's configurations have in common: a picker per worker (`seat`), a `clock` that
//!   drives them, and the callouts that fetch what they ask for (`fetches`).
//! - A `stream` is one request and its response.
//!
//! **Threads.** Any thread may drive a picker while it holds the lock of its seat: a worker for the streams that it
//! serves, the clock for ticks, the main thread for the results of callouts. What a picker wants done to a stream is
//! done by the worker of that stream only: in its own hook, or by a message that wakes it. No lock is held over a call
//! after which Envoy may call a hook before it returns.
//!
//! The crate may use `epp-core`, `epp-sync` (over a store in this process) and `epp-envoy`.

#![deny(unsafe_code)]

mod abi;
mod body;
mod build;
mod clock;
mod configuration;
#[cfg(any(test, feature = "fault-injection"))]
mod fault;
mod fetches;
mod guard;
mod hooks;
mod logger;
mod pool;
mod seat;
mod statistics;
mod stream;

#[cfg(test)]
mod fake_envoy;
#[cfg(test)]
mod scaling;
#[cfg(test)]
mod soak;
#[cfg(test)]
mod tests;
