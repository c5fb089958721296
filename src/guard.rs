//! The last net: a panic in a callback ends here. Without it Envoy would throw away the worker's
//! whole VM, hang what it held and cut every answer that it was passing on.
//!
//! No line of this crate is meant to panic (the lints deny it), so what is caught is a defect. It
//! is logged once with its place and counted; the request that it struck goes on under the failure
//! mode, and the others notice nothing. An allocation that fails panics, too, with a reserve of memory
//! freed so that the panic has what it needs. A trap (a stack too deep) cannot be caught: Envoy then
//! makes a new VM where the plugin says `FAIL_RELOAD`.

use std::cell::RefCell;
use std::panic::{catch_unwind, set_hook, take_hook, AssertUnwindSafe, PanicHookInfo};
use std::sync::Once;

use super::abi::{self, Action, BodyAction, Status};
use super::vm::Vm;

/// What Envoy called us for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Callback {
    /// A configuration has come.
    Configure,
    /// The timer fires.
    Tick,
    /// A callout was answered.
    CalloutAnswer,
    /// A request's headers.
    RequestHeaders,
    /// A part of its body.
    RequestBody,
    /// Its trailers.
    RequestTrailers,
    /// The headers of its answer.
    ResponseHeaders,
    /// A part of its answer's body.
    ResponseBody,
    /// A context is gone.
    Delete,
}

impl Callback {
    /// Its name, as metrics and logs have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Configure => "configure",
            Self::Tick => "tick",
            Self::CalloutAnswer => "callout_answer",
            Self::RequestHeaders => "request_headers",
            Self::RequestBody => "request_body",
            Self::RequestTrailers => "request_trailers",
            Self::ResponseHeaders => "response_headers",
            Self::ResponseBody => "response_body",
            Self::Delete => "delete",
        }
    }
}

/// One VM's state behind the net.
#[derive(Default)]
pub struct Guarded(RefCell<Vm>);

/// Outcomes for headers and trailers: to go on, and of a request that was answered.
pub const HEADERS: (Action, Option<Action>) = (Action::Continue, Some(Action::Pause));

/// The same for bodies.
pub const BODY: (BodyAction, Option<BodyAction>) = (BodyAction::Continue, Some(BodyAction::Buffer));

impl Guarded {
    /// Runs a callback about a context. Envoy does not call while a callback runs; if it did, the
    /// inner one would come to `go_on`.
    pub fn call<T>(
        &self,
        callback: Callback,
        context: u32,
        go_on: T,
        act: impl FnOnce(&mut Vm) -> T,
    ) -> T {
        self.decide(callback, context, (go_on, None), act)
    }

    /// The same of a callback that lets a request go on or stops it: the second outcome, where
    /// there is one, is that of a request which was answered in Envoy's stead.
    pub fn decide<T>(
        &self,
        callback: Callback,
        context: u32,
        (go_on, answered): (T, Option<T>),
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
                match (recovered, answered) {
                    (true, Some(answered)) => answered,
                    _ => go_on,
                }
            }
        }
    }
}

/// What comes of this, if it does not panic.
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

/// What the panic of an allocation that failed begins with.
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
            format!(
                "the host gives this VM no more memory, which costs the request at hand: {panic}"
            )
        } else {
            format!("a defect of epp-wasm, please report it: {panic}")
        };
        let _: Result<(), Status> = abi::log(CRITICAL, &text);
    }
}

#[cfg(test)]
pub use tests::inject;

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
