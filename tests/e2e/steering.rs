//! A client's destination header does not select an endpoint, in whatever form it is sent: neither of the pool
//! nor of a cluster with the `override_host` policy that no filter serves.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fake_model_server::{Settings, Sim};
use serde_json::json;

use crate::client::{get, post, raw};
use crate::proxy::{Proxy, Setup};
use crate::stream::{Connection, Http};
use crate::{document, scorer};

const HEADER: &str = "x-gateway-destination-endpoint";

/// Requests of each kind. Where Envoy's round robin chooses among four, each pod gets three.
const REQUESTS: usize = 12;

/// The pool of one filter, and a canary like it that no filter serves.
struct Site {
    pool: Sim,
    canary: Sim,
}

impl Site {
    fn new() -> Self {
        let sim = || Sim::start(4, &Settings::default()).unwrap();
        let (pool, canary) = (sim(), sim());
        Self { pool, canary }
    }

    fn setup(&self, config: &str) -> Setup {
        let mut setup = Setup::new(&self.pool.addresses(), config);
        setup.others = vec![("canary".to_owned(), self.canary.addresses())];
        setup
    }

    /// Returns the member of the canary that a client names.
    fn wanted(&self) -> String {
        self.canary.addresses()[2].to_string()
    }
}

/// Returns the name of the pod from its header in a raw response.
fn served_by(response: &str) -> String {
    let mut lines = response.lines();
    let line = lines.find_map(|line| line.strip_prefix("x-served-by: "));
    line.unwrap_or_else(|| panic!("no x-served-by: {response}"))
        .trim()
        .to_owned()
}

/// Returns the bytes of an HTTP/1.1 request with these lines among its headers.
fn bytes(method: &str, path: &str, lines: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nhost: e2e\r\n{lines}content-type: application/json\r\n\
         content-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

/// Sends the header in each form in which it can be sent, and asserts that the named pod gets no more of the
/// requests than another one.
fn is_not_obeyed(proxy: &Proxy, path: &str, wanted: &str) {
    let lines = [
        format!("{HEADER}: {wanted}\r\n"),
        format!("X-Gateway-DESTINATION-Endpoint: {wanted}\r\n"),
        format!("{HEADER}: {wanted}\r\n{HEADER}: {wanted}\r\n"),
        format!("{HEADER}:\r\n{HEADER}: {wanted}\r\n"),
        format!("{HEADER}: {wanted}\r\n{HEADER}:\r\n"),
        format!("connection: {HEADER}\r\n{HEADER}: {wanted}\r\n"),
    ];
    let mut served: BTreeMap<String, usize> = BTreeMap::new();
    let mut count = |pod: String| *served.entry(pod).or_default() += 1;
    let body = r#"{"model": "m", "prompt": "x", "max_tokens": 1}"#;
    for _ in 0..REQUESTS {
        for lines in &lines {
            for (method, body) in [("GET", ""), ("POST", body)] {
                let request = bytes(method, path, lines, body);
                let request = [request.as_bytes()];
                count(served_by(&raw(
                    proxy.port,
                    &request,
                    Duration::ZERO,
                    |_| false,
                )));
            }
        }
        for http in [Http::One, Http::Two] {
            let mut connection = Connection::open(proxy.port, http);
            let twice = [(HEADER, wanted), (HEADER, wanted)];
            let mut upload = connection.post(path, &twice);
            upload.send(body.as_bytes());
            count(upload.response().pod().to_owned());
        }
    }
    let all: usize = served.values().sum();
    assert_eq!(all, REQUESTS * 14);
    let most = served.values().max().unwrap();
    assert!(*most < all / 2, "{served:?}");
}

fn listens(proxy: &Proxy) {
    proxy.wait_until("Envoy listens", || get(proxy.port, "/canary/x").is_ok());
}

#[test]
fn the_filter_removes_the_destination_header_from_requests_to_other_clusters() {
    let site = Site::new();
    let proxy = site.setup(&scorer("prefix-cache-scorer")).launch();
    // This holds for the first requests after the start, too.
    listens(&proxy);
    is_not_obeyed(&proxy, "/canary/v1/completions", &site.wanted());
    proxy.wait_until_it_serves();
    is_not_obeyed(&proxy, "/canary/v1/completions", &site.wanted());
}

#[test]
fn early_mutation_removes_the_destination_header_where_no_filter_runs() {
    let site = Site::new();
    let mut setup = site.setup("");
    setup.configs.clear();
    // Without the mutation the header is obeyed: it is the filter that removes it in the other tests.
    let open = setup.clone().launch();
    listens(&open);
    let wanted = site.wanted();
    for _ in 0..REQUESTS {
        let body = json!({"model": "m", "prompt": "x"});
        let response = post(
            open.port,
            "/canary/v1/completions",
            &body,
            &[(HEADER, &wanted)],
        );
        assert_eq!(response.pod(), "pod-3");
    }
    setup.removed_early = vec![HEADER.to_owned()];
    let proxy = setup.launch();
    listens(&proxy);
    is_not_obeyed(&proxy, "/canary/v1/completions", &wanted);
}

#[test]
fn route_weights_and_mirrors_do_not_obey_the_destination_header() {
    let site = Site::new();
    let mut setup = site.setup(&scorer("queue-scorer"));
    let half = |name: &str| json!({"name": name, "weight": 50});
    setup.route = json!({
        "cluster": null,
        "weighted_clusters": {"clusters": [half("inference-pool"), half("canary")]},
        "request_mirror_policies": [{"cluster": "canary"}],
    });
    let proxy = setup.start();
    let wanted = site.wanted();
    site.canary.pods().for_each(|pod| pod.forget());
    let (all, body) = (60, json!({"model": "m", "prompt": "x"}));
    for _ in 0..all {
        let response = post(proxy.port, "/v1/completions", &body, &[(HEADER, &wanted)]);
        assert_eq!(response.status, 200);
    }
    let seen = || -> Vec<usize> { site.canary.pods().map(|pod| pod.seen().len()).collect() };
    // Each mirrored request, and about half of all once more by weight.
    proxy.wait_until("mirrors have arrived", || {
        seen().iter().sum::<usize>() > all
    });
    let sum: usize = seen().iter().sum();
    assert!(seen().iter().all(|one| *one < sum / 2), "{:?}", seen());
}

/// Envoy 1.40 does not hand the header on to the policy of a cluster behind an aggregate: the filter's
/// choice has no effect there either, which `eppctl lint` says.
#[test]
fn an_aggregate_of_the_pool_does_not_obey_the_destination_header() {
    let sim = Sim::start(4, &Settings::default()).unwrap();
    let start = |cluster: &str| {
        let proxy = format!("{{type: envoy-proxy, parameters: {{cluster: {cluster}}}}}");
        let plugins = format!("{{type: prefix-cache-scorer}}, {proxy}");
        let config = document(&plugins, "{pluginRef: prefix-cache-scorer}");
        let mut setup = Setup::new(&sim.addresses(), &config);
        setup.more_clusters = vec![json!({
            "name": "all", "connect_timeout": "1s", "lb_policy": "CLUSTER_PROVIDED",
            "cluster_type": {"name": "envoy.clusters.aggregate", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig",
                "clusters": ["inference-pool"]}},
        })];
        setup.route = json!({"cluster": "all"});
        setup.start()
    };
    let wanted = sim.addresses()[2].to_string();
    for cluster in ["inference-pool", "all"] {
        is_not_obeyed(&start(cluster), "/v1/completions", &wanted);
    }
}

