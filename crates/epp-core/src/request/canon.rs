//! Re-serializes JSON like Go's encoding/json while it is scanned: with sorted keys, numbers as doubles, and escaped HTML
//! markup. No tree is built; the members of an object are sorted when the object ends.

use std::io::Write as _;
use std::ops::Range;

use super::escape::{escape, escaped_length, Compact, LONGEST_ESCAPE};
use super::extra::CACHE_CONTROL;
use super::number::{push_digits, MAX_NUMBER_BYTES};
use super::prompt::clear_buffer;
use super::scan::{ValueKind, Want};

/// Maximum bytes of re-serialized JSON; beyond that the prompt is given up. The prompt window cannot bound it, because any
/// part of an object may end up in the window: its members are sorted only at its end. The VM's budget
/// (`picker::memory`) bounds all requests together.
const MAX_JSON_BYTES: usize = 1 << 20;

/// Maximum bytes that are copied to sort members. An object is copied once for each level around it: a few times its size
/// for JSON that nests as deep as a tool's schema, and a thousand times without a bound.
const MAX_COPIED_BYTES: usize = 16 * MAX_JSON_BYTES;

/// Maximum members of all open objects. No tool has a hundredth of that.
const MAX_PENDING_MEMBERS: usize = 1 << 14;

/// Maximum numbers that are decoded and written like Go. Plain whole numbers do not need that, and tools have only a handful
/// of others. At some microseconds each they would otherwise cost half a second per megabyte.
const MAX_DECODED_NUMBERS: usize = 1024;

/// The members of a Go type in the order in which Go writes them. Other members follow, which Go would leave out.
pub type Shape = &'static [Member];

/// A member of a Go type.
#[derive(Debug, Clone, Copy)]
pub struct Member {
    name: &'static [u8],
    /// Values for which the member is left out.
    omitted: &'static [&'static [u8]],
    /// Whether the value is written as it came, without white space.
    raw: bool,
}

impl Member {
    /// Returns a text that is left out if it is empty.
    pub const fn text(name: &'static [u8]) -> Self {
        Self {
            omitted: &[b"null", b"\"\""],
            ..Self::any(name)
        }
    }

    /// Returns a member that is always written.
    pub const fn always(name: &'static [u8]) -> Self {
        Self {
            omitted: &[],
            ..Self::any(name)
        }
    }

    /// Returns a member that is left out if it is null.
    pub const fn any(name: &'static [u8]) -> Self {
        Self {
            name,
            omitted: &[b"null"],
            raw: false,
        }
    }

    /// Returns a member that is written as it came, without white space.
    pub const fn raw(name: &'static [u8]) -> Self {
        Self {
            name,
            omitted: &[],
            raw: true,
        }
    }
}

/// Identifies a value in re-serialized JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CanonNode {
    /// An object.
    Object,
    /// A list.
    Array,
    /// A text.
    String,
    /// A number.
    Number,
    /// `true`, `false` or `null`.
    Word,
    /// A value that is written as it came.
    Raw,
}

/// A container that has not ended.
#[derive(Debug)]
struct OpenContainer {
    object: bool,
    /// Where the container begins in the text.
    start: usize,
    /// Where its members begin in the list of all pending members.
    members: usize,
    shape: Option<Shape>,
}

/// A member of an object that has not ended.
#[derive(Debug, Clone)]
struct PendingMember {
    /// Range of the key in the list of keys.
    key: Range<usize>,
    /// Position in the shape.
    rank: usize,
    /// Where the member begins in the text, with its key.
    start: usize,
    /// Where the value begins in the text.
    value: usize,
    /// Where the value ends in the text.
    end: usize,
}

/// Re-serializes JSON. The memory is reused for other bodies.
#[derive(Debug, Default)]
pub struct Canon {
    out: Vec<u8>,
    open: Vec<OpenContainer>,
    entries: Vec<PendingMember>,
    keys: Vec<u8>,
    digits: Vec<u8>,
    spare: Vec<u8>,
    raw: Compact,
    /// Numbers that were decoded so far.
    decoded: usize,
    /// Bytes that were copied so far to sort members.
    copied: usize,
    /// Whether a bound was exceeded. Then nothing more is stored.
    overflowed: bool,
    /// Containers that were open when the bound was exceeded and still are.
    depth: usize,
}

impl Canon {
    /// Forgets everything, and keeps the memory.
    pub fn clear(&mut self) {
        for buffer in [&mut self.out, &mut self.keys, &mut self.spare] {
            clear_buffer(buffer);
        }
        clear_buffer(&mut self.open);
        clear_buffer(&mut self.entries);
        self.decoded = 0;
        self.copied = 0;
        self.overflowed = false;
    }

    /// Ends a number. A number that is too long is written as it is stored, and so are further numbers once many were
    /// decoded, because decoding costs most for its length.
    fn end_number(&mut self) {
        let stands = is_plain(&self.digits) || self.digits.len() > MAX_NUMBER_BYTES;
        if stands || self.decoded == MAX_DECODED_NUMBERS {
            self.out.extend_from_slice(&self.digits);
        } else {
            self.decoded += 1;
            number(&self.digits, &mut self.out);
        }
    }

