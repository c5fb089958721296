//! `mm-embeddings-cache-scorer`: the more of a prompt's images, videos and sounds an endpoint has encoded before, the
//! better.
//!
//! Reads what `mm-embeddings-cache-producer` remembers (one is created where none is declared), and the size of each
//! item: the tokens that it is estimated to take.
//!
//! Score: the size of the items that the endpoint holds / the size of all; 0 for a prompt without media.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `producerName` | the only producer | whose memory |
//!
//! ```yaml
//! - type: mm-embeddings-cache-scorer
//! ```

use crate::plugins::producer::mm_embeddings_cache::{self, key, MediaCache};
use crate::plugins::{Build, Capabilities, Capability, Parity, PluginType, Standing};
use crate::scheduling::{Cycle, Needs, Scorer, Slot, UnreadPrompt};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "mm-embeddings-cache-scorer",
    former_names: &[],
    provides: &[Capability::Scorer],
    references: &[mm_embeddings_cache::REFERENCE],
    build,
    parity: Parity::of(Standing::Differs(
        "media beyond the prompt window are not seen",
    )),
};

#[derive(Debug)]
struct MmEmbeddingsCacheScorer {
    /// Whose memory it reads; `None` only in a plan that is refused.
    cache: Option<MediaCache>,
}

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    let producer = build.refer(&mm_embeddings_cache::REFERENCE);
    let producer = producer.unwrap_or_else(|| build.add(&mm_embeddings_cache::TYPE));
    let cache = producer.capabilities.media_cache;
    Capabilities::scorer(MmEmbeddingsCacheScorer { cache })
}

impl Scorer for MmEmbeddingsCacheScorer {
    fn score(&self, cycle: &Cycle<'_>, candidates: &[Slot], scores: &mut [f64]) {
        let items = cycle.request.distinct_media;
        let all: f64 = items.iter().map(|item| item.count as f64).sum();
        let Some(cache) = self.cache.filter(|_| all > 0.0) else {
            return scores.fill(0.0);
        };
        scores.fill(0.0);
        for item in items {
            let (key, share) = (key(cycle, item), item.count as f64 / all);
            for (slot, score) in candidates.iter().zip(scores.iter_mut()) {
                if cache.holds(cycle, *slot, key) {
                    *score += share;
                }
            }
        }
    }

    fn needs(&self) -> Needs {
        Needs {
            prompt: true,
            media: true,
            // Media that may still come move the scores in any way.
            unread: UnreadPrompt::Content,
            ..Needs::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::scheduling::StateId;
    use crate::request::Media;
    use crate::testing::{close, refused, Scheduling};

    const CAT: Media = Media {
        token: 1,
        count: 300,
    };
    const DOG: Media = Media {
        token: 2,
        count: 100,
    };

    /// Sends a prompt with these media. Returns the scores and the pick.
    fn send(plan: &mut Scheduling, media: &[Media]) -> (Vec<f64>, u32) {
        plan.media = media.to_vec();
        let found = plan.schedule(&[], &[]);
        (found.scores, found.pick)
    }

    #[test]
    fn an_endpoint_scores_by_the_size_of_what_it_holds() {
        let plugins = "{type: mm-embeddings-cache-scorer}, {type: no-hit-lru-scorer}";
        let mut plan = Scheduling::new(plugins, 2);
        assert_eq!(send(&mut plan, &[]), (vec![0.0; 2], 0));
        assert_eq!(send(&mut plan, &[CAT]), (vec![0.0; 2], 1));
        assert_eq!(send(&mut plan, &[DOG]), (vec![0.0; 2], 0));
        let (scores, pick) = send(&mut plan, &[CAT, DOG]);
        assert!(close(&scores, &[0.25, 0.75]), "{scores:?}");
        assert_eq!(pick, 1);
        let (scores, _) = send(&mut plan, &[CAT, DOG]);
        assert!(close(&scores, &[0.25, 1.0]), "{scores:?}");
        let other = Media { token: 1, count: 7 };
        assert!(close(&send(&mut plan, &[other]).0, &[0.0; 2]));
    }

    #[test]
    fn the_items_used_longest_ago_make_room() {
        let plugins = "{type: mm-embeddings-cache-scorer}, \
                       {type: mm-embeddings-cache-producer, parameters: {cacheSizeInMBPerServer: 5}}";
        let mut plan = Scheduling::new(plugins, 1);
        let item = |token| Media { token, count: 1 };
        for token in [1, 2, 1, 3] {
            send(&mut plan, &[item(token)]);
        }
        // Asked for together, in the order of their sizes: each is one of three.
        let (scores, _) = send(&mut plan, &[item(1), item(2), item(3)]);
        assert!(close(&scores, &[2.0 / 3.0]), "{scores:?}");
    }

    #[test]
    fn the_endpoint_that_encodes_an_item_holds_it() {
        let roles = ["decode", "prefill", "encode", "encode"];
        let scorer = "mm-embeddings-cache-scorer";
        let plugins = "{type: mm-embeddings-cache-scorer}";
        let mut plan = Scheduling::disaggregated(plugins, [scorer; 3], &roles);
        send(&mut plan, &[CAT]);
        let state = plan.states.get(StateId(0)).unwrap();
        let holders: Vec<u32> = state.iter().map(|(_, slot)| slot.0).collect();
        assert_eq!((holders.len(), holders[0]), (2, 0));
        assert!([2, 3].contains(&holders[1]));
        for _ in 0..10 {
            send(&mut plan, &[CAT]);
        }
        assert_eq!(plan.states.get(StateId(0)).unwrap().len(), 2);
    }

    #[test]
    fn one_size_of_the_cache_is_given() {
        let error = refused(
            "mm-embeddings-cache-producer",
            "{cacheSizeInMBPerServer: 1, cacheSizeInEmbeddingsPerServer: 1}",
        );
        assert!(error.contains("cacheSizeInEmbeddingsPerServer"), "{error}");
    }
}
