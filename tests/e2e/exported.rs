//! A running Envoy exports the metrics of the catalogue, which docs/metrics.md is made of, and no others: each is
//! provoked here, and has the documented type and labels.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;

use epp_core::metrics::definitions::{Description, CATALOGUE};
use fake_model_server::{Faults, Settings, Sim};
use serde_json::json;

use crate::client::{complete, get, post, TIMEOUT};
use crate::document;
use crate::proxy::{Proxy, Setup};
use crate::stream::{Connection, Http};
use crate::uploads::{completion, Model, UPLOAD_BYTES};

/// Responses that are under way together: a worker reads 128 of them.
const STREAMS: usize = 140;

/// What the pods answer with status 500, longer than a prefix block.
const POISON: &str =
    "A prompt that no server survives, wherever it is sent, however often, for all that is known.";

/// What is counted of a metric.
#[derive(Debug, Default)]
struct Counted {
    /// The type that Envoy writes, of each of its parts.
    kinds: BTreeSet<String>,
    labels: BTreeSet<String>,
    /// Its value, or that of the count of a histogram, over all series.
    total: f64,
    /// Whether each series has the pool as a label, of all series so far.
    of_pool: BTreeSet<bool>,
}

/// Returns the metric of the catalogue to which a name on the page belongs, and the part of it.
fn documented(name: &str) -> Option<(&'static Description, &str)> {
    CATALOGUE.iter().find_map(|metric| {
        let part = name.strip_prefix(metric.name)?;
        let parts: &[&str] = match metric.kind {
            "Histogram" => &["_bucket", "_sum", "_count"],
            _ => &[""],
        };
        parts.contains(&part).then_some((metric, part))
    })
}

/// Returns the names of the labels of a series, whose values contain no quotation marks.
fn labels(braces: &str) -> impl Iterator<Item = &str> {
    let parts = braces.trim_matches(['{', '}']).split("\",");
    parts.filter_map(|part| Some(part.split_once('=')?.0))
}

/// Returns what a page has of each metric, and the names that are not documented.
///
/// Envoy gives all names of its own the same beginning, so that everything else is the filter's.
fn counted(page: &str) -> (BTreeMap<&'static str, Counted>, BTreeSet<&str>) {
    let mut metrics: BTreeMap<&str, Counted> = BTreeMap::new();
    let mut unknown = BTreeSet::new();
    for line in page.lines().filter(|line| !line.is_empty()) {
        let kind = line.strip_prefix("# TYPE ");
        let name = kind.unwrap_or(line).split(['{', ' ']).next().unwrap();
        if name.starts_with("envoy_") || line.starts_with('#') && kind.is_none() {
            continue;
        }
        let Some((metric, part)) = documented(name) else {
            unknown.insert(name);
            continue;
        };
        let counted = metrics.entry(metric.name).or_default();
        if let Some(kind) = kind {
            let (_, kind) = kind.split_once(' ').unwrap();
            counted.kinds.insert(kind.to_owned());
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let own: BTreeSet<&str> = labels(&series[name.len()..]).collect();
        assert_eq!(own.contains("le"), part == "_bucket", "{line}");
        counted.of_pool.insert(own.contains("pool"));
        let own = own
            .into_iter()
            .filter(|label| !["pool", "le"].contains(label));
        counted.labels.extend(own.map(str::to_owned));
        if ["", "_count"].contains(&part) {
            counted.total += value.parse::<f64>().unwrap();
        }
    }
    (metrics, unknown)
}

/// Returns the metrics that were not provoked: gauges without a series, others that have counted nothing.
fn missing(page: &str) -> Vec<&'static str> {
    let (metrics, _) = counted(page);
    let is_there = |metric: &&Description| {
        let counted = metrics.get(metric.name);
        counted.is_some_and(|counted| metric.kind == "Gauge" || counted.total > 0.0)
    };
    let missing = CATALOGUE.iter().filter(|metric| !is_there(metric));
    missing.map(|metric| metric.name).collect()
}

/// Checks that each series of a histogram shows where its lowest bucket that has counted begins.
fn lowest_buckets_have_a_lower_bound(page: &str) {
    let mut lowest: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, rest)) = line.split_once("le=\"") else {
            continue;
        };
        let (bound, rest) = rest.split_once('"').unwrap();
        let (more, count) = rest.rsplit_once(' ').unwrap();
        let found = (bound.parse().unwrap(), count.parse().unwrap());
        let known = lowest.entry(format!("{series}{more}")).or_insert(found);
        if found.0 < known.0 {
            *known = found;
        }
    }
    for metric in CATALOGUE.iter().filter(|metric| metric.kind == "Histogram") {
        let own = format!("{}_bucket{{", metric.name);
        let mut own = lowest
            .iter()
            .filter(|(name, _)| name.starts_with(&own))
            .peekable();
        assert!(own.peek().is_some(), "{}", metric.name);
        for (series, (bound, count)) in own {
            assert!(
                *count == 0.0 || metric.bounds.first() == Some(bound),
                "{series}: {bound}"
            );
        }
    }
}

