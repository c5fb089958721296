//! The Endpoint Picker as a WebAssembly filter inside stock Envoy.
