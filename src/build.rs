//! Which version and commit this module was built from.

use build_stamp::{Placeholder, Stamp};

/// `scripts/wasm` fills it in after linking.
static STAMP: Placeholder = Placeholder::new(env!("CARGO_PKG_VERSION"));

/// Returns the module's version, commit and digest.
pub fn stamp() -> Stamp {
    STAMP.read()
}
