//! The exports that Envoy calls: the callbacks of proxy-wasm ABI 0.2.1 that the filter needs, and no others,
//! because each one that a module exports costs every request a crossing into its VM.
//!
//! The callback for the creation of contexts is not exported: a stream exists from its headers on, and a root from
//! its configuration on.

use super::abi::{self, Action, BodyAction};
use super::guard::{Callback, Guarded, BODY, HEADERS};

thread_local! {
    static VM: Guarded = Guarded::default();
}

#[no_mangle]
extern "C" fn proxy_abi_version_0_2_1() {}

/// Memory for what the host returns. No guard is around it: it does not panic.
#[no_mangle]
extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    abi::allocate(size)
}

#[no_mangle]
extern "C" fn proxy_on_configure(root: u32, _size: usize) -> u32 {
    let accepted = VM.with(|vm| vm.call(Callback::Configure, root, false, |vm| vm.configure(root)));
    accepted.into()
}

#[no_mangle]
extern "C" fn proxy_on_tick(root: u32) {
    VM.with(|vm| vm.call(Callback::Tick, root, (), |vm| vm.on_timer(root)));
}

#[no_mangle]
extern "C" fn proxy_on_http_call_response(
    root: u32,
    token: u32,
    headers: usize,
    body: usize,
    _trailers: usize,
) {
    VM.with(|vm| {
        vm.call(Callback::CalloutResponse, root, (), |vm| {
            vm.called_back(root, token, headers, body);
        });
    });
}

#[no_mangle]
extern "C" fn proxy_on_request_headers(stream: u32, _count: usize, end: u32) -> u32 {
    VM.with(|vm| {
        vm.decide(Callback::RequestHeaders, stream, HEADERS, |vm| {
            vm.request_headers(stream, end != 0)
        })
    }) as u32
}

#[no_mangle]
extern "C" fn proxy_on_request_body(stream: u32, size: usize, end: u32) -> u32 {
    VM.with(|vm| {
        vm.decide(Callback::RequestBody, stream, BODY, |vm| {
            vm.request_body(stream, size, end != 0)
        })
    }) as u32
}

#[no_mangle]
extern "C" fn proxy_on_request_trailers(stream: u32, _count: usize) -> u32 {
    VM.with(|vm| {
        vm.decide(Callback::RequestTrailers, stream, HEADERS, |vm| {
            vm.request_trailers(stream)
        })
    }) as u32
}

#[no_mangle]
extern "C" fn proxy_on_response_headers(stream: u32, _count: usize, _end: u32) -> u32 {
    VM.with(|vm| {
        vm.call(Callback::ResponseHeaders, stream, (), |vm| {
            vm.response_headers(stream);
        });
    });
    Action::Continue as u32
}

#[no_mangle]
extern "C" fn proxy_on_response_body(stream: u32, size: usize, _end: u32) -> u32 {
    VM.with(|vm| {
        vm.call(Callback::ResponseBody, stream, (), |vm| {
            vm.response_body(stream, size);
        });
    });
    BodyAction::Continue as u32
}

#[no_mangle]
extern "C" fn proxy_on_delete(context: u32) {
    VM.with(|vm| vm.call(Callback::Delete, context, (), |vm| vm.delete(context)));
}
