//! Plugin types that the Endpoint Picker knows and that do not run here: those that a document may
//! hold because they change nothing here, and those that are refused.

/// Why flow control has no effect.
pub const NO_QUEUE: &str = "requests are never queued in the proxy";

/// Why saturation detection has no effect.
pub const NO_SHEDDING: &str = "requests have no priority in the proxy, so that none is shed";

/// Saturation detectors. In a profile the Endpoint Picker runs them as filters.
const DETECTORS: &[&str] = &["concurrency-detector", "utilization-detector"];

/// Policies of flow control, by their names in llm-d-router and in the Gateway API Inference
/// Extension v1.4 and v1.5. Without flow control they change nothing in the Endpoint Picker, either.
const POLICIES: &[&str] = &[
    "edf-ordering-policy",
    "eviction-priority-then-time-ordering",
    "eviction-sheddable-filter",
    "fcfs-ordering-policy",
    "global-strict-fairness-policy",
    "priority-holdback-policy",
    "priority-then-time-eviction-order-policy",
    "program-aware-fairness",
    "round-robin-fairness-policy",
    "sheddable-eviction-filter",
    "slo-deadline-ordering-policy",
    "soft-reflective-ceiling-policy",
    "static-usage-limit-policy",
];

/// A type that may be declared and changes nothing here.
#[derive(Debug, Clone, Copy)]
pub struct Idle {
    /// The type's name.
    pub name: &'static str,
    /// Why it changes nothing.
    pub why: &'static str,
    /// Whether a profile that refers to it filters by it, which does not work here.
    pub filters: bool,
}

/// All types that may be declared and change nothing here.
pub fn all_idle() -> impl Iterator<Item = Idle> {
    let kinds = [(POLICIES, NO_QUEUE, false), (DETECTORS, NO_SHEDDING, true)];
    kinds
        .into_iter()
        .flat_map(|(names, why, filters)| names.iter().map(move |name| Idle { name, why, filters }))
}

/// The type of this name that may be declared and changes nothing here.
pub fn idle(name: &str) -> Option<Idle> {
    all_idle().find(|idle| idle.name == name)
}

