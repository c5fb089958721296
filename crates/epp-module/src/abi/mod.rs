//! Envoy's functions that the module calls, as safe functions and types.
//!
//! The names, signatures and numbers are those of version 0.2 of the ABI of dynamic modules, which Envoy 1.40 has.
//! With [`super::hooks`] these are the only files with unsafe code. Their types keep the rules of the ABI:
//!
//! | type | thread | lifetime |
//! |---|---|---|
//! | [`Filter`] | that of the stream's worker | one hook |
//! | [`Config`] | Envoy's, for metrics; the main thread for all else | until the hook that destroys it returns |
//! | [`StreamScheduler`], [`ConfigScheduler`] | any | until dropped; it has no effect once its stream or configuration is destroyed |
//!
//! Bytes that Envoy owns are borrowed from the [`Filter`] that shows them. What changes headers or bodies takes the
//! filter mutably, so that nothing refers to what has moved.

#![allow(unsafe_code)]

use std::ffi::c_void;

pub use config::{Config, ConfigScheduler, MetricKind};
pub use filter::{Chunks, Filter, StreamScheduler};

mod config;
mod filter;

/// Bytes of Envoy's.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct EnvoyBytes {
    data: *const u8,
    size: usize,
}

impl EnvoyBytes {
    const NONE: Self = Self {
        data: std::ptr::null(),
        size: 0,
    };

    /// Returns the bytes.
    ///
    /// # Safety
    ///
    /// Envoy must keep them for `'a`.
    pub unsafe fn get<'a>(self) -> &'a [u8] {
        if self.data.is_null() || self.size == 0 {
            return &[];
        }
        // SAFETY: the caller promises that.
        unsafe { std::slice::from_raw_parts(self.data, self.size) }
    }
}

/// Bytes of the module's, which Envoy reads during the call only.
#[derive(Clone, Copy)]
#[repr(C)]
struct ModuleBytes {
    data: *const u8,
    size: usize,
}

impl ModuleBytes {
    const NONE: Self = Self {
        data: std::ptr::null(),
        size: 0,
    };
}

impl From<&[u8]> for ModuleBytes {
    fn from(bytes: &[u8]) -> Self {
        Self {
            data: bytes.as_ptr(),
            size: bytes.len(),
        }
    }
}

impl From<&str> for ModuleBytes {
    fn from(text: &str) -> Self {
        text.as_bytes().into()
    }
}

/// A header of Envoy's or of the module's.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct RawHeader {
    name: *const u8,
    name_size: usize,
    value: *const u8,
    value_size: usize,
}

impl RawHeader {
    /// Returns name and value.
    ///
    /// # Safety
    ///
    /// Envoy must keep them for `'a`.
    pub unsafe fn get<'a>(self) -> (&'a [u8], &'a [u8]) {
        let (name, value) = (
            EnvoyBytes {
                data: self.name,
                size: self.name_size,
            },
            EnvoyBytes {
                data: self.value,
                size: self.value_size,
            },
        );
        // SAFETY: the caller promises that.
        unsafe { (name.get(), value.get()) }
    }
}

/// Headers of the module's, as the ABI passes them.
fn raw(headers: &[(&str, &str)]) -> Vec<RawHeader> {
    let raw = |(name, value): &(&str, &str)| RawHeader {
        name: name.as_ptr(),
        name_size: name.len(),
        value: value.as_ptr(),
        value_size: value.len(),
    };
    headers.iter().map(raw).collect()
}

/// A map of headers.
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub enum Map {
    /// The request's headers.
    Request = 0,
    /// The response's headers.
    Response = 2,
}

/// A part of a body.
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub enum Part {
    /// The part of the request's body that has just come, in the hook that says so.
    ReceivedRequest = 0,
    /// The part of the request's body that is held.
    HeldRequest = 1,
    /// The part of the response's body that has just come.
    ReceivedResponse = 2,
}

/// A fact about a stream.
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub enum Attribute {
    /// `response.code_details`.
    ResponseDetails = 16,
    /// `upstream.address`.
    UpstreamAddress = 41,
    /// `upstream.request_attempt_count`.
    UpstreamAttempts = 53,
    /// `xds.cluster_name`.
    ClusterName = 57,
}

/// Why a callout was not begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CalloutRefused {
    /// There is no such cluster.
    NoCluster,
    /// Another reason: no healthy host, or the circuit breaker is open.
    Other,
}

type Raw = *mut c_void;

