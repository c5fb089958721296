//! The host calls that the filter makes, as plain functions that return the host's results.
//!
//! The calls and their shapes are those of proxy-wasm ABI 0.2.1. The Rust SDK is not used: its
//! wrappers panic on a status that they do not expect, which kills a whole worker's VM; it exports
//! every callback there is, each of which Envoy then calls for every request (1 to 2 µs); and it
//! knows two of the four ways in which a body can be held ([`BodyAction`]).
//!
//! Every call that returns bytes has Envoy call back into the VM for memory, which makes it ten
//! times as dear as one that does not: about 5 µs in Envoy 1.40. Where there is none left the call
//! fails (`InvalidMemoryAccess`).

use std::alloc::Layout;
use std::ptr::null_mut;

/// A host call failed, with the host's status (`WasmResult`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status(pub u32);

const OK: u32 = 0;
const NOT_FOUND: u32 = 1;
/// What a callout through a cluster that Envoy does not have returns.
pub const BAD_ARGUMENT: Status = Status(2);

/// A map of headers in Envoy.
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub enum Map {
    /// The request's headers.
    Request = 0,
    /// The response's headers.
    Response = 2,
    /// The headers of a callout's response.
    Callout = 6,
}

/// A buffer in Envoy.
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub enum Buffer {
    /// The request's body, as far as Envoy shows it.
    RequestBody = 0,
    /// The part of the response's body that is passing.
    ResponseBody = 1,
    /// The body of a callout's response.
    CalloutBody = 4,
    /// The plugin's configuration.
    Configuration = 7,
}

/// The kind of a metric.
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub enum MetricKind {
    /// Only up.
    Counter = 0,
    /// Any value.
    Gauge = 1,
}

/// Envoy's next action on headers or trailers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Action {
    /// Pass them on.
    Continue = 0,
    /// Hold them.
    Pause = 1,
}

/// Envoy's next action on a part of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum BodyAction {
    /// Pass it on, and what was held before it.
    Continue = 0,
    /// Hold it and show all that is held the next time. Past its limit Envoy replies with 413.
    Buffer = 1,
    /// Hold it and show only what is new the next time. Past its limit Envoy stops reading.
    Watermark = 2,
}

