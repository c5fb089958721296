//! Reads server-sent events. Lines end with LF, CRLF or CR; lines that begin with `data:` contain JSON; a blank line ends
//! an event.

use super::tokens::Tokens;
use super::Usage;
use crate::request::TextBuffer;

/// The only field that is read.
const DATA_FIELD: &[u8] = b"data:";

/// The data that ends an OpenAI stream; streams of Anthropic and the responses API have no end mark.
const END_MARK: &[u8] = b"[DONE]";

/// How much of a line was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum LineState {
    /// The beginning of a line.
    #[default]
    Line,
    /// Behind this many bytes of the field's name.
    Name(usize),
    /// Right behind the field's name; one space may follow that is not data.
    Value,
    /// In data that equals the first bytes of the end mark, this many.
    Mark(usize),
    /// In other data.
    Data,
    /// In a line of another field.
    Other,
}

/// The receiver of the data of events.
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

/// Reads a stream of events.
#[derive(Debug, Default)]
pub struct Events {
    state: LineState,
    /// Whether the last byte was a CR, to which a following LF belongs.
    behind_cr: bool,
    /// Whether the stream has begun.
    begun: bool,
}

impl Events {
    /// Begins another stream.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Returns whether the stream has begun.
    pub fn begun(&self) -> bool {
        self.begun
    }

    /// Reads more bytes. Returns whether the stream's end mark has come.
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

    /// Ends the stream, whether or not it ended with a blank line.
    pub fn end(&mut self, sink: &mut EventSink<'_>) {
        self.end_line(sink);
        self.state = LineState::Line;
        self.end_line(sink);
    }

    /// Reads a byte that does not end a line, and perhaps more. Returns the rest.
    fn inside<'a>(&mut self, byte: u8, rest: &'a [u8], sink: &mut EventSink<'_>) -> &'a [u8] {
        let after = rest.get(1..).unwrap_or_default();
        let at = match self.state {
            LineState::Line => 0,
            LineState::Name(at) => at,
            LineState::Value if byte == b' ' => {
                self.state = LineState::Mark(0);
                return after;
            }
            LineState::Value => return self.value(0, byte, rest, sink),
            LineState::Mark(at) => return self.value(at, byte, rest, sink),
            LineState::Data | LineState::Other => return self.run(rest, sink),
        };
        self.state = match DATA_FIELD.get(at) {
            Some(expected) if *expected != byte => LineState::Other,
            _ if at + 1 == DATA_FIELD.len() => LineState::Value,
            _ => LineState::Name(at + 1),
        };
        after
    }

    /// Reads a byte of data that so far equals the beginning of the end mark. Returns the rest.
    fn value<'a>(
        &mut self,
        at: usize,
        byte: u8,
        rest: &'a [u8],
        sink: &mut EventSink<'_>,
    ) -> &'a [u8] {
        if END_MARK.get(at) == Some(&byte) {
            self.state = LineState::Mark(at + 1);
            return rest.get(1..).unwrap_or_default();
        }
        sink.push(END_MARK.get(..at).unwrap_or_default());
        self.state = LineState::Data;
        self.run(rest, sink)
    }

    /// Reads the rest of a line, as far as it has come. Returns what follows.
    fn run<'a>(&mut self, rest: &'a [u8], sink: &mut EventSink<'_>) -> &'a [u8] {
        let end = memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
        let (line, after) = rest.split_at_checked(end).unwrap_or((rest, &[]));
        if self.state == LineState::Data {
            sink.push(line);
        }
        after
    }

    /// Ends a line. Returns whether it was the stream's end mark.
    fn end_line(&mut self, sink: &mut EventSink<'_>) -> bool {
        let state = std::mem::take(&mut self.state);
        match state {
            LineState::Line => {
                sink.take_usage();
                sink.tokens.reset();
            }
            LineState::Mark(at) if at == END_MARK.len() => {
                sink.take_usage();
                return true;
            }
            // The data lines of one event are joined by line breaks.
            LineState::Data => sink.push(b"\n"),
            LineState::Mark(at) => sink.push(END_MARK.get(..at).unwrap_or_default()),
            LineState::Name(_) | LineState::Value | LineState::Other => {}
        }
        false
    }
}
