//! `approx-prefix-cache-producer`: remembers which prompts went to which endpoint, and so which
//! endpoint probably holds how much of a prompt in its KV cache.
//!
//! Reads the prompt as pseudo tokens (four bytes of text count as one; token arrays count as they
//! are), cut into blocks that are hashed in a chain seeded with model and cache salt.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `autoTune` | true | take block size and capacity from what the servers report |
//! | `blockSizeTokens` | 16 | tokens of a block; less than 64, such as the default, counts as 64 |
//! | `blockSize` | – | its former name |
//! | `maxPrefixTokensToMatch` | 131072 | tokens matched and remembered of one request, all its prompts together; 0: see next |
//! | `maxPrefixBlocksToMatch` | 2048 | the same in blocks, used where the one above is 0; 0: 16384. At most 65536 |
//! | `lruCapacityPerServer` | 31250 | blocks remembered per endpoint |
//!
//! ```yaml
//! - type: approx-prefix-cache-producer
//!   parameters: {autoTune: false, blockSizeTokens: 64}
//! ```

use crate::plugins::scorer::prefix_cache::LRU_CAPACITY_PER_SERVER;
use crate::plugins::{
    Build, Capabilities, Capability, Dialect, Parity, PluginType, PrefixProducer, Reference,
};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "approx-prefix-cache-producer",
    former_names: &[],
    provides: &[Capability::PrefixProducer],
    references: &[],
    build,
    parity: Parity::SAME,
};

/// The default of `blockSizeTokens`, and also the mark that it was not set: the former name
/// `blockSize` counts only then.
const BLOCK_SIZE_TOKENS: u32 = 16;

/// The settings where a document gives none.
pub const DEFAULT: PrefixProducer = PrefixProducer {
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
    let producer = PrefixProducer {
        dialect: Dialect::LlmD,
        block,
        auto_tune,
        max_blocks: fields.limit("maxPrefixBlocksToMatch", DEFAULT.max_blocks),
        max_tokens: fields.limit("maxPrefixTokensToMatch", DEFAULT.max_tokens),
        capacity: fields.positive_or_default("lruCapacityPerServer", DEFAULT.capacity),
    };
    Capabilities {
        prefix_producer: Some(build.prefix_producer(producer)),
        ..Capabilities::default()
    }
}

/// The parameter of plugins that read prefix matches: it names the producer whose.
pub const REFERENCE: Reference = Reference {
    parameter: "prefixMatchInfoProducerName",
    to: Capability::PrefixProducer,
    default: Some(&TYPE),
};
