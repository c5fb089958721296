//! The command-line flags of Endpoint Pickers, and the place of each in a configuration of epp-wasm.
//!
//! Covers the releases of the Gateway API Inference Extension up to v1.5, whose flags were `camelCase` before v1.0,
//! and of llm-d-router up to v0.10.

use super::target::Target::{self, *};
use crate::markdown::Inserted;

/// A group of flags with one place.
struct Flags {
    /// Their names in the newest release that has them.
    names: &'static [&'static str],
    target: Target,
    /// The place as docs/migrating.md states it; empty: the target's own words.
    place: &'static str,
}

const SERVER: &str = "there is no server; for health use Envoy's `/ready`";
const ADMIN: &str =
    "Envoy exports the metrics, on `/stats/prometheus`; restrict access in its listener";
const DEBUGGING: &str =
    "Envoy traces, profiles and logs; its log level is set with `--component-log-level wasm:debug`";

const fn row(names: &'static [&'static str], target: Target, place: &'static str) -> Flags {
    Flags {
        names,
        target,
        place,
    }
}

const FLAGS: &[Flags] = &[
    row(
        &["config-file", "config-text"],
        Document,
        "the filter's `configuration`, as YAML or JSON; may change while Envoy runs",
    ),
    row(
        &["pool-name", "pool-namespace", "pool-group"],
        Pool,
        "`envoy-cluster-discovery`, `clusters` (`[inference-pool]`): the Envoy cluster whose members are the pool's pods",
    ),
    row(&["endpoint-selector"], Selector, "`envoy-cluster-discovery`, `clusters`, likewise"),
    row(&["endpoint-target-ports"], Ports, "the ports of that cluster's members"),
    row(
        &["refresh-metrics-interval"],
        Source("interval"),
        "`metrics-data-source`, `interval` (`200ms`); the Endpoint Picker's default is 50ms",
    ),
    row(
        &["metrics-staleness-threshold"],
        Source("stalenessThreshold"),
        "`metrics-data-source`, `stalenessThreshold` (`2s`); a stale endpoint is neutral, not idle",
    ),
    row(
        &["model-server-metrics-path"],
        Source("path"),
        "`metrics-data-source`, `path` (`/metrics`)",
    ),
    row(
        &["model-server-metrics-port"],
        Source("port"),
        "`metrics-data-source`, `port`, with a `cluster` that reaches it",
    ),
    row(
        &["model-server-metrics-scheme"],
        Source("scheme"),
        "`metrics-data-source`, `scheme` (`http`); `https` with a `cluster` that does the TLS",
    ),
    row(
        &["model-server-metrics-https-insecure-skip-verify"],
        Gone("TLS to the model servers is set on the Envoy cluster"),
        "",
    ),
    row(&["total-queued-requests-metric"], Engine("queuedRequestsSpec"), ENGINE),
    row(&["total-running-requests-metric"], Engine("runningRequestsSpec"), ENGINE),
    row(&["kv-cache-usage-percentage-metric"], Engine("kvUsageSpec"), ENGINE),
    row(&["lora-info-metric"], Engine("loraSpec"), ENGINE),
    row(&["cache-info-metric"], Engine("cacheInfoSpec"), ENGINE),
    row(
        &["refresh-prometheus-metrics-interval"],
        Gone("gauges are updated once a second"),
        "",
    ),
    row(
        &["destination-endpoint-hint-key"],
        Proxy("destinationHeader"),
        "`envoy-proxy`, `destinationHeader` (`x-gateway-destination-endpoint`)",
    ),
    row(
        &["destination-endpoint-hint-metadata-namespace"],
        Gone("the destination is a header only"),
        "",
    ),
    row(
        &["ha-enable-leader-election"],
        Gone("each Envoy decides for itself"),
        "",
    ),
    row(
        &["disable-endpoint-subset-filter"],
        Gone("the subset hint is not read, and is removed from client requests"),
        "",
    ),
    row(
        &["emit-endpoint-scores"],
        ToDo("a filter writes no dynamic metadata: `explain: true` on `envoy-proxy` returns the scores to requests with `x-epp-explain: 1`"),
        "",
    ),
    row(
        &["allow-experimental-plugins"],
        Gone("every plugin that is known here loads"),
        "",
    ),
    row(
        &[
            "grpc-port",
            "grpc-health-port",
            "health-checking",
            "secure-serving",
            "cert-path",
            "enable-cert-reload",
            "tls-min-version",
            "tls-cipher-suites",
            "grpc-max-recv-msg-size",
            "grpc-max-send-msg-size",
            "drain-timeout",
        ],
        Gone(SERVER),
        "",
    ),
    row(
        &[
            "metrics-port",
            "metrics-endpoint-auth",
            "metrics-cert-dir",
            "metrics-client-ca-file",
        ],
        Gone(ADMIN),
        "",
    ),
    row(
        &[
            "tracing",
            "enable-pprof",
            "enable-grpc-stream-metrics",
            "v",
            "zap-devel",
            "zap-encoder",
            "zap-log-level",
            "zap-stacktrace-level",
            "zap-time-encoding",
        ],
        Gone(DEBUGGING),
        "",
    ),
    row(
        &["kubeconfig"],
        Gone("nothing here asks the Kubernetes API"),
        "",
    ),
];

