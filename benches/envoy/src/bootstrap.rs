//! The configuration of an Envoy under test.

use std::net::SocketAddr;

use envoy_harness::config::{address, fixed, override_host, policy, stats_tag, typed};
use serde_json::{json, Value};

use crate::envoy::{Case, Setup};
use crate::BoxError;

/// The client's header by which ring hash balances.
pub const SESSION_HEADER: &str = "x-session";

/// The header that names the endpoint of a request.
pub const DESTINATION_HEADER: &str = "x-gateway-destination-endpoint";

const LOCALHOST: &str = "127.0.0.1";

/// The ports of an Envoy.
pub struct Ports {
    /// The port for requests.
    pub listener: u16,
    /// The admin interface's port.
    pub admin: u16,
}

/// Returns the whole bootstrap.
pub fn bootstrap(setup: &Setup<'_>, ports: &Ports) -> Result<Value, BoxError> {
    let mut filters = Vec::new();
    if let Some((file, config)) = setup.case.module(setup.config)? {
        filters.push(match file.ends_with(".so") {
            true => dynamic_module(&file, &config),
            false => wasm(&file, &config),
        });
    }
    let mut clusters = vec![pool(setup), cluster("prometheus_stats", &[ports.admin])];
    if let Some(picker) = setup.picker.filter(|_| setup.case == Case::Epp) {
        filters.push(ext_proc());
        clusters.push(picker_cluster(picker));
    }
    filters.push(typed(
        "envoy.filters.http.router",
        "filters.http.router.v3.Router",
        json!({}),
    ));
    let hash = json!([{"header": {"header_name": SESSION_HEADER}}]);
    let route = json!({"cluster": "inference-pool", "timeout": "0s", "hash_policy": hash});
    let manager = json!({
        "stat_prefix": "bench",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"],
            "routes": [{"match": {"prefix": "/"}, "route": route}]}]},
        "http_filters": filters,
    });
    let manager = typed(
        "envoy.filters.network.http_connection_manager",
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        manager,
    );
    let mut listener = json!({"name": "bench", "address": address(LOCALHOST, ports.listener),
        "filter_chains": [{"filters": [manager]}]});
    if setup.case == Case::Epp {
        // Whole bodies go to the picker and back: with Envoy's default Envoy would reply with 413.
        put(
            &mut listener,
            "per_connection_buffer_limit_bytes",
            json!(32 << 20),
        );
    }
    Ok(json!({
        "admin": {"address": address(LOCALHOST, ports.admin)},
        "static_resources": {"listeners": [listener], "clusters": clusters},
        "stats_config": {"stats_tags": [stats_tag("pool"), stats_tag("endpoint_name"), stats_tag("le")]},
    }))
}

fn put(object: &mut Value, key: &str, value: Value) {
    if let Value::Object(fields) = object {
        fields.insert(key.to_owned(), value);
    }
}

fn cluster(name: &str, ports: &[u16]) -> Value {
    let members = ports.iter().map(|port| ([127, 0, 0, 1], *port).into());
    let mut cluster = fixed(name, &members.collect::<Vec<SocketAddr>>());
    put(&mut cluster, "circuit_breakers", wide_open());
    cluster
}

fn wide_open() -> Value {
    json!({"thresholds": [{"max_connections": 100_000, "max_pending_requests": 100_000,
        "max_requests": 100_000}]})
}

fn wasm(file: &str, config: &str) -> Value {
    let config = json!({"config": {
        "name": "bench",
        "allow_on_headers_stop_iteration": true,
        "vm_config": {"vm_id": "bench", "runtime": "envoy.wasm.runtime.v8",
            "code": {"local": {"filename": file}}},
        "configuration": {"@type": "type.googleapis.com/google.protobuf.StringValue",
            "value": config},
    }});
    typed(
        "envoy.filters.http.wasm",
        "filters.http.wasm.v3.Wasm",
        config,
    )
}

fn dynamic_module(file: &str, config: &str) -> Value {
    let config = json!({
        "dynamic_module_config": {"module": {"local": {"filename": file}}},
        "filter_name": "bench",
        "filter_config": {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": config},
    });
    typed(
        "envoy.filters.http.dynamic_modules",
        "filters.http.dynamic_modules.v3.DynamicModuleFilter",
        config,
    )
}

/// Returns the cluster of model servers, with the load balancing policy of the case.
fn pool(setup: &Setup<'_>) -> Value {
    if setup.case == Case::Epp {
        // As on the Endpoint Picker's own stand-alone page.
        return json!({
            "name": "inference-pool",
            "type": "ORIGINAL_DST",
            "lb_policy": "CLUSTER_PROVIDED",
            "connect_timeout": "1s",
            "circuit_breakers": wide_open(),
            "original_dst_lb_config": {"use_http_header": true,
                "http_header_name": DESTINATION_HEADER},
        });
    }
    let policy = match setup.case {
        Case::Plain => policy("round_robin", "RoundRobin", json!({})),
        Case::LeastRequest => policy("least_request", "LeastRequest", json!({})),
        Case::RingHash => policy("ring_hash", "RingHash", json!({})),
        _ => override_host(),
    };
    let mut pool = cluster("inference-pool", setup.servers);
    put(&mut pool, "load_balancing_policy", policy);
    pool
}

fn ext_proc() -> Value {
    let config = json!({
        "grpc_service": {"envoy_grpc": {"cluster_name": "ext_proc"}, "timeout": "10s"},
        "processing_mode": {
            "request_header_mode": "SEND", "response_header_mode": "SEND",
            "request_body_mode": "FULL_DUPLEX_STREAMED", "response_body_mode": "FULL_DUPLEX_STREAMED",
            "request_trailer_mode": "SEND", "response_trailer_mode": "SEND",
        },
        "message_timeout": "1000s",
    });
    typed(
        "envoy.filters.http.ext_proc",
        "filters.http.ext_proc.v3.ExternalProcessor",
        config,
    )
}

fn picker_cluster(port: u16) -> Value {
    let mut picker = cluster("ext_proc", &[port]);
    let protocol = json!({
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    });
    let options = json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": protocol});
    put(&mut picker, "typed_extension_protocol_options", options);
    picker
}
