//! `inflight-load-producer`: counts requests in flight at each endpoint, over all workers of this
//! Envoy: requests, and the tokens that they still cost it.
//!
//! A request counts from its decision, at the first endpoint that was picked, to its end, however
//! it ends. Its tokens are those of its prompt that the endpoint does not hold in its KV cache yet,
//! as far as the prefix match shows; they count until the first bytes of the response's body, when
//! the prompt has been computed. With `addEstimatedOutputTokens` an estimate of the response's tokens
//! comes on top, min(round(prompt × ratio), what the client allows, what is set here), and all of
//! it counts to the end. A prompt counts up to the prefix window (131072 tokens by default): what
//! lies beyond is not read.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `addEstimatedOutputTokens` | false | whether tokens of the response are counted in advance |
//! | `outputRatio` | 1.5 | tokens of a response per token of its prompt, 0 or more |
//! | `maxEstimatedOutputTokens` | – | the most that is counted for a response |
//! | `prefixMatchInfoProducerName` | the only producer | whose matches show what is cached |
//! | `syncCrossReplicaState` | true | no effect: not shared between Envoys |
//!
//! Tokens are counted where a plugin reads them, such as `token-load-scorer` and
//! `prefix-cache-affinity-filter`. Created with all defaults where it is not declared.
//!
//! ```yaml
//! - type: inflight-load-producer
//!   parameters: {addEstimatedOutputTokens: true, maxEstimatedOutputTokens: 1000}
//! ```

use super::approx_prefix_cache;
use crate::plugins::{Build, Capabilities, Capability, Parity, PluginType, Reference, Standing};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "inflight-load-producer",
    former_names: &[],
    provides: &[Capability::InflightLoad],
    references: &[approx_prefix_cache::REFERENCE],
    build,
    parity: Parity {
        plugin: Standing::Differs(
            "a prompt counts up to the prefix window, and tokens where a plugin reads them",
        ),
        parameters: &[(
            "syncCrossReplicaState",
            Standing::NoEffect("not shared between Envoys"),
        )],
    },
};

/// The settings of the counts of requests in flight.
#[derive(Debug, Clone, PartialEq)]
pub struct InflightLoad {
    /// Whether tokens of the response are counted in advance.
    pub counts_output: bool,
    /// Tokens of a response per token of its prompt.
    pub output_ratio: f64,
    /// The most that is counted for a response.
    pub max_output: Option<f64>,
    /// The producer whose matches say what is cached, if not the only one.
    pub prefix_producer: Option<String>,
}

impl Default for InflightLoad {
    fn default() -> Self {
        Self {
            counts_output: false,
            output_ratio: 1.5,
            max_output: None,
            prefix_producer: None,
        }
    }
}

impl InflightLoad {
    /// Returns the tokens counted in advance for the response to a prompt of this length, of which the client allows
    /// this many.
    pub fn output(&self, prompt: f64, allowed: Option<f64>) -> f64 {
        if !self.counts_output || prompt <= 0.0 {
            return 0.0;
        }
        let estimate = (prompt * self.output_ratio).round();
        let estimate = allowed.map_or(estimate, |most| estimate.min(most));
        self.max_output.map_or(estimate, |max| estimate.min(max))
    }
}

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    let default = InflightLoad::default();
    let fields = &mut build.fields;
    let counts_output = fields.boolean("addEstimatedOutputTokens", default.counts_output);
    let output_ratio = fields.number("outputRatio", default.output_ratio, (0.0, f64::MAX));
    let max_output = fields
        .optional_natural("maxEstimatedOutputTokens")
        .map(f64::from);
    fields.boolean("syncCrossReplicaState", true);
    let prefix_producer = build.refer_or_add(&approx_prefix_cache::REFERENCE);
    Capabilities {
        inflight_load: Some(InflightLoad {
            counts_output,
            output_ratio,
            max_output,
            prefix_producer: prefix_producer.map(|producer| producer.name.clone()),
        }),
        ..Capabilities::default()
    }
}

/// A scorer's parameter that names the producer whose counts it reads.
pub const REFERENCE: Reference = Reference {
    parameter: "inFlightLoadProducerName",
    to: Capability::InflightLoad,
    default: Some(&TYPE),
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_estimates_hold() {
        let estimator = |output_ratio, max_output| InflightLoad {
            counts_output: true,
            output_ratio,
            max_output,
            ..InflightLoad::default()
        };
        for (ratio, input, total) in [
            (1.5, 1.0, 3.0),
            (1.5, 10.0, 25.0),
            (2.0, 4.0, 12.0),
            (2.0, 10.0, 30.0),
            (1.5, 0.0, 0.0),
            (0.0, 10.0, 10.0),
        ] {
            assert_eq!(input + estimator(ratio, None).output(input, None), total);
        }
        for (allowed, most, expected) in [
            (Some(50.0), None, 50.0),
            (Some(500.0), None, 150.0),
            (Some(0.0), None, 0.0),
            (None, Some(40.0), 40.0),
            (Some(50.0), Some(40.0), 40.0),
            (Some(30.0), Some(40.0), 30.0),
        ] {
            assert_eq!(estimator(1.5, most).output(100.0, allowed), expected);
        }
        assert_eq!(10.0 + estimator(1.5, None).output(10.0, Some(3.0)), 13.0);
        assert_eq!(InflightLoad::default().output(100.0, None), 0.0);
    }
}
