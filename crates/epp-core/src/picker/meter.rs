//! What the outside sees: the names of our counters, gauges and distributions.
//!
//! A name carries its labels as `name;label=value;…`, which Envoy's `stats_tags` turn into labels
//! (envoy/envoy.yaml has the expressions). Names, labels and bounds are the Endpoint Picker's
//! (llm-d-router) where the meaning is the same.

/// The number of a defined metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetricId(pub u32);

/// Where metrics go.
pub trait Meter: std::fmt::Debug + Send {
    /// Defines a counter (it only goes up) or a gauge; `None` where it cannot be had.
    fn define(&mut self, gauge: bool, name: &str) -> Option<MetricId>;
    /// Adds to a counter, or moves a gauge.
    fn add(&mut self, metric: MetricId, by: i64);
    /// Sets a gauge.
    fn set(&mut self, metric: MetricId, value: u64);
}

/// Statistics that are discarded.
#[derive(Debug)]
pub struct Unmetered;

impl Meter for Unmetered {
    fn define(&mut self, _: bool, _: &str) -> Option<MetricId> {
        None
    }

    fn add(&mut self, _: MetricId, _: i64) {}

    fn set(&mut self, _: MetricId, _: u64) {}
}

/// How a metric counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Only up.
    Counter,
    /// Any value.
    Gauge,
    /// A Prometheus histogram with these bounds, in the unit that its name says.
    Distribution(&'static [f64]),
}

/// A metric of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Picks of an endpoint.
    Picks,
    /// Time from having what a decision needs to the decision, of one decision in seventeen.
    DecisionTime,
    /// Time to look up what one part of a body brought of a prompt in the prefix index, of one in
    /// seventeen.
    LookUpTime,
    /// Requests that got no endpoint, by error.
    RequestErrors,
    /// Requests left to Envoy's fallback policy, by error.
    Fallbacks,
    /// Requests that another endpoint than the picked one served.
    ServedElsewhere,
    /// Times that an endpoint began to be avoided, by reason.
    Avoidances,
    /// Whether an endpoint is avoided, by reason.
    Avoided,
    /// Times that failures were found to be the requests' fault and not the endpoints', by reason.
    BlamedRequests,
    /// What decisions rest on: 2 metrics, 1 what this Envoy knows itself, 0 nothing yet.
    Rung,
    /// How long ago discovery answered last.
    MembersAge,
    /// Memory of one VM.
    Memory,
    /// Memory that a VM keeps of what it read of requests.
    PromptBytes,
    /// Bound of that memory.
    PromptBound,
    /// Share of a prompt's blocks that the picked endpoint held.
    PrefixHitRatio,
    /// Entries of the prefix index.
    PrefixIndexSize,
    /// Memory of the prefix index.
    PrefixIndexBytes,
    /// Bound of the prefix index's memory.
    PrefixIndexBound,
    /// Entries of the prefix index dropped for newer ones.
    PrefixIndexEvictions,
    /// Requests in flight at an endpoint.
    InflightRequests,
    /// Tokens that these still cost it.
    InflightTokens,
    /// VMs that tell each other what they know.
    Sharers,
    /// Bytes that a VM wrote for the others.
    SharedWritten,
    /// Bytes that a VM read of the others'.
    SharedRead,
    /// Requests decided before their body ended.
    EarlyReleases,
    /// Requests decided with what was known: their body was too long, or stopped coming.
    ForcedReleases,
    /// Whether bodies are read: 1, or 0 in headers-only mode.
    BodyMode,
    /// Requests held now.
    Held,
    /// Age of an endpoint's metrics.
    ScrapeAge,
    /// Failed scrapes of an endpoint.
    ScrapeErrors,
    /// Whether an endpoint's metrics can be trusted: 2 fresh, 1 stale, 0 never scraped.
    Freshness,
    /// Waiting requests of an endpoint, as its metrics say.
    QueueSize,
    /// Running requests of an endpoint.
    RunningRequests,
    /// KV-cache utilization of an endpoint, in millionths: Envoy's gauges are whole numbers.
    KvUsage,
    /// Endpoints that may be picked.
    ReadyEndpoints,
    /// Shared values that were not ours, or torn.
    ForeignValues,
    /// Requests whose model was to be rewritten and was not found in the body.
    MissedRewrites,
    /// Panics that were caught, by callback.
    CaughtPanics,
    /// Configurations that were refused.
    RejectedConfigurations,
    /// Time from a request's headers to the first bytes of its answer's body.
    TimeToFirstToken,
    /// Time per token after the first, of streamed answers whose usage was read.
    TimePerToken,
    /// Time per token of whole answers whose usage was read.
    NormalizedTimePerToken,
    /// Tokens of prompts, as the model servers count them.
    InputTokens,
    /// Tokens of answers.
    OutputTokens,
    /// Tokens of prompts that the model server had in its cache.
    CachedTokens,
    /// Share of a prompt's tokens that the model server had in its cache.
    CachedShare,
    /// Tokens that the prefix index expected to be cached, where the model server said how many were.
    PredictedCachedTokens,
    /// Tokens that were.
    ReportedCachedTokens,
    /// Answers whose usage was not read, because the worker was reading as many as it may.
    UnreadAnswers,
}

