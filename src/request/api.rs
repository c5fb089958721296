//! Which API a request speaks, by its path.

/// How a body is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Api {
    /// OpenAI chat completions: `messages`.
    ChatCompletions,
    /// OpenAI completions: `prompt`.
    Completions,
    /// Not at all.
    #[default]
    PassThrough,
}

/// Path suffixes; the longest that fits decides.
const SUFFIXES: [(&str, Api); 2] = [
    ("/v1/chat/completions", Api::ChatCompletions),
    ("/v1/completions", Api::Completions),
];

impl Api {
    /// The API of a `:path`; query and trailing slash do not matter.
    pub fn of_path(path: &[u8]) -> Self {
        let path = path.split(|byte| *byte == b'?').next().unwrap_or_default();
        let path = path.strip_suffix(b"/").unwrap_or(path);
        let fits = SUFFIXES
            .iter()
            .filter(|(suffix, _)| path.ends_with(suffix.as_bytes()));
        let longest = fits.max_by_key(|(suffix, _)| suffix.len());
        longest.map_or(Self::PassThrough, |(_, api)| *api)
    }
}

/// Whether a body of this content type and encoding can be read: JSON, uncompressed. A client that
/// does not say what it sends is taken to send JSON.
pub fn readable(content_type: &[u8], content_encoding: &[u8]) -> bool {
    let media = content_type
        .split(|byte| *byte == b';')
        .next()
        .unwrap_or_default();
    let media = media.trim_ascii();
    let json = media.is_empty()
        || media.eq_ignore_ascii_case(b"application/json")
        || media.to_ascii_lowercase().ends_with(b"+json")
        // What curl sends with -d.
        || media.eq_ignore_ascii_case(b"application/x-www-form-urlencoded");
    let plain = content_encoding.is_empty() || content_encoding.eq_ignore_ascii_case(b"identity");
    json && plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_tells_the_api() {
        for (path, api) in [
            ("/v1/chat/completions", Api::ChatCompletions),
            ("/v1/chat/completions/", Api::ChatCompletions),
            ("/v1/chat/completions?x=/v1/models", Api::ChatCompletions),
            ("/openai/deployments/a/v1/completions", Api::Completions),
            ("/v1/models", Api::PassThrough),
            ("/chat/completions", Api::PassThrough),
            ("", Api::PassThrough),
        ] {
            assert_eq!(Api::of_path(path.as_bytes()), api, "{path}");
        }
    }

    #[test]
    fn only_plain_json_is_read() {
        for (media, encoding, read) in [
            ("application/json", "", true),
            ("application/json; charset=utf-8", "identity", true),
            ("application/vnd.api+json", "", true),
            ("", "", true),
            ("application/json", "gzip", false),
            ("multipart/form-data; boundary=x", "", false),
            ("application/grpc", "", false),
        ] {
            assert_eq!(
                readable(media.as_bytes(), encoding.as_bytes()),
                read,
                "{media} {encoding}"
            );
        }
    }
}
