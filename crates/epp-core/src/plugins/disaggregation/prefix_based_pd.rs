//! `prefix-based-pd-decider`: the prompt is computed by an endpoint of the prefill profile if the decode
//! endpoint does not hold enough of it in its KV cache.
//!
//! For `deciders.prefill` of `disagg-profile-handler`. With t tokens of prompt, of which the decode endpoint
//! holds c in whole blocks (the prefix match), it says yes if t is at least `promptTokens` and t − c at
//! least `nonCachedTokens`. A prompt counts up to the prompt window (131072 tokens by default).
//!
//! While it is declared, a request with the header `Prefer: if-available` asks to be served from the
//! cache or not at all: if t − c is at least `nonCachedTokens` at its endpoint, it gets a local reply with
//! status 412, whatever the failure mode. One whose prompt could not be read gets it, too, unless `envoy-proxy`
//! has `failureMode: FailOpen`. Of several deciders of this type the first one counts.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `nonCachedTokens` | 0 | the least that must be missing in the cache; 0: never, and no request gets a 412 |
//! | `promptTokens` | 0 | the least length of a prompt |
//! | `prefixMatchInfoProducerName` | the only producer | whose matches |
//!
//! ```yaml
//! - type: prefix-based-pd-decider
//!   parameters: {nonCachedTokens: 512}
//! - type: disagg-profile-handler
//!   parameters:
//!     deciders: {prefill: prefix-based-pd-decider}
//! schedulingProfiles: [{name: prefill}, {name: decode}]
//! ```

use std::sync::Arc;

use crate::plugins::producer::approx_prefix_cache;
use crate::plugins::{Build, Capabilities, Capability, Parity, PluginType, Standing};
use crate::scheduling::{
    Cycle, Decider, Declined, Gate, Needs, ProducerId, RequestView, Slot, UnreadPrompt,
};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "prefix-based-pd-decider",
    former_names: &[],
    provides: &[Capability::Decider],
    references: &[approx_prefix_cache::REFERENCE],
    build,
    parity: Parity::of(Standing::Differs(
        "a prompt counts up to the prompt window",
    )),
};

#[derive(Debug)]
struct PrefixBasedPdDecider {
    /// Tokens that must be missing in the cache; 0 turns it off.
    least_missing: u32,
    least_prompt: u32,
    producer: Option<ProducerId>,
}

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    let producer = build.refer(&approx_prefix_cache::REFERENCE);
    let producer = producer.unwrap_or_else(|| build.add(&approx_prefix_cache::TYPE));
    let least_missing = build.fields.natural("nonCachedTokens", 0);
    let least_prompt = build.fields.natural("promptTokens", 0);
    let decider = Arc::new(PrefixBasedPdDecider {
        least_missing,
        least_prompt,
        producer: producer.capabilities.prefix_producer,
    });
    let gate = (least_missing > 0).then(|| Gate {
        prefer: build.header("nonCachedTokens", "prefer"),
        decider: decider.clone(),
    });
    Capabilities {
        decider: Some(decider),
        gate,
        ..Capabilities::default()
    }
}

impl PrefixBasedPdDecider {
    /// Returns the tokens of a prompt that an endpoint does not hold.
    fn missing(&self, request: &RequestView<'_>, slot: Slot) -> f64 {
        let found = self.producer.and_then(|id| request.prefix_match(id));
        let cached = found.map_or(0.0, |prefix| {
            f64::from(prefix.blocks(slot)) * f64::from(prefix.block_tokens.unwrap_or(0))
        });
        request.cost.prompt - cached
    }
}

impl Decider for PrefixBasedPdDecider {
    fn decide(&self, cycle: &Cycle<'_>, primary: Option<Slot>) -> Result<(), Declined> {
        if self.least_missing == 0 {
            return Err(Declined::TurnedOff);
        }
        let primary = primary.ok_or(Declined::NoPrimary)?;
        let tokens = cycle.request.cost.prompt;
        let least = self.least_prompt.max(self.least_missing);
        if tokens < f64::from(least) {
            return Err(Declined::Short { tokens, least });
        }
        let missing = self.missing(&cycle.request, primary);
        if missing < f64::from(self.least_missing) {
            let least = self.least_missing;
            return Err(Declined::Cached { missing, least });
        }
        Ok(())
    }

    fn misses(&self, cycle: &Cycle<'_>, primary: Slot) -> bool {
        self.missing(&cycle.request, primary) >= f64::from(self.least_missing)
    }

    fn needs(&self) -> Needs {
        Needs {
            model: true,
            prompt: true,
            tokens: true,
            cache_info: true,
            unread: UnreadPrompt::Length,
            ..Needs::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduling::{Cost, HeaderId, HeaderValues, PrefixMatch};
    use crate::testing::pool;

    /// A prompt of ten tokens in blocks of one, of which this many are cached.
    fn decides(least_missing: u32, least_prompt: u32, cached: u32) -> (bool, bool) {
        let decider = Arc::new(PrefixBasedPdDecider {
            least_missing,
            least_prompt,
            producer: Some(ProducerId(0)),
        });
        let gate = Gate {
            prefer: HeaderId(0),
            decider: decider.clone(),
        };
        let prefix = [PrefixMatch {
            matched: &[cached],
            total: 10.0,
            block_tokens: Some(1),
        }];
        let mut headers = HeaderValues::default();
        headers.set([Some(&b"wait=1, If-Available"[..])]);
        let request = RequestView {
            headers: &headers,
            prefix: &prefix,
            cost: Cost {
                prompt: 10.0,
                ..Cost::default()
            },
            ..RequestView::default()
        };
        let pool = pool([Default::default()]);
        let cycle = Cycle::new(&pool, request);
        assert!(decider.decide(&cycle, None).is_err());
        (
            decider.decide(&cycle, Some(Slot(0))).is_ok(),
            gate.refuses(&cycle, Slot(0), true),
        )
    }

    #[test]
    fn the_reference_vectors_hold() {
        for (least_missing, least_prompt, cached, expected) in [
            (5, 0, 8, false),
            (5, 0, 5, true),
            (3, 0, 2, true),
            (1, 0, 10, false),
            (5, 0, 0, true),
            (20, 0, 0, false),
            (5, 20, 0, false),
            (5, 10, 5, true),
            (0, 0, 0, false),
        ] {
            let (found, _) = decides(least_missing, least_prompt, cached);
            assert_eq!(found, expected, "{least_missing} {least_prompt} {cached}");
        }
    }

    #[test]
    fn a_request_that_prefers_the_cache_is_refused_where_too_much_is_missing() {
        for (least_missing, cached, refused) in
            [(5, 8, false), (5, 5, true), (20, 0, false)]
        {
            let (_, found) = decides(least_missing, 0, cached);
            assert_eq!(found, refused, "{least_missing} {cached}");
        }
    }
}
