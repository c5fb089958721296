//! The tokens that a model server's response reports, read as it streams past: nothing is held, nothing
//! is changed.
//!
//! Whether a response is JSON, a stream of events or neither is read from its first bytes rather than
//! by its headers: asking Envoy for them would cost more than the reading. A compressed answer
//! begins like neither and is passed by.

mod events;
mod tokens;

use self::events::{EventSink, Events};
use self::tokens::Tokens;
use crate::request::{Reading, TextBuffer};

/// Tokens, as the model server counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Of the prompt, cached ones included.
    pub prompt: Option<u64>,
    /// Of the answer.
    pub completion: Option<u64>,
    /// Of the prompt's those that were in the server's cache.
    pub cached: Option<u64>,
}

impl Usage {
    /// Takes over what later counts say.
    fn update(&mut self, later: Self) {
        self.prompt = later.prompt.or(self.prompt);
        self.completion = later.completion.or(self.completion);
        self.cached = later.cached.or(self.cached);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Form {
    /// Nothing but white space has come.
    #[default]
    Unknown,
    Json,
    Events,
    /// Nothing to read here, or no more.
    Done,
}

/// Reads one answer. Its memory is kept from answer to answer.
#[derive(Debug, Default)]
pub struct ResponseReader {
    form: Form,
    tokens: Tokens,
    events: Events,
    usage: Usage,
}

impl ResponseReader {
    /// Begins another answer.
    pub fn reset(&mut self) {
        self.form = Form::Unknown;
        self.tokens.reset();
        self.events.reset();
        self.usage = Usage::default();
    }

    /// Whether what follows may still matter.
    pub fn wants_bytes(&self) -> bool {
        self.form != Form::Done
    }

    /// Whether the answer is a stream of events.
    pub fn streams(&self) -> bool {
        self.events.begun()
    }

    /// What was told so far. An answer, or an event, counts once it is whole.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// More bytes of the answer.
    pub fn push(&mut self, mut bytes: &[u8], buffer: &mut TextBuffer) {
        if self.form == Form::Unknown {
            // What stands before it counts for nothing, in whichever piece it comes.
            bytes = behind_blank(bytes);
            self.form = form(bytes);
        }
        match self.form {
            Form::Unknown | Form::Done => {}
            Form::Json => {
                self.tokens.push(bytes, buffer);
                if self.tokens.reading() != Reading::Going {
                    self.usage.update(self.tokens.usage());
                    self.form = Form::Done;
                }
            }
            Form::Events => {
                let Self { tokens, usage, .. } = self;
                let mut sink = EventSink {
                    tokens,
                    usage,
                    buffer,
                };
                if self.events.push(bytes, &mut sink) {
                    self.form = Form::Done;
                }
            }
        }
    }

    /// The answer has ended.
    pub fn finish(&mut self, buffer: &mut TextBuffer) {
        if self.form == Form::Events {
            let Self { tokens, usage, .. } = self;
            self.events.end(&mut EventSink {
                tokens,
                usage,
                buffer,
            });
        }
        self.form = Form::Done;
    }
}

/// What follows the white space of JSON: other does not stand before a value.
fn behind_blank(bytes: &[u8]) -> &[u8] {
    let text = bytes.iter().position(|byte| !b" \t\n\r".contains(byte));
    text.and_then(|at| bytes.get(at..)).unwrap_or_default()
}

/// What an answer is that begins so.
fn form(bytes: &[u8]) -> Form {
    match bytes.first() {
        None => Form::Unknown,
        Some(b'{') => Form::Json,
        // `data`, `event`, `id`, `retry` and comments.
        Some(b'd' | b'e' | b'i' | b'r' | b':') => Form::Events,
        Some(_) => Form::Done,
    }
}
