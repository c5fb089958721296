//! `precise-prefix-cache-producer`: knows which endpoint holds how much of a prompt in its KV cache.
//!
//! The Endpoint Picker's learns it from the KV events that servers publish over ZMQ, which a filter cannot
//! receive. Here it is an `approx-prefix-cache-producer` with this block size: it remembers which prompts
//! went to which endpoint. Capacities are those that the servers report.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `tokenProcessorConfig` | none | how prompts are cut; what is not listed here has no effect |
//! | `tokenProcessorConfig.blockSizeTokens` | 16 | tokens of a block; less than 64, such as the default, counts as 64 |
//! | `tokenProcessorConfig.blockSize` | – | its former name |
//! | `indexerConfig` | none | no effect, but for a `tokenProcessorConfig` in it, where the one above is absent |
//! | `kvEventsConfig`, `speculativeIndexing`, `speculativeTTL`, `sessionManager` | none | no effect: there are no KV events |
//!
//! ```yaml
//! - type: precise-prefix-cache-producer
//!   parameters:
//!     tokenProcessorConfig: {blockSizeTokens: 64}
//!     kvEventsConfig: {topicFilter: kv@, discoverPods: true}
//! - type: prefix-cache-scorer
//!   parameters: {prefixMatchInfoProducerName: precise-prefix-cache-producer}
//! ```

use super::approx_prefix_cache::DEFAULT;
use crate::config::value::Fields;
use crate::plugins::{
    Build, Capabilities, Capability, Parity, PluginType, PrefixProducer, Standing,
};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "precise-prefix-cache-producer",
    former_names: &[],
    provides: &[Capability::PrefixProducer],
    references: &[],
    build,
    parity: PARITY,
};

/// How it compares with the Endpoint Picker's, and so does whatever has one of its own.
pub const PARITY: Parity = Parity::of(Standing::Approximated(
    "no KV events reach a filter; an index of which prompts went where stands in for them",
));

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    let producer = read(&mut build.fields);
    Capabilities {
        prefix_producer: Some(build.prefix_producer(producer)),
        ..Capabilities::default()
    }
}

/// Reads the parameters, which the deprecated `precise-prefix-cache-scorer` has, too.
pub fn read(fields: &mut Fields<'_>) -> PrefixProducer {
    const NAMES: [&str; 6] = [
        "tokenProcessorConfig",
        "indexerConfig",
        "kvEventsConfig",
        "speculativeIndexing",
        "speculativeTTL",
        "sessionManager",
    ];
    let [processor, indexer, ..] = NAMES.map(|name| {
        let node = fields.any(name);
        if let Some(node) = node {
            fields.note(name, node.clone());
        }
        node
    });
    let path = fields.path().key("tokenProcessorConfig");
    let nested = indexer.and_then(|indexer| indexer.get("tokenProcessorConfig"));
    // Not finished: what else it holds is hashing, which the index does by a key of its own.
    let mut processor = Fields::new(processor.or(nested), path, fields.problems());
    let former = processor.positive("blockSize", DEFAULT.block);
    let block = processor.positive("blockSizeTokens", former);
    PrefixProducer { block, ..DEFAULT }
}

#[cfg(test)]
mod tests {
    use crate::config::load;

    fn block(parameters: &str) -> u32 {
        let text = format!(
            "apiVersion: llm-d.ai/v1\nkind: EndpointPickerConfig\nplugins: [{{type: precise-prefix-cache-producer, parameters: {parameters}}}]\n"
        );
        load(&text).unwrap().plan.producers[0].1.block
    }

    #[test]
    fn blocks_are_cut_as_the_token_processor_would() {
        for (parameters, expected) in [
            ("{}", 16),
            ("{tokenProcessorConfig: {blockSize: 128, hashSeed: '42'}}", 128),
            ("{tokenProcessorConfig: {blockSize: 128, blockSizeTokens: 256}}", 256),
            ("{indexerConfig: {tokenProcessorConfig: {blockSize: 80}, kvBlockIndexConfig: {}}}", 80),
            ("{kvEventsConfig: {zmqEndpoint: a}, speculativeIndexing: true, speculativeTTL: 2s}", 16),
        ] {
            assert_eq!(block(parameters), expected, "{parameters}");
        }
    }
}
