//! `prefix-cache-affinity-filter`: keeps the endpoints that probably hold most of the prompt in their KV cache, unless
//! they are much busier than the others.
//!
//! Reads the prefix match of each candidate, and the tokens in flight there. An endpoint is sticky if it holds at least
//! `affinityThreshold` of the prompt's blocks. The sticky endpoints are kept, and all candidates
//!
//! - if none is sticky, or there is only one candidate,
//! - if the least busy sticky endpoint would take longer to the first token than the least busy other one by more than
//!   `maxTTFTPenaltyMs`, the time to the first token being tokens in flight / `peakPrefillThroughput`,
//! - with the probability `explorationProbability`.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `affinityThreshold` | 0.8 | share of the prompt, at most 1; 0 and less keep all candidates |
//! | `explorationProbability` | 0 | 0 to 1 |
//! | `maxTTFTPenaltyMs` | 18000 | milliseconds, 0 or more; 0 keeps the sticky endpoints however busy they are |
//! | `ttftSource` | `prefillThroughput` | `prefillThroughput`; `latencyPredictor` counts as the same |
//! | `peakPrefillThroughput` | 15928 | tokens per second that an endpoint computes of prompts, above 0 |
//! | `prefixMatchInfoProducerName` | the only producer | whose matches |
//! | `inFlightLoadProducerName` | the only producer | whose counts |
//! | `latencyPredictionInfoProducerName` | – | no effect: there is no latency predictor |
//! | `prefillCalibrationFile` | – | no effect: a filter reads no files |
//! | `prefillCalibrationFingerprint` | – | no effect: as above |
//! | `prefillCalibrationRequired` | – | no effect: as above |
//!
//! ```yaml
//! - type: prefix-cache-affinity-filter
//!   parameters: {affinityThreshold: 0.6, maxTTFTPenaltyMs: 5000, peakPrefillThroughput: 33821}
//! ```

use crate::config::value::Node;
use crate::plugins::producer::{approx_prefix_cache, inflight_load};
use crate::plugins::{Build, Capabilities, Capability, Parity, PluginType, Standing};
use crate::scheduling::{Cycle, Filter, Needs, ProducerId, Slot, UnreadPrompt};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "prefix-cache-affinity-filter",
    former_names: &[],
    provides: &[Capability::Filter],
    references: &[approx_prefix_cache::REFERENCE, inflight_load::REFERENCE],
    build,
    parity: Parity {
        plugin: Standing::Same,
        parameters: &[
            ("ttftSource", Standing::Approximated(PREDICTED)),
            (
                "latencyPredictionInfoProducerName",
                Standing::NoEffect(NO_PREDICTOR),
            ),
            ("prefillCalibrationFile", Standing::NoEffect(NO_FILES)),
            ("prefillCalibrationFingerprint", Standing::NoEffect(NO_FILES)),
            ("prefillCalibrationRequired", Standing::NoEffect(NO_FILES)),
        ],
    },
};

const PREDICTED: &str =
    "latencyPredictor counts as prefillThroughput: the tokens in flight say how long the first token takes";
const NO_PREDICTOR: &str = "there is no latency predictor";
const NO_FILES: &str = "a filter reads no files; set peakPrefillThroughput";

/// Tokens of prompts per second of one endpoint: Qwen 32B on two H100, as llm-d measured it.
const PEAK_PREFILL_THROUGHPUT: f64 = 15_928.0;

#[derive(Debug)]
struct PrefixCacheAffinityFilter {
    /// Whose matches it reads; `None` only in a plan that is refused.
    producer: Option<ProducerId>,
    threshold: f64,
    exploration: f64,
    /// The limit in milliseconds, and tokens per second; `None` if load does not matter.
    gate: Option<(f64, f64)>,
    /// Distinguishes its draws from those of other filters of the plan.
    salt: u64,
}

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    build.refer(&inflight_load::REFERENCE);
    let producer = build.refer(&approx_prefix_cache::REFERENCE);
    let producer = producer.unwrap_or_else(|| build.add(&approx_prefix_cache::TYPE));
    let salt = build.built.plugins.len() as u64;
    let fields = &mut build.fields;
    let threshold = fields.number("affinityThreshold", 0.8, (f64::MIN, 1.0));
    let exploration = fields.number("explorationProbability", 0.0, (0.0, 1.0));
    let penalty = fields.number("maxTTFTPenaltyMs", 18_000.0, (0.0, f64::MAX));
    let sources = [("prefillThroughput", false), ("latencyPredictor", true)];
    let predicted = fields.choice("ttftSource", false, &sources);
    if predicted {
        fields.approximated("ttftSource", PREDICTED);
    }
    let bounds = (0.0, f64::MAX);
    let throughput = fields.number("peakPrefillThroughput", PEAK_PREFILL_THROUGHPUT, bounds);
    if throughput <= 0.0 && penalty > 0.0 && !predicted {
        fields.refuse("peakPrefillThroughput", &Node::Number(throughput), "a number above 0");
    }
    fields.no_effect("latencyPredictionInfoProducerName", NO_PREDICTOR);
    for name in [
        "prefillCalibrationFile",
        "prefillCalibrationFingerprint",
        "prefillCalibrationRequired",
    ] {
        fields.no_effect(name, NO_FILES);
    }
    let throughput = match throughput > 0.0 {
        true => throughput,
        false => PEAK_PREFILL_THROUGHPUT,
    };
    Capabilities::filter(PrefixCacheAffinityFilter {
        producer: producer.capabilities.prefix_producer,
        threshold,
        exploration,
        gate: (penalty > 0.0).then_some((penalty, throughput)),
        salt,
    })
}

