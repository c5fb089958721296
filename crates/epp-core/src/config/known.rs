//! Plugin types that the Endpoint Picker knows and that do not run here: those that a document may
//! hold because they change nothing here, and those that are refused.

use Here::{Approximated, Idle, Refused};

use crate::plugins::Standing;

/// The treatment of such a type here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Here {
    /// A document with it does not load.
    Refused,
    /// It may be declared and changes nothing here, nor would it change a decision.
    Idle,
    /// It may be declared and does nothing here, for which decisions may differ from the Endpoint Picker's.
    Approximated,
}

impl Elsewhere {
    /// Returns how it compares with the Endpoint Picker's; `None` if it is refused.
    pub fn standing(&self) -> Option<Standing> {
        match self.here {
            Refused => None,
            Approximated => Some(Standing::Approximated(self.why)),
            Idle => Some(Standing::NoEffect(self.why)),
        }
    }
}

/// A type that only the Endpoint Picker runs.
#[derive(Debug)]
pub struct Elsewhere {
    /// The type's name.
    pub name: &'static str,
    /// Why it does not run here, or what to use instead.
    pub why: &'static str,
    /// Its treatment here.
    pub here: Here,
}

/// The types, from llm-d-router of August 2026 and the Gateway API Inference Extension v0.5 to v1.5.
#[rustfmt::skip]
const ELSEWHERE: &[Elsewhere] = &[
    Elsewhere { name: "dcgm-data-source", why: "GPU metrics of nodes are not read here", here: Approximated },
    Elsewhere { name: "dcgm-extractor", why: "GPU metrics of nodes are not read here", here: Approximated },
    Elsewhere { name: "decision-tree-filter", why: "removed in v1.0; use scorers", here: Refused },
    Elsewhere { name: "destination-endpoint-served-verifier", why: "for conformance tests only", here: Idle },
    Elsewhere { name: "disaggregatedset-rollout-screener", why: "no endpoint is left out for its revision: rollouts are not watched", here: Approximated },
    Elsewhere { name: "endpoint-notification-source", why: "endpoints come from discovery, and every plugin learns of them", here: Idle },
    Elsewhere { name: "k8s-notification-source", why: "endpoints come from discovery, and every plugin learns of them", here: Idle },
    Elsewhere { name: "latency-slo-admitter", why: "every request is admitted: there is no latency predictor", here: Approximated },
    Elsewhere { name: "least-kv-cache-filter", why: "removed in v1.0; use kv-cache-utilization-scorer", here: Refused },
    Elsewhere { name: "least-queue-filter", why: "removed in v1.0; use queue-scorer", here: Refused },
    Elsewhere { name: "lora-affinity-filter", why: "removed in v1.0; use lora-affinity-scorer", here: Refused },
    Elsewhere { name: "low-queue-filter", why: "removed in v1.0; use queue-scorer", here: Refused },
    Elsewhere { name: "models-data-extractor", why: "no plugin of the Endpoint Picker decides by the models that servers list", here: Idle },
    Elsewhere { name: "models-data-source", why: "no plugin of the Endpoint Picker decides by the models that servers list", here: Idle },
    Elsewhere { name: "multicluster-file-discovery", why: "other clusters are not read: the endpoints are the members of an Envoy cluster", here: Approximated },
    Elsewhere { name: "multicluster-kv-cache-utilization-scorer", why: "nothing is scored by cluster: use one Envoy per cluster", here: Approximated },
    Elsewhere { name: "multicluster-metrics-data-source", why: "metrics of clusters are not read: use one Envoy per cluster", here: Approximated },
    Elsewhere { name: "multicluster-metrics-extractor", why: "metrics of clusters are not read: use one Envoy per cluster", here: Approximated },
    Elsewhere { name: "multicluster-prefix-cache-scorer", why: "nothing is scored by cluster: use one Envoy per cluster", here: Approximated },
    Elsewhere { name: "multicluster-queue-scorer", why: "nothing is scored by cluster: use one Envoy per cluster", here: Approximated },
    Elsewhere { name: "multicluster-session-affinity-filter", why: "sessions are not kept in a cluster: use one Envoy per cluster", here: Approximated },
    Elsewhere { name: "p2p-source-producer", why: "endpoints compute what they have not cached: no other is named as its source", here: Approximated },
    Elsewhere { name: "predicted-latency-producer", why: "no latency predictor is asked: latency-scorer uses its composite score", here: Approximated },
    Elsewhere { name: "predicted-latency-scorer", why: "nothing is scored: there is no latency predictor", here: Approximated },
    Elsewhere { name: "request-attribute-reporter", why: "writes dynamic metadata, which a Wasm filter cannot", here: Refused },
    Elsewhere { name: "slo-aware-profile-handler", why: "an experiment of GIE v1.2 to v1.4; use single-profile-handler", here: Refused },
    Elsewhere { name: "slo-aware-routing", why: "nothing is scored: there is no latency predictor", here: Approximated },
    Elsewhere { name: "slo-headroom-tier-filter", why: "all endpoints are kept, as without predictions: there is no latency predictor", here: Approximated },
    Elsewhere { name: "vertexai-parser", why: "gRPC bodies are not read here; such requests are routed by metrics", here: Refused },
    Elsewhere { name: "vllmgrpc-parser", why: "gRPC bodies are not read here; such requests are routed by metrics", here: Refused },
];

/// Types that the Endpoint Picker has deprecated, and what to use. They work as they did.
const DEPRECATED: [(&str, &str); 5] = [
    ("by-label", "label-selector-filter"),
    ("data-parallel-profile-handler", "an endpoint for each rank"),
    (
        "disagg-headers-handler",
        "disagg-profile-handler, which sets the headers itself",
    ),
    ("pd-profile-handler", "disagg-profile-handler"),
    (
        "precise-prefix-cache-scorer",
        "prefix-cache-scorer with precise-prefix-cache-producer",
    ),
];

/// Returns what to use instead of a deprecated type.
pub fn successor(kind: &str) -> Option<&'static str> {
    let mut deprecated = DEPRECATED.iter();
    let (_, instead) = deprecated.find(|(known, _)| *known == kind)?;
    Some(instead)
}

/// A type that runs only in the Endpoint Picker.
pub fn elsewhere(name: &str) -> Option<&'static Elsewhere> {
    ELSEWHERE.iter().find(|known| known.name == name)
}

/// All of these types, for tools that list them.
pub fn all_elsewhere() -> impl Iterator<Item = &'static Elsewhere> {
    ELSEWHERE.iter()
}
