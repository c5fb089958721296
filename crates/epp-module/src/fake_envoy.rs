//! Envoy as the module sees it, in one process: the functions of the ABI over plain values, for the module's own tests.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::ptr::{from_mut, from_ref};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::abi::{EnvoyBytes, RawHeader};
use super::hooks;

/// Bytes as the ABI passes them, in both directions.
#[derive(Clone, Copy)]
#[repr(C)]
struct Bytes(*const u8, usize);

impl Bytes {
    fn of(bytes: &[u8]) -> Self {
        Self(bytes.as_ptr(), bytes.len())
    }

    fn get<'a>(self) -> &'a [u8] {
        match self.0.is_null() {
            true => &[],
            // SAFETY: the module gives the address and size of something that lives through the call.
            false => unsafe { std::slice::from_raw_parts(self.0, self.1) },
        }
    }

    fn text(self) -> String {
        String::from_utf8_lossy(self.get()).into_owned()
    }
}

/// What Envoy has logged.
pub static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// The number of workers, for which configurations make a picker each.
pub static WORKERS: AtomicU32 = AtomicU32::new(1);

thread_local! {
    /// The number of the worker that this thread is.
    pub static WORKER: Cell<u32> = const { Cell::new(0) };
}

/// A configuration of Envoy's.
#[derive(Default)]
pub struct FakeConfig {
    names: Mutex<Vec<String>>,
    /// Metrics by name, with the values of their labels.
    pub metrics: Mutex<BTreeMap<String, u64>>,
    /// Clusters and paths of callouts.
    pub callouts: Mutex<Vec<String>>,
    woken: Arc<AtomicU32>,
    /// What the module returned for it. No lock: all workers read it for each stream.
    ours: AtomicUsize,
}

impl FakeConfig {
    /// Passes a document to the module. Returns the configuration if that accepts it.
    pub fn new(name: &str, document: &str) -> Option<Box<Self>> {
        let mut config = Box::<Self>::default();
        let pointer = from_mut(&mut *config).cast();
        let bytes = |text: &str| {
            let bytes = Bytes::of(text.as_bytes());
            // SAFETY: both are a pointer and a size.
            unsafe { std::mem::transmute::<Bytes, EnvoyBytes>(bytes) }
        };
        let ours = hooks::envoy_dynamic_module_on_http_filter_config_new(
            pointer,
            bytes(name),
            bytes(document),
        );
        config.ours.store(ours as usize, Ordering::SeqCst);
        (!ours.is_null()).then_some(config)
    }

    fn ours(&self) -> *const c_void {
        self.ours.load(Ordering::SeqCst) as *const c_void
    }

    /// Has the main thread do what waits for it, if it was woken.
    pub fn schedule(&self) {
        if self.woken.swap(0, Ordering::SeqCst) == 0 {
            return;
        }
        let pointer = from_ref(self).cast_mut().cast();
        hooks::envoy_dynamic_module_on_http_filter_config_scheduled(pointer, self.ours(), 0);
    }

    /// Ends a callout with a response, or without.
    pub fn call_back(&self, number: u64, response: Option<(&str, &str)>) {
        let (status, body) = response.unwrap_or_default();
        let header = (Bytes::of(b":status"), Bytes::of(status.as_bytes()));
        let body = Bytes::of(body.as_bytes());
        let result = u32::from(response.is_none());
        let count = usize::from(response.is_some());
        hooks::envoy_dynamic_module_on_http_filter_config_http_callout_done(
            from_ref(self).cast_mut().cast(),
            self.ours(),
            number,
            result,
            from_ref(&header).cast::<RawHeader>(),
            count,
            from_ref(&body).cast::<EnvoyBytes>(),
            count,
        );
    }

    /// Returns a metric's value.
    pub fn metric(&self, name: &str) -> Option<u64> {
        self.metrics.lock().unwrap().get(name).copied()
    }
}

impl Drop for FakeConfig {
    fn drop(&mut self) {
        hooks::envoy_dynamic_module_on_http_filter_config_destroy(self.ours());
    }
}

