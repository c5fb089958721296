//! Writes values that a flattening does not read into the prompt: unknown members and parts, values of unexpected kinds.
//!
//! Each value is written as it comes, in a form that no text can imitate: the marks around it are bytes that never occur
//! in UTF-8. White space and the spelling of strings do not matter; the order of members does, because they are not
//! held back until the object ends.

use super::prompt::{PromptSink, Prompts};
use super::scan::ValueKind;
use crate::prefix::key::{BlockDigest, Key};

/// Marks a value in a known container.
pub const MARK: u8 = 0xFF;

/// Marks the end of a value.
const END: u8 = 0xFC;

/// A member with billing instructions that moves from turn to turn. No model reads it, and counting it would make each
/// turn of a conversation look new.
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

/// Receives bytes, and returns whether more are wanted.
pub type Put<'a> = &'a mut dyn FnMut(&[u8]) -> bool;

/// Writes the mark of a value in a known container. The numbers identify the container.
pub fn mark(at: [u8; 3], put: Put<'_>) {
    // Numbers have seven bits, so that they are not confused with marks.
    let [level, outer, inner] = at.map(|number| number & 0x7F);
    put(&[MARK, level, outer, inner]);
}

/// Writes the beginning of a value, with its key if it is a member. Returns its node.
pub fn begin(key: &[u8], kind: ValueKind, put: Put<'_>) -> ExtraNode {
    let (sign, place) = match kind {
        ValueKind::Object => (0xF8, ExtraNode::Object),
        ValueKind::Array => (0xF9, ExtraNode::Array),
        ValueKind::String => (0xFA, ExtraNode::Plain),
        ValueKind::Number | ValueKind::Word | ValueKind::Null => (0xFB, ExtraNode::Plain),
    };
    put(key);
    put(&[sign]);
    place
}

/// Ends a value.
pub fn end(put: Put<'_>) {
    put(&[END]);
}

/// The prime of FNV-1a.
const FNV_PRIME: u64 = 0x0100_0000_01b3;

/// Stores text up to `max` bytes. A longer text is folded into eight more bytes, so that it differs from other texts with
/// the same beginning.
pub fn fold(stored: &mut Vec<u8>, bytes: &[u8], max: usize) {
    let (plain, rest) = bytes
        .split_at_checked(max.saturating_sub(stored.len()))
        .unwrap_or((bytes, &[]));
    stored.extend_from_slice(plain);
    if rest.is_empty() {
        return;
    }
    if stored.len() == max {
        stored.extend_from_slice(&[0; 8]);
    }
    if let Some(last) = stored.last_chunk_mut() {
        // One is added so that zero bytes have an effect.
        let fold = |sum: u64, byte: &u8| {
            (sum ^ u64::from(*byte))
                .wrapping_add(1)
                .wrapping_mul(FNV_PRIME)
        };
        let sum = rest.iter().fold(u64::from_le_bytes(*last), fold);
        *last = sum.to_le_bytes();
    }
}

/// The fields of a body that the flattening does not read. Before the turns they stand in the prompt as they come. Those
/// behind the turns are digested, and the digest ends the prompt: a field may be as long as the prompt, and would make
/// the prefix that the next turn shares a small digest of both.
#[derive(Debug, Default)]
pub struct Extras {
    key: Key,
    /// The digest of the fields before the turns, which replaces them if the prompt restarts.
    front: FieldDigest,
    /// The digest of the fields behind the turns.
    behind: FieldDigest,
    /// Whether the current field is behind the turns.
    pub is_behind: bool,
}

/// A digest of fields. It is keyed like those of blocks, so that a client cannot compute collisions.
#[derive(Default)]
struct FieldDigest {
    /// `None` until the first byte: most bodies have no such fields.
    digest: Option<BlockDigest>,
    length: usize,
}

impl FieldDigest {
    fn reset(&mut self) {
        if std::mem::take(&mut self.length) > 0 {
            self.digest.iter_mut().for_each(BlockDigest::reset);
        }
    }

    fn update(&mut self, bytes: &[u8], key: &Key) {
        self.length += bytes.len();
        let digest = self.digest.get_or_insert_with(|| BlockDigest::new(key));
        digest.update(bytes);
    }

    /// Returns the digest, if there were any bytes.
    fn digest(&self) -> Option<u64> {
        let digest = self.digest.as_ref().filter(|_| self.length > 0);
        digest.map(BlockDigest::digest)
    }
}

impl std::fmt::Debug for FieldDigest {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "FieldDigest({} bytes)", self.length)
    }
}

/// Maximum bytes of fields behind the turns that are digested: as much as is stored of tools before them. The prompt
/// window does not bound them, since only the few bytes of the digest are in it.
const MAX_DIGESTED_BYTES: usize = 1 << 20;

impl Extras {
    /// Begins another body, and keeps the memory.
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

    /// Returns whether the rest of the current field does not count.
    pub fn is_over(&self, prompts: &Prompts) -> bool {
        prompts.is_full() || self.is_behind && self.behind.length >= MAX_DIGESTED_BYTES
    }

    /// Adds bytes of a field. Returns whether more are wanted.
    pub fn put(&mut self, bytes: &[u8], prompts: &mut Prompts) -> bool {
        if self.is_behind {
            let left = MAX_DIGESTED_BYTES.saturating_sub(self.behind.length);
            let bytes = bytes.get(..left).unwrap_or(bytes);
            self.behind.update(bytes, &self.key);
        } else {
            self.front.update(bytes, &self.key);
            prompts.text(bytes);
        }
        !self.is_over(prompts)
    }

    /// Writes the digest of the fields before the turns into the prompt.
    pub fn write_front(&self, prompts: &mut Prompts) {
        write_digest(&self.front, prompts);
    }

    /// Writes the digest of the fields behind the turns into the prompt.
    pub fn write_behind(&self, prompts: &mut Prompts) {
        write_digest(&self.behind, prompts);
    }
}

fn write_digest(sum: &FieldDigest, prompts: &mut Prompts) {
    if let Some(digest) = sum.digest() {
        prompts.write_keyed(|prompts| {
            PromptSink::prompt(prompts).extra(0, &[], &digest.to_le_bytes());
        });
    }
}

#[cfg(test)]
#[path = "extra_tests.rs"]
mod tests;
