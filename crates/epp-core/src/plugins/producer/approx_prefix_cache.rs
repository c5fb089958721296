//! `approx-prefix-cache-producer`: remembers which prompts went to which endpoint, and so which
//! endpoint probably holds how much of a prompt in its KV cache.
//!
//! Reads the prompt as pseudo tokens (four bytes of text count as one; token arrays count as they
//! are), cut into blocks that are hashed in a chain seeded with model and cache salt.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `autoTune` | true | take block size and capacity from what the servers report |
//! | `blockSizeTokens` | 16 | tokens of a block; below 64 counts as 64 |
//! | `blockSize` | – | its former name |
//! | `maxPrefixTokensToMatch` | 131072 | tokens matched and remembered of one request, all its prompts together; 0: see next |
//! | `maxPrefixBlocksToMatch` | 2048 | the same in blocks, used where the one above is 0; 0: 16384. At most 65536 |
//! | `lruCapacityPerServer` | 31250 | blocks remembered per endpoint |
//!
//! ```yaml
//! - type: approx-prefix-cache-producer
//!   parameters: {autoTune: false, blockSizeTokens: 64}
//! ```

use crate::plugins::role::{Build, Dialect, Parity, PluginType, PrefixProducer, Role};
use crate::plugins::scorer::prefix_cache::LRU_CAPACITY_PER_SERVER;

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "approx-prefix-cache-producer",
    build,
    parity: Parity::SAME,
};

/// The default of `blockSizeTokens`, and also the mark that it was not set: the former name
/// `blockSize` counts only then.
const BLOCK_SIZE_TOKENS: u32 = 16;

const DEFAULT: PrefixProducer = PrefixProducer {
    dialect: Dialect::LlmD,
    block: BLOCK_SIZE_TOKENS,
    auto_tune: true,
    max_blocks: 2048,
    max_tokens: 131_072,
    capacity: LRU_CAPACITY_PER_SERVER,
};

fn build(build: &mut Build<'_, '_>) -> Role {
    let fields = &mut build.fields;
    let auto_tune = fields.boolean("autoTune", DEFAULT.auto_tune);
    let mut block = fields.positive("blockSizeTokens", DEFAULT.block);
    if fields.deprecated("blockSize", "blockSizeTokens") {
        let former = fields.positive("blockSize", DEFAULT.block);
        if block == BLOCK_SIZE_TOKENS {
            block = former;
        }
    }
    Role::PrefixProducer(PrefixProducer {
        dialect: Dialect::LlmD,
        block,
        auto_tune,
        max_blocks: fields.natural("maxPrefixBlocksToMatch", DEFAULT.max_blocks),
        max_tokens: fields.natural("maxPrefixTokensToMatch", DEFAULT.max_tokens),
        capacity: fields.positive_or_default("lruCapacityPerServer", DEFAULT.capacity),
    })
}

/// Reads a reference to a producer: by name, or (unnamed) the only one, or one with all defaults
/// that is created for it. Returns its index in the plan.
pub fn refer(build: &mut Build<'_, '_>, field: &'static str) -> usize {
    let name = build.fields.string(field, "");
    let found = if name.is_empty() {
        // The Endpoint Picker's default producer is the one named like its type; one declared
        // under another name must be asked for, unless there is only one.
        let by_type = build
            .producers
            .iter()
            .position(|(name, _)| name == TYPE.name);
        by_type.or((build.producers.len() == 1).then_some(0))
    } else {
        build.producers.iter().position(|(known, _)| *known == name)
    };
    if let Some(index) = found {
        return index;
    }
    if !name.is_empty() {
        build.refuse_prefix_producer(field, &name);
    }
    build.producers.push((TYPE.name.to_owned(), DEFAULT));
    build.producers.len() - 1
}
