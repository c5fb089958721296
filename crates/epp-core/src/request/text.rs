//! The inside of a JSON string, decoded as it comes.
//!
//! What comes out is what Go's encoding/json makes of it, which the Endpoint Picker hashes: each
//! byte that is not part of valid UTF-8 and each surrogate without its other half becomes U+FFFD.

use std::cell::Cell;
use std::str::from_utf8;

/// What Go's decoder puts in place of what is not text.
const REPLACEMENT: &[u8] = "\u{FFFD}".as_bytes();

/// Text is given on in pieces of about this size: large enough that a text full of escapes does
/// not fall into crumbs, small enough to stay in the nearest cache.
const PIECE: usize = 4096;

/// Room for a piece and what is written behind its end before that is looked at.
const ROOM: usize = PIECE + 4 * LANES;

thread_local! {
    /// All readers' buffer, which each has while it reads: one for each of a worker's requests would
    /// not stay in the nearest cache.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// How far the reading of a string came.
#[derive(Debug, PartialEq, Eq)]
pub enum Reach<'a> {
    /// To the end of the bytes; the string goes on.
    Open,
    /// To the string's end; this follows.
    Closed(&'a [u8]),
    /// To something that no string holds; this follows.
    Bad(&'a [u8]),
}

#[derive(Debug, Clone, Copy, Default)]
enum Escape {
    #[default]
    None,
    /// Behind the backslash.
    Begun,
    /// Behind `\u` and some of its digits.
    Unit { digits: u8, unit: u16 },
}

/// Where in a string the bytes so far end.
#[derive(Debug, Default)]
pub struct StringReader {
    /// Whether anybody still wants the text.
    wanted: bool,
    escape: Escape,
    /// A high surrogate that waits for its low one; 0: none.
    high: u16,
    /// Begins with text that was not given on yet; empty between two calls.
    buffer: Vec<u8>,
    /// Bytes of that text; after a call at most the beginning of one character.
    filled: usize,
    /// Holds these between two calls.
    begun: [u8; 4],
    /// Whether that is all ASCII, which is text whatever else.
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

    /// Reads on. `take` is given the text in pieces that never cut a character, and says whether it
    /// wants more.
    pub fn read<'a>(&mut self, bytes: &'a [u8], take: &mut impl FnMut(&[u8]) -> bool) -> Reach<'a> {
        if !self.wanted {
            return self.read_on(bytes, take);
        }
        self.buffer = BUFFER.take();
        self.buffer.resize(ROOM, 0);
        if let Some((begun, _)) = self.buffer.split_first_chunk_mut() {
            *begun = self.begun;
        }
        let reach = self.read_on(bytes, take);
        if let Some((begun, _)) = self.buffer.split_first_chunk() {
            self.begun = *begun;
        }
        BUFFER.set(std::mem::take(&mut self.buffer));
        reach
    }

    fn read_on<'a>(
        &mut self,
        mut bytes: &'a [u8],
        take: &mut impl FnMut(&[u8]) -> bool,
    ) -> Reach<'a> {
        loop {
            if self.filled >= PIECE {
                self.give(false, take);
            }
            if !matches!(self.escape, Escape::None) {
                let Some((&byte, rest)) = bytes.split_first() else {
                    self.give(false, take);
                    return Reach::Open;
                };
                if !self.unescape(byte) {
                    self.give(false, take);
                    return Reach::Bad(bytes);
                }
                bytes = rest;
                continue;
            }
            if self.wanted {
                bytes = self.sweep(bytes, take);
            }
            let run = match bytes.get(..LANES) {
                // Nothing, or a rest that is not wanted.
                Some(lanes) if self.wanted => plain(lanes),
                _ => plain(bytes),
            };
            let (text, rest) = bytes.split_at_checked(run.length).unwrap_or((bytes, &[]));
            if !text.is_empty() {
                self.give_up_high();
                self.keep(text, run.ascii);
            }
            bytes = rest;
            match bytes.split_first() {
                None => {
                    self.give(false, take);
                    return Reach::Open;
                }
                Some((b'"', rest)) => {
                    self.give_up_high();
                    self.give(true, take);
                    return Reach::Closed(rest);
                }
                Some((b'\\', rest)) => {
                    self.escape = Escape::Begun;
                    bytes = rest;
                }
                Some((0..0x20, _)) => {
                    // What precedes it counts, whichever piece it came in.
                    self.give(false, take);
                    return Reach::Bad(bytes);
                }
                // The rest is not wanted.
                Some(_) => {}
            }
        }
    }

    /// One byte behind a backslash. False if it cannot stand there.
    fn unescape(&mut self, byte: u8) -> bool {
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
                    self.unit(unit);
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
        self.give_up_high();
        self.keep(&[letter], true);
        true
    }

    /// A whole `\uXXXX`.
    fn unit(&mut self, unit: u16) {
        let both = [self.high, unit];
        let letter = match char::decode_utf16(both).next() {
            Some(Ok(letter)) if self.high != 0 => {
                self.high = 0;
                letter
            }
            _ => {
                self.give_up_high();
                if (0xD800..0xDC00).contains(&unit) {
                    self.high = unit;
                    return;
                }
                char::from_u32(u32::from(unit)).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
        };
        self.keep(
            letter.encode_utf8(&mut [0; 4]).as_bytes(),
            letter.is_ascii(),
        );
    }

    /// Takes over text and its simple escapes, up to something else or nearly to the end; returns
    /// what is left. What is looked at is copied in the same go: text full of line breaks falls
    /// into runs of some dozen bytes, for which a copy of its own costs more than the look.
    fn sweep<'a>(&mut self, mut bytes: &'a [u8], take: &mut impl FnMut(&[u8]) -> bool) -> &'a [u8] {
        if self.high != 0 {
            if matches!(bytes.first(), None | Some(b'\\' | 0..0x20)) {
                return bytes;
            }
            self.give_up_high();
        }
        while bytes.len() >= LANES {
            if self.filled >= PIECE {
                self.give(false, take);
                if !self.wanted {
                    break;
                }
            }
            // The rest of the room is for what may follow a run before the next look.
            let room = self.buffer.get_mut(self.filled..PIECE + LANES);
            let run = copy_plain(bytes, room.unwrap_or_default());
            self.ascii &= run.ascii;
            self.filled += run.length;
            bytes = bytes.get(run.length..).unwrap_or_default();
            if run.length > 0 && run.length % LANES == 0 {
                // No end was seen: bytes or room are used up.
                continue;
            }
            let escape = match bytes {
                [b'\\', letter, ..] => simple(*letter),
                _ => None,
            };
            let (Some(letter), Some(place)) = (escape, self.buffer.get_mut(self.filled)) else {
                break;
            };
            *place = letter;
            self.filled += 1;
            bytes = bytes.get(2..).unwrap_or_default();
        }
        bytes
    }

    /// The other half of a surrogate does not come.
    fn give_up_high(&mut self) {
        if std::mem::take(&mut self.high) != 0 {
            self.keep(REPLACEMENT, false);
        }
    }

    /// A few bytes more.
    fn keep(&mut self, text: &[u8], ascii: bool) {
        let room = self.buffer.get_mut(self.filled..self.filled + text.len());
        if let Some(room) = room.filter(|_| self.wanted) {
            room.copy_from_slice(text);
            self.ascii &= ascii;
            self.filled += text.len();
        }
    }

    /// Gives on what was kept, but for a last character that may still become whole.
    fn give(&mut self, ended: bool, take: &mut impl FnMut(&[u8]) -> bool) {
        let mut rest = self.buffer.get(..self.filled).unwrap_or_default();
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
        self.buffer.copy_within(self.filled - left..self.filled, 0);
        self.filled = left;
        self.ascii = left == 0;
    }
}

