//! Envoy as the filter sees it, in one process: the host calls of the ABI over plain maps, for the
//! filter's own tests. Whatever it returns, the filter must not panic.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::headers;

/// The state of the fake host, and the calls that it received.
#[derive(Debug, Default)]
pub struct Host {
    /// Returned by every call, which then does nothing else.
    pub refuses: Option<u32>,
    /// Whether reading the whole map of headers fails.
    pub unreadable: bool,
    /// The VM has no memory left for what calls return.
    pub no_memory: bool,
    /// The request's headers.
    pub request: Vec<(String, String)>,
    /// The request's body, as far as it is held.
    pub body: Vec<u8>,
    /// The plugin's configuration.
    pub configuration: String,
    /// Bytes of the body that were received, shown or not.
    pub received: usize,
    /// Properties by path, parts joined by dots.
    pub properties: BTreeMap<String, String>,
    /// Shared data.
    pub shared: BTreeMap<String, (Vec<u8>, u32)>,
    /// Metrics by number: name and sum or last value.
    pub metrics: Vec<(String, i64)>,
    /// Local replies: code and body.
    pub local_replies: Vec<(u32, String)>,
    /// The contexts that got these.
    pub replied: Vec<u32>,
    /// Callouts: cluster and headers.
    pub callouts: Vec<(String, Vec<(String, String)>)>,
    /// The headers and body of the callout's response.
    pub callout_response: (Vec<(String, String)>, Vec<u8>),
    /// Contexts that were resumed.
    pub resumed: Vec<u32>,
    /// The period of the clock, in milliseconds.
    pub period: u32,
    /// A deleted context: it cannot be the current one.
    pub gone: Option<u32>,
    /// The current context.
    pub context: u32,
    /// The clock, in nanoseconds.
    pub now: u64,
    /// How much randomness was given; no two bytes in a row are alike.
    pub random: u8,
    /// Log lines.
    pub log: Vec<String>,
    /// Bytes of buffers that were handed out.
    pub given: usize,
    /// How often each call was made.
    pub calls: BTreeMap<&'static str, u32>,
}

thread_local! {
    static HOST: RefCell<Host> = RefCell::default();
}

/// Looks at or changes the host.
pub fn host<T>(use_it: impl FnOnce(&mut Host) -> T) -> T {
    HOST.with_borrow_mut(use_it)
}

const OK: u32 = 0;
const NOT_FOUND: u32 = 1;
const BAD_ARGUMENT: u32 = 2;
const INVALID_MEMORY_ACCESS: u32 = 6;
const CAS_MISMATCH: u32 = 8;

fn text(data: *const u8, size: usize) -> String {
    String::from_utf8_lossy(bytes(data, size)).into_owned()
}

fn bytes<'a>(data: *const u8, size: usize) -> &'a [u8] {
    if data.is_null() {
        return &[];
    }
    // SAFETY: the filter gives the address and size of something that lives through the call.
    unsafe { std::slice::from_raw_parts(data, size) }
}

fn give(content: Option<Vec<u8>>, data: *mut *mut u8, size: *mut usize) -> u32 {
    let Some(content) = content else {
        return NOT_FOUND;
    };
    let content = content.into_boxed_slice();
    // SAFETY: the filter gives places for both, and takes the memory over as a boxed slice.
    unsafe {
        *size = content.len();
        *data = Box::into_raw(content).cast();
    }
    OK
}

fn call(name: &'static str, act: impl FnOnce(&mut Host) -> u32) -> u32 {
    host(|host| {
        *host.calls.entry(name).or_default() += 1;
        if host.no_memory && name.starts_with("proxy_get_") && !name.ends_with("nanoseconds") {
            return INVALID_MEMORY_ACCESS;
        }
        host.refuses.unwrap_or_else(|| act(host))
    })
}

#[no_mangle]
extern "C" fn proxy_log(_: u32, data: *const u8, size: usize) -> u32 {
    call("proxy_log", |host| {
        host.log.push(text(data, size));
        OK
    })
}

