//! What a flattening does not read, by its bytes: unknown members and parts, values of odd kinds.
//!
//! Each value is written as it comes, in a form that no text can imitate: the signs around it are
//! bytes that UTF-8 never has. White space and the spelling of strings do not count; the order of
//! members does, because they are not held until the object ends.

use super::prompt::{Out, Prompts};
use super::scan::Kind;
use crate::prefix::key::{BlockDigest, Key};

/// Begins a value that stands in something known.
pub const MARK: u8 = 0xFF;

/// Ends a value.
const END: u8 = 0xFC;

/// A member that steers a client's own bill and moves from turn to turn. No model reads it, so that
/// counting it would make each turn of a conversation look new.
pub const CACHE_CONTROL: &[u8] = b"cache_control";

/// A place in such a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtraNode {
    /// An object.
    Object,
    /// A list.
    Array,
    /// A text, number or word.
    Plain,
}

/// Takes bytes; returns whether more is wanted.
pub type Put<'a> = &'a mut dyn FnMut(&[u8]) -> bool;

/// Begins a value that stands in something known, at a place that these numbers tell from others.
pub fn mark(at: [u8; 3], put: Put<'_>) {
    // Seven bits, so that they are not taken for signs.
    let [level, outer, inner] = at.map(|number| number & 0x7F);
    put(&[MARK, level, outer, inner]);
}

/// A value begins, under this key if it is a member. Returns its place.
pub fn begin(key: &[u8], kind: Kind, put: Put<'_>) -> ExtraNode {
    let (sign, place) = match kind {
        Kind::Object => (0xF8, ExtraNode::Object),
        Kind::Array => (0xF9, ExtraNode::Array),
        Kind::String => (0xFA, ExtraNode::Plain),
        Kind::Number | Kind::Word | Kind::Null => (0xFB, ExtraNode::Plain),
    };
    put(key);
    put(&[sign]);
    place
}

/// A value has ended.
pub fn end(put: Put<'_>) {
    put(&[END]);
}

/// The prime of FNV-1a.
const PRIME: u64 = 0x0100_0000_01b3;

/// Keeps text up to a length. What is longer is folded into eight bytes behind it, so that it differs
/// from others that begin alike.
pub fn fold(kept: &mut Vec<u8>, bytes: &[u8], most: usize) {
    let (plain, rest) = bytes
        .split_at_checked(most.saturating_sub(kept.len()))
        .unwrap_or((bytes, &[]));
    kept.extend_from_slice(plain);
    if rest.is_empty() {
        return;
    }
    if kept.len() == most {
        kept.extend_from_slice(&[0; 8]);
    }
    if let Some(last) = kept.last_chunk_mut() {
        // One is added, or zeros would leave no trace.
        let fold =
            |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_add(1).wrapping_mul(PRIME);
        let sum = rest.iter().fold(u64::from_le_bytes(*last), fold);
        *last = sum.to_le_bytes();
    }
}

/// Fields of a body that are in no layout. Before the turns they stand in the prompt as they come. Behind
/// them they are summed up, and the sum is the prompt's end: a field may be as long as the prompt, and
/// would make what the next turn shares with it a small part of both.
#[derive(Debug, Default)]
pub struct Extras {
    key: Key,
    /// The sum of those before the turns, which stands for them should the prompt begin again.
    front: Sum,
    /// The sum of those behind them.
    behind: Sum,
    /// Whether the one that is being read is behind them.
    pub is_behind: bool,
}

/// A digest of bytes as they come, keyed as blocks are: else a client could compute two that are alike.
#[derive(Default)]
struct Sum {
    /// Most bodies have nothing to sum up.
    part: Option<BlockDigest>,
    length: usize,
}

impl Sum {
    fn reset(&mut self) {
        if std::mem::take(&mut self.length) > 0 {
            self.part.iter_mut().for_each(BlockDigest::reset);
        }
    }

    fn update(&mut self, bytes: &[u8], key: &Key) {
        self.length += bytes.len();
        let part = self.part.get_or_insert_with(|| BlockDigest::new(key));
        part.update(bytes);
    }

    /// The digest, if there is anything.
    fn digest(&self) -> Option<u64> {
        let part = self.part.as_ref().filter(|_| self.length > 0);
        part.map(BlockDigest::digest)
    }
}

impl std::fmt::Debug for Sum {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Sum({} bytes)", self.length)
    }
}

/// Bytes that are summed up of fields behind the turns: as much as is held of tools that precede them.
/// The window does not bound it: of a sum only its own few bytes stand there.
const MOST_SUMMED: usize = 1 << 20;

impl Extras {
    /// Begins another body.
    pub fn reset(&mut self, key: &Key) {
        if self.key != *key {
            *self = Self {
                key: key.clone(),
                ..Self::default()
            };
        }
        self.front.reset();
        self.behind.reset();
        self.is_behind = false;
    }

    /// Whether nothing more counts of the one that is being read.
    pub fn is_over(&self, prompts: &Prompts) -> bool {
        prompts.is_full() || self.is_behind && self.behind.length >= MOST_SUMMED
    }

    /// More of one. Whether more is wanted.
    pub fn put(&mut self, bytes: &[u8], prompts: &mut Prompts) -> bool {
        if self.is_behind {
            let left = MOST_SUMMED.saturating_sub(self.behind.length);
            let bytes = bytes.get(..left).unwrap_or(bytes);
            self.behind.update(bytes, &self.key);
        } else {
            self.front.update(bytes, &self.key);
            prompts.text(bytes);
        }
        !self.is_over(prompts)
    }

    /// Hands over the sum of those before the turns.
    pub fn give_front(&self, prompts: &mut Prompts) {
        give(&self.front, prompts);
    }

    /// Hands over the sum of those behind the turns.
    pub fn give_behind(&self, prompts: &mut Prompts) {
        give(&self.behind, prompts);
    }
}

fn give(sum: &Sum, prompts: &mut Prompts) {
    if let Some(digest) = sum.digest() {
        Out::prompt(prompts).extra(0, &[], &digest.to_le_bytes());
    }
}

#[cfg(test)]
#[path = "extra_tests.rs"]
mod tests;
