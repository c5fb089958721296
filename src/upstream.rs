//! The origin of a response, read from Envoy: the endpoint that sent it, or the reason why Envoy itself did.

use super::abi::{self, Map};
use epp_core::picker::{ResponseOrigin, Upstream};

/// Returns the origin of the response to the current request, as Envoy reports it.
pub fn upstream() -> Upstream {
    let status = status();
    // A third question, where something is wrong.
    let details = || abi::property("response\0code_details").ok().flatten();
    let origin = match status {
        Some(500..) => details().map_or(ResponseOrigin::Endpoint, |details| origin_of(&details)),
        _ => ResponseOrigin::Endpoint,
    };
    let server = abi::property("upstream\0address").ok().flatten();
    Upstream {
        server: server.filter(|address| !address.is_empty()),
        status,
        origin,
        attempts: None,
        cluster: None,
    }
}

/// Returns how often Envoy has sent the current request to an endpoint.
pub fn attempts() -> Option<u64> {
    let attempts = abi::property("upstream\0request_attempt_count");
    let attempts = attempts.ok().flatten()?;
    Some(u64::from_le_bytes(*attempts.first_chunk()?))
}

/// Returns the status of the response, if there is one to see.
fn status() -> Option<u16> {
    let status = abi::header(Map::Response, ":status").ok().flatten();
    let status = status
        .as_deref()
        .and_then(|status| std::str::from_utf8(status).ok());
    status?.parse().ok().filter(|status| *status > 0)
}

/// Returns the origin of a response with these details (Envoy's `response.code_details`).
fn origin_of(details: &[u8]) -> ResponseOrigin {
    // `upstream_reset_before_response_started{remote_connection_failure|…}`.
    let reset = b"upstream_reset_before_response_started{";
    let cause = details.strip_prefix(reset).unwrap_or_default();
    let ends = |byte: &u8| matches!(byte, b'|' | b'}' | b',');
    match cause.split(ends).next().unwrap_or_default() {
        _ if details == b"via_upstream" => ResponseOrigin::Endpoint,
        _ if details == b"no_healthy_upstream" => ResponseOrigin::NoEndpoint,
        b"connection_failure"
        | b"local_connection_failure"
        | b"remote_connection_failure"
        | b"connection_timeout" => ResponseOrigin::Unreachable,
        b"overflow" => ResponseOrigin::Overflow,
        _ => ResponseOrigin::Proxy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn envoys_response_details_distinguish_refused_connections() {
        let reset = "upstream_reset_before_response_started";
        for (details, origin) in [
            ("via_upstream", ResponseOrigin::Endpoint),
            ("no_healthy_upstream", ResponseOrigin::NoEndpoint),
            ("response_timeout", ResponseOrigin::Proxy),
            ("upstream_per_try_timeout", ResponseOrigin::Proxy),
        ] {
            assert_eq!(origin_of(details.as_bytes()), origin, "{details}");
        }
        for (cause, origin) in [
            (
                "remote_connection_failure|delayed_connect_error:_111",
                ResponseOrigin::Unreachable,
            ),
            ("local_connection_failure", ResponseOrigin::Unreachable),
            ("connection_timeout", ResponseOrigin::Unreachable),
            ("connection_failure,TLS_error", ResponseOrigin::Unreachable),
            ("connection_termination", ResponseOrigin::Proxy),
            ("remote_reset|connection_failure", ResponseOrigin::Proxy),
            ("overflow", ResponseOrigin::Overflow),
        ] {
            let details = format!("{reset}{{{cause}}}");
            assert_eq!(origin_of(details.as_bytes()), origin, "{details}");
        }
    }
}
