//! The page as the response to a request.

use epp_sync::Store;

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

/// The response to a request.
#[derive(Debug)]
pub struct Response {
    /// Its status.
    pub status: u32,
    /// Its headers.
    pub headers: &'static [(&'static str, &'static str)],
    /// Its body.
    pub body: String,
}

/// What the response to a request depends on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Request<'a> {
    /// `:method`.
    pub method: &'a [u8],
    /// `:path`.
    pub path: &'a [u8],
    /// `:authority`.
    pub authority: &'a [u8],
}

impl<'a> Request<'a> {
    /// Reads what matters of a request's headers.
    pub fn read(headers: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Self {
        let mut request = Self::default();
        for (name, value) in headers {
            match name {
                b":method" => request.method = value,
                b":path" => request.path = value,
                b":authority" => request.authority = value,
                _ => {}
            }
        }
        request
    }

    /// Returns the response: the page if it was requested at `now`, in milliseconds since 1970. `build` is that of the
    /// host that serves it.
    pub fn respond(&self, store: &mut dyn Store, now: u64, build: &str) -> Response {
        let path = self.path.split(|byte| *byte == b'?').next();
        let matches = path == Some(b"/") && matches!(self.method, b"GET" | b"HEAD");
        if matches && is_local(self.authority) {
            Response {
                status: 200,
                headers: &HEADERS,
                body: crate::page(store, now, build),
            }
        } else {
            Response {
                status: 404,
                headers: &[],
                body: "The status page is GET / at localhost or an IP address\n".to_owned(),
            }
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
