//! `precise-prefix-cache-scorer`: a `precise-prefix-cache-producer` and the `prefix-cache-scorer` that reads
//! its matches in one, as the Endpoint Picker had it before; deprecated there.
//!
//! Score: match / total. Approximated here as the producer is.
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
//! - type: precise-prefix-cache-scorer
//!   parameters:
//!     tokenProcessorConfig: {blockSize: 64}
//! ```

use super::prefix_cache;
use crate::plugins::producer::precise_prefix_cache;
use crate::plugins::{Build, Capabilities, Capability, PluginType};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "precise-prefix-cache-scorer",
    former_names: &[],
    provides: &[Capability::Scorer, Capability::PrefixProducer],
    references: &[],
    build,
    parity: precise_prefix_cache::PARITY,
};

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    let producer = precise_prefix_cache::read(&mut build.fields);
    prefix_cache::with_own_producer(build, producer)
}
