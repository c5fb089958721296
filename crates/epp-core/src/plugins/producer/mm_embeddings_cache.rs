//! `mm-embeddings-cache-producer`: remembers which images, videos and sounds went to which endpoint, and so which
//! endpoint probably holds their embeddings.
//!
//! Reads the hashes of a prompt's media, 32 different ones at most, within the prompt window. A request adds its media
//! to the endpoints that the primary profile picks, and to those that encode them. An endpoint is taken to hold as many
//! items as the parameters say, on average over all endpoints that hold any, and all endpoints together 65,536 at most;
//! the items that were used longest ago make room.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `cacheSizeInMBPerServer` | 4096 | MiB of an endpoint's cache, for items of 2 MiB |
//! | `cacheSizeInMB` | – | its former name |
//! | `cacheSizeInEmbeddingsPerServer` | none | or its embeddings, for items of 225, which is an image of unknown size |
//!
//! ```yaml
//! - type: mm-embeddings-cache-producer
//! ```

use std::sync::Arc;

use crate::number_hash::GOLDEN_RATIO;
use crate::plugins::{
    Build, Capabilities, Capability, Parity, PluginType, Reference, Standing,
};
use crate::request::Media;
use crate::scheduling::{Additions, Cycle, Decision, Hook, Ranking, Record, Slot, StateId};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "mm-embeddings-cache-producer",
    former_names: &[],
    provides: &[Capability::MediaCache],
    references: &[],
    build,
    parity: Parity {
        plugin: Standing::Differs(
            "endpoints hold a number of items on average, not each for itself",
        ),
        parameters: &[(
            "cacheSizeInEmbeddingsPerServer",
            Standing::Approximated(OF_ONE_SIZE),
        )],
    },
};

const OF_ONE_SIZE: &str = "every item counts as an image of unknown size";

/// MiB that an item takes, as the Endpoint Picker assumes.
const MIB_PER_ITEM: u32 = 2;

/// Embeddings of an image of unknown size.
const EMBEDDINGS_PER_ITEM: u32 = 225;

/// Picks of one profile to which a request's media are added at most.
const MAX_PICKS: usize = 4;

/// The parameter of plugins that read which endpoints hold media: it names the producer that remembers.
pub const REFERENCE: Reference = Reference {
    parameter: "producerName",
    to: Capability::MediaCache,
    default: Some(&TYPE),
};

/// Which endpoints have encoded which media.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MediaCache(StateId);

impl MediaCache {
    /// Returns whether an endpoint probably holds the item of this key.
    pub fn holds(self, cycle: &Cycle<'_>, slot: Slot, key: u64) -> bool {
        let state = cycle.request.state(self.0);
        state.is_some_and(|state| state.get(at(key, slot)).is_some())
    }
}

/// Returns the key of an item.
pub fn key(cycle: &Cycle<'_>, item: &Media) -> u64 {
    let mut text = [0; 12];
    let (token, count) = text.split_at_mut(4);
    token.copy_from_slice(&item.token.to_le_bytes());
    count.copy_from_slice(&(item.count as u64).to_le_bytes());
    cycle.request.states.key(&text)
}

/// Returns the key of an item at one endpoint. The item's own key is
/// secret, so that no client can choose two items with the same key.
fn at(key: u64, slot: Slot) -> u64 {
    key ^ (u64::from(slot.0) + 1).wrapping_mul(GOLDEN_RATIO)
}

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    const EMBEDDINGS: &str = "cacheSizeInEmbeddingsPerServer";
    let fields = &mut build.fields;
    let both = fields.has(EMBEDDINGS) && fields.has("cacheSizeInMBPerServer");
    let former = match fields.deprecated("cacheSizeInMB", "cacheSizeInMBPerServer") {
        true => fields.positive_or_default("cacheSizeInMB", 4096),
        false => 4096,
    };
    let size = fields.positive_or_default("cacheSizeInMBPerServer", former);
    let embeddings = fields.optional_natural(EMBEDDINGS);
    fields.approximated(EMBEDDINGS, OF_ONE_SIZE);
    if both {
        let path = fields.path().key(EMBEDDINGS);
        let message = "expected one of this and cacheSizeInMBPerServer";
        fields.problems().error(&path, message);
    }
    let items = match embeddings.filter(|embeddings| *embeddings > 0) {
        Some(embeddings) => embeddings / EMBEDDINGS_PER_ITEM,
        None => size / MIB_PER_ITEM,
    };
    let cache = MediaCache(build.state_by_endpoint(items.max(1) as usize));
    Capabilities {
        media_cache: Some(cache),
        hook: Some(Arc::new(cache)),
        ..Capabilities::default()
    }
}

impl Hook for MediaCache {
    fn before_request(
        &self,
        cycle: &Cycle<'_>,
        decision: &Decision<'_>,
        additions: &mut Additions,
    ) {
        let encode = decision.encode.into_iter().flat_map(Ranking::picks);
        for slot in decision.picks().take(MAX_PICKS).chain(encode.take(MAX_PICKS)) {
            let items = cycle.request.distinct_media.iter();
            additions.records.extend(items.map(|item| Record {
                state: self.0,
                key: at(key(cycle, item), slot),
                slot,
            }));
        }
    }
}
