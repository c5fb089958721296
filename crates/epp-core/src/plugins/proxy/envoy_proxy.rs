//! `envoy-proxy`: settings of the proxy itself, which the Endpoint Picker's document has no place
//! for. A plugin of ours, so that the document stays portable; absent, its defaults hold.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `cluster` | the discovery's | the cluster whose requests are ours |
//! | `requests` | `ofCluster` | which requests are ours: those whose route leads to the cluster, or `all` that pass the filter (saves asking Envoy for the route of each; for a listener that leads nowhere else) |
//! | `dryRun` | false | decide, count and explain each request, and leave it as it is: no header of it is set or removed, its body is not held, no local reply is sent, and no endpoint is ejected. `epp_wasm_dry_run_total` compares the decisions with what Envoy does |
//! | `destinationHeader` | `x-gateway-destination-endpoint` | the header that names the endpoint to Envoy's `override_host` policy |
//! | `failureMode` | `FailClose` | if no endpoint can be picked: `FailClose` replies as the Endpoint Picker does, `FailOpen` leaves the choice to the cluster's fallback policy |
//! | `missingPrefill` | `reject` | if another endpoint was to compute the prompt and there is none: `reject` fails the request as llm-d-router does since August 2026, `decodeOnly` lets the decode endpoint compute it, as before |
//! | `fallbackEndpoints` | 2 | next best endpoints named after the picks, as retry targets |
//! | `readBody` | `auto` | whether bodies are read: `auto`, `always` or `never` |
//! | `modelHeader` | `x-gateway-model-name` | the header that names the model where the body is not read (the Gateway API Inference Extension's body-based router sets it). A client can set it, too, and so choose by which model its own request is routed; it changes nothing of the request |
//! | `rewriteHeader` | false | accept `x-llm-d-model-name-rewrite` (and its former name `x-gateway-model-name-rewrite`), which names another model to ask for than the body's. `false` removes both from every request: a client could otherwise get past what authorises or meters by the body's model. With `true`, whatever sets the header must remove the client's first |
//! | `decideAfterBytes` | 1048576 | what Envoy may hold of a request (its `per_connection_buffer_limit_bytes`): bodies up to this are held to their end where need be, longer ones and those of unknown length are decided with three quarters of it |
//! | `bodyTimeout` | `5s` | decide with what is known when a held request sends nothing for this long, or falls this far behind 1 KiB a second |
//! | `maxHeld` | 1024 | requests that one worker holds at a time; of more, those that have sent least for their time are decided with what is known |
//! | `earlyRelease` | `exact` | `exact` waits for what can change the decision; `assumeAbsent` takes tools, system text and salt not seen when the window is full as absent |
//! | `correctQueue` | true | add requests sent since an endpoint's last scrape to its waiting count |
//! | `requestLoadMetrics` | false | ask model servers to report their load with responses that are not streamed, by the request header `endpoint-load-metrics-format: text` (vLLM from 0.11.2, and Triton with TensorRT-LLM, which reports the KV cache only). A header of the client's own is passed on unchanged, and the client gets the report. Otherwise the report is removed from the response. It is used in both cases. For each report vLLM collects all of its metrics and logs a line at INFO: it pays where an endpoint has fewer such responses than pages, with a long `interval` |
//! | `correctIndex` | true | where responses report less than half of the cached tokens that the prefix index expected, forget the blocks that the endpoint used longest ago |
//! | `shareState` | true | share with the other workers of this Envoy which prompts went where and what is in flight; `false` leaves each worker to what it sees itself |
//! | `avoidFailing` | true | endpoints that refuse, reset, time out, hang or return 5xx far above their peers are ejected for a while, at most half of the pool |
//! | `avoidFirst` | `1s` | how long the first time; each further time doubles it, give or take a fifth |
//! | `avoidMost` | `60s` | how long at most |
//! | `maxIndexBytes` | 67108864 | memory of the prefix index of one worker |
//! | `explain` | false | return the candidates' scores to requests with `x-epp-explain: 1` |
//! | `strict` | false | refuse the document where a plugin or parameter is approximated, so that decisions may differ from the Endpoint Picker's; what has no effect on a decision is not refused |
//!
//! ```yaml
//! - type: envoy-proxy
//!   parameters: {failureMode: FailOpen, fallbackEndpoints: 2}
//! ```

use std::time::Duration;

use crate::config::settings::{
    EarlyRelease, FailureMode, MissingPrefill, PickerSettings, ReadBody,
};
use crate::config::value::Fields;
use crate::endpoints::outlier::OutlierSettings;
use crate::plugins::{Build, Capabilities, Capability, Parity, PluginType, Standing};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "envoy-proxy",
    former_names: &[],
    provides: &[Capability::Proxy],
    references: &[],
    build,
    parity: Parity::of(Standing::Ours("settings of the proxy itself")),
};

