//! The origin of a response, read from Envoy: the endpoint that sent it, or the reason why Envoy itself did.

use super::abi::{self, Map};
use epp_core::picker::{ResponseOrigin, Upstream};
use epp_core::protocol::LOAD_HEADER;
use epp_envoy::origin;

/// Returns the origin of the response to the current request, as Envoy reports it.
pub fn upstream() -> Upstream {
    let status = status();
    // A third question, where something is wrong.
    let details = || abi::property("response\0code_details").ok().flatten();
    let origin = match status {
        Some(500..) => details().map_or(ResponseOrigin::Endpoint, |details| origin::of(&details)),
        _ => ResponseOrigin::Endpoint,
    };
    let server = abi::property("upstream\0address").ok().flatten();
    Upstream {
        server: server.filter(|address| !address.is_empty()),
        status,
        origin,
        attempts: None,
        load_report: None,
        cluster: None,
    }
}

/// Returns the load report of the response, if it has one.
pub fn load_report() -> Option<Vec<u8>> {
    abi::header(Map::Response, LOAD_HEADER).ok().flatten()
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
