//! Waits for conditions, instead of sleeping for some time.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// The longest wait for a condition: nothing takes this long unless it hangs, and a busy machine takes
/// seconds to start an Envoy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for a condition. Panics if it does not hold within [`PATIENCE`].
pub fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    let met = poll(Duration::from_millis(25), condition);
    assert!(met, "not within {PATIENCE:?}: {what}");
}

/// Returns whether a condition held within [`PATIENCE`].
pub(crate) fn poll(pause: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        sleep(pause);
    }
}
