//! The catalogue: the metrics that there are.
//!
//! Envoy's `stats_tags` turn the labels in a name into labels of its own (`envoy/envoy.yaml` has the
//! expressions). Names, labels and bounds are the Endpoint Picker's (llm-d-router) where the meaning is the same.

use std::marker::PhantomData;

use super::labels::{
    Build, Callback, Departed, Disaggregated, DryRun, Ejection, Endpoint, ErrorCode, Flow,
    ForcedRelease, Found, Labels, Model, NoLabels, NoPool, Picked, PollError, Priority,
    ReportStatus, RouteCluster, SaturationStage, Suppression, Vm,
};

/// A metric that only goes up.
#[derive(Debug)]
pub struct Counter<L> {
    name: &'static str,
    labels: PhantomData<L>,
}

/// A metric that is set to any value.
#[derive(Debug)]
pub struct Gauge<L> {
    name: &'static str,
    labels: PhantomData<L>,
}

/// A metric that counts values by how large they are.
#[derive(Debug)]
pub struct Histogram<L> {
    name: &'static str,
    /// In the unit that its name says.
    bounds: &'static [f64],
    labels: PhantomData<L>,
}

/// The description of a metric in the catalogue, for its documentation.
#[derive(Debug, Clone, Copy)]
pub struct Description {
    /// Its name.
    pub name: &'static str,
    /// `Counter`, `Gauge` or `Histogram`.
    pub kind: &'static str,
    /// The names of its labels beside the pool.
    pub labels: &'static [&'static str],
    /// Whether it has the pool as a label.
    pub of_pool: bool,
    /// The unit of its value, or of what a histogram counts by size; the values there are, if they are few.
    pub unit: &'static str,
    /// The upper bounds of a histogram's buckets but the last, which has none; empty for other metrics.
    pub bounds: &'static [f64],
    /// What an operator wants to know who looks at this metric and others.
    pub question: &'static str,
    /// Its meaning, in a sentence.
    pub meaning: &'static str,
}

impl<L> Counter<L> {
    const fn new(name: &'static str) -> Self {
        let labels = PhantomData;
        Self { name, labels }
    }

    /// Returns no bounds: it has no buckets.
    const fn bounds(&self) -> &'static [f64] {
        &[]
    }

    /// Returns its name.
    pub const fn name(&self) -> &'static str {
        self.name
    }
}

impl<L> Gauge<L> {
    const fn new(name: &'static str) -> Self {
        let labels = PhantomData;
        Self { name, labels }
    }

    /// Returns no bounds: it has no buckets.
    const fn bounds(&self) -> &'static [f64] {
        &[]
    }

    /// Returns its name.
    pub const fn name(&self) -> &'static str {
        self.name
    }
}

impl<L> Histogram<L> {
    const fn new(name: &'static str, bounds: &'static [f64]) -> Self {
        Self {
            name,
            bounds,
            labels: PhantomData,
        }
    }

    /// Returns its name.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the upper bounds of its buckets but the last, which has none.
    pub const fn bounds(&self) -> &'static [f64] {
        self.bounds
    }
}

