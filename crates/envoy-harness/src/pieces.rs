//! Pieces of Envoy's configuration.

use std::net::SocketAddr;

use serde_json::{json, Value};

/// A socket address.
pub fn address(host: &str, port: u16) -> Value {
    json!({"socket_address": {"address": host, "port_value": port}})
}

/// A cluster's members.
pub fn load_assignment(name: &str, members: &[SocketAddr]) -> Value {
    let member = |at: &SocketAddr| json!({"endpoint": {"address": address(&at.ip().to_string(), at.port())}});
    let members: Vec<Value> = members.iter().map(member).collect();
    json!({"cluster_name": name, "endpoints": [{"lb_endpoints": members}]})
}

/// A cluster whose members stay.
pub fn fixed(name: &str, members: &[SocketAddr]) -> Value {
    json!({"name": name, "type": "STATIC", "connect_timeout": "1s", "load_assignment": load_assignment(name, members)})
}

/// An extension under its name, with its configuration.
pub fn typed(name: &str, kind: &str, mut config: Value) -> Value {
    config["@type"] = format!("type.googleapis.com/envoy.extensions.{kind}").into();
    json!({"name": name, "typed_config": config})
}

/// The load balancing policy that follows the destination header.
pub fn override_host() -> Value {
    let policy = |name: &str, kind: &str, config: Value| {
        let name = format!("envoy.load_balancing_policies.{name}");
        let kind = format!("load_balancing_policies.{kind}");
        json!({"policies": [{"typed_extension_config": typed(&name, &kind, config)}]})
    };
    let fallback = policy("round_robin", "round_robin.v3.RoundRobin", json!({}));
    policy(
        "override_host",
        "override_host.v3.OverrideHost",
        json!({
            "override_host_sources": [{"header": "x-gateway-destination-endpoint"}],
            "fallback_policy": fallback,
        }),
    )
}
