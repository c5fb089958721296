//! The documents that the charts bring themselves, for values that name no other.

use serde_json::{json, Value};

use super::release::Release;
use super::sources::Chart;

/// The name under which the charts have their default document.
pub const DEFAULT: &str = "default-plugins.yaml";
/// The name of llm-d-router's second document, which reads no bodies.
const PAYLOAD_AGNOSTIC: &str = "payload-agnostic.yaml";

/// What values change in a chart's document.
pub struct Options {
    /// Whether the latency predictor is on.
    pub predicts: bool,
    /// The parsers to declare.
    pub parsers: Vec<String>,
    /// The Endpoint Picker's release, if it is known.
    pub release: Option<Release>,
}

/// Returns a chart's own document of this name.
pub fn document(chart: Chart, name: &str, options: &Options) -> Option<Value> {
    match (chart, name) {
        (Chart::Gie | Chart::Router, DEFAULT) => Some(default(chart, options)),
        (Chart::Router, PAYLOAD_AGNOSTIC) => Some(payload_agnostic()),
        _ => None,
    }
}

/// Returns the built-in document of llm-d-router, which applies if none is given.
pub fn built_in() -> Value {
    let options = Options {
        predicts: false,
        parsers: Vec::new(),
        release: None,
    };
    default(Chart::Router, &options)
}

fn default(chart: Chart, options: &Options) -> Value {
    let mut plugins = vec![
        json!({"type": "queue-scorer"}),
        json!({"type": "kv-cache-utilization-scorer"}),
        json!({"type": "prefix-cache-scorer"}),
    ];
    plugins.extend(options.parsers.iter().map(|parser| json!({"type": parser})));
    let references = match options.predicts {
        true => {
            plugins.extend(predicting(chart));
            [
                "predicted-latency-producer",
                "strict-affinity-filter",
                "slo-headroom-tier-filter",
                "loose-affinity-filter",
                "latency-scorer",
                "weighted-random-picker",
            ]
            .map(|name| json!({"pluginRef": name}))
            .to_vec()
        }
        // The first charts gave no weights.
        false if chart == Chart::Gie && options.release.is_some_and(|one| one < Release(1, 2)) => [
            "queue-scorer",
            "kv-cache-utilization-scorer",
            "prefix-cache-scorer",
        ]
        .map(|name| json!({"pluginRef": name}))
        .to_vec(),
        false => vec![
            json!({"pluginRef": "queue-scorer", "weight": 2}),
            json!({"pluginRef": "kv-cache-utilization-scorer", "weight": 2}),
            json!({"pluginRef": "prefix-cache-scorer", "weight": 3}),
        ],
    };
    let version = match chart {
        Chart::Gie => "inference.networking.x-k8s.io/v1alpha1",
        Chart::Router | Chart::ModelService => "llm-d.ai/v1alpha1",
    };
    json!({
        "apiVersion": version,
        "kind": "EndpointPickerConfig",
        "plugins": plugins,
        "schedulingProfiles": [{"name": "default", "plugins": references}],
    })
}

/// Returns the plugins of the chart's document with a latency predictor.
fn predicting(chart: Chart) -> Vec<Value> {
    let affinity = |name: &str, threshold: f64| {
        let parameters = match chart {
            Chart::Router => json!({
                "affinityThreshold": threshold,
                "ttftSource": "latencyPredictor",
                "maxTTFTPenaltyMs": 5000,
            }),
            Chart::Gie | Chart::ModelService => json!({"affinityThreshold": threshold}),
        };
        json!({"name": name, "type": "prefix-cache-affinity-filter", "parameters": parameters})
    };
    vec![
        json!({"type": "predicted-latency-producer"}),
        affinity("strict-affinity-filter", 0.99),
        affinity("loose-affinity-filter", 0.8),
        json!({"type": "latency-scorer"}),
        json!({"type": "weighted-random-picker"}),
        json!({"type": "slo-headroom-tier-filter"}),
        json!({"type": "latency-slo-admitter"}),
    ]
}

fn payload_agnostic() -> Value {
    json!({
        "apiVersion": "llm-d.ai/v1alpha1",
        "kind": "EndpointPickerConfig",
        "plugins": [
            {"type": "passthrough-parser"},
            {"type": "active-request-scorer"},
            {"type": "session-affinity-scorer"},
        ],
        "requestHandler": {"parsers": [{"pluginRef": "passthrough-parser"}]},
        "schedulingProfiles": [{
            "name": "default",
            "plugins": [
                {"pluginRef": "active-request-scorer", "weight": 1},
                {"pluginRef": "session-affinity-scorer", "weight": 1},
            ],
        }],
    })
}
