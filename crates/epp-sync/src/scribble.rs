//! Values of another program under the keys that pickers share, as hosts inject them for tests.

use crate::{Store, ROOT};

/// Writes such values over what the pickers of this plugin and cluster share.
pub fn scribble(store: &mut dyn Store, plugin: &str, cluster: &str) {
    for key in [
        "lease",
        "members",
        "metrics",
        "delivery",
        "index",
        "worker/0",
        "worker/1",
        "worker/0/0",
    ] {
        let key = format!("{ROOT}/{plugin}/{cluster}/{key}");
        store.set(&key, b"a stranger's", None);
    }
}