#[rustfmt::skip]
extern "C" {
    // Any thread.
    fn envoy_dynamic_module_callback_log(level: u32, message: ModuleBytes);
    fn envoy_dynamic_module_callback_log_enabled(level: u32) -> bool;
    // Main thread.
    fn envoy_dynamic_module_callback_get_concurrency() -> u32;
    fn envoy_dynamic_module_callback_is_validation_mode() -> bool;
    // Main thread, before the hook that makes a configuration returns.
    fn envoy_dynamic_module_callback_http_filter_config_define_counter(config: Raw, name: ModuleBytes, labels: *const ModuleBytes, count: usize, id: *mut usize) -> u32;
    fn envoy_dynamic_module_callback_http_filter_config_define_gauge(config: Raw, name: ModuleBytes, labels: *const ModuleBytes, count: usize, id: *mut usize) -> u32;
    // Any thread of Envoy's (no other: the statistics have a cache for each), while there is the configuration.
    fn envoy_dynamic_module_callback_http_filter_config_increment_counter(config: Raw, id: usize, values: *const ModuleBytes, count: usize, by: u64) -> u32;
    fn envoy_dynamic_module_callback_http_filter_config_set_gauge(config: Raw, id: usize, values: *const ModuleBytes, count: usize, value: u64) -> u32;
    // Main thread.
    fn envoy_dynamic_module_callback_http_filter_config_scheduler_new(config: Raw) -> Raw;
    fn envoy_dynamic_module_callback_http_filter_config_http_callout(config: Raw, id: *mut u64, cluster: ModuleBytes, headers: *const RawHeader, count: usize, body: ModuleBytes, timeout: u64) -> u32;
    // Any thread.
    fn envoy_dynamic_module_callback_http_filter_config_scheduler_commit(scheduler: Raw, event: u64);
    fn envoy_dynamic_module_callback_http_filter_config_scheduler_delete(scheduler: Raw);
    fn envoy_dynamic_module_callback_http_filter_scheduler_commit(scheduler: Raw, event: u64);
    fn envoy_dynamic_module_callback_http_filter_scheduler_delete(scheduler: Raw);
    // The stream's worker, during its hooks.
    fn envoy_dynamic_module_callback_http_filter_scheduler_new(filter: Raw) -> Raw;
    fn envoy_dynamic_module_callback_http_filter_get_worker_index(filter: Raw) -> u32;
    fn envoy_dynamic_module_callback_http_get_headers_size(filter: Raw, map: u32) -> usize;
    fn envoy_dynamic_module_callback_http_get_headers(filter: Raw, map: u32, headers: *mut RawHeader) -> bool;
    fn envoy_dynamic_module_callback_http_get_header(filter: Raw, map: u32, name: ModuleBytes, value: *mut EnvoyBytes, index: usize, count: *mut usize) -> bool;
    fn envoy_dynamic_module_callback_http_set_header(filter: Raw, map: u32, name: ModuleBytes, value: ModuleBytes) -> bool;
    fn envoy_dynamic_module_callback_http_get_body_chunks_size(filter: Raw, part: u32) -> usize;
    fn envoy_dynamic_module_callback_http_get_body_chunks(filter: Raw, part: u32, chunks: *mut EnvoyBytes) -> bool;
    fn envoy_dynamic_module_callback_http_append_body(filter: Raw, part: u32, data: ModuleBytes) -> bool;
    fn envoy_dynamic_module_callback_http_drain_body(filter: Raw, part: u32, size: usize) -> bool;
    fn envoy_dynamic_module_callback_http_set_dynamic_metadata_string(filter: Raw, namespace: ModuleBytes, key: ModuleBytes, value: ModuleBytes);
    fn envoy_dynamic_module_callback_http_set_filter_state_bytes(filter: Raw, key: ModuleBytes, value: ModuleBytes) -> bool;
    fn envoy_dynamic_module_callback_http_get_filter_state_bytes(filter: Raw, key: ModuleBytes, value: *mut EnvoyBytes) -> bool;
    fn envoy_dynamic_module_callback_http_filter_get_attribute_string(filter: Raw, attribute: u32, value: *mut EnvoyBytes) -> bool;
    fn envoy_dynamic_module_callback_http_filter_get_attribute_int(filter: Raw, attribute: u32, value: *mut u64) -> bool;
    // These two run hooks of the same filter before they return.
    fn envoy_dynamic_module_callback_http_send_response(filter: Raw, status: u32, headers: *const RawHeader, count: usize, body: ModuleBytes, details: ModuleBytes);
    fn envoy_dynamic_module_callback_http_filter_continue_decoding(filter: Raw);
}

/// Writes a line to Envoy's log; levels count from 0 (trace) to 5 (critical).
pub fn log(level: u32, message: &str) {
    // SAFETY: the message lives through the call.
    unsafe { envoy_dynamic_module_callback_log(level, message.into()) }
}

/// Returns whether Envoy writes lines of this level.
pub fn logs(level: u32) -> bool {
    // SAFETY: no pointers.
    unsafe { envoy_dynamic_module_callback_log_enabled(level) }
}

/// Returns the number of workers. Main thread only.
pub fn workers() -> u32 {
    // SAFETY: no pointers.
    unsafe { envoy_dynamic_module_callback_get_concurrency() }
}

/// Returns whether Envoy only validates its configuration. Main thread only.
pub fn validates() -> bool {
    // SAFETY: no pointers.
    unsafe { envoy_dynamic_module_callback_is_validation_mode() }
}
