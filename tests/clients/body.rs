//! Recorded bodies, taken apart as far as the tests need it, without the reader that they test.

use std::fs;
use std::ops::Range;
use std::path::Path;

/// The question of the recorded clients, which is repeated to lengthen a body.
const QUESTION: &str = "Why is the sky blue?";

/// A request as a client sent it.
pub struct Recorded {
    /// The client's name.
    pub client: String,
    /// Its version.
    pub version: String,
    /// The kind of request.
    pub what: String,
    /// The body.
    pub body: String,
}

impl Recorded {
    /// Reads all recordings, sorted by client, version and kind of request.
    pub fn all() -> Vec<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/recorded");
        let files = fs::read_dir(folder).unwrap();
        let paths = files.map(|file| file.unwrap().path());
        let bodies = paths.filter(|path| path.extension().is_some_and(|kind| kind == "json"));
        let mut all: Vec<Self> = bodies.map(|path| Self::read(&path)).collect();
        all.sort_by_key(|own| (own.client.clone(), own.version.clone(), own.what.clone()));
        all
    }

    /// `CLIENT-VERSION-WHAT.json`: the version is the first part that begins with a digit.
    fn read(path: &Path) -> Self {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let is_version = |part: &str| part.starts_with(|first: char| first.is_ascii_digit());
        let parts: Vec<&str> = name.split('-').collect();
        let at = parts.iter().position(|part| is_version(part)).unwrap();
        Self {
            client: parts[..at].join("-"),
            version: parts[at].to_owned(),
            what: parts[at + 1..].join("-"),
            body: fs::read_to_string(path).unwrap(),
        }
    }

    /// Returns the name of the API, and the path.
    pub fn api(&self) -> (&'static str, &'static str) {
        match self.what.split('-').next().unwrap() {
            _ if self.what == "messages-count" => ("count_tokens", "/v1/messages/count_tokens"),
            "chat" => ("chat completions", "/v1/chat/completions"),
            "completions" => ("completions", "/v1/completions"),
            "embeddings" => ("embeddings", "/v1/embeddings"),
            "messages" => ("messages", "/v1/messages"),
            "responses" => ("responses", "/v1/responses"),
            other => panic!("{other}: which API is it?"),
        }
    }

    /// The body with a question of that many bytes.
    pub fn asking(&self, bytes: usize) -> String {
        assert_eq!(self.body.matches(QUESTION).count(), 1, "{}", self.body);
        let question = QUESTION.repeat(bytes.div_ceil(QUESTION.len()));
        self.body.replacen(QUESTION, &question, 1)
    }
}

/// The fields of a JSON text's outermost object, in its order: each key, and its value's place.
pub fn fields(json: &str) -> Vec<(&str, Range<usize>)> {
    let mut fields = Vec::new();
    let (mut depth, mut start) = (0, None);
    let mut strings: Vec<&str> = Vec::new();
    let mut at = 0;
    while let Some(byte) = json.as_bytes().get(at) {
        match byte {
            b'"' => {
                let end = end_of_string(json, at);
                // Between two fields: a key.
                if depth == 1 && start.is_none() {
                    strings.push(&json[at + 1..end]);
                }
                at = end;
            }
            b':' if depth == 1 => start = Some(at + 1),
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        if matches!(byte, b',' if depth == 1) || (*byte == b'}' && depth == 0) {
            let key = strings.pop().unwrap();
            fields.push((key, start.take().unwrap()..at));
        }
        at += 1;
    }
    fields
}

/// Returns the end of the string that begins here.
fn end_of_string(json: &str, start: usize) -> usize {
    let mut escaped = false;
    let rest = json.bytes().enumerate().skip(start + 1);
    let ends = |(_, byte): &(usize, u8)| {
        let ends = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        ends
    };
    let mut rest = rest;
    rest.find(ends).unwrap().0
}