/// What a letter behind a backslash stands for, but for `u`.
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

/// A run of bytes that need no further look.
#[derive(Debug, PartialEq, Eq)]
struct Run {
    length: usize,
    ascii: bool,
}

/// Copies the run that `bytes` begins with, as far as there is room for it; behind its end there may
/// be anything.
fn copy_plain(bytes: &[u8], room: &mut [u8]) -> Run {
    let mut run = Run {
        length: 0,
        ascii: true,
    };
    for (from, to) in bytes.chunks_exact(LANES).zip(room.chunks_exact_mut(LANES)) {
        let (Some(lanes), Some(copy)) = (from.first_chunk(), to.first_chunk_mut::<LANES>()) else {
            break;
        };
        *copy = *lanes;
        let seen = look(lanes);
        run.length += seen.length;
        run.ascii &= seen.ascii;
        if seen.length < LANES {
            break;
        }
    }
    run
}

/// The run that `bytes` begins with.
fn plain(bytes: &[u8]) -> Run {
    let mut run = Run {
        length: 0,
        ascii: true,
    };
    let mut rest = bytes;
    while let Some((lanes, after)) = rest.split_first_chunk() {
        let seen = look(lanes);
        run.length += seen.length;
        run.ascii &= seen.ascii;
        if seen.length < LANES {
            return run;
        }
        rest = after;
    }
    let last = first_end(rest);
    run.length += last;
    run.ascii &= rest.get(..last).unwrap_or_default().is_ascii();
    run
}

