//! Faults on demand, for the tests of what follows from them. Only in unit tests and in a module that was built with the
//! feature `fault-injection`, which no release is: there a client could stop the proxy.
//!
//! A request with `x-epp-fault: KIND@PLACE` gets the fault injected, once, in a hook of its own (`request_headers`, which
//! is meant where none is named, `request_body`, `request_trailers`, `response_headers`, `response_body`, `delete`), at the
//! next tick of its worker's picker (`tick`) or of the one that polls (`poller_tick`), when the next callout ends
//! (`callout_response`), or when the next configuration comes (`configure`).
//!
//! | kind | what it does |
//! |---|---|
//! | `panic` | panics: is caught |
//! | `stall` | returns after three seconds, in which the worker does nothing else and holds its picker's lock |
//! | `loop` | never returns: the worker is lost |
//! | `scribble` | writes a stranger's values over all that the first filter's pickers share |
//!
//! Those of the wasm module that are missing here would end the process.

use std::sync::Mutex;
use std::thread::sleep;
use std::time::Duration;

use super::guard::{lock, Callback};
use super::pool;

/// The request header.
pub const HEADER: &str = "x-epp-fault";

/// Stands for no stream and no seat.
pub const ANYWHERE: usize = 0;

/// A fault that waits for its place.
struct Armed {
    /// The address of the stream or seat that it is for, or [`ANYWHERE`].
    of: usize,
    place: String,
    kind: String,
}

static ARMED: Mutex<Vec<Armed>> = Mutex::new(Vec::new());

/// Returns the address of what faults are for.
pub fn address<T>(of: &T) -> usize {
    std::ptr::from_ref(of) as usize
}

/// Notes the fault that a request's header names. The stream's worker has this seat.
pub fn arm(value: &[u8], stream: usize, seat: usize) {
    let value = String::from_utf8_lossy(value);
    let (kind, place) = value.split_once('@').unwrap_or((&value, "request_headers"));
    let of = match place {
        "poller_tick" | "callout_response" | "configure" => ANYWHERE,
        "tick" => seat,
        _ => stream,
    };
    lock(&ARMED).push(Armed {
        of,
        place: place.to_owned(),
        kind: kind.to_owned(),
    });
}

/// Injects a fault that waits for this place, if there is one.
pub fn inject(place: &str, of: usize) {
    let mut armed = lock(&ARMED);
    let found = armed
        .iter()
        .position(|fault| fault.of == of && fault.place == place);
    let fault = found.map(|index| armed.swap_remove(index));
    drop(armed);
    if let Some(fault) = fault {
        commit(&fault.kind);
    }
}

/// Injects a fault that waits for a tick of this seat.
pub fn inject_tick(seat: usize, polls: bool) {
    inject(Callback::Tick.name(), seat);
    if polls {
        inject("poller_tick", ANYWHERE);
    }
}

/// A stream is gone, and another one may get its address.
pub fn disarm(stream: usize) {
    lock(&ARMED).retain(|fault| fault.of != stream);
}

// What it is for.
#[allow(clippy::panic)]
fn commit(kind: &str) {
    match kind {
        "panic" => panic!("injected"),
        "stall" => sleep(Duration::from_secs(3)),
        "loop" => loop {
            sleep(Duration::from_secs(1));
        },
        "scribble" => epp_sync::scribble(&mut pool::store(), "epp0", "inference-pool"),
        _ => log::warn!("no such fault: {kind}"),
    }
}
