//! Scans JSON as it streams past, without storing it.
//!
//! The scanner checks the grammar as far as it reads, and asks for each value whether it is wanted. Other values are
//! skipped without being decoded. Its state is a stack of at most [`MAX_DEPTH`] levels and one object key, whatever the
//! body.

use super::extra::fold;
use super::number::NumberState;
use super::text::{Reach, StringReader, TextBuffer};

pub use super::visit::{ValueKind, Visit, Want};

/// Maximum levels of nesting. The parsers of model servers give up between two hundred and a thousand.
pub const MAX_DEPTH: usize = 1024;

/// Bytes of an object key that are stored; a longer one is folded. The longest key with a meaning here has 22 bytes; in
/// tool schemas keys are names of parameters.
const MAX_KEY_BYTES: usize = 1024;

/// Python's JSON accepts this as a number.
const INFINITY: &[u8] = b"Infinity";

/// The mark with which some clients' files begin. Python's `json.loads` skips it.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// The state of reading a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reading {
    /// More bytes are expected.
    #[default]
    Going,
    /// The value has ended.
    Complete,
    /// Everything that is wanted was read.
    Enough,
    /// The body is not JSON from this byte on.
    NotJson(usize),
    /// The body nests deeper than [`MAX_DEPTH`].
    TooDeep,
    /// The bytes ended before the value did.
    EndedEarly,
}

/// The position in the grammar, which says what may come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum ScanState {
    /// A value must begin.
    #[default]
    Value,
    /// A value or `]`.
    FirstItem,
    /// A key or `}`.
    FirstKey,
    /// A key.
    NextKey,
    /// Inside a key.
    Key,
    /// `:`.
    Colon,
    /// Inside a string.
    Text,
    /// Inside a number.
    Number(NumberState),
    /// Inside a word, of which these bytes are missing.
    Word(&'static [u8]),
    /// A comma or the end of the container.
    Behind,
}

/// A container that has not ended.
#[derive(Debug, Clone, Copy)]
struct Level<P> {
    object: bool,
    /// Identifies the container, if it is wanted.
    place: Option<P>,
}

/// A value whose bytes are wanted as they stand ([`Want::Raw`]).
#[derive(Debug, Clone, Copy)]
struct Verbatim<P> {
    place: P,
    /// Levels around the value.
    depth: usize,
    wanted: bool,
}

/// The position in the bytes of one call.
struct Cursor<'a> {
    bytes: &'a [u8],
    /// Index of the next byte.
    next: usize,
    /// Offset of the bytes in the body.
    base: usize,
    /// Index of the first byte that belongs to the verbatim value.
    verbatim_from: usize,
    /// The buffer for decoded strings.
    buffer: &'a mut TextBuffer,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.next..).unwrap_or_default()
    }

    fn at(&self) -> usize {
        self.base + self.next
    }
}

/// Scans one JSON value. The memory is reused for other bodies.
#[derive(Debug)]
pub struct Scanner<P> {
    state: ScanState,
    reading: Reading,
    levels: Vec<Level<P>>,
    string: StringReader,
    key: Vec<u8>,
    /// Identifies the current string, number or word, if it is wanted.
    place: Option<P>,
    verbatim: Option<Verbatim<P>>,
    /// Identifies the outermost value, before it begins.
    top: Option<P>,
    /// Offset of the next byte in the body.
    base: usize,
}

impl<P> Default for Scanner<P> {
    fn default() -> Self {
        Self {
            state: ScanState::Value,
            reading: Reading::Going,
            levels: Vec::new(),
            string: StringReader::default(),
            key: Vec::new(),
            place: None,
            verbatim: None,
            top: None,
            base: 0,
        }
    }
}

impl<P: Copy> Scanner<P> {
    /// Begins another value at the body's byte `at`. `top` identifies it.
    pub fn reset(&mut self, top: P, at: usize) {
        self.state = ScanState::Value;
        self.reading = Reading::Going;
        self.levels.clear();
        self.place = None;
        self.verbatim = None;
        self.top = Some(top);
        self.base = at;
    }

    /// Begins inside an object, before the key of a member, at the body's byte `at`. `place` identifies the object.
    pub fn reset_in_object(&mut self, place: P, at: usize) {
        self.reset(place, at);
        self.top = None;
        self.state = ScanState::NextKey;
        let (object, place) = (true, Some(place));
        self.levels.push(Level { object, place });
    }

    /// Returns the state of reading.
    pub fn reading(&self) -> Reading {
        self.reading
    }

    /// Returns the allocated memory in bytes.
    pub fn allocated(&self) -> usize {
        self.levels.capacity() * size_of::<Level<P>>() + self.key.capacity()
    }

    /// Scans more bytes.
    pub fn push<V: Visit<Node = P>>(
        &mut self,
        bytes: &[u8],
        buffer: &mut TextBuffer,
        visit: &mut V,
    ) {
        let mut cursor = Cursor {
            bytes,
            next: 0,
            base: self.base,
            verbatim_from: 0,
            buffer,
        };
        while self.reading == Reading::Going {
            let Some(&byte) = bytes.get(cursor.next) else {
                break;
            };
            self.step(byte, &mut cursor, visit);
        }
        self.give_verbatim(&cursor, visit);
        self.base += bytes.len();
    }

