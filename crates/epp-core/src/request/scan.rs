//! JSON read as it streams past: bytes in, values out, nothing kept.
//!
//! The scanner checks the grammar as far as it reads, and asks at each value whether it is wanted.
//! What is not wanted is passed over without being decoded. Its state is a stack of at most
//! [`MAX_DEPTH`] levels and one object key, whatever the body.

use super::extra::fold;
use super::number::Digits;
use super::text::{Reach, StringReader, TextBuffer};

pub use super::visit::{Kind, Visit, Want};

/// Levels of nesting that are read. Model servers' own parsers give up between two hundred and a
/// thousand.
pub const MAX_DEPTH: usize = 1024;

/// Bytes of an object key that are kept; a longer one is folded. The longest key that means anything to
/// us has 22; in tool schemas keys are names of parameters.
const MAX_KEY: usize = 1024;

/// What Python's JSON calls a number without end.
const INFINITY: &[u8] = b"Infinity";

/// What some clients' files begin with. Python's `json.loads` passes over it in bytes.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// How reading goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reading {
    /// More is expected.
    #[default]
    Going,
    /// The value has ended.
    Complete,
    /// Enough was read.
    Enough,
    /// This is not JSON from this byte on.
    NotJson(usize),
    /// This nests deeper than [`MAX_DEPTH`].
    TooDeep,
    /// The bytes ended before the value did.
    EndedEarly,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
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
    Number(Digits),
    /// Inside a word; this of it is missing.
    Word(&'static [u8]),
    /// Behind a value.
    Behind,
}

#[derive(Debug, Clone, Copy)]
struct Level<P> {
    object: bool,
    place: Option<P>,
}

