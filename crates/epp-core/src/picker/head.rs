//! The headers of a request, as far as the picker reads them.

use crate::config::Plan;
use crate::protocol::{EXPLAIN_HEADER, LOAD_FORMAT_HEADER, REWRITE_HEADERS};
use crate::scheduling::headers::COOKIE;

/// A request's headers, as far as they matter.
#[derive(Debug, Clone, Copy, Default)]
pub struct Head<'a> {
    /// `:path`.
    pub path: &'a [u8],
    /// `:method`.
    pub method: &'a [u8],
    /// `content-type`.
    pub content_type: &'a [u8],
    /// `content-encoding`.
    pub content_encoding: &'a [u8],
    /// Whether it requests another protocol.
    pub upgrade: bool,
    /// Whether the client requests the scores of the decision.
    pub explain: bool,
    /// Whether it asks the model server to report its load.
    pub asks_load: bool,
    /// `content-length`, where the client says it.
    pub content_length: Option<usize>,
    /// The model to ask for instead of the client's.
    pub rewrite: &'a [u8],
    /// The model, where something in front of this filter has read it.
    pub model: &'a [u8],
    /// The values of the headers that the plan's plugins read, in the order of [`Plan::headers`]; a header
    /// beyond the end is absent.
    pub headers: &'a [Option<&'a [u8]>],
    /// Whether no body follows.
    pub end: bool,
}

impl<'a> Head<'a> {
    /// Returns the headers of a request with a JSON body of this length, if its client says it.
    pub const fn post_json(path: &'a str, content_length: Option<usize>) -> Self {
        Self {
            path: path.as_bytes(),
            method: b"POST",
            content_type: b"application/json",
            content_encoding: b"",
            upgrade: false,
            explain: false,
            asks_load: false,
            content_length,
            rewrite: b"",
            model: b"",
            headers: &[],
            end: false,
        }
    }

    /// Reads what matters under this plan from the names, in lower case, and values of a request's headers.
    /// Of a repeated header the last one counts. Headers that only a picker may set are not read. `values`
    /// takes what [`Self::headers`] refers to; it is not touched where no plugin reads a header.
    pub fn read<'p: 'a>(
        plan: &Plan,
        headers: impl Iterator<Item = (&'p [u8], &'p [u8])>,
        end: bool,
        values: &'a mut Vec<Option<&'p [u8]>>,
    ) -> Self {
        let [rewrite_header, former_rewrite_header] = REWRITE_HEADERS.map(str::as_bytes);
        let obeys_rewrite = plan.settings.rewrite_header;
        let mut head = Self {
            end,
            ..Self::default()
        };
        if !plan.headers.is_empty() {
            values.clear();
            values.resize(plan.headers.len(), None);
        }
        for (name, value) in headers {
            match name {
                b":path" => head.path = value,
                b":method" => head.method = value,
                b"content-type" => head.content_type = value,
                b"content-encoding" => head.content_encoding = value,
                b"content-length" => head.content_length = number(value),
                b"upgrade" => head.upgrade = true,
                name if name == EXPLAIN_HEADER.as_bytes() => head.explain = value == b"1",
                name if name == LOAD_FORMAT_HEADER.as_bytes() => head.asks_load = true,
                name if name == rewrite_header && obeys_rewrite => head.rewrite = value,
                // It counts where the new one is absent.
                name if name == former_rewrite_header
                    && obeys_rewrite
                    && head.rewrite.is_empty() =>
                {
                    head.rewrite = value;
                }
                name if name == plan.settings.model_header.as_bytes() => head.model = value,
                _ => {}
            }
            for (read, place) in plan.headers.iter().zip(values.iter_mut()) {
                let found = match read.strip_prefix(COOKIE) {
                    Some(read) if name == b"cookie" => cookie(value, read),
                    None if read.as_bytes() == name && plan.owned_header(name).is_none() => {
                        Some(value)
                    }
                    _ => None,
                };
                *place = found.or(*place);
            }
        }
        head.headers = values;
        head
    }
}

/// Returns the value of the first cookie of a name in the header `cookie`.
fn cookie<'v>(header: &'v [u8], name: &str) -> Option<&'v [u8]> {
    let mut pairs = header.split(|byte| *byte == b';');
    pairs.find_map(|pair| {
        let rest = pair.trim_ascii().strip_prefix(name.as_bytes())?;
        rest.strip_prefix(b"=")
    })
}

fn number(value: &[u8]) -> Option<usize> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

#[cfg(test)]
#[path = "head_tests.rs"]
mod tests;