#[no_mangle]
extern "C" fn proxy_get_buffer_bytes(
    buffer: u32,
    start: usize,
    max: usize,
    data: *mut *mut u8,
    size: *mut usize,
) -> u32 {
    call("proxy_get_buffer_bytes", |host| {
        let content = match buffer {
            0 => host.body.clone(),
            4 => host.callout_response.1.clone(),
            7 => host.configuration.clone().into_bytes(),
            _ => return NOT_FOUND,
        };
        let part: Vec<u8> = content.into_iter().skip(start).take(max).collect();
        host.given += part.len();
        give(Some(part), data, size)
    })
}

#[no_mangle]
extern "C" fn proxy_set_buffer_bytes(
    _: u32,
    start: usize,
    length: usize,
    data: *const u8,
    size: usize,
) -> u32 {
    call("proxy_set_buffer_bytes", |host| {
        // As Envoy does: only from the first byte on.
        if start > 0 {
            return BAD_ARGUMENT;
        }
        let rest = host.body.split_off(length.min(host.body.len()));
        host.body = [bytes(data, size), &rest].concat();
        OK
    })
}

#[no_mangle]
extern "C" fn proxy_get_header_map_pairs(_: u32, data: *mut *mut u8, size: *mut usize) -> u32 {
    call("proxy_get_header_map_pairs", |host| {
        if host.unreadable {
            return BAD_ARGUMENT;
        }
        let pairs: Vec<(&str, &str)> = host
            .request
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        give(Some(headers::pack(&pairs)), data, size)
    })
}

#[no_mangle]
extern "C" fn proxy_get_header_map_value(
    map: u32,
    key: *const u8,
    key_size: usize,
    data: *mut *mut u8,
    size: *mut usize,
) -> u32 {
    call("proxy_get_header_map_value", |host| {
        let key = text(key, key_size);
        let headers = if map == 6 {
            &host.callout_response.0
        } else {
            &host.request
        };
        let found = headers.iter().find(|(name, _)| *name == key);
        give(
            found.map(|(_, value)| value.clone().into_bytes()),
            data,
            size,
        )
    })
}

#[no_mangle]
extern "C" fn proxy_replace_header_map_value(
    _: u32,
    key: *const u8,
    key_size: usize,
    value: *const u8,
    value_size: usize,
) -> u32 {
    call("proxy_replace_header_map_value", |host| {
        let key = text(key, key_size);
        host.request.retain(|(name, _)| *name != key);
        host.request.push((key, text(value, value_size)));
        OK
    })
}

#[no_mangle]
extern "C" fn proxy_remove_header_map_value(_: u32, key: *const u8, key_size: usize) -> u32 {
    call("proxy_remove_header_map_value", |host| {
        let key = text(key, key_size);
        host.request.retain(|(name, _)| *name != key);
        OK
    })
}

#[no_mangle]
extern "C" fn proxy_get_property(
    path: *const u8,
    path_size: usize,
    data: *mut *mut u8,
    size: *mut usize,
) -> u32 {
    call("proxy_get_property", |host| {
        let path = text(path, path_size).replace('\0', ".");
        let value = match path.as_str() {
            // As Envoy counts it.
            "request.total_size" => {
                let headers = host.request.iter();
                let headers: usize = headers.map(|(name, value)| name.len() + value.len()).sum();
                let total = (headers + host.received) as u64;
                Some(total.to_le_bytes().to_vec())
            }
            path => host
                .properties
                .get(path)
                .map(|value| value.clone().into_bytes()),
        };
        give(value, data, size)
    })
}

#[no_mangle]
extern "C" fn proxy_set_property(
    path: *const u8,
    path_size: usize,
    value: *const u8,
    value_size: usize,
) -> u32 {
    call("proxy_set_property", |host| {
        host.properties
            .insert(text(path, path_size), text(value, value_size));
        OK
    })
}

#[no_mangle]
extern "C" fn proxy_get_shared_data(
    key: *const u8,
    key_size: usize,
    data: *mut *mut u8,
    size: *mut usize,
    cas: *mut u32,
) -> u32 {
    call("proxy_get_shared_data", |host| {
        let found = host.shared.get(&text(key, key_size)).cloned();
        if let Some((_, version)) = &found {
            // SAFETY: the filter gives a place for it.
            unsafe { *cas = *version };
        }
        give(found.map(|(value, _)| value), data, size)
    })
}

