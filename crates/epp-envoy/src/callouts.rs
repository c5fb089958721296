//! Clusters, paths and addresses of the callouts that fetch what a picker asks for.

use std::fmt::Write;

use epp_core::plugins::discovery::envoy_cluster::EnvoyClusterDiscovery;
use epp_core::plugins::Discovery;
use epp_core::{FetchError, Plan};

/// Returns the cluster that leads to the admin interface; `None` where the plan lists the endpoints.
pub fn admin_cluster(plan: &Plan) -> Option<&str> {
    match &plan.discovery {
        Discovery::EnvoyCluster(discovery) => Some(&discovery.admin_cluster),
        Discovery::Static(_) => None,
    }
}

/// Returns the admin interface's path to the members of these clusters, and of no others.
pub fn members_path(discovery: &EnvoyClusterDiscovery) -> String {
    let names: Vec<String> = discovery.names().map(anchored).collect();
    // A bar, so that one of the expressions matches.
    format!("/clusters?filter={}", names.join("%7C"))
}

/// Returns the host and port of the metrics page of the endpoint at this address.
pub fn metrics_address(plan: &Plan, address: &str) -> String {
    match (plan.source.port, address.rsplit_once(':')) {
        (Some(port), Some((host, _))) => format!("{host}:{port}"),
        _ => address.to_owned(),
    }
}

/// Bytes of a response that say why it is not the page: Envoy's own texts are shorter.
pub const REASON_BYTES: usize = 512;

/// What Envoy's own responses to callouts say, and the reason; the first that is in the text counts.
const REASONS: &[(&str, FetchError)] = &[
    ("upstream request timeout", FetchError::Timeout),
    ("no healthy upstream", FetchError::Unsent),
    ("reset reason: overflow", FetchError::Unsent),
    ("TLS_error", FetchError::Tls),
    ("connection timeout", FetchError::Timeout),
    ("connection failure", FetchError::Unreachable),
    ("protocol error", FetchError::NotHttp),
    ("before headers", FetchError::Reset),
];

/// Returns why a response with this status, which is not 200, is not the page. `text` is how it begins. A server that
/// imitates Envoy's texts is believed: nothing but the reason's name depends on it.
pub fn error(status: &[u8], text: &[u8]) -> FetchError {
    let known = REASONS
        .iter()
        .find(|(known, _)| memchr::memmem::find(text, known.as_bytes()).is_some());
    let status = std::str::from_utf8(status).ok();
    let status = status.and_then(|status| status.parse().ok());
    let status: u16 = status.unwrap_or(0);
    match known.filter(|_| status >= 500) {
        Some((_, reason)) => *reason,
        None => FetchError::Status(status),
    }
}

/// Returns a regular expression that matches the name alone, as a query parameter.
pub(crate) fn anchored(name: &str) -> String {
    let mut text = "%5E".to_owned();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' {
            text.push(char::from(byte));
        } else {
            // Writing to a String cannot fail. The backslash keeps dots and bars literal.
            let _ = write!(text, "%5C%{byte:02X}");
        }
    }
    text.push_str("%24");
    text
}

#[cfg(test)]
mod tests {
    use epp_core::plugins::discovery::envoy_cluster::SourceCluster;

    use super::*;

    #[test]
    fn clusters_are_asked_for_by_their_whole_names() {
        let path = |names: &[&str]| {
            let clusters = names.iter().map(|name| SourceCluster::unlabelled(name));
            members_path(&EnvoyClusterDiscovery {
                clusters: clusters.collect(),
                ..EnvoyClusterDiscovery::default()
            })
        };
        assert_eq!(path(&["pool-a_1"]), "/clusters?filter=%5Epool-a_1%24");
        // A dot would match any character, and & would end the parameter.
        assert_eq!(path(&["a.b&c"]), "/clusters?filter=%5Ea%5C%2Eb%5C%26c%24");
        assert_eq!(path(&["a", "b"]), "/clusters?filter=%5Ea%24%7C%5Eb%24");
    }

    #[test]
    fn responses_of_envoy_say_what_happened() {
        let before = "upstream connect error or disconnect/reset before headers. reset reason: ";
        for (status, text, expected) in [
            ("503", format!("{before}remote connection failure"), FetchError::Unreachable),
            ("503", format!("{before}remote connection failure, transport failure reason: delayed connect error: No route to host"), FetchError::Unreachable),
            ("503", format!("{before}remote connection failure, transport failure reason: TLS_error:|268435703:SSL routines"), FetchError::Tls),
            ("503", format!("{before}connection termination"), FetchError::Reset),
            ("502", format!("{before}protocol error"), FetchError::NotHttp),
            ("503", format!("{before}overflow"), FetchError::Unsent),
            ("504", "upstream request timeout".to_owned(), FetchError::Timeout),
            ("503", "no healthy upstream".to_owned(), FetchError::Unsent),
            ("503", "busy".to_owned(), FetchError::Status(503)),
            ("404", "no healthy upstream".to_owned(), FetchError::Status(404)),
            ("", String::new(), FetchError::Status(0)),
        ] {
            assert_eq!(error(status.as_bytes(), text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn pages_are_fetched_from_the_port_and_through_the_cluster_of_the_document() {
        let plan = |parameters: &str| {
            let text = format!(
                "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{{type: queue-scorer}}, {{type: metrics-data-source, parameters: {parameters}}}]
schedulingProfiles: [{{name: default, plugins: [{{pluginRef: queue-scorer}}]}}]
"
            );
            epp_core::config::load(&text).unwrap().plan
        };
        let own = plan("{}");
        assert_eq!(own.metrics_cluster(), "inference-pool");
        assert_eq!(metrics_address(&own, "[fd00::1]:8000"), "[fd00::1]:8000");
        let other = plan("{port: 9000, cluster: pages}");
        assert_eq!(other.metrics_cluster(), "pages");
        assert_eq!(metrics_address(&other, "[fd00::1]:8000"), "[fd00::1]:9000");
        assert_eq!(metrics_address(&other, "10.0.0.1:8000"), "10.0.0.1:9000");
    }
}
