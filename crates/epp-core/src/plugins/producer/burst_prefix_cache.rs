//! `burst-prefix-cache-producer`: brings requests with the same prompt together at one endpoint.
//!
//! The Endpoint Picker's waits for the requests of a window and places them jointly, which needs a queue.
//! Here it is an `approx-prefix-cache-producer` with these blocks: of requests with the same prompt each is
//! placed when it comes, and matches where the ones before it went.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `blockSizeTokens` | 64 | tokens of a block; less than 64 counts as 64 |
//! | `maxPrefixTokensToMatch` | 0 | tokens matched and remembered of one request; 0: 2048 blocks |
//! | `windowDurationMs` | 100 | no effect: nothing waits. 1 to 10000 |
//! | `maxPerReplica` | -1 | no effect |
//! | `minColocateBlocks` | 0 | no effect |
//! | `maxBatchSize` | 1000 | no effect |
//! | `balanceBy` | `requests` | no effect; `requests` or `tokens` |
//!
//! ```yaml
//! - type: burst-prefix-cache-producer
//!   parameters: {blockSizeTokens: 64}
//! - type: prefix-cache-scorer
//!   parameters: {prefixMatchInfoProducerName: burst-prefix-cache-producer}
//! ```

use super::approx_prefix_cache::DEFAULT;
use crate::plugins::{
    Build, Capabilities, Capability, Parity, PluginType, PrefixProducer, Standing,
};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "burst-prefix-cache-producer",
    former_names: &[],
    provides: &[Capability::PrefixProducer],
    references: &[],
    build,
    parity: Parity::of(Standing::Approximated(
        "requests of a window are not placed jointly: each goes where those before it with its prompt went",
    )),
};

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    let fields = &mut build.fields;
    let producer = PrefixProducer {
        block: fields.positive("blockSizeTokens", 64),
        auto_tune: false,
        max_tokens: fields.limit("maxPrefixTokensToMatch", None),
        ..DEFAULT
    };
    fields.number("windowDurationMs", 100.0, (1.0, 10_000.0));
    fields.integer("maxPerReplica", -1, i64::MIN);
    fields.natural("minColocateBlocks", 0);
    fields.integer("maxBatchSize", 1_000, i64::MIN);
    fields.choice("balanceBy", 0, &[("requests", 0), ("tokens", 1)]);
    Capabilities {
        prefix_producer: Some(build.prefix_producer(producer)),
        ..Capabilities::default()
    }
}
