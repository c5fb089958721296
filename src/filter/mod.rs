//! The thin edge to Envoy: proxy-wasm callbacks in, host calls out. Nothing is decided here; the
//! [`crate::director`] decides, and this drives it.

mod abi;
mod aside;
mod clock;
#[cfg(target_arch = "wasm32")]
mod exports;
#[cfg(all(feature = "fault-injection", target_arch = "wasm32"))]
mod fault;
mod guard;
mod headers;
mod host;
mod page;
mod pool;
mod stream;
mod vm;

#[cfg(test)]
mod aside_tests;
#[cfg(test)]
mod bound_tests;
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
