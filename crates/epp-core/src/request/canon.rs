//! JSON as Go's encoding/json writes it, built from a scan: keys sorted, numbers as doubles,
//! what HTML could take for markup escaped. No tree is built; the text is put in order as each
//! object ends.

use std::io::Write as _;
use std::ops::Range;

use super::escape::{escape, escaped_length, Compact, LONGEST_ESCAPE};
use super::extra::CACHE_CONTROL;
use super::number::{push_digits, MOST_DIGITS};
use super::prompt::empty;
use super::scan::{Kind, Want};

/// Bytes of JSON that are held, as they are written. Beyond, the prompt is given up. The prompt
/// window is no measure for it: what ends up in the window can come from anywhere in an object, whose
/// members are put in order only at its end. What all requests hold together is bounded by the VM's
/// budget (`picker::memory`).
const MOST: usize = 1 << 20;

/// Bytes that are copied to put members in order. An object in an object is copied once for each
/// level around it: of JSON that nests as deep as a tool's schema does that is a few times its size,
/// and without a bound a thousand times.
const MOST_COPIED: usize = 16 * MOST;

/// Members of objects that have not ended. No tool has a hundredth of them.
const MOST_MEMBERS: usize = 1 << 14;

/// Numbers that are decoded and written as Go does, all in all: those that are not plain whole ones, of which
/// tools have a handful. At some microseconds each they would otherwise cost half a second a megabyte.
const MOST_DECODED: usize = 1024;

/// The members of an object that Go's type has, in the order in which Go writes them. Others follow, which
/// it would leave out.
pub type Shape = &'static [Member];

/// A member that Go's type has.
#[derive(Debug, Clone, Copy)]
pub struct Member {
    name: &'static [u8],
    /// Values that count as none, so that the member is left out.
    none: &'static [&'static [u8]],
    /// Written as it came, but for white space.
    raw: bool,
}

impl Member {
    /// A text, which is left out when empty.
    pub const fn text(name: &'static [u8]) -> Self {
        Self {
            none: &[b"null", b"\"\""],
            ..Self::any(name)
        }
    }

    /// Written even when empty.
    pub const fn always(name: &'static [u8]) -> Self {
        Self {
            none: &[],
            ..Self::any(name)
        }
    }

    /// Anything, which is left out when it is nothing.
    pub const fn any(name: &'static [u8]) -> Self {
        Self {
            name,
            none: &[b"null"],
            raw: false,
        }
    }

    /// Anything, written as it came but for white space.
    pub const fn raw(name: &'static [u8]) -> Self {
        Self {
            name,
            none: &[],
            raw: true,
        }
    }
}

/// A place in JSON that is re-serialized.
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
    /// What is written as it came.
    Raw,
}

/// A container that has not ended.
#[derive(Debug)]
struct Open {
    object: bool,
    /// Where its text begins.
    start: usize,
    /// Where its members begin in the list of all.
    members: usize,
    shape: Option<Shape>,
}

/// A member of an object that has not ended.
#[derive(Debug, Clone)]
struct Entry {
    /// Its key's place in the list of keys.
    key: Range<usize>,
    /// Its place in the shape.
    rank: usize,
    /// Where it begins, key and all, and where its value does.
    start: usize,
    value: usize,
    end: usize,
}

/// Re-serializes JSON. Its buffers are reused.
#[derive(Debug, Default)]
pub struct Canon {
    out: Vec<u8>,
    open: Vec<Open>,
    entries: Vec<Entry>,
    keys: Vec<u8>,
    digits: Vec<u8>,
    spare: Vec<u8>,
    raw: Compact,
    /// Numbers so far that were decoded.
    decoded: usize,
    /// Bytes copied so far to put members in order.
    copied: usize,
    /// Whether there was too much of it.
    overflown: bool,
    /// Containers that had not ended then and still have not.
    depth: usize,
}

impl Canon {
    /// Forgets everything but the memory.
    pub fn clear(&mut self) {
        for buffer in [&mut self.out, &mut self.keys, &mut self.spare] {
            empty(buffer);
        }
        empty(&mut self.open);
        empty(&mut self.entries);
        self.decoded = 0;
        self.copied = 0;
        self.overflown = false;
    }

    /// A number has ended. One that is too long stands as it is kept, and so do those that come when many
    /// were decoded: that is what costs most for its length.
    fn end_number(&mut self) {
        let stands = is_plain(&self.digits) || self.digits.len() > MOST_DIGITS;
        if stands || self.decoded == MOST_DECODED {
            self.out.extend_from_slice(&self.digits);
        } else {
            self.decoded += 1;
            number(&self.digits, &mut self.out);
        }
    }

    /// Returns the bytes of memory that it has allocated.
    pub fn allocated(&self) -> usize {
        let texts = [&self.out, &self.keys, &self.digits, &self.spare];
        let texts: usize = texts.into_iter().map(Vec::capacity).sum();
        let open = self.open.capacity() * size_of::<Open>();
        texts + open + self.entries.capacity() * size_of::<Entry>()
    }

    /// Whether this many more bytes fit. If not, nothing more is kept.
    fn has_room(&mut self, bytes: usize) -> bool {
        let held = self.out.len() + self.keys.len();
        if held + bytes > MOST {
            self.overflow();
        }
        !self.overflown
    }

    /// Whether so much text more may be held, escaped.
    fn has_room_for(&mut self, text: &[u8]) -> bool {
        let most = self.out.len() + self.keys.len() + LONGEST_ESCAPE * text.len();
        // Only close to the bound it matters how many escapes there are.
        most <= MOST && !self.overflown || self.has_room(escaped_length(text))
    }