/// The requests that belong to the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requests {
    /// Those whose route leads to the pool's cluster.
    OfCluster,
    /// All that pass the filter.
    All,
}

/// The settings that only a host in Envoy needs.
#[derive(Debug, Clone, PartialEq)]
pub struct EnvoySettings {
    /// The cluster that the pool's requests are routed to, unless it is the discovery's.
    pub cluster: Option<String>,
    /// The requests that belong to the pool.
    pub requests: Requests,
}

impl Default for EnvoySettings {
    fn default() -> Self {
        Self {
            cluster: None,
            requests: Requests::OfCluster,
        }
    }
}

/// The document's settings of the picker itself and of its host.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EnvoyProxy {
    /// The picker's part.
    pub picker: PickerSettings,
    /// The host's part.
    pub envoy: EnvoySettings,
}

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    // In the order of the table above.
    let envoy = read_envoy(&mut build.fields);
    let picker = read_picker(&mut build.fields);
    Capabilities {
        proxy: Some(Box::new(EnvoyProxy { picker, envoy })),
        ..Capabilities::default()
    }
}

fn read_envoy(fields: &mut Fields<'_>) -> EnvoySettings {
    let requests = [("ofCluster", Requests::OfCluster), ("all", Requests::All)];
    let default = EnvoySettings::default();
    let cluster = fields.string("cluster", "");
    EnvoySettings {
        cluster: (!cluster.is_empty()).then_some(cluster),
        requests: fields.choice("requests", default.requests, &requests),
    }
}

fn read_picker(fields: &mut Fields<'_>) -> PickerSettings {
    let failure = [
        ("FailClose", FailureMode::FailClose),
        ("FailOpen", FailureMode::FailOpen),
    ];
    let missing = [
        ("reject", MissingPrefill::Reject),
        ("decodeOnly", MissingPrefill::DecodeOnly),
    ];
    let read = [
        ("auto", ReadBody::Auto),
        ("always", ReadBody::Always),
        ("never", ReadBody::Never),
    ];
    let early = [
        ("exact", EarlyRelease::Exact),
        ("assumeAbsent", EarlyRelease::AssumeAbsent),
    ];
    let default = PickerSettings::default();
    let shortest = Duration::from_millis(1);
    let dry_run = fields.boolean("dryRun", default.dry_run);
    PickerSettings {
        dry_run,
        destination_header: fields
            .string("destinationHeader", &default.destination_header)
            .to_ascii_lowercase(),
        failure_mode: fields.choice("failureMode", default.failure_mode, &failure),
        missing_prefill: fields.choice("missingPrefill", default.missing_prefill, &missing),
        fallback_endpoints: fields.natural("fallbackEndpoints", 2) as usize,
        read_body: fields.choice("readBody", default.read_body, &read),
        model_header: fields
            .string("modelHeader", &default.model_header)
            .to_ascii_lowercase(),
        rewrite_header: fields.boolean("rewriteHeader", default.rewrite_header),
        decide_after_bytes: fields.positive("decideAfterBytes", 1 << 20) as usize,
        body_timeout: fields.duration("bodyTimeout", default.body_timeout, shortest),
        max_held: fields.natural("maxHeld", 1024) as usize,
        early_release: fields.choice("earlyRelease", default.early_release, &early),
        correct_queue: fields.boolean("correctQueue", default.correct_queue),
        request_load_metrics: fields.boolean("requestLoadMetrics", default.request_load_metrics),
        correct_index: fields.boolean("correctIndex", default.correct_index),
        share_state: fields.boolean("shareState", default.share_state),
        // It judges endpoints by the picker's own requests, and probes them with those.
        outlier_detection: read_outlier_detection(fields).filter(|_| !dry_run),
        max_index_bytes: fields.positive("maxIndexBytes", 64 << 20) as usize,
        explain: fields.boolean("explain", default.explain),
        strict: fields.boolean("strict", default.strict),
    }
}

fn read_outlier_detection(fields: &mut Fields<'_>) -> Option<OutlierSettings> {
    let shortest = Duration::from_millis(1);
    let is_on = fields.boolean("avoidFailing", true);
    let settings = OutlierSettings {
        first: fields.duration("avoidFirst", Duration::from_secs(1), shortest),
        max: fields.duration("avoidMost", Duration::from_secs(60), shortest),
    };
    is_on.then_some(settings)
}
