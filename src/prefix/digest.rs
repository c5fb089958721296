//! Prompts cut into blocks, the blocks' content digests, and their chain.
//!
//! A block's digest is XXH64 of its bytes and knows nothing of the model; the chain
//! hᵢ = XXH64(digestᵢ ‖ hᵢ₋₁), with h₋₁ = XXH64(model ‖ salt), ties it to all before it. That is
//! llm-d-router's hashing to the bit. The Gateway API Inference Extension v1.0 hashes each block
//! together with the hash before it; here the content comes first in both generations, because a
//! body often names its model last. Which blocks are equal, and so every decision, is the same.

use xxhash_rust::xxh64::{xxh64, Xxh64};

/// How a prompt is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockSpec {
    /// Bytes of a block.
    pub block_bytes: usize,
    /// Blocks that count; 0: all.
    pub max_blocks: usize,
    /// Whether a last block that is not full counts, filled up to whole tokens of four bytes.
    pub keep_partial: bool,
}

/// Bytes per pseudo token.
const TOKEN: usize = 4;

/// The content digests of a prompt's blocks.
pub fn digests(prompt: &[u8], spec: &BlockSpec) -> Vec<u64> {
    if spec.block_bytes == 0 {
        return Vec::new();
    }
    let most = match spec.max_blocks {
        0 => usize::MAX,
        most => most,
    };
    let mut digests = Vec::with_capacity((prompt.len() / spec.block_bytes + 1).min(most));
    for block in prompt.chunks(spec.block_bytes).take(most) {
        if block.len() == spec.block_bytes {
            digests.push(xxh64(block, 0));
        } else if spec.keep_partial {
            let mut padded = block.to_vec();
            padded.resize(block.len().next_multiple_of(TOKEN), 0);
            digests.push(xxh64(&padded, 0));
        }
    }
    digests
}

/// The hash that a chain begins with.
pub fn seed(model: &str, salt: &str) -> u64 {
    let mut hasher = Xxh64::new(0);
    hasher.update(model.as_bytes());
    hasher.update(salt.as_bytes());
    hasher.digest()
}

/// The hash of a block behind the one that has the hash `last`.
pub fn chain(last: u64, digest: u64) -> u64 {
    let both = u128::from(digest) | u128::from(last) << 64;
    xxh64(&both.to_le_bytes(), 0)
}

#[cfg(test)]
#[path = "digest_tests.rs"]
mod tests;