/// Type names with what to use instead, or why not; from llm-d-router of August 2026 and the
/// Gateway API Inference Extension v0.5 to v1.5.
const ELSEWHERE: &[(&str, &str)] = &[
    ("agent-identity", "not supported yet"),
    ("always-disagg-multimodal-decider", "prefill/decode disaggregation is not supported yet"),
    ("always-disagg-pd-decider", "prefill/decode disaggregation is not supported yet"),
    ("burst-prefix-cache-producer", "batching requests needs a queue; use approx-prefix-cache-producer"),
    ("by-label", "not supported yet; let discovery name the endpoints"),
    ("by-label-selector", "not supported yet; let discovery name the endpoints"),
    ("context-length-aware", "not supported yet"),
    ("data-parallel-profile-handler", "list each rank as an endpoint of its own"),
    ("dcgm-data-source", "not supported yet"),
    ("dcgm-extractor", "not supported yet"),
    ("decision-tree-filter", "gone since v1.0; use scorers"),
    ("decode-filter", "prefill/decode disaggregation is not supported yet"),
    ("destination-endpoint-served-verifier", "for conformance tests only; leave it out"),
    ("disagg-headers-handler", "prefill/decode disaggregation is not supported yet"),
    ("disagg-profile-handler", "prefill/decode disaggregation is not supported yet"),
    ("disaggregatedset-rollout-screener", "needs Kubernetes watches; use envoy-cluster-discovery"),
    ("encode-filter", "prefill/decode disaggregation is not supported yet"),
    ("endpoint-attribute-filter", "not supported yet"),
    ("endpoint-attribute-scorer", "not supported yet"),
    ("endpoint-notification-source", "needs Kubernetes watches; use envoy-cluster-discovery"),
    ("file-discovery", "a filter reads no files; use static-discovery, whose endpoints have the same schema, or envoy-cluster-discovery"),
    ("header-based-testing-filter", "not supported yet"),
    ("header-label-affinity-scorer", "not supported yet"),
    ("header-profile-handler", "not supported yet"),
    ("k8s-notification-source", "needs Kubernetes watches; use envoy-cluster-discovery"),
    ("kv-cache-scorer", "renamed; use kv-cache-utilization-scorer"),
    ("label-selector-filter", "not supported yet; let discovery name the endpoints"),
    ("latency-scorer", "needs the latency predictor's sidecar"),
    ("latency-slo-admitter", "needs the latency predictor's sidecar"),
    ("least-kv-cache-filter", "gone since v1.0; use kv-cache-utilization-scorer"),
    ("least-queue-filter", "gone since v1.0; use queue-scorer"),
    ("load-aware-scorer", "not supported yet; use queue-scorer"),
    ("lora-affinity-filter", "gone since v1.0; use lora-affinity-scorer"),
    ("low-queue-filter", "gone since v1.0; use queue-scorer"),
    ("mm-embeddings-cache-producer", "not supported yet"),
    ("mm-embeddings-cache-scorer", "not supported yet"),
    ("models-data-extractor", "not supported yet"),
    ("models-data-source", "not supported yet"),
    ("multicluster-file-discovery", "a filter reads no files; use envoy-cluster-discovery"),
    ("multicluster-kv-cache-utilization-scorer", "use one Envoy per cluster"),
    ("multicluster-metrics-data-source", "use one Envoy per cluster"),
    ("multicluster-metrics-extractor", "use one Envoy per cluster"),
    ("multicluster-prefix-cache-scorer", "use one Envoy per cluster"),
    ("multicluster-queue-scorer", "use one Envoy per cluster"),
    ("multicluster-session-affinity-filter", "use one Envoy per cluster"),
    ("no-hit-lru-scorer", "not supported yet"),
    ("p2p-source-producer", "not supported yet"),
    ("pd-profile-handler", "prefill/decode disaggregation is not supported yet"),
    ("precise-prefix-cache-producer", "needs KV events over ZMQ; use approx-prefix-cache-producer"),
    ("precise-prefix-cache-scorer", "needs KV events over ZMQ; use prefix-cache-scorer"),
    ("predicted-latency-producer", "needs the latency predictor's sidecar"),
    ("predicted-latency-scorer", "needs the latency predictor's sidecar"),
    ("prefill-filter", "prefill/decode disaggregation is not supported yet"),
    ("prefill-header-handler", "prefill/decode disaggregation is not supported yet"),
    ("prefix-based-pd-decider", "prefill/decode disaggregation is not supported yet"),
    ("prefix-cache-affinity-filter", "not supported yet; use prefix-cache-scorer"),
    ("probabilistic-admitter", "not supported yet"),
    ("request-attribute-reporter", "not supported yet"),
    ("session-affinity-filter", "not supported yet"),
    ("session-affinity-scorer", "not supported yet; prefix-cache-scorer keeps conversations together"),
    ("session-id-producer", "not supported yet"),
    ("sglanghttp-parser", "always on here: leave it out"),
    ("slo-aware-profile-handler", "needs the latency predictor's sidecar"),
    ("slo-aware-routing", "needs the latency predictor's sidecar"),
    ("slo-headroom-tier-filter", "needs the latency predictor's sidecar"),
    ("tokenizer", "renamed; use token-producer"),
    ("topology-affinity-filter", "not supported yet"),
    ("topology-affinity-scorer", "not supported yet"),
    ("topology-extractor", "not supported yet"),
    ("utilization-filter", "not supported yet"),
    ("vertexai-parser", "gRPC bodies are not read here; such requests are routed by metrics"),
    ("vllmgrpc-parser", "gRPC bodies are not read here; such requests are routed by metrics"),
];

/// What to do instead of a type that runs only in the Endpoint Picker.
pub fn elsewhere(name: &str) -> Option<&'static str> {
    let found = ELSEWHERE.iter().find(|(known, _)| *known == name)?;
    Some(found.1)
}

/// All of these types, for tools that tell of them.
pub fn all_elsewhere() -> impl Iterator<Item = &'static str> {
    ELSEWHERE.iter().map(|(name, _)| *name)
}
