//! Decodes the inside of a JSON string as it streams past.
//!
//! The result equals that of Go's encoding/json, which the Endpoint Picker hashes: each byte that is not part of valid
//! UTF-8 and each surrogate without its other half becomes U+FFFD.
//!
//! # The buffer
//!
//! Decoded text is collected in a [`TextBuffer`] and passed on in pieces. All readers of a worker share one buffer,
//! because one per request would not stay in the nearest cache; each has it only during [`StringReader::read`]. Its
//! first `filled` bytes are decoded text that was not passed on yet:
//!
//! - Before the first call, and after the string has ended or is not wanted, `filled` is 0.
//! - During a call, `filled` grows up to [`PIECE_BYTES`] and a little more; then the text is passed on, except for an
//!   incomplete character at its end, which moves to the beginning of the buffer.
//! - Between two calls only such an incomplete character may be left: up to 3 bytes. Another reader may use the buffer
//!   meanwhile, so that the bytes are saved in `incomplete` at the end of a call and restored at the next.

use std::str::from_utf8;

use wide::u8x16;

/// Go's decoder replaces everything that is not text with this.
const REPLACEMENT: &[u8] = "\u{FFFD}".as_bytes();

/// Text is passed on in pieces of about this size: large enough that a text full of escapes is not split into tiny
/// pieces, small enough to stay in the nearest cache.
const PIECE_BYTES: usize = 4096;

/// Size of the buffer: a piece, and the bytes that may be written behind its end before the size is checked.
const BUFFER_BYTES: usize = PIECE_BYTES + 4 * LANES;

/// The buffer that all readers of a worker share. It allocates its memory with the first use.
#[derive(Debug, Default)]
pub struct TextBuffer(Vec<u8>);

impl TextBuffer {
    fn bytes(&mut self) -> &mut [u8] {
        self.0.resize(BUFFER_BYTES, 0);
        &mut self.0
    }
}

