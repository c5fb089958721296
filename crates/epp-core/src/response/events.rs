//! Server-sent events: lines that end with LF, CRLF or CR, of which those that begin with `data:`
//! hold JSON; a blank line ends an event.

use super::tokens::Tokens;
use super::Usage;
use crate::request::TextBuffer;

/// The field that matters.
const FIELD: &[u8] = b"data:";

/// What an OpenAI stream ends with; Anthropic's and the responses API's simply end.
const DONE: &[u8] = b"[DONE]";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    /// At a line's beginning, behind this many bytes of the field's name.
    #[default]
    Line,
    Name(usize),
    /// Right behind the field's name: one space belongs to it.
    Value,
    /// Inside its value, as far as it is the end mark's beginning; then it is JSON.
    Mark(usize),
    Data,
    /// Inside another line.
    Other,
}

/// What the data of events is written to.
pub struct EventSink<'a> {
    pub tokens: &'a mut Tokens,
    pub usage: &'a mut Usage,
    pub buffer: &'a mut TextBuffer,
}

impl EventSink<'_> {
    fn push(&mut self, data: &[u8]) {
        self.tokens.push(data, self.buffer);
    }

    fn take_usage(&mut self) {
        self.usage.update(self.tokens.usage());
    }
}

/// Reads events.
#[derive(Debug, Default)]
pub struct Events {
    state: State,
    /// The last byte was a CR: an LF would belong to it.
    behind_cr: bool,
    begun: bool,
}

impl Events {
    /// Begins another stream.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Whether anything of a stream has come.
    pub fn begun(&self) -> bool {
        self.begun
    }

    /// Reads on. Whether the stream says that it has ended.
    pub fn push(&mut self, bytes: &[u8], sink: &mut EventSink<'_>) -> bool {
        self.begun = true;
        let mut rest = bytes;
        while let Some((&byte, after)) = rest.split_first() {
            let lf_of_cr = std::mem::take(&mut self.behind_cr) && byte == b'\n';
            if lf_of_cr {
                rest = after;
                continue;
            }
            if matches!(byte, b'\n' | b'\r') {
                self.behind_cr = byte == b'\r';
                if self.end_line(sink) {
                    return true;
                }
                rest = after;
                continue;
            }
            rest = self.inside(byte, rest, sink);
        }
        false
    }

    /// The stream has ended, with or without a blank line.
    pub fn end(&mut self, sink: &mut EventSink<'_>) {
        self.end_line(sink);
        self.state = State::Line;
        self.end_line(sink);
    }

    /// A byte that ends no line; returns what is left.
    fn inside<'a>(&mut self, byte: u8, rest: &'a [u8], sink: &mut EventSink<'_>) -> &'a [u8] {
        let after = rest.get(1..).unwrap_or_default();
        let at = match self.state {
            State::Line => 0,
            State::Name(at) => at,
            State::Value if byte == b' ' => {
                self.state = State::Mark(0);
                return after;
            }
            State::Value => return self.value(0, byte, rest, sink),
            State::Mark(at) => return self.value(at, byte, rest, sink),
            State::Data | State::Other => return self.run(rest, sink),
        };
        self.state = match FIELD.get(at) {
            Some(expected) if *expected != byte => State::Other,
            _ if at + 1 == FIELD.len() => State::Value,
            _ => State::Name(at + 1),
        };
        after
    }

    /// A byte of a value of which all before it was the beginning of the end mark.
    fn value<'a>(
        &mut self,
        at: usize,
        byte: u8,
        rest: &'a [u8],
        sink: &mut EventSink<'_>,
    ) -> &'a [u8] {
        if DONE.get(at) == Some(&byte) {
            self.state = State::Mark(at + 1);
            return rest.get(1..).unwrap_or_default();
        }
        sink.push(DONE.get(..at).unwrap_or_default());
        self.state = State::Data;
        self.run(rest, sink)
    }

    /// The rest of a line as far as it has come.
    fn run<'a>(&mut self, rest: &'a [u8], sink: &mut EventSink<'_>) -> &'a [u8] {
        let end = memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
        let (line, after) = rest.split_at_checked(end).unwrap_or((rest, &[]));
        if self.state == State::Data {
            sink.push(line);
        }
        after
    }

    /// A line has ended. Whether that was the stream's end mark.
    fn end_line(&mut self, sink: &mut EventSink<'_>) -> bool {
        let state = std::mem::take(&mut self.state);
        match state {
            State::Line => {
                sink.take_usage();
                sink.tokens.reset();
            }
            State::Mark(at) if at == DONE.len() => {
                sink.take_usage();
                return true;
            }
            // The lines of one event's data are joined by line ends.
            State::Data => sink.push(b"\n"),
            State::Mark(at) => sink.push(DONE.get(..at).unwrap_or_default()),
            State::Name(_) | State::Value | State::Other => {}
        }
        false
    }
}