const ENGINE: &str =
    "`core-metrics-extractor`, `engineConfigs`; the names of vLLM, SGLang, TensorRT-LLM and Triton are built in";

/// Flags that name an Endpoint Picker's container among others, which no model server or proxy has.
const TELLING: [&str; 6] = [
    "config-file",
    "config-text",
    "pool-name",
    "endpoint-selector",
    "grpc-health-port",
    "refresh-metrics-interval",
];

/// Returns where a flag goes, by its name in any spelling.
pub fn target(name: &str) -> Target {
    let wanted = plain(name);
    let mut flags = FLAGS.iter();
    let found = flags.find(|flags| flags.names.iter().any(|name| plain(name) == wanted));
    found.map_or(Unknown, |flags| flags.target)
}

/// Returns a flag's name without what differs between spellings: releases before v1.0 wrote `poolName`.
pub fn plain(name: &str) -> String {
    let letters = name.chars().filter(|sign| !matches!(sign, '-' | '_'));
    letters.flat_map(char::to_lowercase).collect()
}

/// A flag as given.
pub struct Given {
    /// Its name, without dashes.
    pub name: String,
    /// Its value; empty if there is none.
    pub value: String,
}

/// Returns the flags among the arguments of a container; none if it is not an Endpoint Picker's.
pub fn given(arguments: &[&str]) -> Vec<Given> {
    let mut found = Vec::new();
    let mut rest = arguments.iter().peekable();
    while let Some(argument) = rest.next() {
        let Some(flag) = argument.strip_prefix('-') else {
            continue;
        };
        let flag = flag.strip_prefix('-').unwrap_or(flag);
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, value.trim_matches('"')),
            None => {
                let value = rest.next_if(|next| !next.starts_with('-'));
                (flag, value.copied().unwrap_or_default())
            }
        };
        found.push(Given {
            name: name.to_owned(),
            value: value.to_owned(),
        });
    }
    let tells = |given: &Given| TELLING.iter().any(|name| plain(name) == plain(&given.name));
    if !found.iter().any(tells) {
        found.clear();
    }
    found
}

/// Returns the table of docs/migrating.md.
pub fn table() -> Inserted {
    let mut rows = "| flag of the Endpoint Picker | here |\n|---|---|\n".to_owned();
    let mut flags = FLAGS.iter().peekable();
    while let Some(first) = flags.next() {
        let mut names: Vec<&str> = first.names.to_vec();
        let place = first.words();
        while let Some(next) = flags.next_if(|next| next.words() == place) {
            names.extend(next.names);
        }
        let names: Vec<String> = names.iter().map(|name| named(name)).collect();
        rows.push_str(&format!("| {} | {place} |\n", names.join(", ")));
    }
    Inserted {
        marker: "<!-- eppctl reference: flags -->".to_owned(),
        rows,
    }
}

fn named(name: &str) -> String {
    let dashes = if name.len() == 1 { "-" } else { "--" };
    format!("`{dashes}{name}`")
}

impl Flags {
    fn words(&self) -> String {
        match self.target {
            Gone(why) => format!("none: {why}"),
            ToDo(what) => format!("none: {what}"),
            _ => self.place.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_every_spelling() {
        for name in ["pool-name", "poolName", "pool_name"] {
            assert_eq!(target(name), Pool, "{name}");
        }
        assert_eq!(target("model"), Unknown);
    }

    #[test]
    fn arguments_are_read_in_every_form() {
        let found = given(&[
            "--pool-name",
            "llama",
            "--secure-serving",
            "--total-queued-requests-metric=\"q\"",
            "-v",
            "4",
            "--lora-info-metric",
            "",
            "stray",
            "-configFile=a.yaml",
        ]);
        let found: Vec<(&str, &str)> = found
            .iter()
            .map(|given| (given.name.as_str(), given.value.as_str()))
            .collect();
        let expected = [
            ("pool-name", "llama"),
            ("secure-serving", ""),
            ("total-queued-requests-metric", "q"),
            ("v", "4"),
            ("lora-info-metric", ""),
            ("configFile", "a.yaml"),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn other_containers_have_none() {
        assert!(given(&["--model", "m", "--port", "8000", "-v"]).is_empty());
        assert!(given(&["--config-path", "/etc/envoy.yaml", "--log-level", "warn"]).is_empty());
    }
}
