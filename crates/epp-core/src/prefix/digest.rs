//! Prompts cut into blocks, the blocks' content digests, and their chain.
//!
//! A block's digest knows nothing of the model; the chain hᵢ = XXH64(digestᵢ ‖ hᵢ₋₁), which begins
//! with the hash of model and salt, ties it to all before it. With [`Key::Plain`] that is
//! llm-d-router's hashing to the bit. The Gateway API Inference Extension v1.0 hashes each block
//! together with the hash before it; here the content comes first in both generations, because a
//! body often names its model last. Which blocks are equal, and so every decision, is the same.
//!
//! In service digests are keyed ([`Key::Secret`]). The chain needs no key of its own: behind the same
//! hash, blocks of different digests have different hashes, and the digests are secret.

use std::fmt;

use xxhash_rust::xxh64::xxh64;

use super::key::{Key, Part};

/// How a prompt is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BlockSpec {
    /// Bytes of a block.
    pub block_bytes: usize,
    /// Blocks that count of all prompts of a request together; 0: as many as a context window holds.
    pub max_blocks: usize,
    /// Whether a last block that is not full counts, filled up to whole tokens of four bytes.
    pub keep_partial: bool,
}

impl BlockSpec {
    /// Returns how many blocks of a request count at most.
    fn most(&self) -> usize {
        match self.max_blocks {
            // A block of no bytes cannot be filled.
            _ if self.block_bytes == 0 => 0,
            0 => MOST_UNLIMITED,
            most => most.min(MOST_DIGESTS),
        }
    }
}

/// Bytes per pseudo token.
pub const TOKEN: usize = 4;

/// Digests kept of one request where the plan sets no limit: a million tokens in today's smallest
/// blocks, as much as the longest context windows hold, and half of what an endpoint's memory holds by
/// default, so that one request cannot empty it.
const MOST_UNLIMITED: usize = 1 << 14;

/// Digests kept of one request whatever the plan says: half a megabyte.
const MOST_DIGESTS: usize = 1 << 16;

/// Digests whose memory is kept from request to request: today's default window.
const MOST_KEPT: usize = 1 << 11;

/// Cuts the prompts of one request into blocks as their bytes come, and digests these. The memory
/// is kept from request to request.
#[derive(Clone, Default)]
pub struct BlockHasher {
    spec: BlockSpec,
    key: Key,
    /// Digest of a block that does not come in one piece, and how much of it has come.
    part: Part,
    filled: usize,
    /// Digests of all prompts, one after the other.
    digests: Vec<u64>,
    /// Where in `digests` each prompt that has ended ends.
    ends: Vec<usize>,
    /// How long `digests` may become.
    most: usize,
}

impl BlockHasher {
    /// Begins another request.
    pub fn reset(&mut self, spec: BlockSpec, key: &Key) {
        self.spec = spec;
        self.most = spec.most();
        if self.key != *key {
            self.key = key.clone();
            self.part = Part::new(key);
        }
        self.restart();
    }

    /// Starts this request again.
    pub fn restart(&mut self) {
        self.digests.clear();
        self.ends.clear();
        self.digests.shrink_to(MOST_KEPT);
        self.ends.shrink_to(MOST_KEPT);
        self.open();
    }

    /// From now on a last block counts that is not full, until another request begins.
    pub fn keep_partial(&mut self) {
        self.spec.keep_partial = true;
    }

    /// Returns the bytes of memory that it has allocated.
    pub fn allocated(&self) -> usize {
        self.digests.capacity() * size_of::<u64>() + self.ends.capacity() * size_of::<usize>()
    }

    /// Whether no further block counts, of this prompt or another.
    pub fn is_full(&self) -> bool {
        self.digests.len() >= self.most
    }

    /// Bytes that still count, if no other prompt follows.
    pub fn room(&self) -> usize {
        let blocks = self.most.saturating_sub(self.digests.len());
        blocks
            .saturating_mul(self.spec.block_bytes)
            .saturating_sub(self.filled)
    }

    /// More bytes of the current prompt.
    pub fn update(&mut self, mut bytes: &[u8]) {
        if self.is_full() {
            return;
        }
        let size = self.spec.block_bytes;
        if self.filled > 0 {
            let Some((head, rest)) = bytes.split_at_checked(size - self.filled) else {
                self.fill(bytes);
                return;
            };
            self.fill(head);
            self.end_part();
            bytes = rest;
        }
        while let Some((block, rest)) = bytes.split_at_checked(size) {
            if self.is_full() {
                return;
            }
            self.digests.push(self.key.digest(block));
            bytes = rest;
        }
        if !self.is_full() && !bytes.is_empty() {
            self.fill(bytes);
        }
    }

    /// The current prompt has ended; what follows belongs to another one.
    pub fn end_prompt(&mut self) {
        if self.spec.keep_partial && self.filled > 0 {
            let whole = self.filled.next_multiple_of(TOKEN);
            let zeros = [0; TOKEN];
            self.fill(zeros.get(..whole - self.filled).unwrap_or_default());
            self.end_part();
        }
        if self.ends.last().copied().unwrap_or_default() < self.digests.len() {
            self.ends.push(self.digests.len());
        }
        self.open();
    }

    fn fill(&mut self, bytes: &[u8]) {
        self.part.update(bytes);
        self.filled += bytes.len();
    }

    fn end_part(&mut self) {
        self.digests.push(self.part.digest());
        self.part.reset();
        self.filled = 0;
    }

    /// The digests so far, prompt by prompt; a prompt without any is left out.
    pub fn prompts(&self) -> impl Iterator<Item = &[u64]> {
        let last = self.digests.len();
        let open = self.ends.last().copied().unwrap_or_default() < last;
        let ends = self.ends.iter().copied().chain(open.then_some(last));
        ends.scan(0, |start, end| {
            let prompt = self.digests.get(*start..end);
            *start = end;
            prompt
        })
    }

    /// Begins a prompt.
    fn open(&mut self) {
        self.part.reset();
        self.filled = 0;
    }
}

impl fmt::Debug for BlockHasher {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (spec, blocks) = (&self.spec, self.digests.len());
        write!(formatter, "BlockHasher({spec:?}, {blocks} blocks)")
    }
}

/// The hash of a block behind the one that has the hash `last`.
pub fn chain(last: u64, digest: u64) -> u64 {
    let both = u128::from(digest) | u128::from(last) << 64;
    xxh64(&both.to_le_bytes(), 0)
}

#[cfg(test)]
#[path = "digest_tests.rs"]
mod tests;
