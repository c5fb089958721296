//! The thin edge to Envoy: proxy-wasm callbacks in, host calls out. Nothing is decided here; the
//! [`crate::director`] decides, and this drives it.

mod abi;
mod headers;
mod host;
mod request;
mod root;

#[cfg(target_arch = "wasm32")]
proxy_wasm::main! {{ start(); }}

/// Tells the SDK what to create.
#[cfg(target_arch = "wasm32")]
fn start() {
    host::log_to_envoy();
    proxy_wasm::set_root_context(|context| Box::new(root::Root::new(context)));
}

#[cfg(test)]
mod fake_host;
#[cfg(test)]
mod filter_tests;
