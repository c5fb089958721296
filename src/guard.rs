//! The guard around callbacks, where panics end. Without it Envoy would throw away the worker's
//! whole VM, make held requests hang and cut every response in progress.
//!
//! No line of this crate is meant to panic (the lints deny it), so a caught panic is a defect. It
//! is logged once with its place and counted; the request that it struck is handled by the failure
//! mode, and the others notice nothing. An allocation that fails panics, too, with a reserve of memory
//! freed so that the panic has what it needs. A trap (a stack too deep) cannot be caught: Envoy then
//! makes a new VM where the plugin says `FAIL_RELOAD`.

use std::cell::RefCell;
use std::panic::{catch_unwind, set_hook, take_hook, AssertUnwindSafe, PanicHookInfo};
use std::sync::Once;

use super::abi::{self, Action, BodyAction, Status};
use super::vm::Vm;
pub use epp_envoy::Callback;

/// One VM's state behind the net.
#[derive(Default)]
pub struct Guarded(RefCell<Vm>);

/// Outcomes for headers and trailers: to continue, and of a request that got a local reply.
pub const HEADERS: (Action, Option<Action>) = (Action::Continue, Some(Action::Pause));

/// The outcomes of a body callback.
pub const BODY: (BodyAction, Option<BodyAction>) = (BodyAction::Continue, Some(BodyAction::Buffer));

impl Guarded {
    /// Runs a callback about a context. Envoy does not call while a callback runs; if it did, the
    /// inner one would get `go_on`.
    pub fn call<T>(
        &self,
        callback: Callback,
        context: u32,
        go_on: T,
        act: impl FnOnce(&mut Vm) -> T,
    ) -> T {
        self.decide(callback, context, (go_on, None), act)
    }

    /// Runs a callback that lets a request continue or stops it. The second outcome, if
    /// there is one, is that of a request that got a local reply.
    pub fn decide<T>(
        &self,
        callback: Callback,
        context: u32,
        (go_on, replied): (T, Option<T>),
        act: impl FnOnce(&mut Vm) -> T,
    ) -> T {
        let Ok(mut vm) = self.0.try_borrow_mut() else {
            return go_on;
        };
        // Whatever the panic left half done is dropped in `recover`, or is a plain number.
        if callback == Callback::Tick {
            fill_reserve();
        }
        let outcome = catch(|| {
            #[cfg(all(feature = "fault-injection", target_arch = "wasm32"))]
            super::fault::inject(callback, context, vm.polls());
            act(&mut vm)
        });
        match outcome {
            Some(outcome) => outcome,
            None => {
                let recovered = vm.recover(callback, context);
                // The next panic may follow before the next tick.
                fill_reserve();
                match (recovered, replied) {
                    (true, Some(replied)) => replied,
                    _ => go_on,
                }
            }
        }
    }
}

/// Returns the result of a call, or `None` if it panics.
pub fn catch<T>(act: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(act)).ok()
}

/// Has each place that panics logged, once.
pub fn log_panics() {
    static SET: Once = Once::new();
    SET.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |panic| {
            log_once(panic);
            before(panic);
        }));
        fill_reserve();
        #[cfg(target_arch = "wasm32")]
        std::alloc::set_alloc_error_hook(allocation_failed);
    });
}

/// The beginning of the message of a failed allocation's panic.
const NO_MEMORY: &str = "no memory left";

/// A panic allocates: its message, the lines that it logs, and what unwinding takes; then the
/// metric that counts it.
const RESERVE: usize = 128 << 10;

thread_local! {
    static RESERVED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Sets memory aside for a panic where there is none left, as far as it can be had.
fn fill_reserve() {
    RESERVED.with(|reserved| {
        if let Ok(mut reserved) = reserved.try_borrow_mut() {
            // Without it a second failure in a row traps.
            let _: Result<(), _> = reserved.try_reserve_exact(RESERVE);
        }
    });
}

/// The host gives no more memory. Without a panic here Rust would abort, which is a trap.
#[cfg(target_arch = "wasm32")]
#[allow(clippy::panic)] // What it is for.
fn allocation_failed(layout: std::alloc::Layout) {
    RESERVED.with(|reserved| {
        if let Ok(mut reserved) = reserved.try_borrow_mut() {
            *reserved = Vec::new();
        }
    });
    panic!("{NO_MEMORY} for {} bytes", layout.size());
}

fn log_once(panic: &PanicHookInfo<'_>) {
    /// More defects than this in one VM need no further lines.
    const MAX_LOGGED_PLACES: usize = 16;
    thread_local! {
        static SEEN: RefCell<Vec<(String, u32)>> = const { RefCell::new(Vec::new()) };
    }
    let Some(place) = panic.location() else {
        return;
    };
    let place = (place.file().to_owned(), place.line());
    let new = SEEN.with(|seen| {
        // It is borrowed where this very function panics.
        let Ok(mut seen) = seen.try_borrow_mut() else {
            return false;
        };
        let new = seen.len() < MAX_LOGGED_PLACES && !seen.contains(&place);
        if new {
            seen.push(place);
        }
        new
    });
    if new {
        const CRITICAL: u32 = 5;
        let text = if panic
            .payload()
            .downcast_ref::<String>()
            .is_some_and(|text| text.starts_with(NO_MEMORY))
        {
            format!("out of memory, the current request fails: {panic}")
        } else {
            format!("internal error, please report it: {panic}")
        };
        let _: Result<(), Status> = abi::log(CRITICAL, &text);
    }
}

#[cfg(test)]
pub use tests::inject;

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