/// Where a run ends that may end anywhere; behind the last byte if it does not.
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

/// Bytes looked at in one go: two registers, so that the loop's own cost counts half.
const LANES: usize = 32;

/// The compiler does not find these instructions by itself, and without them the scan takes six
/// times as long.
#[cfg(target_arch = "wasm32")]
fn look(lanes: &[u8; LANES]) -> Run {
    use std::arch::wasm32::{u8x16_bitmask, u8x16_eq, u8x16_lt, u8x16_splat, v128, v128_or};
    let ends = |bytes: v128| {
        let control = u8x16_lt(bytes, u8x16_splat(0x20));
        let quote = u8x16_eq(bytes, u8x16_splat(b'"'));
        let backslash = u8x16_eq(bytes, u8x16_splat(b'\\'));
        v128_or(control, v128_or(quote, backslash))
    };
    let mask = |low, high| u32::from(u8x16_bitmask(low)) | u32::from(u8x16_bitmask(high)) << 16;
    let (low, high) = (register(lanes.first_chunk()), register(lanes.last_chunk()));
    let found = mask(ends(low), ends(high));
    let before_end = found.wrapping_sub(1) & !found;
    Run {
        // Without an end: 32, which is all.
        length: found.trailing_zeros() as usize,
        ascii: mask(low, high) & before_end == 0,
    }
}

#[cfg(target_arch = "wasm32")]
fn register(bytes: Option<&[u8; 16]>) -> std::arch::wasm32::v128 {
    let bits = bytes.map_or(0, |bytes| u128::from_le_bytes(*bytes));
    std::arch::wasm32::u64x2(bits as u64, (bits >> 64) as u64)
}

#[cfg(not(target_arch = "wasm32"))]
fn look(lanes: &[u8; LANES]) -> Run {
    let any = lanes.iter().fold(false, |any, byte| any | ends(*byte));
    let high = lanes.iter().fold(0, |any, byte| any | byte);
    if any {
        let length = first_end(lanes);
        let ascii = lanes.get(..length).unwrap_or_default().is_ascii();
        return Run { length, ascii };
    }
    Run {
        length: LANES,
        ascii: high < 0x80,
    }
}

fn ends(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\')
}

/// As [`ends`] for eight bytes: the lowest bit set is the highest of the first byte's that does.
fn ends_in(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 0xFF;
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word;
    let is = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    (below(word, 0x20) | is(b'"') | is(b'\\')) & (ONES << 7)
}

#[cfg(test)]
#[path = "text_tests.rs"]
mod tests;