    /// Ends the body.
    pub fn finish(&mut self) {
        if self.reading == Reading::Going {
            self.reading = Reading::EndedEarly;
        }
    }

    fn step<V: Visit<Node = P>>(&mut self, byte: u8, cursor: &mut Cursor<'_>, visit: &mut V) {
        match (self.state, byte) {
            (ScanState::Key, _) => self.in_key(cursor),
            (ScanState::Text, _) => self.in_text(cursor, visit),
            (ScanState::Number(digits), _) => self.in_number(digits, cursor, visit),
            (ScanState::Word(missing), _) => self.in_word(missing, cursor, visit),
            (_, b' ' | b'\t' | b'\n' | b'\r') => cursor.next += 1,
            (ScanState::FirstItem, b']') | (ScanState::FirstKey, b'}') => self.close(cursor, visit),
            (ScanState::Value, _)
                if cursor.at() < BYTE_ORDER_MARK.len()
                    && self.levels.is_empty()
                    && BYTE_ORDER_MARK.get(cursor.at()) == Some(&byte) =>
            {
                cursor.next += 1;
            }
            (ScanState::Value | ScanState::FirstItem, _) => self.value(byte, cursor, visit),
            (ScanState::FirstKey | ScanState::NextKey, b'"') => {
                cursor.next += 1;
                self.key.clear();
                let wanted = self
                    .levels
                    .last()
                    .is_some_and(|level| level.place.is_some());
                self.string.begin(wanted);
                self.state = ScanState::Key;
            }
            (ScanState::Colon, b':') => {
                cursor.next += 1;
                self.state = ScanState::Value;
            }
            (ScanState::Behind, _) => self.behind(byte, cursor, visit),
            _ => self.fail(cursor),
        }
    }

    fn behind<V: Visit<Node = P>>(&mut self, byte: u8, cursor: &mut Cursor<'_>, visit: &mut V) {
        let object = self.levels.last().is_some_and(|level| level.object);
        match (byte, object) {
            (b',', _) => {
                cursor.next += 1;
                self.state = if object {
                    ScanState::NextKey
                } else {
                    ScanState::Value
                };
            }
            (b'}', true) | (b']', false) => self.close(cursor, visit),
            _ => self.fail(cursor),
        }
    }

    /// Begins a value.
    fn value<V: Visit<Node = P>>(&mut self, byte: u8, cursor: &mut Cursor<'_>, visit: &mut V) {
        let (kind, state) = match byte {
            b'{' => (ValueKind::Object, ScanState::FirstKey),
            b'[' => (ValueKind::Array, ScanState::FirstItem),
            b'"' => (ValueKind::String, ScanState::Text),
            b'-' | b'0'..=b'9' => (ValueKind::Number, ScanState::Number(NumberState::None)),
            b't' => (ValueKind::Word, ScanState::Word(b"true")),
            b'f' => (ValueKind::Word, ScanState::Word(b"false")),
            b'n' => (ValueKind::Null, ScanState::Word(b"null")),
            b'N' => (ValueKind::Word, ScanState::Word(b"NaN")),
            b'I' => (ValueKind::Word, ScanState::Word(INFINITY)),
            _ => return self.fail(cursor),
        };
        let place = match self.want(kind, cursor, visit) {
            Want::Nothing => None,
            Want::Inside(place) => Some(place),
            Want::Raw(place) => {
                let depth = self.levels.len();
                let wanted = true;
                self.verbatim = Some(Verbatim {
                    place,
                    depth,
                    wanted,
                });
                cursor.verbatim_from = cursor.next;
                None
            }
        };
        self.state = state;
        match kind {
            ValueKind::Object | ValueKind::Array => {
                if self.levels.len() >= MAX_DEPTH {
                    self.reading = Reading::TooDeep;
                    return;
                }
                let object = kind == ValueKind::Object;
                self.levels.push(Level { object, place });
                cursor.next += 1;
            }
            ValueKind::String => {
                self.place = place;
                self.string.begin(place.is_some());
                cursor.next += 1;
            }
            ValueKind::Number | ValueKind::Word | ValueKind::Null => self.place = place,
        }
    }

    /// Asks what is wanted of a value of this kind that begins.
    #[inline]
    fn want<V: Visit<Node = P>>(
        &mut self,
        kind: ValueKind,
        cursor: &Cursor<'_>,
        visit: &mut V,
    ) -> Want<P> {
        match (self.levels.last(), self.top.take()) {
            (None, Some(top)) => Want::Inside(top),
            (
                Some(Level {
                    object,
                    place: Some(parent),
                }),
                _,
            ) => {
                let key = if *object { self.key.as_slice() } else { &[] };
                visit.begin(*parent, key, kind, cursor.at())
            }
            _ => Want::Nothing,
        }
    }

