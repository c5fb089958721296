//! Rules by which prompts are cut into prefix blocks and remembered.

use super::Dialect;
use crate::prefix::digest::BlockSpec;
use crate::scheduling::{Endpoint, Pool};

/// Bytes of text that count as one token.
pub const TOKEN_BYTES: u32 = 4;

/// The settings by which prompts are cut into prefix blocks, and the number of blocks assumed per endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct PrefixProducer {
    /// Dialect of the hashing and of the prompt's flattening.
    pub dialect: Dialect,
    /// Size of a block: bytes in [`Dialect::GieV1`], tokens in [`Dialect::LlmD`].
    pub block: u32,
    /// Whether the block size and the capacity that a server reports go before these settings.
    pub auto_tune: bool,
    /// How many blocks of a prompt are matched and remembered; `None`: as many as a context window holds.
    pub max_blocks: Option<u32>,
    /// How many tokens of a prompt are matched and remembered. Replaces `max_blocks`, which depends on the block
    /// size.
    pub max_tokens: Option<u32>,
    /// Blocks remembered per endpoint.
    pub capacity: u32,
}

/// Smallest block in tokens: smaller ones made the Endpoint Picker run out of memory
/// (llm-d-router#1158), so that it counts them as this.
const MIN_BLOCK_TOKENS: u32 = 64;

impl PrefixProducer {
    /// Returns the tokens of a block; `None` where blocks are counted in bytes. With `autoTune` the first server's
    /// word goes before the setting.
    pub fn block_tokens(&self, pool: &Pool) -> Option<u32> {
        if self.dialect == Dialect::GieV1 {
            return None;
        }
        let tokens = self.reported_tokens(pool).unwrap_or(self.block);
        Some(tokens.max(MIN_BLOCK_TOKENS))
    }

    /// Tokens of a block as the first server reports them, where that counts.
    fn reported_tokens(&self, pool: &Pool) -> Option<u32> {
        let (_, endpoint) = pool.iter().next().filter(|_| self.auto_tune)?;
        endpoint.metrics.block_size.filter(|tokens| *tokens > 0)
    }

    /// Returns how a prompt is cut.
    pub fn block_spec(&self, pool: &Pool) -> BlockSpec {
        let bytes = |tokens: u32| tokens.saturating_mul(TOKEN_BYTES);
        let (block, keep_partial) = match self.block_tokens(pool) {
            None => (self.reported_tokens(pool).map_or(self.block, bytes), false),
            Some(tokens) => (bytes(tokens), true),
        };
        // A window smaller than a block holds none.
        let in_window = |tokens: u32| bytes(tokens).checked_div(block).unwrap_or(0);
        let blocks = self.max_tokens.map(in_window).or(self.max_blocks);
        BlockSpec {
            block_bytes: block as usize,
            max_blocks: blocks.map(|blocks| blocks as usize),
            keep_partial,
        }
    }

    /// Blocks that an endpoint is taken to hold.
    pub fn capacity_of(&self, endpoint: Option<&Endpoint>) -> usize {
        let reported = endpoint.and_then(|endpoint| endpoint.metrics.num_blocks);
        reported.filter(|_| self.auto_tune).unwrap_or(self.capacity) as usize
    }
}
