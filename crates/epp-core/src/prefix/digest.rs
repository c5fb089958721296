//! Cuts prompts into blocks and digests the blocks' content.
//!
//! A block's digest does not depend on the model. The chain hᵢ = XXH64(digestᵢ ‖ hᵢ₋₁), which begins with the hash of
//! model and salt, makes a block's hash depend on everything before it. With [`Key::Plain`] this is llm-d-router's
//! hashing to the bit. The Gateway API Inference Extension v1.0 hashes each block together with the hash before it;
//! here the content is digested first in both dialects, because a body often names its model last. The same blocks
//! are equal, so every decision is the same.
//!
//! In production, digests are keyed ([`Key::Secret`]). The chain needs no key of its own: after the same hash, blocks
//! with different digests have different hashes, and the digests are secret.

use std::fmt;

use super::key::{BlockDigest, Key};

/// The way in which a prompt is cut into blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BlockSpec {
    /// Bytes per block.
    pub block_bytes: usize,
    /// Maximum blocks of all prompts of a request together; `None`: as many as a context window holds.
    pub max_blocks: Option<usize>,
    /// Whether a last block that is not full counts, padded to whole tokens of four bytes.
    pub keep_partial: bool,
}

impl BlockSpec {
    /// Returns the maximum number of digests per request.
    fn max_digests(&self) -> usize {
        match self.max_blocks {
            // A block without bytes is never full.
            _ if self.block_bytes == 0 => 0,
            None => DEFAULT_MAX_DIGESTS,
            Some(blocks) => blocks.min(MAX_DIGESTS),
        }
    }
}

/// Bytes per pseudo token.
pub const TOKEN: usize = 4;

/// Maximum digests per request if the plan sets no limit: a million tokens in the smallest blocks of the llm-d dialect.
/// That is as much as the longest context windows hold, and half of an endpoint's default capacity, so that one request
/// cannot evict everything.
const DEFAULT_MAX_DIGESTS: usize = 1 << 14;

/// Maximum digests per request, whatever the plan says: half a megabyte.
const MAX_DIGESTS: usize = 1 << 16;

/// Digests for which memory is kept between requests: the default window of the llm-d dialect.
const MAX_CACHED_DIGESTS: usize = 1 << 11;

/// Cuts the prompts of one request into blocks as their bytes arrive, and digests the blocks. The memory is reused for
/// other requests.
#[derive(Clone, Default)]
pub struct BlockHasher {
    spec: BlockSpec,
    key: Key,
    /// Digest of a block that does not arrive in one piece.
    partial: BlockDigest,
    /// Bytes of that block so far.
    filled: usize,
    /// Digests of all prompts, one after the other.
    digests: Vec<u64>,
    /// The end in `digests` of each prompt that has ended.
    ends: Vec<usize>,
    /// Maximum length of `digests`.
    max_digests: usize,
}

impl BlockHasher {
    /// Begins another request.
    pub fn reset(&mut self, spec: BlockSpec, key: &Key) {
        self.spec = spec;
        self.max_digests = spec.max_digests();
        if self.key != *key {
            self.key = key.clone();
            self.partial = BlockDigest::new(key);
        }
        self.restart();
    }

    /// Restarts this request.
    pub fn restart(&mut self) {
        self.digests.clear();
        self.ends.clear();
        self.digests.shrink_to(MAX_CACHED_DIGESTS);
        self.ends.shrink_to(MAX_CACHED_DIGESTS);
        self.open();
    }

    /// Counts a last block that is not full, until another request begins.
    pub fn keep_partial(&mut self) {
        self.spec.keep_partial = true;
    }

    /// Returns the bytes of memory that the hasher has allocated.
    pub fn allocated(&self) -> usize {
        self.digests.capacity() * size_of::<u64>() + self.ends.capacity() * size_of::<usize>()
    }

    /// Returns whether the maximum number of blocks is reached.
    pub fn is_full(&self) -> bool {
        self.digests.len() >= self.max_digests
    }

    /// Returns how many more bytes count if no other prompt follows.
    pub fn room(&self) -> usize {
        let blocks = self.max_digests.saturating_sub(self.digests.len());
        blocks
            .saturating_mul(self.spec.block_bytes)
            .saturating_sub(self.filled)
    }

    /// Adds bytes of the current prompt.
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
            self.end_block();
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

    /// Ends the current prompt; the following bytes belong to another one.
    pub fn end_prompt(&mut self) {
        if self.spec.keep_partial && self.filled > 0 {
            let whole = self.filled.next_multiple_of(TOKEN);
            let zeros = [0; TOKEN];
            self.fill(zeros.get(..whole - self.filled).unwrap_or_default());
            self.end_block();
        }
        if self.ends.last().copied().unwrap_or_default() < self.digests.len() {
            self.ends.push(self.digests.len());
        }
        self.open();
    }

    fn fill(&mut self, bytes: &[u8]) {
        self.partial.update(bytes);
        self.filled += bytes.len();
    }

    fn end_block(&mut self) {
        self.digests.push(self.partial.digest());
        self.partial.reset();
        self.filled = 0;
    }

    /// Returns the digests so far, prompt by prompt, without prompts that have none; from the prompt of this number
    /// on, which costs nothing for those before.
    pub fn prompts_from(&self, first: usize) -> impl Iterator<Item = &[u64]> {
        let last = self.digests.len();
        let open = self.ends.last().copied().unwrap_or_default() < last;
        let (before, ends) = self.ends.split_at(first.min(self.ends.len()));
        let start = before.last().copied().unwrap_or_default();
        // The open prompt is the one after those that have ended.
        let open = (open && first <= self.ends.len()).then_some(last);
        let ends = ends.iter().copied().chain(open);
        ends.scan(start, |start, end| {
            let prompt = self.digests.get(*start..end);
            *start = end;
            prompt
        })
    }

    /// Returns the first digest of all prompts.
    pub fn first(&self) -> Option<u64> {
        self.digests.first().copied()
    }

    /// Begins a prompt.
    fn open(&mut self) {
        self.partial.reset();
        self.filled = 0;
    }
}

impl fmt::Debug for BlockHasher {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (spec, blocks) = (&self.spec, self.digests.len());
        write!(formatter, "BlockHasher({spec:?}, {blocks} blocks)")
    }
}

/// Returns the hash of a block that follows the block with the hash `last`: XXH64 of the 16 bytes of both, with the seed 0.
///
/// It is written out because every block of a request takes one: the library's function for any length took a tenth of
/// the time of a request of 4 KB in the module.
pub fn chain(last: u64, digest: u64) -> u64 {
    let [first, second, third, fourth, fifth] = XXH64_PRIMES;
    let step = |hash: u64, lane: u64| {
        let lane = lane.wrapping_mul(second).rotate_left(31);
        let hash = (hash ^ lane.wrapping_mul(first)).rotate_left(27);
        hash.wrapping_mul(first).wrapping_add(fourth)
    };
    let hash = step(step(fifth.wrapping_add(16), digest), last);
    let hash = (hash ^ hash >> 33).wrapping_mul(second);
    let hash = (hash ^ hash >> 29).wrapping_mul(third);
    hash ^ hash >> 32
}

/// The primes of XXH64.
const XXH64_PRIMES: [u64; 5] = [
    0x9e37_79b1_85eb_ca87,
    0xc2b2_ae3d_27d4_eb4f,
    0x1656_67b1_9e37_79f9,
    0x85eb_ca77_c2b2_ae63,
    0x27d4_eb2f_1656_67c5,
];

#[cfg(test)]
#[path = "digest_tests.rs"]
mod tests;