/// Returns a setup with two filters in one chain, each with a pool of its own.
fn two_pools(one: &Sim, two: &Sim, vms_apart: bool) -> Setup {
    let mut setup = Setup::new(&one.addresses(), &scorer("prefix-cache-scorer"));
    setup.others = vec![("second".to_owned(), two.addresses())];
    let plugins = "{type: prefix-cache-scorer}, {name: members, type: envoy-cluster-discovery, parameters: {clusters: [second]}}";
    let second = document(plugins, "{pluginRef: prefix-cache-scorer}")
        + "dataLayer: {discovery: {pluginRef: members}}\n";
    setup.configs.push(second);
    setup.vms_apart = vms_apart;
    setup
}

#[test]
fn the_next_filter_keeps_the_destination_that_a_filter_set() {
    for vms_apart in [false, true] {
        let sim = || Sim::start(4, &Settings::default()).unwrap();
        let (one, two) = (sim(), sim());
        let proxy = two_pools(&one, &two, vms_apart).start();
        for (path, sim) in [("/v1/completions", &one), ("/second/v1/completions", &two)] {
            let wanted = sim.addresses()[3].to_string();
            keeps_to_one_pod(&proxy, path, &wanted);
            is_not_obeyed_by(&proxy, path, &wanted);
        }
    }
}

/// Waits until the worker picks, and asserts that requests with a common prefix stay together from then on: the filter's
/// choice reaches Envoy's policy.
fn keeps_to_one_pod(proxy: &Proxy, path: &str, wanted: &str) {
    let prompt = "a prompt of many blocks that all have in common ".repeat(20);
    let body = json!({"model": "m", "prompt": prompt, "max_tokens": 1});
    let pods = || {
        let pods = (0..8).map(|_| {
            let response = post(proxy.port, path, &body, &[(HEADER, wanted)]);
            assert_eq!(response.status, 200);
            response.pod().to_owned()
        });
        pods.collect::<BTreeSet<String>>()
    };
    let mut kept = BTreeSet::new();
    proxy.wait_until("the worker picks", || {
        kept = pods();
        kept.len() == 1
    });
    assert_eq!(pods(), kept);
}

/// Asserts that requests with different prompts are spread, whatever endpoint they name.
fn is_not_obeyed_by(proxy: &Proxy, path: &str, wanted: &str) {
    let mut served: BTreeMap<String, usize> = BTreeMap::new();
    for number in 0..40 {
        let prompt = format!("{number} ").repeat(100);
        let body = json!({"model": "m", "prompt": prompt, "max_tokens": 1});
        let response = post(proxy.port, path, &body, &[(HEADER, wanted)]);
        *served.entry(response.pod().to_owned()).or_default() += 1;
    }
    assert!(served.values().all(|count| *count < 30), "{served:?}");
}
