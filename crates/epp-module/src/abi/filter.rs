//! A stream of Envoy's.

use std::marker::PhantomData;
use std::ptr::null_mut;

use smallvec::SmallVec;

use super::*;

/// Wakes a stream on its worker.
#[derive(Debug)]
pub struct StreamScheduler(Raw);

// SAFETY: its functions may be called on any thread.
unsafe impl Send for StreamScheduler {}

impl StreamScheduler {
    /// Has the worker run the stream's hook, after what it does now.
    pub fn wake(&self) {
        // SAFETY: it exists until it is dropped.
        unsafe { envoy_dynamic_module_callback_http_filter_scheduler_commit(self.0, 0) }
    }
}

impl Drop for StreamScheduler {
    fn drop(&mut self) {
        // SAFETY: it exists, and is not used after this.
        unsafe { envoy_dynamic_module_callback_http_filter_scheduler_delete(self.0) }
    }
}

/// Headers that Envoy shows.
#[derive(Debug)]
pub struct Headers<'a>(SmallVec<[RawHeader; 24]>, PhantomData<&'a ()>);

impl<'a> Headers<'a> {
    /// Returns names and values, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + '_ {
        // SAFETY: Envoy keeps them while the filter is borrowed, for `'a`.
        self.0.iter().map(|header| unsafe { header.get() })
    }
}

/// Consecutive parts of a body that Envoy shows.
pub type Chunks<'a> = SmallVec<[&'a [u8]; 4]>;

/// A stream of Envoy's, while one of its hooks runs.
#[derive(Debug)]
pub struct Filter<'hook>(Raw, PhantomData<&'hook ()>);

