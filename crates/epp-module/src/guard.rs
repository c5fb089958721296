//! The net under hooks, where panics end. Without it a panic would end Envoy.
//!
//! No line of this crate is meant to panic (the lints deny it), so a caught panic is a defect. It is logged with its
//! place and counted; the request that it struck is handled by the failure mode.

use std::panic::{catch_unwind, set_hook, take_hook, AssertUnwindSafe};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

pub use epp_envoy::Callback;

/// Returns the result of a call, or `None` if it panics.
pub fn catch<T>(act: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(act)).ok()
}

/// Locks. What a thread that panicked has left half done is dropped when that is recovered from, or is a plain number.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has panics logged.
pub fn log_panics() {
    /// More than this need no further lines.
    const MAX_LOGGED: u32 = 16;
    static LOGGED: AtomicU32 = AtomicU32::new(0);
    static SET: Once = Once::new();
    SET.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |panic| {
            if LOGGED.fetch_add(1, Ordering::Relaxed) < MAX_LOGGED {
                log::error!("internal error, please report it: {panic}");
            }
            before(panic);
        }));
    });
}

#[cfg(test)]
pub use injection::{inject_panic, panic_at};

#[cfg(test)]
mod injection {
    use std::cell::Cell;

    thread_local! {
        static PLACE: Cell<&'static str> = const { Cell::new("") };
    }

    /// Has the next hook of this thread panic that comes to this place.
    pub fn inject_panic(place: &'static str) {
        PLACE.set(place);
    }

    /// Panics if this place was chosen.
    pub fn panic_at(place: &'static str) {
        if PLACE.get() == place {
            PLACE.set("");
            panic!("injected at {place}");
        }
    }
}
