//! The net under hooks, where panics end. Without it a panic would end Envoy.
//!
//! No line of this crate is meant to panic (the lints deny it), so a caught panic is a defect. It is logged with its
//! place, once, and counted; the request that it struck is handled by the failure mode.

use std::panic::{catch_unwind, set_hook, take_hook, AssertUnwindSafe};
use std::sync::{Mutex, MutexGuard, Once, PoisonError, TryLockError};
use std::thread::sleep;
use std::time::Duration;

pub use epp_envoy::Callback;

/// Returns the result of a call, or `None` if it panics.
pub fn catch<T>(act: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(act)).ok()
}

/// Locks. What a thread that panicked has left half done is dropped when that is recovered from, or is a plain number.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Locks, unless another thread holds the lock for long: that one is stuck, and this one must not be stuck with it.
pub fn lock_soon<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    /// In steps of [`STEP`]: longer than any hook takes, and shorter than a tick.
    const STEPS: u32 = 20;
    const STEP: Duration = Duration::from_millis(1);
    for _ in 0..STEPS {
        match mutex.try_lock() {
            Ok(guard) => return Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => sleep(STEP),
        }
    }
    None
}

/// Has each place that panics logged, once.
pub fn log_panics() {
    /// More defects than this need no further lines.
    const MAX_LOGGED_PLACES: usize = 16;
    static SEEN: Mutex<Vec<(String, u32)>> = Mutex::new(Vec::new());
    static SET: Once = Once::new();
    SET.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |panic| {
            let place = panic.location();
            let place = place.map_or_else(Default::default, |place| {
                (place.file().to_owned(), place.line())
            });
            let mut seen = lock(&SEEN);
            let new = seen.len() < MAX_LOGGED_PLACES && !seen.contains(&place);
            if new {
                seen.push(place);
            }
            drop(seen);
            if new {
                log::error!("internal error, please report it: {panic}");
            }
            before(panic);
        }));
    });
}