/// Counts a configuration that was refused. What is refused names no pool, so that this has no label;
/// Envoy tries a configuration in a VM of its own before any other gets it, so that it has no pool
/// either.
pub fn count_rejected(meter: &mut dyn Meter) {
    let (_, name) = Metric::RejectedConfigurations.spec();
    if let Some(id) = meter.define(false, name) {
        meter.add(id, 1);
    }
}

/// Bounds of decisions and look-ups, in seconds.
const DECISION: &[f64] = &[
    0.000_001, 0.000_002, 0.000_005, 0.000_01, 0.000_02, 0.000_05, 0.0001, 0.0002, 0.0005, 0.001,
    0.01, 0.1,
];
/// Bounds of shares.
const SHARE: &[f64] = &[0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0];
const FIRST_TOKEN: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0,
    10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 120.0,
];
const PER_TOKEN: &[f64] = &[
    0.0005, 0.00205, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.125, 0.15, 0.2, 0.3, 0.4, 0.5,
    0.6, 0.8, 1.0, 2.0,
];
const NORMALIZED: &[f64] = &[
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
];
// The Endpoint Picker's bounds say 32778 where 32768 must be meant: dashboards compare by them.
const INPUT: &[f64] = &[
    1.0,
    8.0,
    16.0,
    32.0,
    64.0,
    128.0,
    256.0,
    512.0,
    1024.0,
    2048.0,
    4096.0,
    8192.0,
    16384.0,
    32778.0,
    65536.0,
    131_072.0,
    262_144.0,
    524_288.0,
    1_048_576.0,
];
const OUTPUT: &[f64] = &[
    1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0,
];

const STREAMING_TPOT: &str = "llm_d_epp_request_streaming_tpot_seconds";

