//! `envoy-proxy`: settings of the proxy itself, which the Endpoint Picker's document has no place
//! for. A plugin of ours, so that the document stays portable; absent, its defaults hold.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `cluster` | the discovery's | the cluster whose requests are ours |
//! | `requests` | `ofCluster` | which requests are ours: those whose route leads to the cluster, or `all` that pass the filter (saves asking Envoy for the route of each; for a listener that leads nowhere else) |
//! | `destinationHeader` | `x-gateway-destination-endpoint` | the header that names the endpoint to Envoy's `override_host` policy |
//! | `failureMode` | `FailClose` | no decision: `FailClose` answers as the Endpoint Picker does, `FailOpen` leaves the choice to the cluster's fallback policy |
//! | `fallbackEndpoints` | 2 | next best endpoints named after the picks, as retry targets |
//! | `readBody` | `auto` | whether bodies are read: `auto`, `always` or `never` |
//! | `modelHeader` | `x-gateway-model-name` | the header that names the model where the body is not read (the Gateway API Inference Extension's body-based router sets it). A client can set it, too, and so choose by which model its own request is routed; it changes nothing of the request |
//! | `rewriteHeader` | false | obey `x-llm-d-model-name-rewrite` (and its former name `x-gateway-model-name-rewrite`), which names another model to ask for than the body's. `false` removes both from every request: a client could otherwise get past what authorises or meters by the body's model. With `true`, whatever sets the header must remove the client's first |
//! | `decideAfterBytes` | 1048576 | what Envoy may hold of a request (its `per_connection_buffer_limit_bytes`): bodies up to this are held to their end where need be, longer ones and those of unknown length are decided with three quarters of it |
//! | `bodyTimeout` | `5s` | decide with what is known when a held request sends nothing for this long, or falls this far behind 1 KiB a second |
//! | `maxHeld` | 1024 | requests that one worker holds at a time; of more, those that have sent least for their time are decided with what is known |
//! | `earlyRelease` | `exact` | `exact` waits for what can change the decision; `assumeAbsent` takes tools, system text and salt not seen when the window is full as absent |
//! | `correctQueue` | true | add requests sent since an endpoint's last scrape to its waiting count |
//! | `shareState` | true | share with the other workers of this Envoy which prompts went where and what is in flight; `false` leaves each worker to what it sees itself |
//! | `avoidFailing` | true | endpoints that refuse, reset, time out, hang or answer 5xx far above their peers are left out for a while, at most half of the pool |
//! | `avoidFirst` | `1s` | how long the first time; each further time doubles it, give or take a fifth |
//! | `avoidMost` | `60s` | how long at most |
//! | `maxIndexBytes` | 67108864 | memory of the prefix index of one worker |
//! | `explain` | false | answer `x-epp-explain: 1` with the candidates' scores |
//!
//! ```yaml
//! - type: envoy-proxy
//!   parameters: {failureMode: FailOpen, fallbackEndpoints: 2}
//! ```

use std::time::Duration;

use crate::endpoints::outlier::OutlierSettings;
use crate::plugins::{Build, Capabilities, Capability, Parity, PluginType, Standing};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "envoy-proxy",
    provides: &[Capability::Proxy],
    references: &[],
    build,
    parity: Parity::of(Standing::Ours("settings of the proxy itself")),
};

/// The header that the endpoint picker protocol names, and Envoy's policy reads.
pub const DESTINATION_HEADER: &str = "x-gateway-destination-endpoint";

/// Which requests are ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requests {
    /// Those whose route leads to the pool's cluster.
    OfCluster,
    /// All that pass the filter.
    All,
}

/// What happens to a request for which nothing was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureMode {
    /// It is answered with the Endpoint Picker's error.
    FailClose,
    /// Envoy's fallback policy chooses.
    FailOpen,
}

/// Whether bodies are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadBody {
    /// Where the plan needs them and Envoy delivers them before routing.
    Auto,
    /// Where the plan needs them.
    Always,
    /// Never.
    Never,
}

/// When a decision may be taken before the body has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EarlyRelease {
    /// As soon as nothing that can follow may change it.
    Exact,
    /// The same, with tools, system text and salt not seen so far taken as absent.
    AssumeAbsent,
}

