//! Where a response comes from, as Envoy's details of it say.

use epp_core::picker::ResponseOrigin;

/// Returns the origin of a response with these details (Envoy's `response.code_details`).
pub fn of(details: &[u8]) -> ResponseOrigin {
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
            assert_eq!(of(details.as_bytes()), origin, "{details}");
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
            assert_eq!(of(details.as_bytes()), origin, "{details}");
        }
    }
}