#[link(wasm_import_module = "env")]
extern "C" {
    fn proxy_log(level: u32, message: *const u8, size: usize) -> u32;
    fn proxy_get_buffer_bytes(
        buffer: u32,
        start: usize,
        max: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_set_buffer_bytes(
        buffer: u32,
        start: usize,
        size: usize,
        data: *const u8,
        data_size: usize,
    ) -> u32;
    fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_get_header_map_value(
        map: u32,
        key: *const u8,
        key_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_replace_header_map_value(
        map: u32,
        key: *const u8,
        key_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_remove_header_map_value(map: u32, key: *const u8, key_size: usize) -> u32;
    fn proxy_get_property(
        path: *const u8,
        path_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_set_property(
        path: *const u8,
        path_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_get_shared_data(
        key: *const u8,
        key_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
        cas: *mut u32,
    ) -> u32;
    fn proxy_set_shared_data(
        key: *const u8,
        key_size: usize,
        value: *const u8,
        value_size: usize,
        cas: u32,
    ) -> u32;
    fn proxy_define_metric(kind: u32, name: *const u8, name_size: usize, id: *mut u32) -> u32;
    fn proxy_record_metric(id: u32, value: u64) -> u32;
    fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32;
    fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
    fn proxy_set_effective_context(context: u32) -> u32;
    fn proxy_continue_stream(stream: u32) -> u32;
    fn proxy_http_call(
        cluster: *const u8,
        cluster_size: usize,
        headers: *const u8,
        headers_size: usize,
        body: *const u8,
        body_size: usize,
        trailers: *const u8,
        trailers_size: usize,
        timeout: u32,
        token: *mut u32,
    ) -> u32;
    fn proxy_send_local_response(
        code: u32,
        details: *const u8,
        details_size: usize,
        body: *const u8,
        body_size: usize,
        headers: *const u8,
        headers_size: usize,
        grpc_status: i32,
    ) -> u32;
}

#[link(wasm_import_module = "wasi_snapshot_preview1")]
extern "C" {
    fn random_get(data: *mut u8, size: usize) -> u32;
}

fn done(status: u32) -> Result<(), Status> {
    match status {
        OK => Ok(()),
        other => Err(Status(other)),
    }
}

/// Memory for what the host returns, which [`take`] takes over; null where there is none left, upon
/// which the host's call fails.
#[cfg_attr(not(target_arch = "wasm32"), allow(dead_code))]
pub fn allocate(size: usize) -> *mut u8 {
    match Layout::array::<u8>(size) {
        // SAFETY: the layout is not of size zero.
        Ok(layout) if size > 0 => unsafe { std::alloc::alloc(layout) },
        _ => null_mut(),
    }
}

/// Takes over memory that the host had our allocator give it.
fn take(status: u32, data: *mut u8, size: usize) -> Result<Option<Vec<u8>>, Status> {
    match status {
        OK if data.is_null() => Ok(None),
        // SAFETY: the host filled `size` bytes that our exported allocator ([`allocate`]) allocated as
        // a vector of exactly this capacity would be, and gives up the pointer.
        OK => Ok(Some(unsafe { Vec::from_raw_parts(data, size, size) })),
        NOT_FOUND => Ok(None),
        other => Err(Status(other)),
    }
}

/// Writes a line to Envoy's log; levels count from 0 (trace) to 5 (critical).
pub fn log(level: u32, message: &str) -> Result<(), Status> {
    // SAFETY: the message lives through the call.
    done(unsafe { proxy_log(level, message.as_ptr(), message.len()) })
}

/// Bytes of a buffer; `None` where there are none.
pub fn buffer(buffer: Buffer, start: usize, max: usize) -> Result<Option<Vec<u8>>, Status> {
    let (mut data, mut size) = (null_mut(), 0);
    // SAFETY: both out-pointers live through the call.
    let status = unsafe { proxy_get_buffer_bytes(buffer as u32, start, max, &mut data, &mut size) };
    take(status, data, size)
}

/// Replaces a buffer's first `size` bytes.
pub fn replace_start(buffer: Buffer, size: usize, content: &[u8]) -> Result<(), Status> {
    // SAFETY: the content lives through the call.
    done(unsafe {
        let (data, data_size) = (content.as_ptr(), content.len());
        proxy_set_buffer_bytes(buffer as u32, 0, size, data, data_size)
    })
}

/// All headers in the ABI's packed form, see [`super::headers::Pairs`].
pub fn header_pairs(map: Map) -> Result<Option<Vec<u8>>, Status> {
    let (mut data, mut size) = (null_mut(), 0);
    // SAFETY: both out-pointers live through the call.
    let status = unsafe { proxy_get_header_map_pairs(map as u32, &mut data, &mut size) };
    take(status, data, size)
}

/// One header.
pub fn header(map: Map, name: &str) -> Result<Option<Vec<u8>>, Status> {
    let (mut data, mut size) = (null_mut(), 0);
    // SAFETY: the name and both out-pointers live through the call.
    let status = unsafe {
        proxy_get_header_map_value(map as u32, name.as_ptr(), name.len(), &mut data, &mut size)
    };
    take(status, data, size)
}

/// Returns whether there is a header of this name, be it empty.
pub fn has_header(map: Map, name: &str) -> bool {
    let (mut data, mut size) = (null_mut(), 0);
    // SAFETY: the name and both out-pointers live through the call.
    let status = unsafe {
        proxy_get_header_map_value(map as u32, name.as_ptr(), name.len(), &mut data, &mut size)
    };
    let _: Result<Option<Vec<u8>>, Status> = take(status, data, size);
    status == OK
}

/// Sets a header, and removes others of the same name.
pub fn set_header(map: Map, name: &str, value: &[u8]) -> Result<(), Status> {
    // SAFETY: name and value live through the call.
    done(unsafe {
        let (name, name_size) = (name.as_ptr(), name.len());
        proxy_replace_header_map_value(map as u32, name, name_size, value.as_ptr(), value.len())
    })
}

/// Removes a header.
pub fn remove_header(map: Map, name: &str) -> Result<(), Status> {
    // SAFETY: the name lives through the call.
    done(unsafe { proxy_remove_header_map_value(map as u32, name.as_ptr(), name.len()) })
}

/// A property; the parts of `path` are separated by NUL.
pub fn property(path: &str) -> Result<Option<Vec<u8>>, Status> {
    let (mut data, mut size) = (null_mut(), 0);
    // SAFETY: the path and both out-pointers live through the call.
    let status = unsafe { proxy_get_property(path.as_ptr(), path.len(), &mut data, &mut size) };
    take(status, data, size)
}

/// Sets a property of the request that filters behind this one read with [`property`], in whatever
/// VM they run. Envoy keeps it in the filter state of the stream: no client can set it.
pub fn set_property(name: &str, value: &[u8]) -> Result<(), Status> {
    // SAFETY: name and value live through the call.
    done(unsafe { proxy_set_property(name.as_ptr(), name.len(), value.as_ptr(), value.len()) })
}

/// A value that all VMs of this vm_id share, with its version for [`set_shared`].
pub fn shared(key: &str) -> Result<Option<(Vec<u8>, u32)>, Status> {
    let (mut data, mut size, mut cas) = (null_mut(), 0, 0);
    // SAFETY: the key and all out-pointers live through the call.
    let status =
        unsafe { proxy_get_shared_data(key.as_ptr(), key.len(), &mut data, &mut size, &mut cas) };
    Ok(take(status, data, size)?.map(|value| (value, cas)))
}

/// Sets a shared value; with a version it fails where another VM was quicker.
pub fn set_shared(key: &str, value: &[u8], cas: Option<u32>) -> Result<(), Status> {
    let cas = cas.unwrap_or(0);
    // SAFETY: key and value live through the call.
    done(unsafe {
        proxy_set_shared_data(key.as_ptr(), key.len(), value.as_ptr(), value.len(), cas)
    })
}

/// Defines a metric and returns its number. Each call makes a new number: define once.
pub fn define_metric(kind: MetricKind, name: &str) -> Result<u32, Status> {
    let mut id = 0;
    // SAFETY: the name and the out-pointer live through the call.
    let status = unsafe { proxy_define_metric(kind as u32, name.as_ptr(), name.len(), &mut id) };
    done(status).map(|()| id)
}

/// Sets a gauge, or adds to a counter. Envoy does not add 0 by `proxy_increment_metric`, and a counter without an update
/// is not among those in use (`usedonly`).
pub fn record_metric(id: u32, value: u64) -> Result<(), Status> {
    // SAFETY: no pointers.
    done(unsafe { proxy_record_metric(id, value) })
}

/// Wall clock, in nanoseconds since 1970; 0 where the host does not say.
pub fn now_ns() -> u64 {
    let mut time = 0;
    // SAFETY: the out-pointer lives through the call.
    match unsafe { proxy_get_current_time_nanoseconds(&mut time) } {
        OK => time,
        _ => 0,
    }
}

/// Random bytes, of the operating system's. A system call for each: proxy-wasm has no call of its own,
/// and hosts implement WASI's.
pub fn random<const SIZE: usize>() -> Result<[u8; SIZE], Status> {
    let mut bytes = [0; SIZE];
    // SAFETY: the bytes live through the call.
    done(unsafe { random_get(bytes.as_mut_ptr(), SIZE) })?;
    Ok(bytes)
}

/// Memory of the VM, in bytes; it never shrinks.
pub fn memory_bytes() -> u64 {
    #[cfg(target_arch = "wasm32")]
    {
        const PAGE: u64 = 64 << 10;
        core::arch::wasm32::memory_size::<0>() as u64 * PAGE
    }
    // The tests' process has no memory of its own for the filter.
    #[cfg(not(target_arch = "wasm32"))]
    0
}

/// Asks for `on_tick` each `period` milliseconds.
pub fn set_tick_period(period: u32) -> Result<(), Status> {
    // SAFETY: no pointers.
    done(unsafe { proxy_set_tick_period_milliseconds(period) })
}

/// Makes another context the one that the calls after this are about.
pub fn set_effective_context(context: u32) -> Result<(), Status> {
    // SAFETY: no pointers.
    done(unsafe { proxy_set_effective_context(context) })
}

/// Resumes a held request.
pub fn resume_request() -> Result<(), Status> {
    // SAFETY: no pointers.
    done(unsafe { proxy_continue_stream(0) })
}

/// Sends a GET-like request without a body through a cluster; its response arrives under the token.
pub fn http_call(cluster: &str, headers: &[(&str, &str)], timeout_ms: u64) -> Result<u32, Status> {
    let headers = super::headers::pack(headers);
    let trailers = super::headers::pack(&[]);
    let timeout = u32::try_from(timeout_ms).unwrap_or(u32::MAX);
    let mut token = 0;
    // SAFETY: everything pointed to lives through the call; an empty body needs no place.
    let status = unsafe {
        proxy_http_call(
            cluster.as_ptr(),
            cluster.len(),
            headers.as_ptr(),
            headers.len(),
            null_mut(),
            0,
            trailers.as_ptr(),
            trailers.len(),
            timeout,
            &mut token,
        )
    };
    done(status).map(|()| token)
}

/// Sends a local reply to the request.
pub fn respond(
    code: u32,
    details: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Result<(), Status> {
    let headers = super::headers::pack(headers);
    // SAFETY: everything pointed to lives through the call; -1 means no gRPC status.
    done(unsafe {
        proxy_send_local_response(
            code,
            details.as_ptr(),
            details.len(),
            body.as_ptr(),
            body.len(),
            headers.as_ptr(),
            headers.len(),
            -1,
        )
    })
}