/// How far a string was read.
#[derive(Debug, PartialEq, Eq)]
pub enum Reach<'a> {
    /// The bytes have ended before the string.
    Open,
    /// The string has ended; these bytes follow.
    Closed(&'a [u8]),
    /// The string contains an invalid byte or escape, with which these bytes begin.
    Bad(&'a [u8]),
}

/// How much of an escape was read.
#[derive(Debug, Clone, Copy, Default)]
enum Escape {
    #[default]
    None,
    /// The backslash.
    Begun,
    /// `\u` and some of its digits.
    Unit { digits: u8, unit: u16 },
}

/// Decodes a string that arrives in several calls.
#[derive(Debug, Default)]
pub struct StringReader {
    /// Whether more text is wanted.
    wanted: bool,
    escape: Escape,
    /// A high surrogate that waits for its low one; 0: none.
    high: u16,
    /// Bytes in the buffer that were not passed on yet.
    filled: usize,
    /// The first bytes of the buffer, between two calls.
    incomplete: [u8; 4],
    /// Whether the bytes in the buffer are ASCII, which needs no UTF-8 validation.
    ascii: bool,
}

impl StringReader {
    /// Begins a string.
    pub fn begin(&mut self, wanted: bool) {
        self.wanted = wanted;
        self.escape = Escape::None;
        self.high = 0;
        self.filled = 0;
        self.ascii = true;
    }

    /// Reads on. `take` gets the text in pieces that never split a character, and returns whether it wants more.
    pub fn read<'a>(
        &mut self,
        bytes: &'a [u8],
        buffer: &mut TextBuffer,
        take: &mut impl FnMut(&[u8]) -> bool,
    ) -> Reach<'a> {
        if !self.wanted {
            return self.read_on(bytes, &mut [], take);
        }
        let buffer = buffer.bytes();
        if let Some((first, _)) = buffer.split_first_chunk_mut() {
            *first = self.incomplete;
        }
        let reach = self.read_on(bytes, buffer, take);
        if let Some((first, _)) = buffer.split_first_chunk() {
            self.incomplete = *first;
        }
        reach
    }

    fn read_on<'a>(
        &mut self,
        mut bytes: &'a [u8],
        buffer: &mut [u8],
        take: &mut impl FnMut(&[u8]) -> bool,
    ) -> Reach<'a> {
        loop {
            if self.filled >= PIECE_BYTES {
                self.pass_on(buffer, false, take);
            }
            if !matches!(self.escape, Escape::None) {
                let Some((&byte, rest)) = bytes.split_first() else {
                    self.pass_on(buffer, false, take);
                    return Reach::Open;
                };
                if !self.unescape(byte, buffer) {
                    self.pass_on(buffer, false, take);
                    return Reach::Bad(bytes);
                }
                bytes = rest;
                continue;
            }
            if self.wanted {
                bytes = self.copy_text(bytes, buffer, take);
            }
            let run = match bytes.get(..LANES) {
                // The next bytes are examined in any case, or nothing is wanted.
                Some(lanes) if self.wanted => plain(lanes),
                _ => plain(bytes),
            };
            let (text, rest) = bytes.split_at_checked(run.length).unwrap_or((bytes, &[]));
            if !text.is_empty() {
                self.replace_high(buffer);
                self.append(buffer, text, run.ascii);
            }
            bytes = rest;
            match bytes.split_first() {
                None => {
                    self.pass_on(buffer, false, take);
                    return Reach::Open;
                }
                Some((b'"', rest)) => {
                    self.replace_high(buffer);
                    self.pass_on(buffer, true, take);
                    return Reach::Closed(rest);
                }
                Some((b'\\', rest)) => {
                    self.escape = Escape::Begun;
                    bytes = rest;
                }
                Some((0..0x20, _)) => {
                    // The text before the invalid byte counts, however the bytes were split.
                    self.pass_on(buffer, false, take);
                    return Reach::Bad(bytes);
                }
                // The text is not wanted.
                Some(_) => {}
            }
        }
    }

    /// Reads a byte of an escape. Returns whether it is valid there.
    fn unescape(&mut self, byte: u8, buffer: &mut [u8]) -> bool {
        let letter = match (self.escape, byte) {
            (Escape::Unit { digits, unit }, _) => {
                let Some(digit) = char::from(byte).to_digit(16) else {
                    return false;
                };
                let unit = unit << 4 | digit as u16;
                if digits < 3 {
                    let digits = digits + 1;
                    self.escape = Escape::Unit { digits, unit };
                } else {
                    self.escape = Escape::None;
                    self.add_unit(unit, buffer);
                }
                return true;
            }
            (_, b'u') => {
                self.escape = Escape::Unit { digits: 0, unit: 0 };
                return true;
            }
            _ => match simple(byte) {
                Some(letter) => letter,
                None => return false,
            },
        };
        self.escape = Escape::None;
        self.replace_high(buffer);
        self.append(buffer, &[letter], true);
        true
    }

    /// Appends the UTF-16 unit of a whole `\uXXXX`, or keeps it if it is a high surrogate.
    fn add_unit(&mut self, unit: u16, buffer: &mut [u8]) {
        let both = [self.high, unit];
        let letter = match char::decode_utf16(both).next() {
            Some(Ok(letter)) if self.high != 0 => {
                self.high = 0;
                letter
            }
            _ => {
                self.replace_high(buffer);
                if (0xD800..0xDC00).contains(&unit) {
                    self.high = unit;
                    return;
                }
                char::from_u32(u32::from(unit)).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
        };
        self.append(
            buffer,
            letter.encode_utf8(&mut [0; 4]).as_bytes(),
            letter.is_ascii(),
        );
    }

    /// Copies text and its simple escapes into the buffer, up to anything else or nearly to the end of the bytes. Returns
    /// the rest. Bytes are examined and copied in one pass: text full of line breaks consists of runs of some dozen bytes,
    /// for which a separate copy costs more than the examination.
    fn copy_text<'a>(
        &mut self,
        mut bytes: &'a [u8],
        buffer: &mut [u8],
        take: &mut impl FnMut(&[u8]) -> bool,
    ) -> &'a [u8] {
        if self.high != 0 {
            if matches!(bytes.first(), None | Some(b'\\' | 0..0x20)) {
                return bytes;
            }
            self.replace_high(buffer);
        }
        // Beside the fields, so that they stay in registers.
        let (mut filled, mut ascii) = (self.filled, self.ascii);
        while let Some(lanes) = bytes.first_chunk() {
            if filled >= PIECE_BYTES {
                (self.filled, self.ascii) = (filled, ascii);
                self.pass_on(buffer, false, take);
                if !self.wanted {
                    return bytes;
                }
                (filled, ascii) = (self.filled, self.ascii);
            }
            // Bytes behind the run are overwritten by what follows it.
            let room = buffer.get_mut(filled..).unwrap_or_default();
            let Some(room) = room.first_chunk_mut::<LANES>() else {
                break;
            };
            *room = *lanes;
            let run = examine(lanes);
            ascii &= run.ascii;
            filled += run.length;
            bytes = bytes.get(run.length..).unwrap_or_default();
            if run.length == LANES {
                continue;
            }
            let escape = match bytes {
                [b'\\', letter, ..] => simple(*letter),
                _ => None,
            };
            let (Some(letter), Some(place)) = (escape, buffer.get_mut(filled)) else {
                break;
            };
            *place = letter;
            filled += 1;
            bytes = bytes.get(2..).unwrap_or_default();
        }
        (self.filled, self.ascii) = (filled, ascii);
        bytes
    }

    /// Replaces a high surrogate whose other half has not come.
    fn replace_high(&mut self, buffer: &mut [u8]) {
        if std::mem::take(&mut self.high) != 0 {
            self.append(buffer, REPLACEMENT, false);
        }
    }

    /// Appends a few bytes to the buffer.
    fn append(&mut self, buffer: &mut [u8], text: &[u8], ascii: bool) {
        let room = buffer.get_mut(self.filled..self.filled + text.len());
        if let Some(room) = room.filter(|_| self.wanted) {
            room.copy_from_slice(text);
            self.ascii &= ascii;
            self.filled += text.len();
        }
    }

    /// Passes on the text in the buffer, except for an incomplete character at its end unless the string has ended.
    fn pass_on(&mut self, buffer: &mut [u8], ended: bool, take: &mut impl FnMut(&[u8]) -> bool) {
        let mut rest = buffer.get(..self.filled).unwrap_or_default();
        while self.wanted && !rest.is_empty() {
            let broken = if self.ascii {
                None
            } else {
                from_utf8(rest).err()
            };
            let Some(error) = broken else {
                self.wanted = take(rest);
                rest = &[];
                break;
            };
            let valid = rest.split_at_checked(error.valid_up_to());
            let (valid, broken) = valid.unwrap_or_default();
            rest = broken;
            if !valid.is_empty() {
                self.wanted = take(valid);
            }
            if error.error_len().is_none() && !ended {
                break;
            }
            self.wanted = self.wanted && take(REPLACEMENT);
            rest = rest.get(1..).unwrap_or_default();
        }
        let left = if self.wanted { rest.len() } else { 0 };
        buffer.copy_within(self.filled - left..self.filled, 0);
        self.filled = left;
        self.ascii = left == 0;
    }
}