    fn in_key(&mut self, cursor: &mut Cursor<'_>) {
        let key = &mut self.key;
        let mut take = |text: &[u8]| {
            fold(key, text, MAX_KEY_BYTES);
            true
        };
        match self.string.read(cursor.rest(), cursor.buffer, &mut take) {
            Reach::Open => cursor.next = cursor.bytes.len(),
            Reach::Closed(rest) => {
                cursor.next = cursor.bytes.len() - rest.len();
                self.state = ScanState::Colon;
            }
            Reach::Bad(rest) => {
                cursor.next = cursor.bytes.len() - rest.len();
                self.fail(cursor);
            }
        }
    }

    fn in_text<V: Visit<Node = P>>(&mut self, cursor: &mut Cursor<'_>, visit: &mut V) {
        let place = self.place;
        let mut enough = false;
        let mut take = |text: &[u8]| {
            let more = place.is_some_and(|place| visit.bytes(place, text));
            enough |= !more;
            more
        };
        let reach = self.string.read(cursor.rest(), cursor.buffer, &mut take);
        match reach {
            Reach::Open => cursor.next = cursor.bytes.len(),
            Reach::Closed(rest) => {
                cursor.next = cursor.bytes.len() - rest.len();
                self.ended(place, cursor, visit);
            }
            Reach::Bad(rest) => {
                cursor.next = cursor.bytes.len() - rest.len();
                self.fail(cursor);
            }
        }
        if enough && visit.is_done() {
            self.enough();
        }
    }

    fn in_number<V: Visit<Node = P>>(
        &mut self,
        mut digits: NumberState,
        cursor: &mut Cursor<'_>,
        visit: &mut V,
    ) {
        let rest = cursor.rest();
        let mut length = 0;
        let mut ended = false;
        for byte in rest {
            match digits.next(*byte) {
                Some(next) => digits = next,
                None => {
                    ended = true;
                    break;
                }
            }
            length += 1;
        }
        self.state = ScanState::Number(digits);
        cursor.next += length;
        if let (Some(place), Some(run)) = (self.place, rest.get(..length)) {
            if length > 0 {
                visit.bytes(place, run);
            }
        }
        match (ended, digits.may_end()) {
            (true, true) => self.ended(self.place, cursor, visit),
            (true, false) if digits == NumberState::Minus && rest.get(length) == Some(&b'I') => {
                self.state = ScanState::Word(INFINITY);
            }
            (true, false) => self.fail(cursor),
            (false, _) => {}
        }
    }

    fn in_word<V: Visit<Node = P>>(
        &mut self,
        missing: &'static [u8],
        cursor: &mut Cursor<'_>,
        visit: &mut V,
    ) {
        let rest = cursor.rest();
        let length = missing.len().min(rest.len());
        let (have, need) = (rest.get(..length), missing.get(..length));
        if have != need {
            return self.fail(cursor);
        }
        cursor.next += length;
        if let (Some(place), Some(run)) = (self.place, have) {
            visit.bytes(place, run);
        }
        let missing = missing.get(length..).unwrap_or_default();
        self.state = ScanState::Word(missing);
        if missing.is_empty() {
            self.ended(self.place, cursor, visit);
        }
    }

    /// Ends the innermost container with the next byte.
    fn close<V: Visit<Node = P>>(&mut self, cursor: &mut Cursor<'_>, visit: &mut V) {
        cursor.next += 1;
        let place = self.levels.pop().and_then(|level| level.place);
        self.ended(place, cursor, visit);
    }

    /// Ends a value.
    fn ended<V: Visit<Node = P>>(
        &mut self,
        place: Option<P>,
        cursor: &mut Cursor<'_>,
        visit: &mut V,
    ) {
        self.state = ScanState::Behind;
        let verbatim = self
            .verbatim
            .filter(|verbatim| verbatim.depth == self.levels.len());
        if verbatim.is_some() {
            self.give_verbatim(cursor, visit);
            self.verbatim = None;
        }
        let place = place.or(verbatim.map(|verbatim| verbatim.place));
        if let Some(place) = place {
            visit.end(place, cursor.at());
        }
        if self.levels.is_empty() {
            self.reading = Reading::Complete;
        } else if place.is_some() && visit.is_done() {
            self.enough();
        }
    }

    fn give_verbatim<V: Visit<Node = P>>(&mut self, cursor: &Cursor<'_>, visit: &mut V) {
        let Some(verbatim) = self.verbatim.as_mut().filter(|verbatim| verbatim.wanted) else {
            return;
        };
        let bytes = cursor.bytes.get(cursor.verbatim_from..cursor.next);
        if let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) {
            verbatim.wanted = visit.bytes(verbatim.place, bytes);
        }
    }

    fn enough(&mut self) {
        if self.reading == Reading::Going {
            self.reading = Reading::Enough;
        }
    }

    fn fail(&mut self, cursor: &Cursor<'_>) {
        self.reading = Reading::NotJson(cursor.at());
    }
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