    /// Returns the allocated memory in bytes.
    pub fn allocated(&self) -> usize {
        let texts = [&self.out, &self.keys, &self.digits, &self.spare];
        let texts: usize = texts.into_iter().map(Vec::capacity).sum();
        let open = self.open.capacity() * size_of::<OpenContainer>();
        texts + open + self.entries.capacity() * size_of::<PendingMember>()
    }

    /// Returns whether this many more bytes fit. If not, everything is dropped.
    fn has_room(&mut self, bytes: usize) -> bool {
        let held = self.out.len() + self.keys.len();
        if held + bytes > MAX_JSON_BYTES {
            self.overflow();
        }
        !self.overflowed
    }

    /// Returns whether this text fits once it is escaped.
    fn has_room_for(&mut self, text: &[u8]) -> bool {
        let most = self.out.len() + self.keys.len() + LONGEST_ESCAPE * text.len();
        // The exact number of escapes matters only close to the bound.
        most <= MAX_JSON_BYTES && !self.overflowed || self.has_room(escaped_length(text))
    }

    /// Drops everything because a bound was exceeded.
    fn overflow(&mut self) {
        if !self.overflowed {
            *self = Self {
                overflowed: true,
                depth: self.open.len(),
                ..Self::default()
            };
        }
    }

    /// Returns the text so far.
    pub fn text(&self) -> &[u8] {
        &self.out
    }

    /// Returns whether a bound was exceeded.
    pub fn overflowed(&self) -> bool {
        self.overflowed
    }

    /// Begins an outermost value. `shape` is that of its objects if it is a list of objects.
    pub fn begin_whole(&mut self, kind: ValueKind, shape: Option<Shape>) -> Want<CanonNode> {
        if self.overflowed {
            return Want::Nothing;
        }
        self.open.clear();
        self.entries.clear();
        self.keys.clear();
        self.value(kind, shape)
    }

    /// Begins a value.
    pub fn begin(&mut self, key: &[u8], kind: ValueKind) -> Want<CanonNode> {
        // Bytes that a value and a member add beside texts: a number, and the punctuation.
        const FRAME: usize = 32;
        if self.entries.len() >= MAX_PENDING_MEMBERS {
            self.overflow();
        }
        self.has_room(FRAME);
        let inner = match self.open.last() {
            Some(open) if !self.overflowed => (open.object, open.shape),
            _ => return Want::Nothing,
        };
        match inner {
            (true, shape) => self.member(key, kind, shape),
            (false, shape) => {
                if self.out.last() != Some(&b'[') {
                    self.out.push(b',');
                }
                self.value(kind, shape.filter(|_| kind == ValueKind::Object))
            }
        }
    }

    fn member(&mut self, key: &[u8], kind: ValueKind, shape: Option<Shape>) -> Want<CanonNode> {
        let rank = match shape {
            None => 0,
            Some(shape) => match shape.iter().position(|member| member.name == key) {
                Some(rank) => rank,
                None if key == CACHE_CONTROL => return Want::Nothing,
                // Other members follow those of the Go type.
                None => shape.len(),
            },
        };
        // The key is stored twice: to sort by, and as it is written.
        if !self.has_room(key.len() + escaped_length(key)) {
            return Want::Nothing;
        }
        let start = self.out.len();
        let key_start = self.keys.len();
        self.keys.extend_from_slice(key);
        self.out.push(b'"');
        escape(key, &mut self.out);
        self.out.extend_from_slice(b"\":");
        self.entries.push(PendingMember {
            key: key_start..self.keys.len(),
            rank,
            start,
            value: self.out.len(),
            end: start,
        });
        if shape
            .and_then(|shape| shape.get(rank))
            .is_some_and(|member| member.raw)
        {
            self.raw = Compact::default();
            return Want::Raw(CanonNode::Raw);
        }
        self.value(kind, None)
    }

    fn value(&mut self, kind: ValueKind, shape: Option<Shape>) -> Want<CanonNode> {
        let start = self.out.len();
        Want::Inside(match kind {
            ValueKind::Object | ValueKind::Array => {
                let object = kind == ValueKind::Object;
                self.open.push(OpenContainer {
                    object,
                    start,
                    members: self.entries.len(),
                    shape,
                });
                self.out.push(if object { b'{' } else { b'[' });
                if object {
                    CanonNode::Object
                } else {
                    CanonNode::Array
                }
            }
            ValueKind::String => {
                self.out.push(b'"');
                CanonNode::String
            }
            ValueKind::Number => {
                self.digits.clear();
                CanonNode::Number
            }
            ValueKind::Word | ValueKind::Null => CanonNode::Word,
        })
    }

