//! `metrics-data-source`: how endpoints' metrics pages are fetched.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `path` | `/metrics` | where the page is |
//! | `port` | the endpoint's | another port |
//! | `interval` | `200ms` | how often each page is fetched |
//! | `maxInterval` | `2s` | how rarely that of an endpoint which carries nothing, and whose page stays the same |
//! | `scheme` | `http` | how pages are fetched |
//! | `insecureSkipVerify`, `caCertPath`, `clientCertPath`, `clientKeyPath` | – | without effect: TLS is the cluster's |
//! | `cluster` | the one that requests are routed to | the cluster through which pages are fetched |
//! | `stalenessThreshold` | `2s` | older metrics are not trusted |
//!
//! While an endpoint carries no request of this Envoy and its page stays the same, the time to its next page doubles up to
//! `maxInterval`. The page is fetched at once when the endpoint is picked, while requests wait under flow control, and when
//! the page of another such endpoint shows traffic. A plan that needs no metrics fetches no pages; one that needs only the
//! KV cache's size fetches each page once a minute, and again while requests at the endpoint wait unusually long.
//!
//! ```yaml
//! - type: metrics-data-source
//!   parameters: {path: /metrics, interval: 200ms}
//! ```

use std::time::Duration;

use crate::config::value::Node;
use crate::endpoints::poller::Cadence;
use crate::plugins::{Build, Capabilities, Capability, Dialect, Parity, PluginType, Standing};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "metrics-data-source",
    former_names: &[],
    provides: &[Capability::MetricsSource],
    references: &[],
    build,
    parity: Parity {
        plugin: Standing::Same,
        parameters: &[
            (
                "interval",
                Standing::Differs("the default is 200ms, not the 50ms that slow vLLM down"),
            ),
            (
                "port",
                Standing::Differs("needs a cluster that reaches it"),
            ),
            (
                "scheme",
                Standing::Differs("`https` needs a cluster that does TLS"),
            ),
            (
                "maxInterval",
                Standing::Ours("there each page is fetched at each interval"),
            ),
            ("insecureSkipVerify", CLUSTERS),
            ("caCertPath", CLUSTERS),
            ("clientCertPath", CLUSTERS),
            ("clientKeyPath", CLUSTERS),
            (
                "cluster",
                Standing::Ours("the Endpoint Picker connects by itself"),
            ),
            (
                "stalenessThreshold",
                Standing::Ours("there it is a flag"),
            ),
        ],
    },
};

/// The standing of these parameters.
const CLUSTERS: Standing = Standing::NoEffect(TLS_WHERE);

const TLS_WHERE: &str = "TLS to the endpoints is set on the Envoy cluster";

/// TLS parameters of the Endpoint Picker, which are the cluster's matter here.
const TLS: [&str; 4] = [
    "insecureSkipVerify",
    "caCertPath",
    "clientCertPath",
    "clientKeyPath",
];

/// The settings.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricsDataSource {
    /// The path of the page.
    pub path: String,
    /// Another port than the endpoint's.
    pub port: Option<u16>,
    /// How often each page is fetched.
    pub interval: Duration,
    /// How often that of an endpoint of which nothing is to be known.
    pub max_interval: Duration,
    /// The cluster through which pages are fetched; empty: the one that requests are routed to.
    pub cluster: String,
    /// Age from which on metrics are not trusted.
    pub staleness: Duration,
}

impl Default for MetricsDataSource {
    fn default() -> Self {
        Self {
            path: "/metrics".to_owned(),
            port: None,
            // The Endpoint Picker's 50 ms are known to slow vLLM down; queues change in seconds.
            interval: Duration::from_millis(200),
            // A tenth of the pages of an idle pool. Requests of other gateways are seen this late where nothing was.
            max_interval: Duration::from_secs(2),
            cluster: String::new(),
            staleness: Duration::from_secs(2),
        }
    }
}

/// Longer times between pages are refused: endpoints would be ejected or back long before anything is known of them.
pub const MAX_INTERVAL: Duration = Duration::from_secs(600);

/// How often a page is fetched of which only constants are needed: a server that has restarted with another KV cache at the
/// same address is known after this time.
const CONSTANTS_INTERVAL: Duration = Duration::from_secs(60);

impl MetricsDataSource {
    /// Returns how often pages are fetched. `constants`: whether the plan needs no more of them than what does not change
    /// while a server runs.
    pub fn cadence(&self, constants: bool) -> Cadence {
        Cadence {
            interval: self.interval,
            longest: match constants {
                true => self.max_interval.max(CONSTANTS_INTERVAL),
                false => self.max_interval,
            },
        }
    }
}

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    let default = MetricsDataSource::default();
    let fields = &mut build.fields;
    if build.declared == Dialect::GieV1 {
        fields.in_any_case();
    }
    for name in TLS {
        fields.no_effect(name, TLS_WHERE);
    }
    let cluster = fields.string("cluster", "");
    let https = fields.choice("scheme", false, &[("http", false), ("https", true)]);
    if https && cluster.is_empty() {
        let found = Node::String("https".to_owned());
        let expected = "http, or `cluster` naming an Envoy cluster with TLS to the metrics port";
        fields.refuse("scheme", &found, expected);
    }
    let port = fields.optional_port("port");
    if port.is_some() && cluster.is_empty() {
        let path = fields.path().key("port");
        let message = "needs `cluster` naming an ORIGINAL_DST cluster that reaches the port";
        fields.problems().error(&path, message);
    }
    let shortest = Duration::from_millis(50);
    let interval = fields.duration_or_default("interval", default.interval, shortest);
    let max_interval = fields.duration("maxInterval", default.max_interval, shortest);
    if max_interval > MAX_INTERVAL {
        let path = fields.path().key("maxInterval");
        fields.problems().error(&path, "expected 10m at most");
    }
    Capabilities {
        metrics_source: Some(MetricsDataSource {
            path: fields.string("path", &default.path),
            port,
            interval,
            max_interval,
            cluster,
            staleness: fields.duration("stalenessThreshold", default.staleness, shortest),
        }),
        ..Capabilities::default()
    }
}
