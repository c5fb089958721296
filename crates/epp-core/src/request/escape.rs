//! Escapes text like Go's encoding/json inside a string: the characters that JSON requires, and those that could be
//! HTML markup.

use std::io::Write as _;

/// Escapes whole characters.
pub fn escape(text: &[u8], out: &mut Vec<u8>) {
    let mut rest = text;
    loop {
        let run = rest.iter().position(|byte| may_need_escape(*byte));
        let (plain, special) = rest
            .split_at_checked(run.unwrap_or(rest.len()))
            .unwrap_or_default();
        out.extend_from_slice(plain);
        let Some((&byte, after)) = special.split_first() else {
            return;
        };
        rest = after;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0C => out.extend_from_slice(b"\\f"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            LINE_LEAD => rest = separator(after, out),
            _ => hex(byte, out),
        }
    }
}

/// Maximum escaped bytes per byte of text.
pub const LONGEST_ESCAPE: usize = 6;

/// Returns an upper bound, exact but for a few bytes, for the bytes that [`escape`] writes for a text.
pub fn escaped_length(text: &[u8]) -> usize {
    let length = |byte: &u8| match byte {
        b'"' | b'\\' | 0x08 | 0x0C | b'\n' | b'\r' | b'\t' => 2,
        // The two bytes behind this one count as well.
        &LINE_LEAD => LONGEST_ESCAPE - 2,
        byte if may_need_escape(*byte) => LONGEST_ESCAPE,
        _ => 1,
    };
    text.iter().map(length).sum()
}

/// The first byte of U+2028 and U+2029, which end lines in JavaScript.
const LINE_LEAD: u8 = 0xE2;

fn may_need_escape(byte: u8) -> bool {
    byte < 0x20 || matches!(byte, b'"' | b'\\' | b'<' | b'>' | b'&' | LINE_LEAD)
}

/// Writes a [`LINE_LEAD`] and the rest of its character. Returns the bytes that follow.
fn separator<'a>(after: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
    match after {
        [0x80, last @ (0xA8 | 0xA9), rest @ ..] => {
            out.extend_from_slice(if *last == 0xA8 {
                b"\\u2028"
            } else {
                b"\\u2029"
            });
            rest
        }
        _ => {
            out.push(LINE_LEAD);
            after
        }
    }
}

fn hex(byte: u8, out: &mut Vec<u8>) {
    // Writing to memory cannot fail.
    let _ = write!(out, "\\u{byte:04x}");
}

/// Removes white space between the tokens of JSON, and escapes its strings as [`escape`] does.
#[derive(Debug, Default, Clone)]
pub struct Compact {
    in_string: bool,
    /// Whether the last byte was a backslash that escapes the next one.
    escaped: bool,
    /// Bytes of U+2028 or U+2029 that were read and not written yet.
    lead: usize,
}

impl Compact {
    /// Writes more JSON.
    pub fn write(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for byte in bytes {
            self.byte(*byte, out);
        }
    }

    fn byte(&mut self, byte: u8, out: &mut Vec<u8>) {
        match (self.lead, byte) {
            (1, 0x80) => {
                self.lead = 2;
                return;
            }
            (2, 0xA8 | 0xA9) => {
                self.lead = 0;
                separator(&[0x80, byte], out);
                return;
            }
            (lead, _) => {
                let held = [LINE_LEAD, 0x80];
                out.extend_from_slice(held.get(..lead).unwrap_or_default());
                self.lead = 0;
            }
        }
        let escaped = std::mem::take(&mut self.escaped);
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' if !self.in_string => {}
            b'<' | b'>' | b'&' => hex(byte, out),
            LINE_LEAD => self.lead = 1,
            _ => {
                if byte == b'"' && !escaped {
                    self.in_string = !self.in_string;
                }
                self.escaped = byte == b'\\' && !escaped;
                out.push(byte);
            }
        }
    }
}