#[no_mangle]
extern "C" fn proxy_set_shared_data(
    key: *const u8,
    key_size: usize,
    value: *const u8,
    value_size: usize,
    cas: u32,
) -> u32 {
    call("proxy_set_shared_data", |host| {
        let key = text(key, key_size);
        let version = host.shared.get(&key).map_or(0, |(_, version)| *version);
        if cas != 0 && version != 0 && cas != version {
            return CAS_MISMATCH;
        }
        host.shared
            .insert(key, (bytes(value, value_size).to_vec(), version + 1));
        OK
    })
}

#[no_mangle]
extern "C" fn proxy_define_metric(
    kind: u32,
    name: *const u8,
    name_size: usize,
    id: *mut u32,
) -> u32 {
    call("proxy_define_metric", |host| {
        // As in Envoy, the number says what kind it is.
        // SAFETY: the filter gives a place for it.
        unsafe { *id = (host.metrics.len() as u32) << 1 | kind };
        host.metrics.push((text(name, name_size), 0));
        OK
    })
}

#[no_mangle]
extern "C" fn proxy_record_metric(id: u32, value: u64) -> u32 {
    call("proxy_record_metric", |host| {
        match host.metrics.get_mut(id as usize >> 1) {
            Some(metric) if id & 1 == 0 => {
                metric.1 += value as i64;
                OK
            }
            Some(metric) => {
                metric.1 = value as i64;
                OK
            }
            None => NOT_FOUND,
        }
    })
}

#[no_mangle]
extern "C" fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32 {
    call("proxy_get_current_time_nanoseconds", |host| {
        // SAFETY: the filter gives a place for it.
        unsafe { *time = host.now };
        OK
    })
}

#[no_mangle]
extern "C" fn random_get(data: *mut u8, size: usize) -> u32 {
    call("random_get", |host| {
        // SAFETY: the filter provides space for this many bytes.
        for place in unsafe { std::slice::from_raw_parts_mut(data, size) } {
            host.random = host.random.wrapping_mul(5).wrapping_add(1);
            *place = host.random;
        }
        OK
    })
}

#[no_mangle]
extern "C" fn proxy_set_tick_period_milliseconds(period: u32) -> u32 {
    call("proxy_set_tick_period_milliseconds", |host| {
        host.period = period;
        OK
    })
}

#[no_mangle]
extern "C" fn proxy_set_effective_context(context: u32) -> u32 {
    call("proxy_set_effective_context", |host| {
        if host.gone == Some(context) {
            return BAD_ARGUMENT;
        }
        host.context = context;
        OK
    })
}

#[no_mangle]
extern "C" fn proxy_continue_stream(_: u32) -> u32 {
    call("proxy_continue_stream", |host| {
        host.resumed.push(host.context);
        OK
    })
}

#[no_mangle]
extern "C" fn proxy_send_local_response(
    code: u32,
    _: *const u8,
    _: usize,
    body: *const u8,
    body_size: usize,
    _: *const u8,
    _: usize,
    _: i32,
) -> u32 {
    call("proxy_send_local_response", |host| {
        host.local_replies.push((code, text(body, body_size)));
        host.replied.push(host.context);
        OK
    })
}

#[no_mangle]
extern "C" fn proxy_http_call(
    cluster: *const u8,
    cluster_size: usize,
    packed: *const u8,
    packed_size: usize,
    _: *const u8,
    _: usize,
    _: *const u8,
    _: usize,
    _: u32,
    token: *mut u32,
) -> u32 {
    call("proxy_http_call", |host| {
        let pairs = headers::Pairs::new(bytes(packed, packed_size));
        let string = |part: &[u8]| String::from_utf8_lossy(part).into_owned();
        let pairs = pairs
            .map(|(name, value)| (string(name), string(value)))
            .collect();
        // SAFETY: the filter gives a place for it.
        unsafe { *token = host.callouts.len() as u32 };
        host.callouts.push((text(cluster, cluster_size), pairs));
        OK
    })
}