impl Filter<'_> {
    /// Wraps the pointer that Envoy passes to a hook.
    ///
    /// # Safety
    ///
    /// It must be used during that hook and on its thread only.
    pub unsafe fn new(filter: Raw) -> Self {
        Self(filter, PhantomData)
    }

    /// Returns the number of the stream's worker.
    pub fn worker(&self) -> u32 {
        // SAFETY: there is the filter.
        unsafe { envoy_dynamic_module_callback_http_filter_get_worker_index(self.0) }
    }

    /// Returns what wakes the stream outside of its hooks.
    pub fn scheduler(&self) -> StreamScheduler {
        // SAFETY: there is the filter.
        StreamScheduler(unsafe { envoy_dynamic_module_callback_http_filter_scheduler_new(self.0) })
    }

    /// Returns all headers of a map, if there is that map.
    pub fn headers(&self, map: Map) -> Option<Headers<'_>> {
        // SAFETY: there is the filter.
        let count =
            unsafe { envoy_dynamic_module_callback_http_get_headers_size(self.0, map as u32) };
        let none = RawHeader {
            name: std::ptr::null(),
            name_size: 0,
            value: std::ptr::null(),
            value_size: 0,
        };
        let mut headers = SmallVec::from_elem(none, count);
        // SAFETY: there is room for as many as there are.
        let got = unsafe {
            let headers: *mut RawHeader = headers.as_mut_ptr();
            envoy_dynamic_module_callback_http_get_headers(self.0, map as u32, headers)
        };
        got.then_some(Headers(headers, PhantomData))
    }

    /// Returns a header's first value.
    pub fn header(&self, map: Map, name: &str) -> Option<&[u8]> {
        let (mut value, mut count) = (EnvoyBytes::NONE, 0);
        // SAFETY: name and places live through the call.
        let got = unsafe {
            let (name, map) = (name.into(), map as u32);
            envoy_dynamic_module_callback_http_get_header(
                self.0, map, name, &mut value, 0, &mut count,
            )
        };
        // SAFETY: Envoy keeps it while the filter is borrowed.
        (got && count > 0).then(|| unsafe { value.get() })
    }

    /// Sets a header, and removes others of the same name. Returns whether there is that map.
    pub fn set_header(&mut self, map: Map, name: &str, value: &[u8]) -> bool {
        // SAFETY: name and value live through the call.
        unsafe {
            let (name, value) = (name.into(), value.into());
            envoy_dynamic_module_callback_http_set_header(self.0, map as u32, name, value)
        }
    }

    /// Removes a header.
    pub fn remove_header(&mut self, map: Map, name: &str) {
        // SAFETY: the name lives through the call. No value means that it is removed.
        unsafe {
            let (name, none) = (name.into(), ModuleBytes::NONE);
            envoy_dynamic_module_callback_http_set_header(self.0, map as u32, name, none)
        };
    }

    /// Appends what Envoy shows of a body to a list.
    pub fn chunks<'a>(&'a self, part: Part, chunks: &mut Chunks<'a>) {
        // SAFETY: there is the filter.
        let count =
            unsafe { envoy_dynamic_module_callback_http_get_body_chunks_size(self.0, part as u32) };
        if count == 0 {
            return;
        }
        let mut raw: SmallVec<[EnvoyBytes; 8]> = SmallVec::from_elem(EnvoyBytes::NONE, count);
        // SAFETY: there is room for as many as there are.
        let got = unsafe {
            let raw = raw.as_mut_ptr();
            envoy_dynamic_module_callback_http_get_body_chunks(self.0, part as u32, raw)
        };
        if got {
            // SAFETY: Envoy keeps them while the filter is borrowed.
            chunks.extend(raw.iter().map(|chunk| unsafe { chunk.get() }));
        }
    }

    /// Replaces all that Envoy shows of a body. Returns whether it did.
    pub fn replace_body(&mut self, part: Part, bytes: &[u8]) -> bool {
        // SAFETY: the bytes live through the call.
        unsafe {
            let part = part as u32;
            envoy_dynamic_module_callback_http_drain_body(self.0, part, usize::MAX)
                && (bytes.is_empty()
                    || envoy_dynamic_module_callback_http_append_body(self.0, part, bytes.into()))
        }
    }

    /// Sets a text in the stream's dynamic metadata.
    pub fn set_metadata(&mut self, namespace: &str, key: &str, value: &str) {
        // SAFETY: all live through the call.
        unsafe {
            let (namespace, key) = (namespace.into(), key.into());
            let value = value.into();
            envoy_dynamic_module_callback_http_set_dynamic_metadata_string(
                self.0, namespace, key, value,
            );
        }
    }

    /// Sets what other filters of the stream, and no client, can read with [`Self::state`].
    pub fn set_state(&mut self, key: &str, value: &[u8]) {
        // SAFETY: all live through the call.
        unsafe {
            let (key, value) = (key.into(), value.into());
            envoy_dynamic_module_callback_http_set_filter_state_bytes(self.0, key, value)
        };
    }

    /// Returns what a filter has set with [`Self::set_state`].
    pub fn state(&self, key: &str) -> Option<&[u8]> {
        let mut value = EnvoyBytes::NONE;
        // SAFETY: key and place live through the call.
        let got = unsafe {
            let key = key.into();
            envoy_dynamic_module_callback_http_get_filter_state_bytes(self.0, key, &mut value)
        };
        // SAFETY: Envoy keeps it while the filter is borrowed.
        got.then(|| unsafe { value.get() })
    }

    /// Returns a fact about the stream that is a text.
    pub fn text(&self, attribute: Attribute) -> Option<&[u8]> {
        let mut value = EnvoyBytes::NONE;
        // SAFETY: the place lives through the call.
        let got = unsafe {
            let attribute = attribute as u32;
            envoy_dynamic_module_callback_http_filter_get_attribute_string(
                self.0, attribute, &mut value,
            )
        };
        // SAFETY: Envoy keeps it while the filter is borrowed.
        got.then(|| unsafe { value.get() })
    }

    /// Returns a fact about the stream that is a number.
    pub fn number(&self, attribute: Attribute) -> Option<u64> {
        let mut value = 0;
        // SAFETY: the place lives through the call.
        let got = unsafe {
            let attribute = attribute as u32;
            envoy_dynamic_module_callback_http_filter_get_attribute_int(
                self.0, attribute, &mut value,
            )
        };
        got.then_some(value)
    }

    /// Sends a local reply, or resets the stream if its response has begun. Hooks of this stream run meanwhile.
    pub fn respond(&mut self, status: u32, details: &str, headers: &[(&str, &str)], body: &str) {
        let mut headers = raw(headers);
        // SAFETY: everything pointed to lives through the call.
        unsafe {
            let count = headers.len();
            let pointer = if count == 0 {
                null_mut()
            } else {
                headers.as_mut_ptr()
            };
            let (body, details) = (body.into(), details.into());
            envoy_dynamic_module_callback_http_send_response(
                self.0, status, pointer, count, body, details,
            );
        }
    }

    /// Has a held request go on. Hooks of this stream may run meanwhile.
    pub fn resume(&mut self) {
        // SAFETY: there is the filter.
        unsafe { envoy_dynamic_module_callback_http_filter_continue_decoding(self.0) }
    }
}