/// Whether an endpoint is sticky.
type Sticky<'a> = dyn Fn(Slot) -> bool + 'a;

impl PrefixCacheAffinityFilter {
    fn passes_all(&self, cycle: &Cycle<'_>, candidates: &[Slot]) -> bool {
        candidates.len() <= 1
            || self.threshold <= 0.0
            || cycle.request.chance(self.exploration, self.salt)
    }

    fn is_sticky(&self, cycle: &Cycle<'_>, slot: Slot) -> bool {
        let found = self.producer.and_then(|id| cycle.request.prefix_match(id));
        found.is_some_and(|found| found.share(slot) >= self.threshold)
    }

    /// Returns whether there are sticky endpoints and they are not too busy.
    fn sticks(&self, cycle: &Cycle<'_>, candidates: &[Slot], sticky: &Sticky<'_>) -> bool {
        let [mut of_sticky, mut of_others] = [None; 2];
        for slot in candidates {
            let least = match sticky(*slot) {
                true => &mut of_sticky,
                false => &mut of_others,
            };
            let tokens = cycle.pool.load(*slot).tokens;
            *least = Some(least.map_or(tokens, |least: u64| least.min(tokens)));
        }
        match (of_sticky, of_others, self.gate) {
            (Some(sticky), Some(others), Some((penalty, throughput))) => {
                let ttft = |tokens: u64| tokens as f64 / throughput * 1_000.0;
                ttft(sticky) - ttft(others) <= penalty
            }
            (sticky, ..) => sticky.is_some(),
        }
    }
}

impl Filter for PrefixCacheAffinityFilter {
    fn filter(&self, cycle: &Cycle<'_>, candidates: &mut Vec<Slot>) {
        let sticky = |slot: Slot| self.is_sticky(cycle, slot);
        if !self.passes_all(cycle, candidates) && self.sticks(cycle, candidates, &sticky) {
            candidates.retain(|slot| sticky(*slot));
        }
    }

    /// As a prompt grows, sticky endpoints become fewer. An endpoint that stops being sticky is left out as long as
    /// another one is sticky and not too busy, and kept again afterwards; nothing moves where the sticky endpoints stay
    /// the same. Once all are kept because the sticky ones are too busy, or because there are none, all stay.
    fn moves_evenly(&self, shortest: &Cycle<'_>, longest: &Cycle<'_>, candidates: &[Slot]) -> bool {
        let sticky = |slot: Slot| self.is_sticky(shortest, slot);
        let mut slots = candidates.iter();
        self.passes_all(shortest, candidates)
            || !self.sticks(shortest, candidates, &sticky)
            || slots.all(|slot| sticky(*slot) == self.is_sticky(longest, *slot))
    }