impl Metric {
    /// How it counts, and its name.
    // A table, long as it is.
    #[allow(clippy::too_many_lines)]
    pub(super) const fn spec(self) -> (Kind, &'static str) {
        use Kind::{Counter, Distribution, Gauge};
        match self {
            Self::Picks => (Counter, "llm_d_epp_scheduler_attempts_total"),
            Self::DecisionTime => (
                Distribution(DECISION),
                "llm_d_epp_scheduler_e2e_duration_seconds",
            ),
            Self::LookUpTime => (
                Distribution(DECISION),
                "epp_wasm_prefix_lookup_duration_seconds",
            ),
            Self::RequestErrors => (Counter, "llm_d_epp_request_error_total"),
            Self::Fallbacks => (Counter, "epp_wasm_fallback_total"),
            Self::ServedElsewhere => (Counter, "epp_wasm_served_elsewhere_total"),
            Self::Avoidances => (Counter, "epp_wasm_ejections_total"),
            Self::Avoided => (Gauge, "epp_wasm_endpoint_ejected"),
            Self::BlamedRequests => (Counter, "epp_wasm_ejections_suppressed_total"),
            Self::Rung => (Gauge, "epp_wasm_decision_mode"),
            Self::MembersAge => (Gauge, "epp_wasm_members_age_milliseconds"),
            Self::Memory => (Gauge, "epp_wasm_vm_memory_bytes"),
            Self::PromptBytes => (Gauge, "epp_wasm_prompt_bytes"),
            Self::PromptBound => (Gauge, "epp_wasm_prompt_limit_bytes"),
            Self::PrefixHitRatio => (Distribution(SHARE), "llm_d_epp_prefix_indexer_hit_ratio"),
            Self::PrefixIndexSize => (Gauge, "llm_d_epp_prefix_indexer_size"),
            Self::PrefixIndexBytes => (Gauge, "epp_wasm_prefix_indexer_bytes"),
            Self::PrefixIndexBound => (Gauge, "epp_wasm_prefix_indexer_limit_bytes"),
            Self::PrefixIndexEvictions => (Counter, "epp_wasm_prefix_indexer_evictions_total"),
            Self::InflightRequests => (Gauge, "llm_d_epp_inflight_requests"),
            Self::InflightTokens => (Gauge, "llm_d_epp_inflight_tokens"),
            Self::Sharers => (Gauge, "epp_wasm_sharing_vms"),
            Self::SharedWritten => (Counter, "epp_wasm_shared_written_bytes_total"),
            Self::SharedRead => (Counter, "epp_wasm_shared_read_bytes_total"),
            Self::EarlyReleases => (Counter, "epp_wasm_early_release_total"),
            Self::ForcedReleases => (Counter, "epp_wasm_forced_release_total"),
            Self::BodyMode => (Gauge, "epp_wasm_reads_bodies"),
            Self::Held => (Gauge, "epp_wasm_held_requests"),
            Self::ScrapeAge => (Gauge, "epp_wasm_scrape_age_milliseconds"),
            Self::ScrapeErrors => (Counter, "llm_d_epp_datalayer_poll_errors_total"),
            Self::Freshness => (Gauge, "epp_wasm_endpoint_freshness"),
            Self::QueueSize => (Gauge, "llm_d_epp_per_endpoint_queue_size"),
            Self::RunningRequests => (Gauge, "epp_wasm_per_endpoint_running_requests"),
            Self::KvUsage => (Gauge, "epp_wasm_per_endpoint_kv_cache_utilization_ppm"),
            Self::ReadyEndpoints => (Gauge, "llm_d_epp_ready_endpoints"),
            Self::ForeignValues => (Counter, "epp_wasm_unrecognized_values_total"),
            Self::MissedRewrites => (Counter, "epp_wasm_missed_rewrites_total"),
            Self::CaughtPanics => (Counter, "epp_wasm_caught_panics_total"),
            Self::RejectedConfigurations => (Counter, "epp_wasm_rejected_configurations_total"),
            Self::TimeToFirstToken => (Distribution(FIRST_TOKEN), "llm_d_epp_request_ttft_seconds"),
            Self::TimePerToken => (Distribution(PER_TOKEN), STREAMING_TPOT),
            Self::NormalizedTimePerToken => {
                (Distribution(NORMALIZED), "llm_d_epp_request_ntpot_seconds")
            }
            Self::InputTokens => (Distribution(INPUT), "llm_d_epp_request_input_tokens"),
            Self::OutputTokens => (Distribution(OUTPUT), "llm_d_epp_request_output_tokens"),
            Self::CachedTokens => (Distribution(INPUT), "llm_d_epp_request_cached_tokens"),
            Self::CachedShare => (Distribution(SHARE), "epp_wasm_request_cached_ratio"),
            Self::PredictedCachedTokens => (Counter, "epp_wasm_predicted_cached_tokens_total"),
            Self::ReportedCachedTokens => (Counter, "epp_wasm_reported_cached_tokens_total"),
            Self::UnreadAnswers => (Counter, "epp_wasm_unread_responses_total"),
        }
    }
}
