//! `prefix-rendezvous-scorer`: prefers the endpoint that the beginning of the prompt points to, which is the same in every
//! gateway.
//!
//! Each gateway remembers its own requests only. Where several serve one pool, a prompt that one of them has sent to an
//! endpoint is new to the others. With this scorer they agree although they do not communicate: it hashes the beginning
//! of the prompt (the anchor) together with model, cache salt and the address of each candidate, and the highest hash
//! wins (rendezvous hashing). If an endpoint comes or goes, only its own share of the prompts moves. Add it beside the
//! prefix scorer, with less weight: see [sizing](sizing.md#several-gateways).
//!
//! An endpoint with more requests in flight from this gateway than `loadFactor` times the mean of the candidates (a mean
//! below 1 counts as 1) is passed over, so that the next one in the order of the hashes takes its place. All requests of
//! a client can begin alike and so point to one endpoint, as with any prefix affinity. `loadFactor` bounds what this scorer
//! sends there; what the prefix scorer sends there is bounded by the scorers of load only.
//!
//! Score: 1 for the first endpoint in the order of the hashes, 1/4 and 1/16 for the next two, 0 for all others; 0 for all
//! for a request without a prompt.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `anchorBlocks` | 8 | length of the anchor in blocks of 64 tokens (256 bytes), 1 to 1024; a shorter prompt is hashed as a whole. Bodies are read at least as far as that. Several of these scorers use the longest anchor |
//! | `loadFactor` | 2 | requests in flight above which an endpoint is passed over, as a multiple of the mean, from 1 |
//!
//! ```yaml
//! - type: prefix-rendezvous-scorer
//! ```

use crate::plugins::{Build, Capabilities, Capability, Parity, PluginType, Standing};
use crate::scheduling::{Cycle, Needs, Scorer, Slot};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "prefix-rendezvous-scorer",
    former_names: &[],
    provides: &[Capability::Scorer],
    references: &[],
    build,
    parity: Parity::of(Standing::Ours("several gateways agree on an endpoint")),
};

/// Bytes of a block: 64 tokens, the smallest blocks of llm-d-router. What servers report does not matter, because gateways
/// learn it at different times.
const BLOCK_BYTES: u32 = 256;

/// A quarter of the default `decideAfterBytes`, of which three quarters are read before a request is decided: a prompt has an
/// anchor by then.
const MAX_ANCHOR_BLOCKS: i64 = 1_024;

/// Endpoints that score above 0.
const RANKS: usize = 3;

#[derive(Debug)]
struct PrefixRendezvousScorer {
    anchor_bytes: u32,
    load_factor: f64,
}

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    let blocks = build.fields.whole("anchorBlocks", 8, (1, MAX_ANCHOR_BLOCKS));
    Capabilities::scorer(PrefixRendezvousScorer {
        anchor_bytes: blocks as u32 * BLOCK_BYTES,
        load_factor: build.fields.number("loadFactor", 2.0, (1.0, f64::MAX)),
    })
}

impl Scorer for PrefixRendezvousScorer {
    fn score(&self, cycle: &Cycle<'_>, candidates: &[Slot], scores: &mut [f64]) {
        scores.fill(0.0);
        let Some(anchor) = cycle.request.anchor else {
            return;
        };
        let requests = |slot: &Slot| cycle.pool.load(*slot).requests;
        let mean = || {
            let all = candidates.iter().map(|slot| u64::from(requests(slot)));
            all.sum::<u64>() as f64 / candidates.len() as f64
        };
        let mut most = None;
        let mut has_room = |slot: &Slot| {
            let own = f64::from(requests(slot));
            // A mean below 1 counts as 1. It is computed for the few that come first, and only if they are busy.
            own <= self.load_factor
                || own <= *most.get_or_insert_with(|| self.load_factor * mean())
        };
        // The highest hashes in descending order, with the places of their endpoints.
        let mut first = [(0, usize::MAX); RANKS];
        for (place, slot) in candidates.iter().enumerate() {
            let hash = mix(anchor ^ cycle.pool.address_hash(*slot));
            let [.., last] = first;
            if hash > last.0 && has_room(slot) {
                let mut next = (hash, place);
                for higher in &mut first {
                    if next.0 > higher.0 {
                        std::mem::swap(higher, &mut next);
                    }
                }
            }
        }
        let mut score = 1.0;
        for (_, place) in first {
            if let Some(own) = scores.get_mut(place) {
                *own = score;
                score /= 4.0;
            }
        }
    }

    fn needs(&self) -> Needs {
        Needs {
            model: true,
            prompt: true,
            anchor_bytes: self.anchor_bytes,
            in_flight: true,
            ..Needs::default()
        }
    }
}

/// Scatters a number so that the order of two results says nothing about that of two others: the finalizer of SplitMix64.
fn mix(number: u64) -> u64 {
    let number = (number ^ number >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ number >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ number >> 31
}

#[cfg(test)]
#[path = "prefix_rendezvous_tests.rs"]
mod tests;
