//! `token-load-scorer`: the fewer tokens in flight, the better.
//!
//! Reads the tokens that the requests in flight still cost each candidate, over all workers of this
//! Envoy, and those that this request would cost it: its prompt without what the candidate probably
//! holds in its KV cache (`inflight-load-producer`, created where none is declared).
//!
//! Score: 1 − min(t, Q) / Q, with t both together and Q the threshold.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `queueThresholdTokens` | 4194304 | Q: 128 requests of 32,768 tokens; 0 and less mean the default |
//! | `inFlightLoadProducerName` | the only producer | whose counts |
//!
//! ```yaml
//! - type: token-load-scorer
//!   parameters: {queueThresholdTokens: 4194304}
//! ```

use crate::plugins::producer::inflight_load;
use crate::plugins::{Build, Capabilities, Capability, Parity, PluginType};
use crate::scheduling::{Cycle, Needs, Scored, Scorer, Slot, UnreadPrompt};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "token-load-scorer",
    former_names: &[],
    provides: &[Capability::Scorer],
    references: &[inflight_load::REFERENCE],
    build,
    parity: Parity::SAME,
};

const QUEUE_THRESHOLD_TOKENS: u32 = 4_194_304;

#[derive(Debug)]
struct TokenLoadScorer {
    threshold: f64,
}

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    build.refer(&inflight_load::REFERENCE);
    let threshold = build
        .fields
        .positive_or_default("queueThresholdTokens", QUEUE_THRESHOLD_TOKENS);
    Capabilities::scorer(TokenLoadScorer {
        threshold: f64::from(threshold),
    })
}

fn tokens(cycle: &Cycle<'_>, slot: Slot) -> f64 {
    cycle.pool.load(slot).tokens as f64 + cycle.request.tokens_at(slot)
}

impl Scorer for TokenLoadScorer {
    fn score(&self, cycle: &Cycle<'_>, candidates: &[Slot], scores: &mut [f64]) {
        for (slot, score) in candidates.iter().zip(scores) {
            *score = 1.0 - tokens(cycle, *slot).min(self.threshold) / self.threshold;
        }
    }

    /// A longer prompt costs the same at every candidate, so it does not change their order, until the
    /// threshold cuts some of them off.
    fn moves_evenly(&self, longest: &Cycle<'_>, candidates: &[Scored]) -> bool {
        let mut candidates = candidates.iter();
        candidates.all(|candidate| tokens(longest, candidate.slot) <= self.threshold)
    }

    fn needs(&self) -> Needs {
        Needs {
            prompt: true,
            unread: UnreadPrompt::Length,
            in_flight: true,
            tokens: true,
            ..Needs::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduling::{Cost, InFlight, Pool, PrefixMatch, ProducerId, RequestView};
    use crate::testing::{close, pool, scores};

    fn loaded(tokens: &[u64]) -> Pool {
        let mut pool = pool(tokens.iter().map(|_| Default::default()));
        for (slot, tokens) in (0..).zip(tokens) {
            let load = InFlight {
                tokens: *tokens,
                ..InFlight::default()
            };
            pool.set_load(Slot(slot), load);
        }
        pool
    }

    fn score(tokens: &[u64], request: RequestView<'_>) -> Vec<f64> {
        scores(
            &TokenLoadScorer { threshold: 1000.0 },
            &loaded(tokens),
            request,
        )
    }

    fn request(prompt: f64) -> RequestView<'static> {
        RequestView {
            cost: Cost {
                prompt,
                ..Cost::default()
            },
            ..RequestView::default()
        }
    }

    #[test]
    fn the_reference_vectors_hold() {
        let found = score(&[0, 500, 1000], RequestView::default());
        assert!(close(&found, &[1.0, 0.5, 0.0]), "{found:?}");
        let found = score(&[0, 250, 750], request(250.0));
        assert!(close(&found, &[0.75, 0.5, 0.0]), "{found:?}");
        assert!(close(&score(&[5000], request(0.0)), &[0.0]));
    }

    #[test]
    fn cached_tokens_cost_nothing() {
        let prefix = [PrefixMatch {
            matched: &[2, 0],
            total: 4.0,
            block_tokens: Some(64),
        }];
        let request = RequestView {
            prefix: &prefix,
            cost: Cost {
                // The last block is not full; the endpoint computes it all the same.
                prompt: 250.0,
                output: 44.0,
                prefix: Some(ProducerId(0)),
            },
            ..RequestView::default()
        };
        let found = score(&[0, 0], request);
        assert!(close(&found, &[1.0 - 0.172, 1.0 - 0.3]), "{found:?}");
    }

    #[test]
    fn a_prompt_that_may_reach_the_threshold_is_waited_for() {
        let pool = loaded(&[0, 500]);
        let candidates = [0, 1].map(|slot| Scored {
            slot: Slot(slot),
            score: 0.0,
        });
        let evenly = |prompt| {
            let cycle = Cycle::new(&pool, request(prompt));
            TokenLoadScorer { threshold: 1000.0 }.moves_evenly(&cycle, &candidates)
        };
        assert!(evenly(500.0));
        assert!(!evenly(501.0));
        assert!(!evenly(f64::INFINITY));
    }
}
