//! `prefix-cache-scorer`: the more of the prompt an endpoint probably holds in its KV cache, the
//! better.
//!
//! Reads the prefix match of each candidate: `match` blocks of the prompt's `total`.
//!
//! Under `inference.networking.x-k8s.io/v1alpha1` the scorer cuts prompts itself, into blocks of
//! bytes. Score: match / total. Parameters:
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `hashBlockSize` | 64 | bytes of a block |
//! | `blockSize` | – | the same in the Gateway API Inference Extension v1.1 to v1.3, going before it |
//! | `blockSizeTokens` | – | the same in tokens of four bytes (v1.4, v1.5), going before both |
//! | `autoTune` | false | take block size and capacity from what the servers report; true by default where a parameter of v1.1 or later is given |
//! | `maxPrefixBlocksToMatch` | 256 | blocks matched and remembered of one request, at most 65536 |
//! | `maxPrefixTokensToMatch` | – | the same in tokens of four bytes (v1.5), going before it |
//! | `lruCapacityPerServer` | 31250 | blocks remembered per endpoint |
//!
//! Under `llm-d.ai` an `approx-prefix-cache-producer` does: one is created where none is declared, with the
//! parameters above if a document still gives them here, and a warning. Score: w·min(1, match·blockTokens / scale)² + (1 − w)·match / total. Parameters:
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `prefixMatchInfoProducerName` | the only producer | whose matches |
//! | `matchLengthWeight` | 0 | w, 0 to 1 |
//! | `matchLengthScaleTokens` | 8192 | scale, above 0 |
//!
//! ```yaml
//! - type: prefix-cache-scorer
//!   parameters:
//!     hashBlockSize: 64
//!     maxPrefixBlocksToMatch: 256
//!     lruCapacityPerServer: 31250
//! ```

use std::sync::Arc;

use crate::config::value::Fields;
use crate::plugins::producer::approx_prefix_cache;
use crate::plugins::{
    Build, Capabilities, Capability, Dialect, Parity, PluginType, PrefixProducer, TOKEN_BYTES,
};
use crate::scheduling::{Cycle, Needs, ProducerId, Scorer, Slot, UnreadPrompt};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "prefix-cache-scorer",
    former_names: &[],
    provides: &[Capability::Scorer],
    references: &[approx_prefix_cache::REFERENCE],
    build,
    parity: Parity::SAME,
};

/// Parameters by which the scorer cuts prompts itself, in the releases v1.0 to v1.5 of the Gateway API
/// Inference Extension.
pub const CUTTING: [&str; 7] = [
    "hashBlockSize",
    "blockSize",
    "blockSizeTokens",
    "autoTune",
    "maxPrefixBlocksToMatch",
    "maxPrefixTokensToMatch",
    "lruCapacityPerServer",
];

/// The capacity in GIE v1: what 500,000 tokens of KV cache hold in its blocks of 16 tokens.
pub(crate) const LRU_CAPACITY_PER_SERVER: u32 = 31_250;

#[derive(Debug)]
struct PrefixCacheScorer {
    /// Whose matches it reads; `None` only in a plan that is refused.
    producer: Option<ProducerId>,
    length_weight: f64,
    length_scale: f64,
}

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    match build.dialect {
        Dialect::GieV1 => gie_v1(build),
        Dialect::LlmD => llm_d(build),
    }
}

fn gie_v1(build: &mut Build<'_, '_>) -> Capabilities {
    let fields = &mut build.fields;
    let newer = ["blockSize", "blockSizeTokens", "maxPrefixTokensToMatch"];
    let newer = newer.iter().any(|name| fields.has(name));
    let producer = PrefixProducer {
        dialect: Dialect::GieV1,
        block: block_bytes(fields),
        auto_tune: fields.boolean("autoTune", newer),
        max_blocks: Some(fields.positive_or_default("maxPrefixBlocksToMatch", 256)),
        max_tokens: fields
            .optional_natural("maxPrefixTokensToMatch")
            .filter(|tokens| *tokens > 0),
        capacity: fields.positive_or_default("lruCapacityPerServer", LRU_CAPACITY_PER_SERVER),
    };
    with_own_producer(build, producer)
}

/// A scorer that has prompts cut and remembered itself, for which others may name it.
pub fn with_own_producer(build: &mut Build<'_, '_>, producer: PrefixProducer) -> Capabilities {
    let producer = Some(build.prefix_producer(producer));
    let scorer = PrefixCacheScorer {
        producer,
        length_weight: 0.0,
        length_scale: 1.0,
    };
    Capabilities {
        scorer: Some(Arc::new(scorer)),
        prefix_producer: producer,
        ..Capabilities::default()
    }
}

