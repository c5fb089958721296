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

use crate::plugins::{Reference, Build, Capabilities, Capability, Dialect, Parity, PluginType, PrefixProducer};
use crate::plugins::scorer::prefix_cache::LRU_CAPACITY_PER_SERVER;

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "approx-prefix-cache-producer",
    provides: &[Capability::PrefixProducer],
    references: &[],
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
    max_blocks: Some(2048),
    max_tokens: Some(131_072),
    capacity: LRU_CAPACITY_PER_SERVER,
};

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    let fields = &mut build.fields;
    let auto_tune = fields.boolean("autoTune", DEFAULT.auto_tune);
    let mut block = fields.positive("blockSizeTokens", DEFAULT.block);
    if fields.deprecated("blockSize", "blockSizeTokens") {
        let former = fields.positive("blockSize", DEFAULT.block);
        if block == BLOCK_SIZE_TOKENS {
            block = former;
        }
    }
    Capabilities {
        prefix_producer: Some(PrefixProducer {
        dialect: Dialect::LlmD,
        block,
        auto_tune,
        max_blocks: fields.limit("maxPrefixBlocksToMatch", DEFAULT.max_blocks),
        max_tokens: fields.limit("maxPrefixTokensToMatch", DEFAULT.max_tokens),
        capacity: fields.positive_or_default("lruCapacityPerServer", DEFAULT.capacity),
    }),
        ..Capabilities::default()
    }
}

/// A scorer's or a load producer's parameter that names the prefix producer whose matches it reads.
pub const REFERENCE: Reference = Reference {
    parameter: "prefixMatchInfoProducerName",
    to: Capability::PrefixProducer,
    default: None,
};

/// Reads a reference to a producer: by name, or (unnamed) the only one, or one with all defaults
/// that is created for it. Returns its index in the plan.
pub fn refer(build: &mut Build<'_, '_>) -> usize {
    let name = build.refer(&REFERENCE);
    let found = find(&build.built.producers, &name);
    found.unwrap_or_else(|| build.add_producer(TYPE.name, DEFAULT))
}

/// Returns the index of the producer that is meant: by name, or (unnamed) the one named like its type,
/// or the only one. One that is declared under another name must be asked for beside others.
pub fn find(producers: &[(String, PrefixProducer)], name: &str) -> Option<usize> {
    let named = |name: &str| producers.iter().position(|(known, _)| known == name);
    match name {
        "" => named(TYPE.name).or((producers.len() == 1).then_some(0)),
        name => named(name),
    }
}
