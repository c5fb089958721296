//! Parts of an Envoy's configuration.

use std::net::SocketAddr;

use serde_json::{json, Value};

/// Returns a socket address.
pub fn address(host: &str, port: u16) -> Value {
    json!({"socket_address": {"address": host, "port_value": port}})
}

/// Returns the members of a cluster.
pub fn load_assignment(name: &str, members: &[SocketAddr]) -> Value {
    let member = |at: &SocketAddr| json!({"endpoint": {"address": address(&at.ip().to_string(), at.port())}});
    let members: Vec<Value> = members.iter().map(member).collect();
    json!({"cluster_name": name, "endpoints": [{"lb_endpoints": members}]})
}

/// Returns a cluster whose members do not change.
pub fn fixed(name: &str, members: &[SocketAddr]) -> Value {
    json!({"name": name, "type": "STATIC", "connect_timeout": "1s", "load_assignment": load_assignment(name, members)})
}

/// Returns an extension with its name, type and configuration.
pub fn typed(name: &str, kind: &str, mut config: Value) -> Value {
    config["@type"] = format!("type.googleapis.com/envoy.extensions.{kind}").into();
    json!({"name": name, "typed_config": config})
}

/// Returns a load balancing policy by its name and that of its message.
pub fn policy(name: &str, message: &str, config: Value) -> Value {
    let kind = format!("load_balancing_policies.{name}.v3.{message}");
    let name = format!("envoy.load_balancing_policies.{name}");
    json!({"policies": [{"typed_extension_config": typed(&name, &kind, config)}]})
}

/// Returns the load balancing policy that follows the destination header.
pub fn override_host() -> Value {
    policy(
        "override_host",
        "OverrideHost",
        json!({
            "override_host_sources": [{"header": "x-gateway-destination-endpoint"}],
            "fallback_policy": policy("round_robin", "RoundRobin", json!({})),
        }),
    )
}

/// Returns the rule that turns a part of a statistic's name into a label.
pub fn stats_tag(name: &str) -> Value {
    json!({"tag_name": name, "regex": format!("(;{name}=([^;]*))")})
}