/// Returns the byte for which a letter behind a backslash stands, except for `u`.
fn simple(letter: u8) -> Option<u8> {
    Some(match letter {
        b'n' => b'\n',
        b't' => b'\t',
        b'r' => b'\r',
        b'b' => 0x08,
        b'f' => 0x0C,
        b'"' | b'\\' | b'/' => letter,
        _ => return None,
    })
}

/// A run of bytes that are text as they are.
#[derive(Debug, PartialEq, Eq)]
struct TextRun {
    length: usize,
    ascii: bool,
}

/// Returns the run with which `bytes` begins.
fn plain(bytes: &[u8]) -> TextRun {
    let mut run = TextRun {
        length: 0,
        ascii: true,
    };
    let mut rest = bytes;
    while let Some((lanes, after)) = rest.split_first_chunk() {
        let found = examine(lanes);
        run.length += found.length;
        run.ascii &= found.ascii;
        if found.length < LANES {
            return run;
        }
        rest = after;
    }
    let last = first_end(rest);
    run.length += last;
    run.ascii &= rest.get(..last).unwrap_or_default().is_ascii();
    run
}

/// Returns the length of the run with which `bytes` begins, without vector instructions.
fn first_end(mut bytes: &[u8]) -> usize {
    let mut length = 0;
    while let Some((word, after)) = bytes.split_first_chunk() {
        let found = ends_in(u64::from_le_bytes(*word));
        if found != 0 {
            return length + found.trailing_zeros() as usize / 8;
        }
        length += word.len();
        bytes = after;
    }
    let end = bytes.iter().position(|byte| ends(*byte));
    length + end.unwrap_or(bytes.len())
}

/// Bytes examined per step: two vector registers, which halves the cost of the loop itself.
const LANES: usize = 32;

/// Returns the run with which the bytes begin. The compiler does not use vector instructions by itself, and without them
/// the scan takes six times as long.
fn examine(lanes: &[u8; LANES]) -> TextRun {
    let half = |bytes: Option<&[u8; 16]>| u8x16::new(bytes.copied().unwrap_or_default());
    let (low, high) = (half(lanes.first_chunk()), half(lanes.last_chunk()));
    let ends = |bytes: u8x16| {
        let control = bytes.simd_lt(u8x16::splat(0x20));
        let quote = bytes.simd_eq(u8x16::splat(b'"'));
        control | quote | bytes.simd_eq(u8x16::splat(b'\\'))
    };
    let mask = |low: u8x16, high: u8x16| low.to_bitmask() | high.to_bitmask() << 16;
    let found = mask(ends(low), ends(high));
    let before_end = found.wrapping_sub(1) & !found;
    TextRun {
        // If the run does not end, this is 32: all bytes.
        length: found.trailing_zeros() as usize,
        ascii: mask(low, high) & before_end == 0,
    }
}

/// Returns whether a byte ends a run.
fn ends(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\')
}

/// Applies [`ends`] to eight bytes. The lowest set bit of the result is the highest bit of the first byte that ends a
/// run.
fn ends_in(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 0xFF;
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word;
    let is = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    (below(word, 0x20) | is(b'"') | is(b'\\')) & (ONES << 7)
}

#[cfg(test)]
#[path = "text_tests.rs"]
mod tests;
