//! The functions that Envoy calls: all that it resolves for HTTP filters in version 0.2 of the ABI, each behind a guard.
//!
//! Envoy passes back the pointers that it got here: of a [`Role`] from the hook that makes a configuration, and of a
//! [`Stream`] from the one that makes a filter. It gives each up in one hook, after which it does not pass it again.

#![allow(unsafe_code)]

use std::ffi::{c_char, c_void};
use std::ptr::null;

use super::abi::{Config, EnvoyBytes, Filter, RawHeader};
use super::body::Body;
use super::fetches::Response;
use super::guard::catch;
use super::pool::{self, Role};
use super::stream::Stream;
use epp_core::FetchError;

type Envoy = *mut c_void;
type Ours = *const c_void;

/// Returns the configuration of a pointer of ours.
///
/// # Safety
///
/// Envoy must have got it from the hook that makes configurations, and not given it up.
unsafe fn role<'a>(config: Ours) -> &'a Role {
    // SAFETY: the caller promises that.
    unsafe { &*config.cast::<Role>() }
}

/// Runs a hook of a stream. `go_on` is what it returns if the stream is not known.
///
/// # Safety
///
/// Both pointers must be those that Envoy passes to the hook.
unsafe fn of_stream<T>(
    filter: Envoy,
    stream: Ours,
    go_on: T,
    act: impl FnOnce(&Stream, &mut Filter<'_>) -> T,
) -> T {
    if stream.is_null() {
        return go_on;
    }
    // SAFETY: the caller promises that; Envoy calls the hooks of a stream on one thread.
    let (stream, mut filter) = unsafe { (&*stream.cast::<Stream>(), Filter::new(filter)) };
    catch(|| act(stream, &mut filter)).unwrap_or(go_on)
}

/// The module was loaded. Main thread.
#[no_mangle]
pub extern "C" fn envoy_dynamic_module_on_program_init() -> *const c_char {
    c"v0.2.0".as_ptr()
}

/// A configuration has come. Null refuses it. Main thread.
#[no_mangle]
pub extern "C" fn envoy_dynamic_module_on_http_filter_config_new(
    config: Envoy,
    name: EnvoyBytes,
    text: EnvoyBytes,
) -> Ours {
    super::logger::log_to_envoy();
    super::guard::log_panics();
    // SAFETY: Envoy keeps both texts during the hook, and the configuration until the hook that destroys it returns.
    let (config, name, text) = unsafe { (Config::new(config), name.get(), text.get()) };
    let name = String::from_utf8_lossy(name);
    let made = catch(|| pool::configure(config, &name, text)).flatten();
    made.map_or(null(), |role| {
        Box::into_raw(Box::new(role)).cast_const().cast()
    })
}

/// Envoy gives a configuration up. Any thread.
#[no_mangle]
pub extern "C" fn envoy_dynamic_module_on_http_filter_config_destroy(config: Ours) {
    if config.is_null() {
        return;
    }
    // SAFETY: it is a box of ours, which Envoy does not pass again.
    let role = unsafe { Box::from_raw(config.cast_mut().cast::<Role>()) };
    catch(|| pool::give_up(*role));
}

/// A configuration of a route: there is none.
#[no_mangle]
pub extern "C" fn envoy_dynamic_module_on_http_filter_per_route_config_new(
    _name: EnvoyBytes,
    _text: EnvoyBytes,
) -> Ours {
    super::logger::log_to_envoy();
    log::error!("the module has no configuration for single routes: configure the filter");
    null()
}

#[no_mangle]
pub extern "C" fn envoy_dynamic_module_on_http_filter_per_route_config_destroy(_config: Ours) {}

/// The clock has woken the main thread.
#[no_mangle]
pub extern "C" fn envoy_dynamic_module_on_http_filter_config_scheduled(
    envoy: Envoy,
    config: Ours,
    _event: u64,
) {
    // SAFETY: Envoy passes a configuration of its own and what it got for it.
    let (envoy, role) = unsafe { (Config::new(envoy), role(config)) };
    if let Role::Pool(pool, number) = role {
        catch(|| pool.export());
        catch(|| pool.begin_fetches(&envoy, *number));
    }
}

/// A callout has ended. Main thread.
#[no_mangle]
pub extern "C" fn envoy_dynamic_module_on_http_filter_config_http_callout_done(
    _envoy: Envoy,
    config: Ours,
    callout: u64,
    result: u32,
    headers: *const RawHeader,
    headers_count: usize,
    chunks: *const EnvoyBytes,
    chunks_count: usize,
) {
    const OK: u32 = 0;
    const TOO_LARGE: u32 = 2;
    let response = match result {
        OK if !headers.is_null() => {
            // SAFETY: Envoy keeps headers and chunks during the hook.
            let (headers, chunks) = unsafe {
                let headers = std::slice::from_raw_parts(headers, headers_count);
                let chunks = match chunks.is_null() {
                    true => &[],
                    false => std::slice::from_raw_parts(chunks, chunks_count),
                };
                let headers = headers.iter().map(|header| header.get());
                (headers, chunks.iter().map(|chunk| chunk.get()).collect())
            };
            let mut status = headers.filter(|(name, _)| *name == b":status");
            let status = status.next().map_or(&b""[..], |(_, value)| value);
            let body = Body::new(chunks, 0, 0, true);
            Ok(Response { status, body })
        }
        TOO_LARGE => Err(FetchError::TooLarge),
        _ => Err(FetchError::Reset),
    };
    // SAFETY: Envoy passes what it got for the configuration.
    if let Role::Pool(pool, number) = unsafe { role(config) } {
        catch(|| pool.called_back(*number, callout, response));
    }
}

/// A request has come, on its worker. What is returned is its stream.
#[no_mangle]
pub extern "C" fn envoy_dynamic_module_on_http_filter_new(config: Ours, filter: Envoy) -> Ours {
    // SAFETY: Envoy passes what it got for the configuration, and a filter of its own.
    let (role, filter) = unsafe { (role(config), Filter::new(filter)) };
    let stream = catch(|| Stream::new(role.clone(), filter.worker()));
    stream.map_or(null(), |stream| {
        Box::into_raw(Box::new(stream)).cast_const().cast()
    })
}

/// A stream has ended.
#[no_mangle]
pub extern "C" fn envoy_dynamic_module_on_http_filter_destroy(stream: Ours) {
    if stream.is_null() {
        return;
    }
    // SAFETY: it is a box of ours, which Envoy does not pass again.
    let stream = unsafe { Box::from_raw(stream.cast_mut().cast::<Stream>()) };
    catch(|| stream.close());
}

#[no_mangle]
pub extern "C" fn envoy_dynamic_module_on_http_filter_request_headers(
    filter: Envoy,
    stream: Ours,
    end: bool,
) -> u32 {
    // SAFETY: these are Envoy's pointers.
    unsafe {
        of_stream(filter, stream, 0, |stream, filter| {
            stream.request_headers(filter, end)
        })
    }
}

#[no_mangle]
pub extern "C" fn envoy_dynamic_module_on_http_filter_request_body(
    filter: Envoy,
    stream: Ours,
    end: bool,
) -> u32 {
    // SAFETY: these are Envoy's pointers.
    unsafe {
        of_stream(filter, stream, 0, |stream, filter| {
            stream.request_body(filter, end)
        })
    }
}

#[no_mangle]
pub extern "C" fn envoy_dynamic_module_on_http_filter_request_trailers(
    filter: Envoy,
    stream: Ours,
) -> u32 {
    // SAFETY: these are Envoy's pointers.
    unsafe {
        of_stream(filter, stream, 0, |stream, filter| {
            stream.request_trailers(filter)
        })
    }
}

#[no_mangle]
pub extern "C" fn envoy_dynamic_module_on_http_filter_response_headers(
    filter: Envoy,
    stream: Ours,
    _end: bool,
) -> u32 {
    // SAFETY: these are Envoy's pointers.
    unsafe {
        of_stream(filter, stream, (), |stream, filter| {
            stream.response_headers(filter)
        })
    };
    0
}

#[no_mangle]
pub extern "C" fn envoy_dynamic_module_on_http_filter_response_body(
    filter: Envoy,
    stream: Ours,
    _end: bool,
) -> u32 {
    // SAFETY: these are Envoy's pointers.
    unsafe {
        of_stream(filter, stream, (), |stream, filter| {
            stream.response_body(filter)
        })
    };
    0
}

/// Another thread, or the hook of another stream, has woken the stream.
#[no_mangle]
pub extern "C" fn envoy_dynamic_module_on_http_filter_scheduled(
    filter: Envoy,
    stream: Ours,
    _event: u64,
) {
    // SAFETY: these are Envoy's pointers.
    unsafe {
        of_stream(filter, stream, (), |stream, filter| {
            stream.scheduled(filter)
        })
    };
}

/// A hook that does nothing: Envoy wants it, and the module does not need it.
macro_rules! unused {
    ($($hook:ident($($argument:ty),*) $(-> $result:ty)?;)+) => {
        $(#[no_mangle]
        pub extern "C" fn $hook($(_: $argument),*) $(-> $result)? {
            $(<$result>::default())?
        })+
    };
}

#[rustfmt::skip]
unused! {
    envoy_dynamic_module_on_http_filter_response_trailers(Envoy, Ours) -> u32;
    envoy_dynamic_module_on_http_filter_stream_complete(Envoy, Ours);
    envoy_dynamic_module_on_http_filter_local_reply(Envoy, Ours, u32, EnvoyBytes, bool) -> u32;
    envoy_dynamic_module_on_http_filter_downstream_above_write_buffer_high_watermark(Envoy, Ours);
    envoy_dynamic_module_on_http_filter_downstream_below_write_buffer_low_watermark(Envoy, Ours);
    // Callouts of streams, and callouts whose responses stream: the module makes none.
    envoy_dynamic_module_on_http_filter_http_callout_done(Envoy, Ours, u64, u32, *const RawHeader, usize, *const EnvoyBytes, usize);
    envoy_dynamic_module_on_http_filter_http_stream_headers(Envoy, Ours, u64, *const RawHeader, usize, bool);
    envoy_dynamic_module_on_http_filter_http_stream_data(Envoy, Ours, u64, *const EnvoyBytes, usize, bool);
    envoy_dynamic_module_on_http_filter_http_stream_trailers(Envoy, Ours, u64, *const RawHeader, usize);
    envoy_dynamic_module_on_http_filter_http_stream_complete(Envoy, Ours, u64);
    envoy_dynamic_module_on_http_filter_http_stream_reset(Envoy, Ours, u64, u32);
    envoy_dynamic_module_on_http_filter_config_http_stream_headers(Envoy, Ours, u64, *const RawHeader, usize, bool);
    envoy_dynamic_module_on_http_filter_config_http_stream_data(Envoy, Ours, u64, *const EnvoyBytes, usize, bool);
    envoy_dynamic_module_on_http_filter_config_http_stream_trailers(Envoy, Ours, u64, *const RawHeader, usize);
    envoy_dynamic_module_on_http_filter_config_http_stream_complete(Envoy, Ours, u64);
    envoy_dynamic_module_on_http_filter_config_http_stream_reset(Envoy, Ours, u64, u32);
}