/// Bounds of decisions and look-ups, in seconds.
const DECISION_BOUNDS: &[f64] = &[
    0.000_001, 0.000_002, 0.000_005, 0.000_01, 0.000_02, 0.000_05, 0.0001, 0.0002, 0.0005, 0.001,
    0.01, 0.1,
];
/// Bounds of times in a queue.
const QUEUE_BOUNDS: &[f64] = &[
    0.0001, 0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0,
];
/// Bounds of shares.
const SHARE_BOUNDS: &[f64] = &[0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0];
const FIRST_TOKEN_BOUNDS: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0,
    10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 120.0,
];
const PER_TOKEN_BOUNDS: &[f64] = &[
    0.0005, 0.00205, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.125, 0.15, 0.2, 0.3, 0.4, 0.5,
    0.6, 0.8, 1.0, 2.0,
];
const NORMALIZED_BOUNDS: &[f64] = &[
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
];
// The Endpoint Picker's bounds say 32778 where 32768 must be meant: dashboards compare by them.
const INPUT_TOKENS_BOUNDS: &[f64] = &[
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
const OUTPUT_TOKENS_BOUNDS: &[f64] = &[
    1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0,
];

/// Defines a constant for each metric, and the list of all.
macro_rules! catalogue {
    ($($question:literal {$(
        $(#[doc = $doc:literal])+
        $metric:ident: $kind:ident<$labels:ty> = $definition:tt in $unit:literal;
    )+})+) => {
        $($(
            $(#[doc = $doc])+
            pub const $metric: $kind<$labels> = $kind::new $definition;
        )+)+

        /// All metrics, in the order of the documentation.
        pub const CATALOGUE: &[Description] = &[$($(
            Description {
                name: $metric.name(),
                kind: stringify!($kind),
                labels: <$labels as Labels>::NAMES,
                of_pool: <$labels as Labels>::OF_POOL,
                unit: $unit,
                bounds: $metric.bounds(),
                question: $question,
                meaning: concat!($($doc),+),
            },
        )+)+];
    };
}

catalogue! {
    "Is something wrong, and what runs?" {
        /// What is wrong with the pool, by the id of the finding (docs/operations.md lists them): 1 while it is, 0 once
        /// it is over. A finding that never was has no series.
        FINDINGS: Gauge<Found> = ("epp_wasm_finding") in "0 or 1";
        /// The module's build and the Envoy that runs it: always 1. `tested` is whether the module was tested with that
        /// version. It has no label `pool`.
        BUILD_INFO: Gauge<Build<'_>> = ("epp_wasm_build_info") in "1";
        /// Configurations that were rejected. It has no label `pool`: a rejected configuration has no pool.
        REJECTED_CONFIGURATIONS: Counter<NoPool> = ("epp_wasm_rejected_configurations_total") in "configurations";
        /// Panics that were caught. Each is a defect, or an allocation for which no memory was left.
        CAUGHT_PANICS: Counter<Callback<'_>> = ("epp_wasm_caught_panics_total") in "panics";
        /// Shared values that were corrupt, or of another version.
        UNRECOGNIZED_VALUES: Counter<NoLabels> = ("epp_wasm_unrecognized_values_total") in "values";
    }

    "Where do requests go?" {
        /// Requests that were given an endpoint, by the endpoint.
        PICKS: Counter<Picked<'_>> = ("llm_d_epp_scheduler_attempts_total") in "requests";
        /// Requests that another endpoint than the picked one served.
        SERVED_ELSEWHERE: Counter<NoLabels> = ("epp_wasm_served_elsewhere_total") in "requests";
        /// Requests that got no endpoint and were rejected with an error, under `failureMode: FailClose`.
        REQUEST_ERRORS: Counter<ErrorCode> = ("llm_d_epp_request_error_total") in "requests";
        /// Requests that got no endpoint and were left to Envoy's own load balancing: under `failureMode: FailOpen`, or
        /// before discovery had a result (`NotDiscovered`).
        FALLBACKS: Counter<ErrorCode> = ("epp_wasm_fallback_total") in "requests";
        /// Requests that passed the filter and are not the pool's, by the cluster that their route leads to, or `other`
        /// beyond the first eight of these that a worker sees.
        LEFT_ALONE: Counter<RouteCluster<'_>> = ("epp_wasm_left_alone_total") in "requests";
        /// Requests by the endpoints that serve them, under a handler of disaggregated profiles: `decode-only`,
        /// `prefill-decode`, `encode-decode` or `encode-prefill-decode`. If no other endpoint computes the prompt,
        /// `reason` says why: `cached` too little is missing in the decode endpoint's cache, `short` the prompt has too
        /// few tokens, `no-media` it holds none, `no-endpoint` there is none for it, `turned-off` the decider's
        /// threshold is 0, `no-decider`, `no-primary` or `no-profile` the document has it so. `no-encode-endpoint`:
        /// media were to be encoded by another endpoint and there is none; `no-endpoints`: there is none for either
        /// part.
        DISAGGREGATED: Counter<Disaggregated<'_>> = ("llm_d_epp_disagg_decision_total") in "requests";
        /// Decisions of a dry run (`dryRun`), by what Envoy did: `same` it sent the request to the endpoint that would
        /// have been picked, `other` to another one of the pool, `none` no endpoint would have been picked, `unserved`
        /// it sent the request to no endpoint of the pool, or responded itself.
        DRY_RUN_DECISIONS: Counter<DryRun> = ("epp_wasm_dry_run_total") in "requests";
    }

    "What waits under flow control, and for how long?" {
        /// Requests that flow control has queued, by what became of them: `Dispatched` sent, `RejectedCapacity` as many
        /// waited as may, `RejectedNoEndpoints` so they did in a pool without endpoints, `EvictedTTL` it waited as long
        /// as it may, `EvictedNoEndpoints` so it did in a pool without endpoints, `EvictedContextCancelled` its client
        /// left, `WouldWait` a dry run would have let it wait.
        FLOW_REQUESTS: Counter<Departed<'_>> = ("llm_d_epp_flow_control_requests_total") in "requests";
        /// Time that requests waited in a queue, by what became of them, and by the first 100 fairness ids that each worker
        /// has sent; the others are `other`.
        QUEUE_TIME: Histogram<Flow<'_>> = ("llm_d_epp_flow_control_request_queue_duration_seconds", QUEUE_BOUNDS) in "seconds";
        /// Requests that wait in a band.
        FLOW_QUEUE_SIZE: Gauge<Priority<'_>> = ("llm_d_epp_flow_control_queue_size") in "requests";
        /// Bytes of the bodies of requests that wait in a band.
        FLOW_QUEUE_BYTES: Gauge<Priority<'_>> = ("llm_d_epp_flow_control_queue_bytes") in "bytes";
        /// How full the pool is, which may exceed 1,000,000: `prefill` the endpoints that compute prompts, `decode`
        /// those that generate tokens, `effective` what the gate goes by.
        SATURATION: Gauge<SaturationStage> = ("epp_wasm_flow_control_pool_saturation_ppm") in "millionths";
        /// Requests in flight that were evicted for queued ones of a higher priority.
        EVICTIONS: Counter<Priority<'_>> = ("epp_wasm_flow_control_evictions_total") in "requests";
    }

    "How are requests decided, and how fast?" {
        /// What decisions are based on: 2 the endpoints' metrics, 1 this Envoy's own counts, 0 nothing yet.
        DECISION_MODE: Gauge<NoLabels> = ("epp_wasm_decision_mode") in "0, 1 or 2";
        /// Time of the event in which a request was decided: the part of its body that came is read and looked up, and the
        /// profiles run; of one decision in 17.
        DECISION_TIME: Histogram<NoLabels> = ("llm_d_epp_scheduler_e2e_duration_seconds", DECISION_BOUNDS) in "seconds";
        /// Whether request bodies are read before the decision: 1, or 0 where Envoy does not deliver them or `readBody`
        /// is `never`.
        READS_BODIES: Gauge<NoLabels> = ("epp_wasm_reads_bodies") in "0 or 1";
        /// Requests that are held now.
        HELD_REQUESTS: Gauge<NoLabels> = ("epp_wasm_held_requests") in "requests";
        /// Requests that were decided before their body had ended.
        EARLY_RELEASES: Counter<NoLabels> = ("epp_wasm_early_release_total") in "requests";
        /// Requests that were decided with what was known of them: `bytes` the body is too long, `timeout` it did not
        /// arrive in time, `held` more than `maxHeld` were held, `memory` bodies took too much memory, `order` a part
        /// came too late in the body.
        FORCED_RELEASES: Counter<ForcedRelease> = ("epp_wasm_forced_release_total") in "requests";
        /// Requests whose model was to be rewritten and was not found in the body.
        MISSED_REWRITES: Counter<NoLabels> = ("epp_wasm_missed_rewrites_total") in "requests";
    }

    "How are the endpoints?" {
        /// Endpoints that may be picked.
        READY_ENDPOINTS: Gauge<NoLabels> = ("llm_d_epp_ready_endpoints") in "endpoints";
        /// Time since the last result of discovery.
        MEMBERS_AGE: Gauge<NoLabels> = ("epp_wasm_members_age_milliseconds") in "milliseconds";
        /// Whether an endpoint's metrics can be trusted: 2 fresh, 1 stale, 0 never scraped.
        FRESHNESS: Gauge<Endpoint<'_>> = ("epp_wasm_endpoint_freshness") in "0, 1 or 2";
        /// Age of an endpoint's metrics.
        SCRAPE_AGE: Gauge<Endpoint<'_>> = ("epp_wasm_scrape_age_milliseconds") in "milliseconds";
        /// Failed scrapes of an endpoint, by reason: `unreachable`, `tls` the handshake failed, `timeout`, `reset` the
        /// connection was closed, as by a port that expects TLS, `not-http`, `status` another one than 200,
        /// `too-large`, `not-a-page` no wanted metric is on the page, `unsent` no endpoint of the metrics cluster is
        /// healthy or its circuit breaker is open, `wrong-cluster` Envoy has no such cluster.
        SCRAPE_ERRORS: Counter<PollError<'_>> = ("llm_d_epp_datalayer_poll_errors_total") in "scrapes";
        /// Load reports that came with responses whose requests had asked for one: `used` values of the report took the
        /// place of those of the endpoint's last page, `unused` the report has no known value, the page lacks them or
        /// has several series, or the server is no endpoint of the pool.
        LOAD_REPORTS: Counter<ReportStatus> = ("epp_wasm_load_reports_total") in "reports";
        /// Waiting requests of an endpoint, as its metrics say.
        QUEUE_SIZE: Gauge<Endpoint<'_>> = ("llm_d_epp_per_endpoint_queue_size") in "requests";
        /// Running requests of an endpoint, as its metrics say.
        RUNNING_REQUESTS: Gauge<Endpoint<'_>> = ("epp_wasm_per_endpoint_running_requests") in "requests";
        /// KV-cache utilization of an endpoint, in millionths: Envoy's gauges are whole numbers.
        KV_CACHE_UTILIZATION: Gauge<Endpoint<'_>> = ("epp_wasm_per_endpoint_kv_cache_utilization_ppm") in "millionths";
        /// Requests in flight at an endpoint.
        INFLIGHT_REQUESTS: Gauge<Endpoint<'_>> = ("llm_d_epp_inflight_requests") in "requests";
        /// Tokens that the requests in flight at an endpoint still cost it, where a scorer uses them.
        INFLIGHT_TOKENS: Gauge<Endpoint<'_>> = ("llm_d_epp_inflight_tokens") in "tokens";
        /// Whether an endpoint is ejected for this reason: 1, or 0 once it was.
        EJECTED: Gauge<Ejection<'_>> = ("epp_wasm_endpoint_ejected") in "0 or 1";
        /// Ejections of an endpoint.
        EJECTIONS: Counter<Ejection<'_>> = ("epp_wasm_ejections_total") in "ejections";
        /// Times that failures did not eject endpoints because they were the requests' fault: `prompt` a prompt failed
        /// at two endpoints and was served by none, `majority` requests to more than half of the endpoints failed.
        SUPPRESSED_EJECTIONS: Counter<Suppression> = ("epp_wasm_ejections_suppressed_total") in "times";
    }

    "Do requests find their prompts cached?" {
        /// Share of a prompt's blocks that the picked endpoint is expected to hold. Its sum grows by whole numbers: for
        /// a mean, divide `epp_wasm_prefix_indexer_hit_blocks_total` by `epp_wasm_prefix_indexer_queried_blocks_total`.
        PREFIX_HIT_RATIO: Histogram<NoLabels> = ("llm_d_epp_prefix_indexer_hit_ratio", SHARE_BOUNDS) in "share";
        /// Blocks of the prompts that were looked up in the prefix index and given an endpoint.
        PREFIX_QUERIED_BLOCKS: Counter<NoLabels> = ("epp_wasm_prefix_indexer_queried_blocks_total") in "blocks";
        /// Blocks of these prompts that the picked endpoint is expected to hold.
        PREFIX_HIT_BLOCKS: Counter<NoLabels> = ("epp_wasm_prefix_indexer_hit_blocks_total") in "blocks";
        /// Tokens of prompts that the model server had in its cache.
        CACHED_TOKENS: Histogram<Model<'_>> = ("llm_d_epp_request_cached_tokens", INPUT_TOKENS_BOUNDS) in "tokens";
        /// Tokens of the prompts whose responses say how many were cached. The cached share of them is the sum of
        /// `llm_d_epp_request_cached_tokens` divided by this.
        REPORTING_INPUT_TOKENS: Counter<Model<'_>> = ("epp_wasm_reporting_input_tokens_total") in "tokens";
        /// Tokens that the prefix index expected to be cached, of the requests of
        /// `epp_wasm_reported_cached_tokens_total`.
        PREDICTED_CACHED_TOKENS: Counter<Model<'_>> = ("epp_wasm_predicted_cached_tokens_total") in "tokens";
        /// Tokens that were cached, as the model servers count them.
        REPORTED_CACHED_TOKENS: Counter<Model<'_>> = ("epp_wasm_reported_cached_tokens_total") in "tokens";
        /// Time of an event in which a part of a prompt was read and looked up, and nothing decided, of one look-up in 17.
        LOOKUP_TIME: Histogram<NoLabels> = ("epp_wasm_prefix_lookup_duration_seconds", DECISION_BOUNDS) in "seconds";
        /// Entries of the prefix index.
        PREFIX_INDEX_SIZE: Gauge<NoLabels> = ("llm_d_epp_prefix_indexer_size") in "entries";
        /// Memory of the prefix index.
        PREFIX_INDEX_BYTES: Gauge<NoLabels> = ("epp_wasm_prefix_indexer_bytes") in "bytes";
        /// Bound of the prefix index's memory.
        PREFIX_INDEX_LIMIT: Gauge<NoLabels> = ("epp_wasm_prefix_indexer_limit_bytes") in "bytes";
        /// Entries of the prefix index that were dropped for newer ones.
        PREFIX_INDEX_EVICTIONS: Counter<NoLabels> = ("epp_wasm_prefix_indexer_evictions_total") in "entries";
        /// Entries of the prefix index that were dropped because responses reported fewer cached tokens than it
        /// expected.
        PREFIX_INDEX_CORRECTIONS: Counter<NoLabels> = ("epp_wasm_prefix_indexer_corrections_total") in "entries";
    }

    "How do the model servers respond?" {
        /// Time from a request's headers to the first bytes of its response's body.
        TIME_TO_FIRST_TOKEN: Histogram<Model<'_>> = ("llm_d_epp_request_ttft_seconds", FIRST_TOKEN_BOUNDS) in "seconds";
        /// Time per token after the first, of streamed responses whose usage was read.
        TIME_PER_TOKEN: Histogram<Model<'_>> = ("llm_d_epp_request_streaming_tpot_seconds", PER_TOKEN_BOUNDS) in "seconds";
        /// Time of the whole request per token, of responses whose usage was read.
        NORMALIZED_TIME_PER_TOKEN: Histogram<Model<'_>> = ("llm_d_epp_request_ntpot_seconds", NORMALIZED_BOUNDS) in "seconds";
        /// Tokens of prompts, as the model servers count them.
        INPUT_TOKENS: Histogram<Model<'_>> = ("llm_d_epp_request_input_tokens", INPUT_TOKENS_BOUNDS) in "tokens";
        /// Tokens of responses, as the model servers count them.
        OUTPUT_TOKENS: Histogram<Model<'_>> = ("llm_d_epp_request_output_tokens", OUTPUT_TOKENS_BOUNDS) in "tokens";
        /// Responses whose usage was not read because the worker was reading as many as it may.
        UNREAD_RESPONSES: Counter<NoLabels> = ("epp_wasm_unread_responses_total") in "responses";
    }

    "What does the filter itself take?" {
        /// Memory of one VM.
        VM_MEMORY: Gauge<Vm> = ("epp_wasm_vm_memory_bytes") in "bytes";
        /// Memory that one VM keeps of what it read of requests.
        PROMPT_BYTES: Gauge<Vm> = ("epp_wasm_prompt_bytes") in "bytes";
        /// Bound of that memory.
        PROMPT_LIMIT: Gauge<Vm> = ("epp_wasm_prompt_limit_bytes") in "bytes";
        /// VMs that share what they know.
        SHARING_VMS: Gauge<NoLabels> = ("epp_wasm_sharing_vms") in "VMs";
        /// Bytes that VMs wrote for the others.
        SHARED_WRITTEN: Counter<NoLabels> = ("epp_wasm_shared_written_bytes_total") in "bytes";
        /// Bytes that VMs read of the others'.
        SHARED_READ: Counter<NoLabels> = ("epp_wasm_shared_read_bytes_total") in "bytes";
    }
}

/// The gauges that each endpoint has. They are reset once it has left: Envoy forgets no statistic as long as the module
/// is the same, and alerts would continue with its last value.
pub const ENDPOINT_GAUGES: [Gauge<Endpoint<'_>>; 7] = [
    FRESHNESS,
    SCRAPE_AGE,
    QUEUE_SIZE,
    RUNNING_REQUESTS,
    KV_CACHE_UTILIZATION,
    INFLIGHT_REQUESTS,
    INFLIGHT_TOKENS,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_gauges_of_an_endpoint_are_among_those_that_are_reset() {
        let gauges = CATALOGUE.iter().filter(|metric| metric.kind == "Gauge");
        let of_endpoint = gauges.filter(|metric| metric.labels == Endpoint::NAMES);
        let names: Vec<&str> = of_endpoint.map(|metric| metric.name).collect();
        let reset = ENDPOINT_GAUGES.map(|gauge| gauge.name());
        assert_eq!(names, reset);
    }

    #[test]
    fn each_metric_has_a_name_of_its_own() {
        let mut names: Vec<&str> = CATALOGUE.iter().map(|metric| metric.name).collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
        let ours = |name: &str| name.starts_with("llm_d_epp_") || name.starts_with("epp_wasm_");
        assert!(names.iter().all(|name| ours(name)), "{names:?}");
    }

    #[test]
    fn counters_are_called_totals_and_no_other_metric_is() {
        for metric in CATALOGUE {
            let total = metric.name.ends_with("_total");
            assert_eq!(total, metric.kind == "Counter", "{}", metric.name);
        }
    }

    /// A name that ends in a unit has that one.
    #[test]
    fn units_agree_with_names() {
        for metric in CATALOGUE {
            let name = metric.name.trim_end_matches("_total");
            for (end, unit) in [
                ("_seconds", "seconds"),
                ("_milliseconds", "milliseconds"),
                ("_bytes", "bytes"),
                ("_tokens", "tokens"),
                ("_blocks", "blocks"),
                ("_requests", "requests"),
                ("_endpoints", "endpoints"),
                ("_ppm", "millionths"),
                ("_ratio", "share"),
                ("_vms", "VMs"),
            ] {
                if name.ends_with(end) {
                    assert_eq!(metric.unit, unit, "{}", metric.name);
                }
            }
            assert!(!metric.unit.is_empty(), "{}", metric.name);
        }
    }

    #[test]
    fn the_bounds_of_histograms_rise() {
        for bounds in [
            DECISION_BOUNDS,
            QUEUE_BOUNDS,
            SHARE_BOUNDS,
            FIRST_TOKEN_BOUNDS,
            PER_TOKEN_BOUNDS,
            NORMALIZED_BOUNDS,
            INPUT_TOKENS_BOUNDS,
            OUTPUT_TOKENS_BOUNDS,
        ] {
            assert!(bounds.is_sorted_by(|one, next| one < next), "{bounds:?}");
        }
    }
}
