//! `metrics-data-source`: how endpoints' metrics pages are fetched.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `path` | `/metrics` | where the page is |
//! | `port` | the endpoint's | another port |
//! | `interval` | `200ms` | how often each page is fetched |
//! | `maxInterval` | `2s` | the longest time between two pages of an endpoint at rest: without requests of this Envoy, and whose page does not change; from `interval` to 10m |
//! | `scheme` | `http` | how pages are fetched |
//! | `insecureSkipVerify`, `caCertPath`, `clientCertPath`, `clientKeyPath` | – | without effect: TLS is the cluster's |
//! | `cluster` | the one that requests are routed to | the cluster through which pages are fetched |
//! | `stalenessThreshold` | `2s` | older metrics are not trusted |
//! | `sglangLoads` | `false` | reads SGLang's `/v1/loads` instead of its page |
//!
//! An endpoint is at rest while no request of this Envoy is in flight there, none waits under flow control, and its page
//! stays the same. With each such page the time to the next one doubles, up to `maxInterval`; otherwise a page is fetched
//! at each interval. When the page of an endpoint that had rested up to `maxInterval` changes, another gateway has begun to
//! send to it: the pages of all others at rest are fetched once within an interval. One that keeps changing has no such effect.
//! When requests begin to wait under flow control, the first pages of endpoints at rest are spread over an interval, too.
//!
//! A plan that needs no metrics fetches no pages; one that needs only the KV cache's size fetches each page once a minute,
//! once a second while a request to the endpoint has no response, and at each interval while requests there wait unusually
//! long.
//!
//! With `sglangLoads`, endpoints of the engine `sglang` are asked for `/v1/loads?include=core`, which is shorter than their
//! page, through the same cluster and at the same port. SGLang has it since January 2026. It answers from shared memory since
//! May 2026; before, each answer is a request to its scheduler, and the page may be cheaper. The page is still read once a
//! minute, for the size of the KV cache. An endpoint whose `/v1/loads` is missing, does not come or is not understood is asked
//! for its page for a minute, then for `/v1/loads` again; the failure is counted in `llm_d_epp_datalayer_poll_errors_total`.
//! The status page shows of which endpoints `/v1/loads` is read, and the line in the log about the document in force says that
//! it is asked for. A server with `--api-key` answers 401. In a disaggregated deployment `/v1/loads` also counts requests in
//! the queues before and after the KV transfer as waiting. Where a plugin needs custom metrics or adapters of `sglang`, which
//! only the page has, or none needs the load of endpoints, the page is read as without. The form of the answer is that of
//! SGLang's source; it was not tried on a running SGLang.
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
            (
                "sglangLoads",
                Standing::Ours("there the metrics page is read"),
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
    /// The longest time between two pages of an endpoint at rest.
    pub max_interval: Duration,
    /// The cluster through which pages are fetched; empty: the one that requests are routed to.
    pub cluster: String,
    /// Age from which on metrics are not trusted.
    pub staleness: Duration,
    /// Whether SGLang's `/v1/loads` is read instead of its page; false in a plan where that would have no effect.
    pub sglang_loads: bool,
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
            sglang_loads: false,
        }
    }
}

/// Longer times between pages are refused: what decisions know of an endpoint at rest would be too old.
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
    let given = fields.node("maxInterval").filter(|found| **found != Node::Null);
    let is_within = (interval..=MAX_INTERVAL).contains(&max_interval);
    // The default is no contradiction to a longer `interval`.
    if let Some(found) = given.filter(|_| !is_within) {
        fields.refuse("maxInterval", found, "a duration from `interval` to 10m");
    }
    let staleness = fields.duration("stalenessThreshold", default.staleness, shortest);
    if interval >= staleness {
        let message = "not below `stalenessThreshold`: metrics are stale before the next page comes";
        let path = fields.path().key("interval");
        fields.problems().warn(&path, message);
    }
    Capabilities {
        metrics_source: Some(MetricsDataSource {
            path: fields.string("path", &default.path),
            port,
            interval,
            max_interval,
            cluster,
            staleness,
            sglang_loads: fields.boolean("sglangLoads", default.sglang_loads),
        }),
        ..Capabilities::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{loaded, refused};

    #[test]
    fn an_interval_at_which_metrics_would_be_stale_is_told() {
        let warnings = |parameters: &str| {
            let source = format!("- {{type: metrics-data-source, parameters: {parameters}}}");
            let text = format!(
                "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n\
                 - type: queue-scorer\n{source}\nschedulingProfiles:\n\
                 - {{name: default, plugins: [{{pluginRef: queue-scorer}}]}}\n"
            );
            let loaded = crate::config::load(&text).unwrap();
            let warnings = loaded.warnings.iter().map(ToString::to_string);
            warnings.collect::<Vec<_>>()
        };
        for parameters in ["{interval: 2s}", "{interval: 5s, stalenessThreshold: 4s}"] {
            let told = warnings(parameters);
            let expected = "plugins[1].parameters.interval";
            assert!(told.iter().any(|one| one.contains(expected)), "{told:?}");
        }
        assert_eq!(warnings("{interval: 5s, stalenessThreshold: 15s}"), [""; 0]);
    }

    #[test]
    fn the_longest_interval_has_bounds() {
        let cases = [
            ("{maxInterval: 11m}", "found \"11m\""),
            ("{maxInterval: 100ms}", "found \"100ms\""),
            ("{interval: 3s, maxInterval: 2s}", "found \"2s\""),
        ];
        for (parameters, found) in cases {
            let error = refused(TYPE.name, parameters);
            let parts = ["plugins[0].parameters.maxInterval", found, "from `interval` to 10m"];
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
        let allowed = [
            ("{}", 2_000),
            ("{interval: 3s}", 2_000),
            ("{interval: 3s, maxInterval: null}", 2_000),
            ("{interval: 1s, maxInterval: 1s}", 1_000),
            ("{maxInterval: 10m}", 600_000),
        ];
        for (parameters, longest) in allowed {
            let instance = loaded(TYPE.name, parameters);
            let source = instance.capabilities.metrics_source.as_ref().unwrap();
            let expected = Duration::from_millis(longest);
            assert_eq!(source.cadence(false).longest, expected, "{parameters}");
        }
    }
}