/// Bytes of a block, by the newest of its names that is given.
fn block_bytes(fields: &mut Fields<'_>) -> u32 {
    const NEWER: &str = "a newer name of it is given";
    let mut bytes = None;
    for (name, unit) in [("blockSizeTokens", TOKEN_BYTES), ("blockSize", 1)] {
        if bytes.is_some() {
            fields.no_effect(name, NEWER);
        } else {
            let size = fields.optional_natural(name).filter(|size| *size > 0);
            bytes = size.map(|size| size.saturating_mul(unit));
        }
    }
    match bytes {
        Some(bytes) => {
            fields.no_effect("hashBlockSize", NEWER);
            bytes
        }
        None => fields.positive("hashBlockSize", 64),
    }
}

/// The parameters by which the scorer cuts prompts, where a producer cuts them: the Gateway API Inference
/// Extension v1.5 ignores them beside one that is declared. Of the only scorer that has such they are moved to
/// a producer before it is built.
fn refuse_cutting(build: &mut Build<'_, '_>) {
    let ignored = !build.built.producers.is_empty();
    let fields = &mut build.fields;
    let mut said = false;
    for name in CUTTING {
        // Asked for only where it is given: no hint is to name it.
        if !fields.has(name) {
            continue;
        }
        fields.node(name);
        if !std::mem::replace(&mut said, true) {
            let path = fields.path().key(name);
            match ignored {
                true => fields.problems().warn(&path, IGNORED),
                false => fields.problems().error(&path, MOVED),
            }
        }
    }
}

const IGNORED: &str =
    "how prompts are cut is set on approx-prefix-cache-producer; here it has no effect";
const MOVED: &str =
    "how prompts are cut moved to approx-prefix-cache-producer; declare one for each of the scorers";

fn llm_d(build: &mut Build<'_, '_>) -> Capabilities {
    refuse_cutting(build);
    let producer = build.refer(&approx_prefix_cache::REFERENCE);
    let producer = producer.unwrap_or_else(|| build.add(&approx_prefix_cache::TYPE));
    let fields = &mut build.fields;
    let length_weight = fields.number("matchLengthWeight", 0.0, (0.0, 1.0));
    let length_scale = fields.integer("matchLengthScaleTokens", 8192, 1) as f64;
    Capabilities::scorer(PrefixCacheScorer {
        producer: producer.capabilities.prefix_producer,
        length_weight,
        length_scale,
    })
}

impl Scorer for PrefixCacheScorer {
    fn score(&self, cycle: &Cycle<'_>, candidates: &[Slot], scores: &mut [f64]) {
        let prefix = self.producer.and_then(|id| cycle.request.prefix_match(id));
        let Some(prefix) = prefix.filter(|prefix| prefix.total > 0.0) else {
            return scores.fill(0.0);
        };
        for (slot, score) in candidates.iter().zip(scores) {
            let blocks = prefix.blocks(*slot);
            // Most endpoints have none, and a division takes longer than all else here.
            if blocks == 0 {
                *score = 0.0;
                continue;
            }
            *score = (1.0 - self.length_weight) * prefix.share(*slot);
            if self.length_weight > 0.0 {
                let tokens = f64::from(blocks) * f64::from(prefix.block_tokens.unwrap_or(0));
                *score += self.length_weight * (tokens / self.length_scale).min(1.0).powi(2);
            }
        }
    }

    fn needs(&self) -> Needs {
        Needs {
            model: true,
            prompt: true,
            unread: UnreadPrompt::Length,
            cache_info: true,
            ..Needs::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduling::{Pool, PrefixMatch, RequestView};
    use crate::testing::{close, pool, scores};

    fn score(length_weight: f64, length_scale: f64, matched: &[u32], total: f64) -> Vec<f64> {
        let scorer = PrefixCacheScorer {
            producer: Some(ProducerId(0)),
            length_weight,
            length_scale,
        };
        let prefix = [PrefixMatch {
            matched,
            total,
            block_tokens: Some(1),
        }];
        let request = RequestView {
            model: "m",
            prefix: &prefix,
            ..RequestView::default()
        };
        scores(&scorer, &three(), request)
    }

    fn three() -> Pool {
        pool([(); 3].map(|()| Default::default()))
    }

    #[test]
    fn the_reference_vectors_hold() {
        let found = score(0.0, 8192.0, &[5, 2], 10.0);
        assert!(close(&found, &[0.5, 0.2, 0.0]), "{found:?}");
        let found = score(0.5, 100.0, &[5], 10.0);
        assert!(close(&found, &[0.25125, 0.0, 0.0]), "{found:?}");
        let found = score(0.5, 100.0, &[50], 100.0);
        assert!(close(&found, &[0.375, 0.0, 0.0]), "{found:?}");
    }

    #[test]
    fn a_prompt_without_blocks_scores_every_endpoint_zero() {
        assert!(close(&score(0.5, 100.0, &[], 0.0), &[0.0; 3]));
    }
}