    fn needs(&self) -> Needs {
        Needs {
            model: true,
            prompt: true,
            unread: UnreadPrompt::Length,
            cache_info: true,
            in_flight: self.gate.is_some(),
            tokens: self.gate.is_some(),
            random: self.exploration > 0.0,
            ..Needs::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduling::{InFlight, PrefixMatch, RequestView};
    use crate::testing::{pool, refused};

    fn filter(threshold: f64, exploration: f64, gate: Option<(f64, f64)>) -> PrefixCacheAffinityFilter {
        PrefixCacheAffinityFilter {
            producer: Some(ProducerId(0)),
            threshold,
            exploration,
            gate,
            salt: 0,
        }
    }

    /// Runs it for a prompt of this many blocks, of which the endpoints hold `matched` and have `tokens` in flight.
    fn with<T>(
        matched: &[u32],
        tokens: &[u64],
        (total, draw): (f64, u64),
        run: impl FnOnce(&Cycle<'_>, Vec<Slot>) -> T,
    ) -> T {
        let mut pool = pool(matched.iter().map(|_| Default::default()));
        for (slot, tokens) in (0..).zip(tokens) {
            let load = InFlight {
                tokens: *tokens,
                ..InFlight::default()
            };
            pool.set_load(Slot(slot), load);
        }
        let prefix = [PrefixMatch {
            matched,
            total,
            block_tokens: Some(64),
        }];
        let request = RequestView {
            prefix: &prefix,
            draw,
            ..RequestView::default()
        };
        let candidates = (0..).map(Slot).take(matched.len()).collect();
        let cycle = Cycle::new(&pool, request);
        run(&cycle, candidates)
    }

    fn kept(filter: &PrefixCacheAffinityFilter, matched: &[u32], tokens: &[u64], total: f64) -> Vec<u32> {
        with(matched, tokens, (total, 0), |cycle, mut candidates| {
            filter.filter(cycle, &mut candidates);
            candidates.iter().map(|slot| slot.0).collect()
        })
    }

    #[test]
    fn sticky_endpoints_are_kept() {
        let plain = filter(0.8, 0.0, None);
        assert_eq!(kept(&plain, &[8, 7, 10], &[], 10.0), [0, 2]);
        assert_eq!(kept(&plain, &[7, 0, 3], &[], 10.0), [0, 1, 2], "none is sticky");
        assert_eq!(kept(&plain, &[0, 0], &[], 0.0), [0, 1], "there is no prompt");
        assert_eq!(kept(&plain, &[0], &[], 10.0), [0]);
        assert_eq!(kept(&filter(0.0, 0.0, None), &[9, 0], &[], 9.0), [0, 1]);
        assert_eq!(kept(&filter(-1.0, 0.0, None), &[9, 0], &[], 9.0), [0, 1]);
        assert_eq!(kept(&filter(1.0, 0.0, None), &[9, 8], &[], 9.0), [0]);
    }

    #[test]
    fn sticky_endpoints_that_are_too_busy_keep_nobody_out() {
        // 1000 tokens a second, and two seconds more are accepted.
        let gated = filter(0.8, 0.0, Some((2_000.0, 1_000.0)));
        assert_eq!(kept(&gated, &[10, 0, 0], &[2_500, 500, 900], 10.0), [0]);
        assert_eq!(kept(&gated, &[10, 0, 0], &[2_501, 500, 900], 10.0), [0, 1, 2]);
        // The least busy one of each side counts.
        assert_eq!(kept(&gated, &[10, 9, 0], &[9_000, 100, 0], 10.0), [0, 1]);
        assert_eq!(kept(&gated, &[10, 9], &[9_000, 9_000], 10.0), [0, 1]);
    }

    #[test]
    fn exploring_requests_keep_all() {
        let explores = |exploration: f64| {
            let mut rng = fastrand::Rng::with_seed(7);
            let draws = (0..2_000).filter(|_| {
                with(&[10, 0], &[], (10.0, rng.u64(..)), |cycle, mut candidates| {
                    filter(0.8, exploration, None).filter(cycle, &mut candidates);
                    candidates.len() == 2
                })
            });
            draws.count()
        };
        assert_eq!(explores(0.0), 0);
        assert_eq!(explores(1.0), 2_000);
        let found = explores(0.1);
        assert!((150..250).contains(&found), "{found}");
    }

    /// All lengths from the shortest to the longest are tried where the filter says that they do not matter.
    #[test]
    fn what_moves_evenly_is_the_same_for_all_lengths() {
        let mut rng = fastrand::Rng::with_seed(11);
        let (mut even, mut all) = (0, 0);
        for _ in 0..4_000 {
            let endpoints = rng.usize(1..5);
            let shortest = rng.u32(1..12);
            let longest = shortest + rng.u32(0..12);
            let matched: Vec<u32> = (0..endpoints).map(|_| rng.u32(0..=shortest)).collect();
            let tokens: Vec<u64> = (0..endpoints).map(|_| rng.u64(0..4) * 1_000).collect();
            let gate = rng.bool().then_some((1_000.0 * f64::from(rng.u8(1..4)), 1_000.0));
            let filter = filter(f64::from(rng.u8(0..=10)) / 10.0, 0.0, gate);
            let at = |total: u32| kept(&filter, &matched, &tokens, f64::from(total));
            let moves_evenly = with(&matched, &tokens, (f64::from(shortest), 0), |low, candidates| {
                with(&matched, &tokens, (f64::from(longest), 0), |high, _| {
                    filter.moves_evenly(low, high, &candidates)
                })
            });
            if moves_evenly && at(shortest) == at(longest) {
                (shortest..=longest).for_each(|total| assert_eq!(at(total), at(shortest)));
                even += 1;
            }
            all += usize::from((shortest..=longest).all(|total| at(total) == at(shortest)));
        }
        assert!(even * 10 > all * 9, "{even} of {all} are recognised");
    }

    #[test]
    fn parameters_have_the_bounds_of_the_endpoint_picker() {
        for parameters in [
            "{affinityThreshold: 1.1}",
            "{explorationProbability: 1.1}",
            "{explorationProbability: -0.1}",
            "{maxTTFTPenaltyMs: -1}",
            "{ttftSource: guess}",
            "{peakPrefillThroughput: 0}",
            "{peakPrefillThroughput: -1}",
            "{maxTokensInFlightPenalty: 1}",
        ] {
            refused("prefix-cache-affinity-filter", parameters);
        }
        let text = |parameters: &str| {
            format!(
                "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n\
                 - {{type: prefix-cache-affinity-filter, parameters: {parameters}}}\n"
            )
        };
        for parameters in [
            "{affinityThreshold: -3, maxTTFTPenaltyMs: 0, peakPrefillThroughput: 0}",
            "{ttftSource: latencyPredictor, peakPrefillThroughput: 0}",
        ] {
            crate::config::load(&text(parameters)).unwrap();
        }
    }
}
