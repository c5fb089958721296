//! The command line of epp-wasm.
fn main() {}
