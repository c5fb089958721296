//! The status page's root context: `root_id: status`, in a VM of its own.

use super::abi::{self, Action, Map, Status};
use super::configuration;
use super::headers::Pairs;
use super::host::Shared;

/// The root that serves the page instead of picking.
pub const ROOT: &str = "status";

const HEADERS: [(&str, &str); 4] = [
    ("content-type", "text/html; charset=utf-8"),
    ("cache-control", "no-store"),
    // The page has no script and loads nothing; what others wrote is escaped, and could do nothing.
    (
        "content-security-policy",
        "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
];

/// Serves a request of the page's listener.
pub fn serve() -> Action {
    let packed = abi::header_pairs(Map::Request).ok().flatten();
    let packed = packed.unwrap_or_default();
    let header = |name: &[u8]| {
        let mut found = Pairs::new(&packed).filter(|(header, _)| *header == name);
        found.next().map_or(&b""[..], |(_, value)| value)
    };
    let path = header(b":path").split(|byte| *byte == b'?').next();
    let matches = path == Some(b"/") && matches!(header(b":method"), b"GET" | b"HEAD");
    let matches = matches && is_local(header(b":authority"));
    let replied = if matches {
        let page = status_page::page(
            &mut Shared,
            abi::now_ns() / 1_000_000,
            &configuration::build(),
        );
        abi::respond(200, "epp_wasm_status", &HEADERS, &page)
    } else {
        let text = "The status page is GET / at localhost or an IP address\n";
        abi::respond(404, "epp_wasm_status", &[], text)
    };
    match replied {
        Ok(()) => Action::Pause,
        Err(Status(status)) => {
            log::warn!("failed to send the status page (status {status})");
            Action::Continue
        }
    }
}

/// Returns whether the page was requested by an address or as localhost: under any other name it may be a web
/// site's, which has its name lead here to have a browser read the page for it (DNS rebinding).
fn is_local(authority: &[u8]) -> bool {
    // Names have no brackets, and end in a letter.
    if authority.first() == Some(&b'[') {
        return true;
    }
    let host = authority.split(|byte| *byte == b':').next();
    let host = host.unwrap_or_default();
    let address = !host.is_empty() && host.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'.'));
    address || host.eq_ignore_ascii_case(b"localhost")
}
