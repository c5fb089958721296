//! Reads the token counts that a model server's response reports as it streams past. Nothing is stored or changed.
//!
//! The first bytes show whether a response is JSON, a stream of events or neither: asking Envoy for the headers would cost
//! more than reading the body. A compressed response begins like neither and is not read.

mod events;
mod tokens;

use self::events::{EventSink, Events};
use self::tokens::Tokens;
use crate::request::{Reading, TextBuffer};

/// Token counts, as reported by the model server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Tokens of the prompt, including cached ones.
    pub prompt: Option<u64>,
    /// Tokens of the response.
    pub completion: Option<u64>,
    /// Tokens of the prompt that were in the server's cache.
    pub cached: Option<u64>,
}

impl Usage {
    /// Overwrites counts with later ones.
    fn update(&mut self, later: Self) {
        self.prompt = later.prompt.or(self.prompt);
        self.completion = later.completion.or(self.completion);
        self.cached = later.cached.or(self.cached);
    }
}

/// The format of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Format {
    /// Unknown, because only white space has come.
    #[default]
    Unknown,
    Json,
    Events,
    /// The rest of the response is not read.
    Done,
}

/// Reads one response. The memory is reused for other responses.
#[derive(Debug, Default)]
pub struct ResponseReader {
    form: Format,
    tokens: Tokens,
    events: Events,
    usage: Usage,
}

impl ResponseReader {
    /// Begins another response.
    pub fn reset(&mut self) {
        self.form = Format::Unknown;
        self.tokens.reset();
        self.events.reset();
        self.usage = Usage::default();
    }

    /// Returns whether the following bytes may matter.
    pub fn wants_bytes(&self) -> bool {
        self.form != Format::Done
    }

    /// Returns whether the response is a stream of events.
    pub fn streams(&self) -> bool {
        self.events.begun()
    }

    /// Returns the counts so far. A response, or an event, counts once it is complete.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// Adds bytes of the response.
    pub fn push(&mut self, mut bytes: &[u8], buffer: &mut TextBuffer) {
        if self.form == Format::Unknown {
            // White space before the response is ignored, however the bytes are split.
            bytes = skip_white_space(bytes);
            self.form = form(bytes);
        }
        match self.form {
            Format::Unknown | Format::Done => {}
            Format::Json => {
                self.tokens.push(bytes, buffer);
                if self.tokens.reading() != Reading::Going {
                    self.usage.update(self.tokens.usage());
                    self.form = Format::Done;
                }
            }
            Format::Events => {
                let Self { tokens, usage, .. } = self;
                let mut sink = EventSink {
                    tokens,
                    usage,
                    buffer,
                };
                if self.events.push(bytes, &mut sink) {
                    self.form = Format::Done;
                }
            }
        }
    }

    /// Ends the response.
    pub fn finish(&mut self, buffer: &mut TextBuffer) {
        if self.form == Format::Events {
            let Self { tokens, usage, .. } = self;
            self.events.end(&mut EventSink {
                tokens,
                usage,
                buffer,
            });
        }
        self.form = Format::Done;
    }
}

/// Returns the bytes behind white space, as JSON defines it.
fn skip_white_space(bytes: &[u8]) -> &[u8] {
    let text = bytes.iter().position(|byte| !b" \t\n\r".contains(byte));
    text.and_then(|at| bytes.get(at..)).unwrap_or_default()
}

/// Returns the format of a response that begins with these bytes.
fn form(bytes: &[u8]) -> Format {
    match bytes.first() {
        None => Format::Unknown,
        Some(b'{') => Format::Json,
        // `data`, `event`, `id`, `retry` and comments.
        Some(b'd' | b'e' | b'i' | b'r' | b':') => Format::Events,
        Some(_) => Format::Done,
    }
}