/// A value whose bytes are wanted as they stand.
#[derive(Debug, Clone, Copy)]
struct Verbatim<P> {
    place: P,
    /// Levels around it.
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

/// Reads one JSON value. Its memory is kept from body to body.
#[derive(Debug)]
pub struct Scanner<P> {
    state: State,
    reading: Reading,
    levels: Vec<Level<P>>,
    string: StringReader,
    key: Vec<u8>,
    /// The place of the string, number or word that is being read.
    place: Option<P>,
    verbatim: Option<Verbatim<P>>,
    /// The place of the outermost value.
    top: Option<P>,
    /// Bytes of the body before those that come next.
    base: usize,
}

impl<P> Default for Scanner<P> {
    fn default() -> Self {
        Self {
            state: State::Value,
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
    /// Begins a value that is wanted as `top` and begins at the body's byte `at`.
    pub fn reset(&mut self, top: P, at: usize) {
        self.state = State::Value;
        self.reading = Reading::Going;
        self.levels.clear();
        self.place = None;
        self.verbatim = None;
        self.top = Some(top);
        self.base = at;
    }

    /// Begins inside an object that is wanted as `place`, at the body's byte `at`, before the key of
    /// one of its members.
    pub fn reset_in_object(&mut self, place: P, at: usize) {
        self.reset(place, at);
        self.top = None;
        self.state = State::NextKey;
        let (object, place) = (true, Some(place));
        self.levels.push(Level { object, place });
    }

    /// How reading goes.
    pub fn reading(&self) -> Reading {
        self.reading
    }

    /// Returns the bytes of memory that it has allocated.
    pub fn allocated(&self) -> usize {
        self.levels.capacity() * size_of::<Level<P>>() + self.key.capacity()
    }

    /// Reads on.
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

    /// No more bytes come.
    pub fn finish(&mut self) {
        if self.reading == Reading::Going {
            self.reading = Reading::EndedEarly;
        }
    }

    fn step<V: Visit<Node = P>>(&mut self, byte: u8, cursor: &mut Cursor<'_>, visit: &mut V) {
        match (self.state, byte) {
            (State::Key, _) => self.in_key(cursor),
            (State::Text, _) => self.in_text(cursor, visit),
            (State::Number(digits), _) => self.in_number(digits, cursor, visit),
            (State::Word(missing), _) => self.in_word(missing, cursor, visit),
            (_, b' ' | b'\t' | b'\n' | b'\r') => cursor.next += 1,
            (State::FirstItem, b']') | (State::FirstKey, b'}') => self.close(cursor, visit),
            (State::Value, _)
                if cursor.at() < BYTE_ORDER_MARK.len()
                    && self.levels.is_empty()
                    && BYTE_ORDER_MARK.get(cursor.at()) == Some(&byte) =>
            {
                cursor.next += 1;
            }
            (State::Value | State::FirstItem, _) => self.value(byte, cursor, visit),
            (State::FirstKey | State::NextKey, b'"') => {
                cursor.next += 1;
                self.key.clear();
                let wanted = self
                    .levels
                    .last()
                    .is_some_and(|level| level.place.is_some());
                self.string.begin(wanted);
                self.state = State::Key;
            }
            (State::Colon, b':') => {
                cursor.next += 1;
                self.state = State::Value;
            }
            (State::Behind, _) => self.behind(byte, cursor, visit),
            _ => self.fail(cursor),
        }
    }

    fn behind<V: Visit<Node = P>>(&mut self, byte: u8, cursor: &mut Cursor<'_>, visit: &mut V) {
        let object = self.levels.last().is_some_and(|level| level.object);
        match (byte, object) {
            (b',', _) => {
                cursor.next += 1;
                self.state = if object { State::NextKey } else { State::Value };
            }
            (b'}', true) | (b']', false) => self.close(cursor, visit),
            _ => self.fail(cursor),
        }
    }

    /// A value begins.
    fn value<V: Visit<Node = P>>(&mut self, byte: u8, cursor: &mut Cursor<'_>, visit: &mut V) {
        let (kind, state) = match byte {
            b'{' => (Kind::Object, State::FirstKey),
            b'[' => (Kind::Array, State::FirstItem),
            b'"' => (Kind::String, State::Text),
            b'-' | b'0'..=b'9' => (Kind::Number, State::Number(Digits::None)),
            b't' => (Kind::Word, State::Word(b"true")),
            b'f' => (Kind::Word, State::Word(b"false")),
            b'n' => (Kind::Null, State::Word(b"null")),
            b'N' => (Kind::Word, State::Word(b"NaN")),
            b'I' => (Kind::Word, State::Word(INFINITY)),
            _ => return self.fail(cursor),
        };
        let want = match (self.levels.last(), self.top.take()) {
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
        };
        let place = match want {
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
            Kind::Object | Kind::Array => {
                if self.levels.len() >= MAX_DEPTH {
                    self.reading = Reading::TooDeep;
                    return;
                }
                let object = kind == Kind::Object;
                self.levels.push(Level { object, place });
                cursor.next += 1;
            }
            Kind::String => {
                self.place = place;
                self.string.begin(place.is_some());
                cursor.next += 1;
            }
            Kind::Number | Kind::Word | Kind::Null => self.place = place,
        }
    }

    fn in_key(&mut self, cursor: &mut Cursor<'_>) {
        let key = &mut self.key;
        let mut take = |text: &[u8]| {
            fold(key, text, MAX_KEY);
            true
        };
        match self.string.read(cursor.rest(), cursor.buffer, &mut take) {
            Reach::Open => cursor.next = cursor.bytes.len(),
            Reach::Closed(rest) => {
                cursor.next = cursor.bytes.len() - rest.len();
                self.state = State::Colon;
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
        mut digits: Digits,
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
        self.state = State::Number(digits);
        cursor.next += length;
        if let (Some(place), Some(run)) = (self.place, rest.get(..length)) {
            if length > 0 {
                visit.bytes(place, run);
            }
        }
        match (ended, digits.may_end()) {
            (true, true) => self.ended(self.place, cursor, visit),
            (true, false) if digits == Digits::Minus && rest.get(length) == Some(&b'I') => {
                self.state = State::Word(INFINITY);
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
        self.state = State::Word(missing);
        if missing.is_empty() {
            self.ended(self.place, cursor, visit);
        }
    }

    /// The innermost container ends with the next byte.
    fn close<V: Visit<Node = P>>(&mut self, cursor: &mut Cursor<'_>, visit: &mut V) {
        cursor.next += 1;
        let place = self.levels.pop().and_then(|level| level.place);
        self.ended(place, cursor, visit);
    }

    /// A value has ended.
    fn ended<V: Visit<Node = P>>(
        &mut self,
        place: Option<P>,
        cursor: &mut Cursor<'_>,
        visit: &mut V,
    ) {
        self.state = State::Behind;
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