    /// There is too much of it: what was held is freed.
    fn overflow(&mut self) {
        if !self.overflown {
            *self = Self {
                overflown: true,
                depth: self.open.len(),
                ..Self::default()
            };
        }
    }

    /// The text so far.
    pub fn text(&self) -> &[u8] {
        &self.out
    }

    /// Whether there was more than is held.
    pub fn overflown(&self) -> bool {
        self.overflown
    }

    /// The outermost value begins. `shape` is that of the objects in it, if it is a list of such.
    pub fn begin_whole(&mut self, kind: Kind, shape: Option<Shape>) -> Want<CanonNode> {
        if self.overflown {
            return Want::Nothing;
        }
        self.open.clear();
        self.entries.clear();
        self.keys.clear();
        self.value(kind, shape)
    }

    /// A value begins.
    pub fn begin(&mut self, key: &[u8], kind: Kind) -> Want<CanonNode> {
        // What a value and a member add beside texts: a number, and the signs around them.
        const FRAME: usize = 32;
        if self.entries.len() >= MOST_MEMBERS {
            self.overflow();
        }
        self.has_room(FRAME);
        let inner = match self.open.last() {
            Some(open) if !self.overflown => (open.object, open.shape),
            _ => return Want::Nothing,
        };
        match inner {
            (true, shape) => self.member(key, kind, shape),
            (false, shape) => {
                if self.out.last() != Some(&b'[') {
                    self.out.push(b',');
                }
                self.value(kind, shape.filter(|_| kind == Kind::Object))
            }
        }
    }

    fn member(&mut self, key: &[u8], kind: Kind, shape: Option<Shape>) -> Want<CanonNode> {
        let rank = match shape {
            None => 0,
            Some(shape) => match shape.iter().position(|member| member.name == key) {
                Some(rank) => rank,
                None if key == CACHE_CONTROL => return Want::Nothing,
                // Behind the members of Go's type.
                None => shape.len(),
            },
        };
        // Once to sort by, and once as it is written.
        if !self.has_room(key.len() + escaped_length(key)) {
            return Want::Nothing;
        }
        let start = self.out.len();
        let key_start = self.keys.len();
        self.keys.extend_from_slice(key);
        self.out.push(b'"');
        escape(key, &mut self.out);
        self.out.extend_from_slice(b"\":");
        self.entries.push(Entry {
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

    fn value(&mut self, kind: Kind, shape: Option<Shape>) -> Want<CanonNode> {
        let start = self.out.len();
        Want::Inside(match kind {
            Kind::Object | Kind::Array => {
                let object = kind == Kind::Object;
                self.open.push(Open {
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
            Kind::String => {
                self.out.push(b'"');
                CanonNode::String
            }
            Kind::Number => {
                self.digits.clear();
                CanonNode::Number
            }
            Kind::Word | Kind::Null => CanonNode::Word,
        })
    }

    /// More of a value. Whether more is wanted.
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

    /// More of a value that is written as it came. What of it is white space is known only behind
    /// it: it is written in pieces, each of which may exceed the bound.
    fn raw_bytes(&mut self, bytes: &[u8]) -> bool {
        const PIECE: usize = 4096;
        bytes.chunks(PIECE).all(|piece| {
            self.has_room(0) && {
                self.raw.write(piece, &mut self.out);
                self.has_room(0)
            }
        })
    }

    /// A value has ended. Whether it was the outermost one.
    pub fn end(&mut self, place: CanonNode) -> bool {
        if self.overflown {
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
        if self.overflown {
            return self.depth == 0;
        }
        let end = self.out.len();
        let in_object = self.open.last().is_some_and(|open| open.object);
        if let Some(entry) = self.entries.last_mut().filter(|_| in_object) {
            entry.end = end;
        }
        self.open.is_empty()
    }

    /// A value has ended of which not all was kept.
    fn end_unread(&mut self, place: CanonNode) -> bool {
        if matches!(place, CanonNode::Array | CanonNode::Object) {
            self.depth = self.depth.saturating_sub(1);
        }
        self.depth == 0
    }

    /// Puts the members in order.
    fn end_object(&mut self) {
        let Some(open) = self.open.pop() else {
            return;
        };
        let length = self.out.len() - open.start.min(self.out.len());
        self.copied += length;
        if self.copied > MOST_COPIED {
            self.overflow();
            return;
        }
        let from = open.members.min(self.entries.len());
        let (keys, out) = (&self.keys, &self.out);
        let members = self.entries.get_mut(from..).unwrap_or_default();
        let key = |entry: &Entry| keys.get(entry.key.clone()).unwrap_or_default();
        // Stable: of equal keys the last one counts, as in a Go map.
        members.sort_by(|one, other| (one.rank, key(one)).cmp(&(other.rank, key(other))));
        self.spare.clear();
        // As much as it can need, and not twice as much.
        self.spare.reserve_exact(length + 1);
        self.spare.push(b'{');
        for (position, entry) in members.iter().enumerate() {
            let next = members.get(position + 1);
            let again = next.is_some_and(|next| key(next) == key(entry));
            let value = out.get(entry.value..entry.end).unwrap_or_default();
            let member = open.shape.and_then(|shape| shape.get(entry.rank));
            if again || member.is_some_and(|member| member.none.contains(&value)) {
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
        empty(&mut self.spare);
    }
}

/// Whether Go writes a number as it stands: whole, and of so few digits that a double has them all.
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
