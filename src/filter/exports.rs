//! What Envoy calls: the callbacks of proxy-wasm ABI 0.2.1 that the filter needs, and no others,
//! because each one that a module exports costs every request a crossing into its VM.
//!
//! Contexts are not told of their creation: a stream is known from its headers on, and a root from
//! its configuration on.

use std::cell::RefCell;

use super::abi::{Action, BodyAction};
use super::vm::Vm;

thread_local! {
    static VM: RefCell<Vm> = RefCell::default();
}

/// Runs a callback over this VM's state. Envoy does not call while a callback runs; if it did, the
/// inner one would come to `otherwise`.
fn with<T>(otherwise: T, callback: impl FnOnce(&mut Vm) -> T) -> T {
    VM.with(|vm| match vm.try_borrow_mut() {
        Ok(mut vm) => callback(&mut vm),
        Err(_) => otherwise,
    })
}

#[no_mangle]
extern "C" fn proxy_abi_version_0_2_1() {}

/// Memory for what the host returns. It is taken over by `abi`'s `take`.
#[no_mangle]
extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    Box::into_raw(Box::<[u8]>::new_uninit_slice(size)).cast()
}

#[no_mangle]
extern "C" fn proxy_on_configure(root: u32, _size: usize) -> u32 {
    with(false, |vm| vm.configure(root)).into()
}

#[no_mangle]
extern "C" fn proxy_on_tick(root: u32) {
    with((), |vm| vm.tick(root));
}

#[no_mangle]
extern "C" fn proxy_on_http_call_response(
    root: u32,
    token: u32,
    headers: usize,
    body: usize,
    _trailers: usize,
) {
    with((), |vm| vm.called_back(root, token, headers, body));
}

#[no_mangle]
extern "C" fn proxy_on_request_headers(stream: u32, _count: usize, end: u32) -> u32 {
    with(Action::Continue, |vm| vm.request_headers(stream, end != 0)) as u32
}

#[no_mangle]
extern "C" fn proxy_on_request_body(stream: u32, size: usize, end: u32) -> u32 {
    let go_on = BodyAction::Continue;
    with(go_on, |vm| vm.request_body(stream, size, end != 0)) as u32
}

#[no_mangle]
extern "C" fn proxy_on_request_trailers(stream: u32, _count: usize) -> u32 {
    with(Action::Continue, |vm| vm.request_trailers(stream)) as u32
}

#[no_mangle]
extern "C" fn proxy_on_response_headers(stream: u32, _count: usize, end: u32) -> u32 {
    with((), |vm| vm.response_headers(stream, end != 0));
    Action::Continue as u32
}

#[no_mangle]
extern "C" fn proxy_on_response_body(stream: u32, size: usize, end: u32) -> u32 {
    with((), |vm| vm.response_body(stream, size, end != 0));
    BodyAction::Continue as u32
}

#[no_mangle]
extern "C" fn proxy_on_delete(context: u32) {
    with((), |vm| vm.delete(context));
}