    /// Adds bytes of a value. Returns whether more are wanted.
    pub fn bytes(&mut self, place: CanonNode, bytes: &[u8]) -> bool {
        if place == CanonNode::Raw {
            return self.raw_bytes(bytes);
        }
        if !self.has_room_for(bytes) {
            return false;
        }
        match place {
            CanonNode::String => escape(bytes, &mut self.out),
            CanonNode::Number => push_digits(&mut self.digits, bytes),
            CanonNode::Word | CanonNode::Object | CanonNode::Array | CanonNode::Raw => {
                self.out.extend_from_slice(bytes)
            }
        }
        true
    }

    /// Adds bytes of a value that is written as it came. How many remain without white space is known only afterwards, so
    /// that they are written in pieces, each of which may exceed the bound.
    fn raw_bytes(&mut self, bytes: &[u8]) -> bool {
        const PIECE: usize = 4096;
        bytes.chunks(PIECE).all(|piece| {
            self.has_room(0) && {
                self.raw.write(piece, &mut self.out);
                self.has_room(0)
            }
        })
    }

    /// Ends a value. Returns whether it was the outermost one.
    pub fn end(&mut self, place: CanonNode) -> bool {
        if self.overflowed {
            return self.end_unread(place);
        }
        match place {
            CanonNode::String => self.out.push(b'"'),
            CanonNode::Number => self.end_number(),
            CanonNode::Array => {
                self.open.pop();
                self.out.push(b']');
            }
            CanonNode::Object => self.end_object(),
            CanonNode::Word | CanonNode::Raw => {}
        }
        if self.overflowed {
            return self.depth == 0;
        }
        let end = self.out.len();
        let in_object = self.open.last().is_some_and(|open| open.object);
        if let Some(entry) = self.entries.last_mut().filter(|_| in_object) {
            entry.end = end;
        }
        self.open.is_empty()
    }

    /// Ends a value after a bound was exceeded.
    fn end_unread(&mut self, place: CanonNode) -> bool {
        if matches!(place, CanonNode::Array | CanonNode::Object) {
            self.depth = self.depth.saturating_sub(1);
        }
        self.depth == 0
    }

    /// Sorts the members of the innermost object.
    fn end_object(&mut self) {
        let Some(open) = self.open.pop() else {
            return;
        };
        let length = self.out.len() - open.start.min(self.out.len());
        self.copied += length;
        if self.copied > MAX_COPIED_BYTES {
            self.overflow();
            return;
        }
        let from = open.members.min(self.entries.len());
        let (keys, out) = (&self.keys, &self.out);
        let members = self.entries.get_mut(from..).unwrap_or_default();
        let key = |entry: &PendingMember| keys.get(entry.key.clone()).unwrap_or_default();
        // The sort is stable: of equal keys the last one counts, as in a Go map.
        members.sort_by(|one, other| (one.rank, key(one)).cmp(&(other.rank, key(other))));
        self.spare.clear();
        // The exact size avoids doubling.
        self.spare.reserve_exact(length + 1);
        self.spare.push(b'{');
        for (position, entry) in members.iter().enumerate() {
            let next = members.get(position + 1);
            let again = next.is_some_and(|next| key(next) == key(entry));
            let value = out.get(entry.value..entry.end).unwrap_or_default();
            let member = open.shape.and_then(|shape| shape.get(entry.rank));
            if again || member.is_some_and(|member| member.omitted.contains(&value)) {
                continue;
            }
            if self.spare.len() > 1 {
                self.spare.push(b',');
            }
            let text = out.get(entry.start..entry.end).unwrap_or_default();
            self.spare.extend_from_slice(text);
        }
        self.spare.push(b'}');
        let keys_from = members
            .first()
            .map_or(self.keys.len(), |entry| entry.key.start);
        self.keys.truncate(keys_from);
        self.entries.truncate(from);
        self.out.truncate(open.start);
        self.out.extend_from_slice(&self.spare);
        clear_buffer(&mut self.spare);
    }
}

/// Returns whether Go writes a number as it stands: a whole number of so few digits that a double holds them exactly.
fn is_plain(digits: &[u8]) -> bool {
    let whole = digits.strip_prefix(b"-").unwrap_or(digits);
    let most = 1..=f64::DIGITS as usize;
    most.contains(&whole.len()) && whole.iter().all(u8::is_ascii_digit) && digits != b"-0"
}

/// Writes a number as Go writes the double that it decodes to.
fn number(digits: &[u8], out: &mut Vec<u8>) {
    let text = std::str::from_utf8(digits).unwrap_or_default();
    let value = text.parse::<f64>().unwrap_or_default();
    let size = value.abs();
    // Writing to memory cannot fail.
    let _ = if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let plain = format!("{value:e}");
        let signed = match plain.split_once('e') {
            Some((digits, power)) if !power.starts_with('-') => format!("{digits}e+{power}"),
            _ => plain,
        };
        out.write_all(signed.as_bytes())
    } else {
        write!(out, "{value}")
    };
}

#[cfg(test)]
#[path = "canon_tests.rs"]
mod tests;