/// A stream of Envoy's.
#[derive(Default)]
pub struct FakeFilter {
    /// The request's headers.
    pub request: Vec<(String, String)>,
    /// The response's headers.
    pub response: Vec<(String, String)>,
    /// The part of the body that is held.
    pub held: Vec<u8>,
    /// The part of the body that is being received.
    pub received: Vec<u8>,
    /// What was passed on of the body.
    pub sent: Vec<u8>,
    /// Dynamic metadata.
    pub metadata: BTreeMap<String, String>,
    state: BTreeMap<String, Vec<u8>>,
    /// Attributes by number.
    pub attributes: BTreeMap<u32, String>,
    /// Local replies.
    pub replies: Vec<(u32, String)>,
    /// How often it was resumed.
    pub resumed: u32,
    /// How often it was woken.
    pub woken: Arc<AtomicU32>,
    ours: usize,
}

impl FakeFilter {
    /// Returns a stream of a request for the pool's cluster.
    pub fn new(config: &FakeConfig, headers: &[(&str, &str)]) -> Box<Self> {
        const CLUSTER_NAME: u32 = 57;
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let mut filter = Box::<Self>::default();
        filter.request = headers.iter().map(owned).collect();
        let cluster = (CLUSTER_NAME, "inference-pool".to_owned());
        filter.attributes.extend([cluster]);
        let pointer = from_mut(&mut *filter).cast();
        let ours = hooks::envoy_dynamic_module_on_http_filter_new(config.ours(), pointer);
        filter.ours = ours as usize;
        filter
    }

    fn pointers(&mut self) -> (*mut c_void, *const c_void) {
        (from_mut(self).cast(), self.ours as *const c_void)
    }

    /// The request's headers have come. Returns whether they are held.
    pub fn headers(&mut self, end: bool) -> bool {
        let (filter, ours) = self.pointers();
        hooks::envoy_dynamic_module_on_http_filter_request_headers(filter, ours, end) != 0
    }

    /// A part of the body has come. Returns what the module wants done, which is done.
    pub fn body(&mut self, part: &str, end: bool) -> u32 {
        self.received = part.into();
        let (filter, ours) = self.pointers();
        let action = hooks::envoy_dynamic_module_on_http_filter_request_body(filter, ours, end);
        let received = std::mem::take(&mut self.received);
        match action {
            1 | 2 => self.held.extend(received),
            0 => {
                self.sent.append(&mut self.held);
                self.sent.extend(received);
            }
            _ => {}
        }
        action
    }

    /// The response's headers have come.
    pub fn respond(&mut self, status: &str) {
        self.response = vec![(":status".to_owned(), status.to_owned())];
        self.responded();
    }

    /// The response's headers have come, and are set.
    pub fn responded(&mut self) {
        let (filter, ours) = self.pointers();
        hooks::envoy_dynamic_module_on_http_filter_response_headers(filter, ours, true);
    }

    /// A part of the response's body has come.
    pub fn response_body(&mut self, part: &str) {
        self.received = part.into();
        let (filter, ours) = self.pointers();
        hooks::envoy_dynamic_module_on_http_filter_response_body(filter, ours, true);
    }

    /// Runs the hook for which the stream was woken.
    pub fn schedule(&mut self) {
        let (filter, ours) = self.pointers();
        hooks::envoy_dynamic_module_on_http_filter_scheduled(filter, ours, 0);
    }

    /// Returns a header of the request.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.request.iter();
        let found = headers.find(|(header, _)| header == name);
        found.map(|(_, value)| value.as_str())
    }

    fn part(&mut self, part: u32) -> &mut Vec<u8> {
        match part {
            1 => &mut self.held,
            _ => &mut self.received,
        }
    }
}

impl Drop for FakeFilter {
    fn drop(&mut self) {
        hooks::envoy_dynamic_module_on_http_filter_destroy(self.ours as *const c_void);
    }
}

type Config<'a> = &'a FakeConfig;
type Filter<'a> = &'a mut FakeFilter;
type Woken = *mut c_void;

fn scheduler(woken: &Arc<AtomicU32>) -> Woken {
    Arc::into_raw(Arc::clone(woken)).cast_mut().cast()
}

/// Defines functions of the ABI.
macro_rules! fake {
    ($($name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)? $body:block)+) => {
        $(#[no_mangle]
        extern "C" fn $name($($argument: $type),*) $(-> $result)? $body)+
    };
}