/// The settings.
#[derive(Debug, Clone, PartialEq)]
pub struct EnvoyProxy {
    /// The cluster whose requests are ours; empty: the discovery's.
    pub cluster: String,
    /// Which requests are ours.
    pub requests: Requests,
    /// The header that names the endpoint, lower case.
    pub destination_header: String,
    /// What happens without a decision.
    pub failure_mode: FailureMode,
    /// Next best endpoints named after the picks.
    pub fallback_endpoints: usize,
    /// Whether bodies are read.
    pub read_body: ReadBody,
    /// The header that names the model where the body is not read, lower case.
    pub model_header: String,
    /// Whether a header may name another model to ask for.
    pub rewrite_header: bool,
    /// Bodies up to this are held to their end where need be; longer ones are not.
    pub decide_after_bytes: usize,
    /// Silence of a held request after which the decision is taken.
    pub body_timeout: Duration,
    /// Requests that one worker holds at a time.
    pub max_held: usize,
    /// Whether a decision waits for all that can change it.
    pub early_release: EarlyRelease,
    /// Whether requests sent since the last scrape count as waiting.
    pub correct_queue: bool,
    /// Whether the workers share their state.
    pub share_state: bool,
    /// Whether endpoints at which requests fail are left out for a while.
    pub avoid_failing: bool,
    /// How long an endpoint is left out the first time.
    pub avoid_first: Duration,
    /// How long an endpoint is left out at most.
    pub avoid_most: Duration,
    /// Memory bound of the prefix index.
    pub max_index_bytes: usize,
    /// Whether clients may ask for an explanation.
    pub explain: bool,
}

impl Default for EnvoyProxy {
    fn default() -> Self {
        Self {
            cluster: String::new(),
            requests: Requests::OfCluster,
            destination_header: DESTINATION_HEADER.to_owned(),
            failure_mode: FailureMode::FailClose,
            fallback_endpoints: 2,
            read_body: ReadBody::Auto,
            model_header: "x-gateway-model-name".to_owned(),
            rewrite_header: false,
            // What Envoy's buffers take by default (per_connection_buffer_limit_bytes).
            decide_after_bytes: 1 << 20,
            body_timeout: Duration::from_secs(5),
            max_held: 1024,
            early_release: EarlyRelease::Exact,
            correct_queue: true,
            share_state: true,
            avoid_failing: true,
            avoid_first: Duration::from_secs(1),
            avoid_most: Duration::from_secs(60),
            max_index_bytes: 64 << 20,
            explain: false,
        }
    }
}

impl EnvoyProxy {
    /// Returns the settings of outlier detection; `None` if it is switched off.
    pub fn outlier_settings(&self) -> Option<OutlierSettings> {
        self.avoid_failing.then_some(OutlierSettings {
            first: self.avoid_first,
            max: self.avoid_most,
        })
    }
}

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    let fields = &mut build.fields;
    let default = EnvoyProxy::default();
    let shortest = Duration::from_millis(1);
    let requests = [("ofCluster", Requests::OfCluster), ("all", Requests::All)];
    let failure = [
        ("FailClose", FailureMode::FailClose),
        ("FailOpen", FailureMode::FailOpen),
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
    Capabilities {
        proxy: Some(Box::new(EnvoyProxy {
        cluster: fields.string("cluster", &default.cluster),
        requests: fields.choice("requests", default.requests, &requests),
        destination_header: fields
            .string("destinationHeader", &default.destination_header)
            .to_ascii_lowercase(),
        failure_mode: fields.choice("failureMode", default.failure_mode, &failure),
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
        share_state: fields.boolean("shareState", default.share_state),
        avoid_failing: fields.boolean("avoidFailing", default.avoid_failing),
        avoid_first: fields.duration("avoidFirst", default.avoid_first, shortest),
        avoid_most: fields.duration("avoidMost", default.avoid_most, shortest),
        max_index_bytes: fields.positive("maxIndexBytes", 64 << 20) as usize,
        explain: fields.boolean("explain", default.explain),
    })),
        ..Capabilities::default()
    }
}