/// A configuration for a cluster that picks at random, with further plugins, and references to them.
fn pool(cluster: &str, plugins: &str, references: &str) -> String {
    let discovery = "{name: members, type: envoy-cluster-discovery, parameters: {clusters: [";
    document(
        &format!("{{type: random-picker}}, {plugins}{discovery}{cluster}]}}}}"),
        &format!("{{pluginRef: random-picker}}{references}"),
    ) + "dataLayer: {discovery: {pluginRef: members}}\n"
}

/// The pools of one Envoy: all plugins that count something are in one of them.
fn start(sim: &Sim) -> Proxy {
    let main = document(
        "{type: prefix-cache-scorer, parameters: {lruCapacityPerServer: 200}}, {type: queue-scorer}, {type: token-load-scorer}, \
         {type: envoy-proxy, parameters: {decideAfterBytes: 65536, rewriteHeader: true, requestLoadMetrics: true}}",
        "{pluginRef: prefix-cache-scorer, weight: 9}, {pluginRef: queue-scorer}, {pluginRef: token-load-scorer}",
    );
    let none = |mode| {
        format!(
            "{{type: label-selector-filter, parameters: {{matchLabels: {{a: b}}}}}}, \
             {{type: envoy-proxy, parameters: {{failureMode: {mode}}}}}, "
        )
    };
    let filtered = ", {pluginRef: label-selector-filter}";
    let dry = "{type: envoy-proxy, parameters: {dryRun: true}}, ";
    let disaggregating = "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {type: decode-filter}
- {type: prefill-filter}
- {type: prefix-cache-scorer}
- {type: prefix-based-pd-decider, parameters: {nonCachedTokens: 200}}
- {type: disagg-profile-handler, parameters: {deciders: {prefill: prefix-based-pd-decider}}}
- name: members
  type: envoy-cluster-discovery
  parameters: {clusters: [{name: decode, labels: {llm-d.ai/role: decode}}]}
schedulingProfiles:
- {name: prefill, plugins: [{pluginRef: prefill-filter}]}
- {name: decode, plugins: [{pluginRef: decode-filter}, {pluginRef: prefix-cache-scorer}]}
dataLayer: {discovery: {pluginRef: members}}
";
    let queueing = "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
featureGates: [flowControl]
plugins:
- {type: random-picker}
- {type: concurrency-detector, parameters: {maxConcurrency: 1}}
- {type: static-objectives, parameters: {objectives: [{name: high, priority: 10}, {name: low, priority: -1}]}}
- name: members
  type: envoy-cluster-discovery
  parameters: {clusters: [queueing]}
schedulingProfiles: [{name: default, plugins: [{pluginRef: random-picker}]}]
flowControl:
  saturationDetector: {pluginRef: concurrency-detector}
  enableEviction: true
  priorityBands: [{priority: 10}]
dataLayer: {discovery: {pluginRef: members}}
";
    let mut setup = Setup::new(&sim.addresses(), &main);
    setup.configs.extend([
        pool("closed", &none("FailClose"), filtered),
        pool("open", &none("FailOpen"), filtered),
        pool("dry", dry, ""),
        disaggregating.to_owned(),
        queueing.to_owned(),
    ]);
    let others = ["closed", "open", "dry", "decode", "queueing", "web"];
    setup.others = others
        .map(|name| (name.to_owned(), sim.addresses()))
        .to_vec();
    setup.module = setup.host.faulty_file();
    setup.start()
}

/// Sends what makes the filter count, one after the other.
fn requests(proxy: &Proxy, sim: &Sim, number: usize) {
    let port = proxy.port;
    // Twice: the pods' caches have room for the first, and are far smaller than the index takes them to be.
    for length in [4, 80] {
        let prompt = format!("{number} is the number of this prompt. ").repeat(length);
        for _ in 0..2 {
            assert_eq!(complete(port, "m", &prompt).status, 200);
        }
    }
    let streamed = json!({"model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": 5,
        "stream": true, "stream_options": {"include_usage": true}});
    assert_eq!(
        post(port, "/v1/chat/completions", &streamed, &[]).status,
        200
    );
    for name in ["closed", "open", "dry", "decode", "web"] {
        let body = json!({"model": "m", "prompt": "x", "max_tokens": 1});
        post(port, &format!("/{name}/v1/completions"), &body, &[]);
    }
    // The prompt is looked up before the rest of the body lets the request be decided.
    let body = completion(Model::First, UPLOAD_BYTES);
    assert_eq!(upload(port, &body, 8 << 10), 200);
    // What follows the prompt comes too late.
    let body = completion(Model::Last, UPLOAD_BYTES);
    assert_eq!(upload(port, &body, 40 << 10), 200);
    // Fails wherever it goes, which is its own fault.
    sim.pods().for_each(|pod| {
        pod.set_faults(Faults {
            status: Some(500),
            only: Some(POISON.to_owned()),
            ..Faults::default()
        });
    });
    assert_eq!(complete(port, "m", POISON).status, 500);
}

