//! Faults on demand, for the tests of what follows from them. Only in a module that was built with
//! the feature `fault-injection`, which no release is: there a client could stop the proxy.
//!
//! A request with `x-epp-fault: KIND@PLACE` gets the fault injected, once, at a place of its own
//! (`request_headers`, which is meant where none is named, `request_body`, `response_headers`,
//! `response_body`, `delete`), at the next tick of the VM that serves it (`tick`), at the next tick
//! or callout's response of the VM that polls (`poller_tick`, `callout_response`), which is the main
//! thread's where that one lives, or when the next configuration comes (`configure`).
//!
//! | kind | what it does |
//! |---|---|
//! | `panic` | panics: can be caught |
//! | `trap` | executes `unreachable`: the VM is lost |
//! | `stack` | recurses until the stack is used up: the VM is lost |
//! | `memory` | allocates until the host gives no more, and keeps nothing: can be caught |
//! | `hoard` | takes all that the host gives, and gives it back after 60 ticks |
//! | `scribble` | writes a stranger's values over all that the first plugin's VMs share |
//! | `stall` | returns after three seconds, in which the worker does nothing else |
//! | `loop` | never returns: the worker is lost |

use std::cell::RefCell;

use super::abi::{self, Map};
use super::guard::Callback;
use super::host::Shared;

/// The request header.
const HEADER: &str = "x-epp-fault";

/// Stands for the VM itself, where a place is not of a request.
const NO_REQUEST: u32 = u32::MAX;

/// A fault that waits for its place: of which context, where, what.
type Armed = (u32, String, String);

/// All memory that could be allocated, and the ticks for which it is kept.
type Hoard = (Vec<Vec<u8>>, u32);

thread_local! {
    static ARMED: RefCell<Vec<Armed>> = const { RefCell::new(Vec::new()) };
    static HOARD: RefCell<Hoard> = const { RefCell::new((Vec::new(), 0)) };
}

/// Injects the fault that a request's header names for this place, if there is one.
pub fn inject(callback: Callback, context: u32, polls: bool) {
    if callback == Callback::RequestHeaders {
        arm(context);
    }
    let of_request = !matches!(
        callback,
        Callback::Tick | Callback::CalloutResponse | Callback::Configure
    );
    if callback == Callback::Tick {
        give_back_hoard();
    }
    if of_request && ARMED.with_borrow(Vec::is_empty) {
        // No allocation on this path: it also runs while a hoard has taken all memory.
        return;
    }
    let mut places = vec![(context, callback.name().to_owned())];
    if callback == Callback::Tick {
        places = vec![(NO_REQUEST, "tick".to_owned())];
        if polls {
            places.push((NO_REQUEST, "poller_tick".to_owned()));
        }
    }
    for (context, place) in places {
        let own = ARMED.with_borrow_mut(|armed| {
            let found = armed
                .iter()
                .position(|fault| (fault.0, &fault.1) == (context, &place));
            found.map(|index| armed.swap_remove(index).2)
        });
        // Envoy first passes a configuration to a canary VM, which does not poll and is dropped.
        let mine = polls || callback == Callback::Configure;
        let fault = own.or_else(|| mine.then(|| take_shared(&place)).flatten());
        if let Some(kind) = fault {
            commit(&kind);
        }
    }
}

fn arm(stream: u32) {
    let Ok(Some(value)) = abi::header(Map::Request, HEADER) else {
        return;
    };
    let value = String::from_utf8_lossy(&value).into_owned();
    let (kind, place) = value.split_once('@').unwrap_or((&value, "request_headers"));
    match place {
        "poller_tick" | "callout_response" | "configure" => {
            let _ = abi::set_shared(&key(place), kind.as_bytes(), None);
        }
        _ => {
            let context = if place == "tick" { NO_REQUEST } else { stream };
            ARMED.with_borrow_mut(|armed| armed.push((context, place.to_owned(), kind.to_owned())));
        }
    }
}

fn key(place: &str) -> String {
    format!("epp-wasm-fault/{place}")
}

/// Returns the value that another VM left for this one, removed before it is injected.
fn take_shared(place: &str) -> Option<String> {
    let (value, version) = abi::shared(&key(place)).ok()??;
    let taken = !value.is_empty() && abi::set_shared(&key(place), b"", Some(version)).is_ok();
    taken.then(|| String::from_utf8_lossy(&value).into_owned())
}

// What it is for.
#[allow(clippy::panic)]
fn commit(kind: &str) {
    match kind {
        "panic" => panic!("injected"),
        "trap" => core::arch::wasm32::unreachable(),
        "stack" => {
            std::hint::black_box(recurse(1));
        }
        "memory" => {
            let mut taken = Vec::new();
            loop {
                taken.push(std::hint::black_box(vec![1_u8; 16 << 20]));
            }
        }
        "hoard" => hoard(),
        "scribble" => epp_sync::scribble(&mut Shared, "epp0", "inference-pool"),
        "stall" => {
            let end = abi::now_ns() + 3_000_000_000;
            while abi::now_ns() < end {}
        }
        "loop" => loop {
            std::hint::black_box(());
        },
        _ => log::warn!("no such fault: {kind}"),
    }
}

/// Takes memory in ever smaller pieces, until there is none for another.
fn hoard() {
    HOARD.with_borrow_mut(|(pieces, ticks)| {
        // Three seconds: requests have to meet it on a machine that is busy with other things.
        *ticks = 60;
        pieces.reserve(4096);
        let mut size = 16 << 20;
        while size >= 64 {
            let mut piece = Vec::new();
            if pieces.len() == pieces.capacity() || piece.try_reserve_exact(size).is_err() {
                size /= 2;
                continue;
            }
            pieces.push(piece);
        }
    });
}

fn give_back_hoard() {
    HOARD.with_borrow_mut(|(pieces, ticks)| {
        *ticks = ticks.saturating_sub(1);
        if *ticks == 0 {
            pieces.clear();
        }
    });
}

#[allow(unconditional_recursion)]
fn recurse(depth: u64) -> u64 {
    let here = std::hint::black_box([depth; 64]);
    recurse(depth + 1) + here.iter().sum::<u64>()
}