fake! {
    envoy_dynamic_module_callback_log(level: u32, message: Bytes) {
        LOG.lock().unwrap().push(format!("{level} {}", message.text()));
    }
    envoy_dynamic_module_callback_log_enabled(_level: u32) -> bool { true }
    envoy_dynamic_module_callback_get_concurrency() -> u32 { WORKERS.load(Ordering::SeqCst) }
    envoy_dynamic_module_callback_is_validation_mode() -> bool { false }
    envoy_dynamic_module_callback_http_filter_config_define_counter(config: Config<'_>, name: Bytes, _labels: *const Bytes, _count: usize, id: &mut usize) -> u32 {
        let mut names = config.names.lock().unwrap();
        *id = names.len();
        names.push(name.text());
        0
    }
    envoy_dynamic_module_callback_http_filter_config_define_gauge(config: Config<'_>, name: Bytes, labels: *const Bytes, count: usize, id: &mut usize) -> u32 {
        envoy_dynamic_module_callback_http_filter_config_define_counter(config, name, labels, count, id)
    }
    envoy_dynamic_module_callback_http_filter_config_increment_counter(config: Config<'_>, id: usize, labels: *const Bytes, count: usize, by: u64) -> u32 {
        *config.metrics.lock().unwrap().entry(series(config, id, labels, count)).or_default() += by;
        0
    }
    envoy_dynamic_module_callback_http_filter_config_set_gauge(config: Config<'_>, id: usize, labels: *const Bytes, count: usize, value: u64) -> u32 {
        config.metrics.lock().unwrap().insert(series(config, id, labels, count), value);
        0
    }
    envoy_dynamic_module_callback_http_filter_config_scheduler_new(config: Config<'_>) -> Woken {
        scheduler(&config.woken)
    }
    envoy_dynamic_module_callback_http_filter_config_http_callout(config: Config<'_>, id: &mut u64, cluster: Bytes, headers: *const (Bytes, Bytes), count: usize, _body: Bytes, _timeout: u64) -> u32 {
        // SAFETY: the module gives an array of this length.
        let headers = unsafe { std::slice::from_raw_parts(headers, count) };
        let path = headers.iter().find(|(name, _)| name.get() == b":path");
        let mut callouts = config.callouts.lock().unwrap();
        *id = callouts.len() as u64;
        callouts.push(format!("{} {}", cluster.text(), path.unwrap().1.text()));
        0
    }
    envoy_dynamic_module_callback_http_filter_config_scheduler_commit(woken: Woken, _event: u64) {
        // SAFETY: it was made by `scheduler`.
        unsafe { &*woken.cast::<AtomicU32>() }.fetch_add(1, Ordering::SeqCst);
    }
    envoy_dynamic_module_callback_http_filter_config_scheduler_delete(woken: Woken) {
        // SAFETY: it was made by `scheduler`, and is given up.
        drop(unsafe { Arc::from_raw(woken.cast::<AtomicU32>()) });
    }
    envoy_dynamic_module_callback_http_filter_scheduler_commit(woken: Woken, event: u64) {
        envoy_dynamic_module_callback_http_filter_config_scheduler_commit(woken, event);
    }
    envoy_dynamic_module_callback_http_filter_scheduler_delete(woken: Woken) {
        envoy_dynamic_module_callback_http_filter_config_scheduler_delete(woken);
    }
    envoy_dynamic_module_callback_http_filter_scheduler_new(filter: Filter<'_>) -> Woken {
        scheduler(&filter.woken)
    }
    envoy_dynamic_module_callback_http_filter_get_worker_index(_filter: Filter<'_>) -> u32 { WORKER.get() }
    envoy_dynamic_module_callback_http_get_headers_size(filter: Filter<'_>, map: u32) -> usize {
        headers(filter, map).len()
    }
    envoy_dynamic_module_callback_http_get_headers(filter: Filter<'_>, map: u32, out: *mut (Bytes, Bytes)) -> bool {
        for (place, (name, value)) in headers(filter, map).iter().enumerate() {
            // SAFETY: the module gives room for all.
            unsafe { *out.add(place) = (Bytes::of(name.as_bytes()), Bytes::of(value.as_bytes())) };
        }
        true
    }
    envoy_dynamic_module_callback_http_get_header(filter: Filter<'_>, map: u32, name: Bytes, value: &mut Bytes, _index: usize, count: &mut usize) -> bool {
        let name = name.text();
        let found = headers(filter, map).iter().find(|(header, _)| *header == name);
        *count = usize::from(found.is_some());
        *value = found.map_or(Bytes::of(b""), |(_, value)| Bytes::of(value.as_bytes()));
        true
    }
    envoy_dynamic_module_callback_http_set_header(filter: Filter<'_>, map: u32, name: Bytes, value: Bytes) -> bool {
        let headers = headers(filter, map);
        headers.retain(|(header, _)| *header != name.text());
        if !value.0.is_null() {
            headers.push((name.text(), value.text()));
        }
        true
    }
    envoy_dynamic_module_callback_http_get_body_chunks_size(filter: Filter<'_>, part: u32) -> usize {
        chunks(filter.part(part)).len()
    }
    envoy_dynamic_module_callback_http_get_body_chunks(filter: Filter<'_>, part: u32, out: *mut Bytes) -> bool {
        for (place, chunk) in chunks(filter.part(part)).enumerate() {
            // SAFETY: the module gives room for all.
            unsafe { *out.add(place) = Bytes::of(chunk) };
        }
        true
    }
    envoy_dynamic_module_callback_http_append_body(filter: Filter<'_>, part: u32, data: Bytes) -> bool {
        filter.part(part).extend_from_slice(data.get());
        true
    }
    envoy_dynamic_module_callback_http_drain_body(filter: Filter<'_>, part: u32, size: usize) -> bool {
        let part = filter.part(part);
        part.drain(..size.min(part.len()));
        true
    }
    envoy_dynamic_module_callback_http_set_dynamic_metadata_string(filter: Filter<'_>, namespace: Bytes, key: Bytes, value: Bytes) {
        let key = format!("{} {}", namespace.text(), key.text());
        filter.metadata.insert(key, value.text());
    }
    envoy_dynamic_module_callback_http_set_filter_state_bytes(filter: Filter<'_>, key: Bytes, value: Bytes) -> bool {
        filter.state.insert(key.text(), value.get().to_vec());
        true
    }
    envoy_dynamic_module_callback_http_get_filter_state_bytes(filter: Filter<'_>, key: Bytes, value: &mut Bytes) -> bool {
        let found = filter.state.get(&key.text());
        found.map(|found| *value = Bytes::of(found)).is_some()
    }
    envoy_dynamic_module_callback_http_filter_get_attribute_string(filter: Filter<'_>, attribute: u32, value: &mut Bytes) -> bool {
        let found = filter.attributes.get(&attribute);
        found.map(|found| *value = Bytes::of(found.as_bytes())).is_some()
    }
    envoy_dynamic_module_callback_http_filter_get_attribute_int(_filter: Filter<'_>, _attribute: u32, _value: &mut u64) -> bool { false }
    envoy_dynamic_module_callback_http_send_response(filter: Filter<'_>, status: u32, _headers: *const RawHeader, _count: usize, body: Bytes, _details: Bytes) {
        filter.replies.push((status, body.text()));
        // As Envoy does before it returns.
        filter.respond(&status.to_string());
    }
    envoy_dynamic_module_callback_http_filter_continue_decoding(filter: Filter<'_>) {
        filter.resumed += 1;
        filter.sent.append(&mut filter.held);
    }
}

/// Returns the chunks in which the module sees a body: of a short one so small that values lie across them, of a long one as
/// Envoy has them.
fn chunks(body: &[u8]) -> std::slice::Chunks<'_, u8> {
    body.chunks(if body.len() > 3_000 { 16 << 10 } else { 7 })
}

fn headers(filter: Filter<'_>, map: u32) -> &mut Vec<(String, String)> {
    match map {
        0 => &mut filter.request,
        _ => &mut filter.response,
    }
}

fn series(config: Config<'_>, id: usize, labels: *const Bytes, count: usize) -> String {
    // SAFETY: the module gives an array of this length.
    let labels = (0..count).map(|place| unsafe { *labels.add(place) }.text());
    let name = config.names.lock().unwrap()[id].clone();
    [name]
        .into_iter()
        .chain(labels)
        .collect::<Vec<_>>()
        .join(" ")
}
