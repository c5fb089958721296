//! How prompts are cut into prefix blocks and remembered.

use super::Dialect;
use crate::prefix::digest::BlockSpec;
use crate::scheduling::{Endpoint, Pool};

/// Bytes of text that count as one token.
pub const TOKEN_BYTES: u32 = 4;

/// How prompts are cut into prefix blocks, and how many of them an endpoint is taken to hold.
#[derive(Debug, Clone, PartialEq)]
pub struct PrefixProducer {
    /// Dialect of the hashing and of the prompt's flattening.
    pub dialect: Dialect,
    /// Size of a block: bytes in [`Dialect::GieV1`], tokens in [`Dialect::LlmD`].
    pub block: u32,
    /// Whether the block size and the capacity that a server reports go before these settings.
    pub auto_tune: bool,
    /// Blocks that are matched and remembered of one prompt; 0: all.
    pub max_blocks: u32,
    /// The same in tokens, going before `max_blocks`, which depends on the block size; 0: unused.
    pub max_tokens: u32,
    /// Blocks remembered per endpoint.
    pub capacity: u32,
}

/// Smallest block in tokens: smaller ones made the Endpoint Picker run out of memory
/// (llm-d-router#1158), so that it counts them as this.
const MIN_BLOCK_TOKENS: u32 = 64;

impl PrefixProducer {
    /// Tokens of a block, 0 where blocks are counted in bytes. With `autoTune` the first server's
    /// word goes before the setting.
    pub fn block_tokens(&self, pool: &Pool) -> u32 {
        if self.dialect == Dialect::GieV1 {
            return 0;
        }
        let tokens = self.reported_tokens(pool).unwrap_or(self.block);
        tokens.max(MIN_BLOCK_TOKENS)
    }

    /// Tokens of a block as the first server reports them, where that counts.
    fn reported_tokens(&self, pool: &Pool) -> Option<u32> {
        let (_, endpoint) = pool.iter().next().filter(|_| self.auto_tune)?;
        endpoint.metrics.block_size.filter(|tokens| *tokens > 0)
    }

    /// How a prompt is cut.
    pub fn block_spec(&self, pool: &Pool) -> BlockSpec {
        let bytes = |tokens: u32| tokens.saturating_mul(TOKEN_BYTES);
        let (block, keep_partial) = match self.block_tokens(pool) {
            0 => (self.reported_tokens(pool).map_or(self.block, bytes), false),
            tokens => (bytes(tokens), true),
        };
        let (block, blocks) = match bytes(self.max_tokens) {
            0 => (block, self.max_blocks),
            // A window smaller than a block holds none.
            most if most < block => (0, 0),
            most => (block, most.checked_div(block).unwrap_or(0)),
        };
        BlockSpec {
            block_bytes: block as usize,
            max_blocks: blocks as usize,
            keep_partial,
        }
    }

    /// Blocks that an endpoint is taken to hold.
    pub fn capacity_of(&self, endpoint: Option<&Endpoint>) -> usize {
        let reported = endpoint.and_then(|endpoint| endpoint.metrics.num_blocks);
        reported.filter(|_| self.auto_tune).unwrap_or(self.capacity) as usize
    }
}
