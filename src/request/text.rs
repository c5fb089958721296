//! The inside of a JSON string, decoded as it comes.
//!
//! What comes out is what Go's encoding/json makes of it, which the Endpoint Picker hashes: each
//! byte that is not part of valid UTF-8 and each surrogate without its other half becomes U+FFFD.

use std::str::from_utf8;

/// What Go's decoder puts in place of what is not text.
const REPLACEMENT: &[u8] = "\u{FFFD}".as_bytes();

/// Bytes looked at in one go: small enough that what was searched is still in the nearest cache
/// when it is hashed, and that little beyond a full window is looked at twice.
const PIECE: usize = 4096;

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
#[derive(Debug, Clone, Default)]
pub struct StringReader {
    /// Whether anybody still wants the text.
    wanted: bool,
    escape: Escape,
    /// A high surrogate that waits for its low one; 0: none.
    high: u16,
    /// The beginning of a character that the last bytes cut in two.
    cut: [u8; 4],
    cut_len: usize,
}

impl StringReader {
    /// Begins a string.
    pub fn begin(&mut self, wanted: bool) {
        *self = Self {
            wanted,
            ..Self::default()
        };
    }

    /// Reads on. `take` is given the text in pieces that never cut a character, and says whether it
    /// wants more.
    pub fn read<'a>(
        &mut self,
        mut bytes: &'a [u8],
        take: &mut impl FnMut(&[u8]) -> bool,
    ) -> Reach<'a> {
        loop {
            if !matches!(self.escape, Escape::None) {
                let Some((&byte, rest)) = bytes.split_first() else {
                    return Reach::Open;
                };
                if !self.unescape(byte, take) {
                    return Reach::Bad(bytes);
                }
                bytes = rest;
                continue;
            }
            let piece = match bytes.get(..PIECE) {
                Some(piece) if self.wanted => piece,
                _ => bytes,
            };
            let (run, _) = bytes.split_at_checked(plain(piece)).unwrap_or((bytes, &[]));
            if self.wanted && !run.is_empty() {
                self.run(run, take);
            }
            bytes = bytes.get(run.len()..).unwrap_or_default();
            match bytes.split_first() {
                None => return Reach::Open,
                Some((b'"', rest)) => {
                    self.flush(take);
                    return Reach::Closed(rest);
                }
                Some((b'\\', rest)) => {
                    self.flush_cut(take);
                    self.escape = Escape::Begun;
                    bytes = rest;
                }
                Some((0..0x20, _)) => return Reach::Bad(bytes),
                // The piece has ended.
                Some(_) => {}
            }
        }
    }

    /// One byte behind a backslash. False if it cannot stand there.
    fn unescape(&mut self, byte: u8, take: &mut impl FnMut(&[u8]) -> bool) -> bool {
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
                    self.unit(unit, take);
                }
                return true;
            }
            (_, b'u') => {
                self.escape = Escape::Unit { digits: 0, unit: 0 };
                return true;
            }
            (_, b'n') => b'\n',
            (_, b't') => b'\t',
            (_, b'r') => b'\r',
            (_, b'b') => 0x08,
            (_, b'f') => 0x0C,
            (_, b'"' | b'\\' | b'/') => byte,
            _ => return false,
        };
        self.flush_high(take);
        self.escape = Escape::None;
        self.give(&[letter], take);
        true
    }

    /// A whole `\uXXXX`.
    fn unit(&mut self, unit: u16, take: &mut impl FnMut(&[u8]) -> bool) {
        let high = std::mem::take(&mut self.high);
        let pair = char::decode_utf16([high, unit]).next();
        let letter = match pair {
            Some(Ok(letter)) if high != 0 => letter,
            _ => {
                if high != 0 {
                    self.give(REPLACEMENT, take);
                }
                if (0xD800..0xDC00).contains(&unit) {
                    self.high = unit;
                    return;
                }
                char::from_u32(u32::from(unit)).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
        };
        self.give(letter.encode_utf8(&mut [0; 4]).as_bytes(), take);
    }

    /// Bytes without quotes, backslashes and control characters.
    fn run(&mut self, mut bytes: &[u8], take: &mut impl FnMut(&[u8]) -> bool) {
        self.flush_high(take);
        while self.cut_len > 0 {
            let Some((&byte, rest)) = bytes.split_first() else {
                return;
            };
            bytes = rest;
            self.complete(byte, take);
        }
        while self.wanted && !bytes.is_empty() {
            let Err(error) = from_utf8(bytes) else {
                self.give(bytes, take);
                return;
            };
            let (valid, rest) = bytes
                .split_at_checked(error.valid_up_to())
                .unwrap_or_default();
            if !valid.is_empty() {
                self.give(valid, take);
            }
            if error.error_len().is_none() {
                for byte in rest {
                    self.complete(*byte, take);
                }
                return;
            }
            self.give(REPLACEMENT, take);
            bytes = rest.get(1..).unwrap_or_default();
        }
    }

    /// One more byte of a character that was cut in two.
    fn complete(&mut self, byte: u8, take: &mut impl FnMut(&[u8]) -> bool) {
        if let Some(place) = self.cut.get_mut(self.cut_len) {
            *place = byte;
            self.cut_len += 1;
        }
        while self.cut_len > 0 {
            let cut = self.cut;
            let bytes = cut.get(..self.cut_len).unwrap_or_default();
            match from_utf8(bytes) {
                Ok(_) => {
                    self.cut_len = 0;
                    self.give(bytes, take);
                }
                Err(error) if error.error_len().is_none() && error.valid_up_to() == 0 => return,
                Err(error) if error.valid_up_to() > 0 => {
                    let valid = error.valid_up_to();
                    self.give(bytes.get(..valid).unwrap_or_default(), take);
                    self.drop_cut(valid);
                }
                Err(_) => {
                    self.give(REPLACEMENT, take);
                    self.drop_cut(1);
                }
            }
        }
    }

    fn drop_cut(&mut self, count: usize) {
        self.cut.rotate_left(count);
        self.cut_len -= count;
    }

    /// Nothing more comes that could complete what waits.
    fn flush(&mut self, take: &mut impl FnMut(&[u8]) -> bool) {
        self.flush_cut(take);
        self.flush_high(take);
    }

    fn flush_cut(&mut self, take: &mut impl FnMut(&[u8]) -> bool) {
        for _ in 0..std::mem::take(&mut self.cut_len) {
            self.give(REPLACEMENT, take);
        }
    }

    fn flush_high(&mut self, take: &mut impl FnMut(&[u8]) -> bool) {
        if std::mem::take(&mut self.high) != 0 {
            self.give(REPLACEMENT, take);
        }
    }

    fn give(&mut self, text: &[u8], take: &mut impl FnMut(&[u8]) -> bool) {
        if self.wanted {
            self.wanted = take(text);
        }
    }
}

/// Length of the run that `bytes` begins with and that needs no further look.
fn plain(bytes: &[u8]) -> usize {
    /// Two SIMD registers: the compiler turns the inner loop into a few instructions.
    const LANES: usize = 32;
    let ends = |byte: &u8| (*byte < 0x20) | (*byte == b'"') | (*byte == b'\\');
    let clear = |lanes: &&[u8]| !lanes.iter().fold(false, |any, byte| any | ends(byte));
    let whole = LANES * bytes.chunks_exact(LANES).take_while(clear).count();
    let rest = bytes.get(whole..).unwrap_or_default();
    whole + rest.iter().position(ends).unwrap_or(rest.len())
}
