//! The thin edge to Envoy: proxy-wasm callbacks in, host calls out. Nothing is decided here; the
//! [`crate::director`] decides, and this drives it.

mod abi;
mod headers;
mod host;
mod request;
mod root;

use proxy_wasm::types::LogLevel;

#[cfg(target_arch = "wasm32")]
proxy_wasm::main! {{ start(); }}

/// Tells the SDK what to create; Envoy's own log level says what of the log is written.
pub fn start() {
    proxy_wasm::set_log_level(LogLevel::Debug);
    proxy_wasm::set_root_context(|context| Box::new(root::Root::new(context)));
}