/// Uploads a body in two parts, of which Envoy sees the first one alone, most times.
fn upload(port: u16, body: &[u8], first: usize) -> u16 {
    let mut connection = Connection::open(port, Http::One);
    let headers = [("x-llm-d-model-name-rewrite", "another")];
    let mut upload = connection.post("/v1/completions", &headers);
    upload.send(&body[..first]);
    std::thread::sleep(std::time::Duration::from_millis(20));
    upload.send(&body[first..]);
    upload.response().status
}

/// Requests more responses at a time than a worker reads.
fn many_responses(port: u16) {
    let body = json!({"model": "m", "prompt": "x", "max_tokens": 100, "stream": true}).to_string();
    let request = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let streams = (0..STREAMS).map(|_| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream
    });
    for mut stream in streams.collect::<Vec<_>>() {
        let mut response = Vec::new();
        stream.read_to_end(&mut response).unwrap();
        assert!(response.starts_with(b"HTTP/1.1 200"));
    }
}

/// Fills a pool under flow control with sheddable requests, and has one of a higher priority evict one of them.
fn evict(port: u16, pods: usize) {
    let body = json!({"model": "m", "prompt": "x", "max_tokens": 400});
    let ask = |objective| {
        let headers = [("x-llm-d-inference-objective", objective)];
        post(port, "/queueing/v1/completions", &body, &headers)
    };
    std::thread::scope(|scope| {
        // One more than the pool takes: it waits for two seconds, and gauges are set once a second.
        for _ in 0..=pods {
            scope.spawn(|| ask("low"));
        }
        std::thread::sleep(std::time::Duration::from_millis(500));
        assert_eq!(ask("high").status, 200);
    });
}

#[test]
fn envoy_exports_the_documented_metrics_and_no_others() {
    let settings = Settings {
        cache_blocks: 10,
        token_time: std::time::Duration::from_millis(5),
        ..Settings::default()
    };
    let mut sim = Sim::start(3, &settings).unwrap();
    let mut proxy = start(&sim);
    many_responses(proxy.port);
    evict(proxy.port, 3);
    let body = json!({"model": "m", "prompt": "x", "max_tokens": 1});
    for fault in ["panic@response_body", "scribble"] {
        let headers = [("x-epp-fault", fault)];
        assert_eq!(
            post(proxy.port, "/v1/completions", &body, &headers).status,
            200
        );
    }
    for number in 0..20 {
        requests(&proxy, &sim, number);
    }
    // Its page is gone, and requests that are picked for it are served by others.
    sim.pods().for_each(|pod| pod.set_faults(Faults::default()));
    sim.stop(1);
    let config = proxy.setup.configs[0].replace("queue-scorer", "queue-socrer");
    proxy.set_config(&config);
    let mut page = String::new();
    proxy.wait_until("all metrics are there", || {
        assert_eq!(get(proxy.port, "/v1/models").unwrap().status, 200);
        page = proxy.prometheus();
        let missing = missing(&page);
        println!("not exported yet: {missing:?}");
        missing.is_empty()
    });
    let (metrics, unknown) = counted(&page);
    assert!(unknown.is_empty(), "not documented: {unknown:?}");
    lowest_buckets_have_a_lower_bound(&page);
    for metric in CATALOGUE {
        let found = &metrics[metric.name];
        let kind = match metric.kind {
            "Gauge" => "gauge",
            // A histogram is a counter for each bucket: its values are no whole numbers.
            _ => "counter",
        };
        let labels = metric.labels.iter().map(|label| (*label).to_owned());
        assert_eq!(found.labels, labels.collect(), "{}", metric.name);
        assert_eq!(found.kinds, [kind.to_owned()].into(), "{}", metric.name);
        assert_eq!(found.of_pool, [metric.of_pool].into(), "{}", metric.name);
    }
}

#[test]
fn what_is_not_documented_or_not_provoked_is_found() {
    let page = "# TYPE epp_wasm_invented gauge\nepp_wasm_invented{} 1\nother_total{a=\"b\"} 1\nenvoy_x{} 1\n";
    let (_, unknown) = counted(page);
    assert_eq!(unknown, ["epp_wasm_invented", "other_total"].into());
    let page = "epp_wasm_held_requests{pool=\"a\"} 0\nepp_wasm_early_release_total{pool=\"a\"} 0\n";
    let missing = missing(page);
    assert_eq!(missing.len(), CATALOGUE.len() - 1);
    assert!(missing.contains(&"epp_wasm_early_release_total"));
}
