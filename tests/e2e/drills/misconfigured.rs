//! Names, paths and ports that are wrong from the start. The pools of one Envoy have one fault each.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpStream};

use envoy_harness::config::{fixed, policy};
use envoy_harness::envoy::{command, BaseId};
use envoy_harness::statistics::samples;
use envoy_harness::{free_port, path_of, wait_until, Folder, Process};
use epp_core::findings::Finding;
use fake_model_server::{Settings, Sim};
use serde_json::json;

use super::alerts::replay::{fires, Fired, Phase, Recording};
use super::{is_told, pool, responding};
use crate::client::{complete, get};
use crate::proxy::{Proxy, Setup};
use crate::tls;

const HTML: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-length: 15\r\ncontent-type: text/html\r\n\r\n<html></html>\r\n";
const NOT_FOUND: &[u8] = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
const NOTHING: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// Pools none of whose pages can be read.
const UNPOLLED: &[&str] = &[
    "by-cluster",
    "by-path",
    "refused",
    "missing",
    "html",
    "tls",
    "alert",
    "reset",
    "large",
];

/// A fatal alert, with which some TLS servers respond to plain text.
const TLS_ALERT: &[u8] = b"\x15\x03\x01\x00\x02\x02\x46";

/// Returns a response with a page of 5 MiB.
fn large_page() -> &'static [u8] {
    let page = "vllm:num_requests_waiting 7\n".repeat((5 << 20) / 28);
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", page.len());
    (head + &page).leak().as_bytes()
}

/// Model servers whose ports speak TLS: an Envoy in front of them.
struct BehindTls {
    ports: Vec<SocketAddr>,
    _envoy: Process,
    _folder: Folder,
}

impl BehindTls {
    fn start(pods: &[SocketAddr]) -> Self {
        let folder = Folder::new("drill-tls");
        let certificates = folder.path().join("tls");
        tls::write_certificates(&certificates, "model-server");
        let fronts: BTreeMap<u64, u16> = pods
            .iter()
            .map(|pod| (u64::from(pod.port()), free_port()))
            .collect();
        let file = folder.path().join("tls.json");
        fs::write(&file, tls::terminator(&certificates, &fronts)).unwrap();
        let mut envoy = command(&path_of("ENVOY"), &file, BaseId::Unique);
        envoy.args(["--concurrency", "1"]);
        let log = folder.path().join("tls.log");
        let envoy = Process::start("the Envoy that takes TLS off", envoy, &log).unwrap();
        let ports = fronts.into_values();
        let ports: Vec<SocketAddr> = ports.map(|port| ([127, 0, 0, 1], port).into()).collect();
        wait_until("its ports are open", || {
            ports.iter().all(|port| TcpStream::connect(port).is_ok())
        });
        Self {
            ports,
            _envoy: envoy,
            _folder: folder,
        }
    }
}

/// Returns the parameters of metrics-data-source.
fn metrics(parameters: &str) -> String {
    format!("{{type: metrics-data-source, parameters: {{{parameters}}}}},")
}

/// Returns a cluster's metrics pages from a server, where the cluster's name is the pool's.
fn plain(cluster: &str) -> String {
    pool(cluster, "", "")
}

struct Faulty {
    name: &'static str,
    members: Vec<SocketAddr>,
    config: String,
}

fn faulty_pools(pods: &[SocketAddr], behind_tls: &[SocketAddr]) -> Vec<Faulty> {
    let with = |name, members: &[SocketAddr], config| Faulty {
        name,
        members: members.to_vec(),
        config,
    };
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let close = "{type: envoy-proxy, parameters: {failureMode: FailClose}},";
    let open = "{type: envoy-proxy, parameters: {failureMode: FailOpen}}, \
                {type: label-selector-filter, parameters: {matchLabels: {a: b}}},";
    let filtered = pool("filtered", "", open);
    let filtered = filtered.replace(
        "[{pluginRef",
        "[{pluginRef: label-selector-filter}, {pluginRef",
    );
    vec![
        with("models", pods, pool("modles", "", "")),
        with(
            "lost",
            pods,
            pool("lost", ", adminCluster: nowhere, timeout: 2s", close),
        ),
        with("astray", pods, pool("astray", ", adminCluster: html", "")),
        with("empty", pods, pool("empty", ", adminCluster: nothing", "")),
        with(
            "by-cluster",
            pods,
            pool("by-cluster", "", &metrics("cluster: pages")),
        ),
        with(
            "by-path",
            pods,
            pool("by-path", "", &metrics("path: /wrong")),
        ),
        with("filtered", pods, filtered),
        with("refused", &[closed], plain("refused")),
        with("missing", &[responding(NOT_FOUND)], plain("missing")),
        with("html", &[responding(HTML)], plain("html")),
        with("tls", behind_tls, plain("tls")),
        with("alert", &[responding(TLS_ALERT)], plain("alert")),
        with("reset", &[responding(b"")], plain("reset")),
        with("large", &[responding(large_page())], plain("large")),
    ]
}

fn start(sim: &Sim, behind_tls: &BehindTls) -> Proxy {
    // Its cluster does not follow the header.
    let mut setup = Setup::new(&sim.addresses(), &pool("inference-pool", "", ""));
    setup.cluster =
        json!({"load_balancing_policy": policy("round_robin", "RoundRobin", json!({}))});
    setup.status_page = true;
    for Faulty {
        name,
        members,
        config,
    } in faulty_pools(&sim.addresses(), &behind_tls.ports)
    {
        setup.configs.push(config);
        setup.others.push((name.to_owned(), members));
    }
    // No pool's.
    setup.others.push(("web".to_owned(), sim.addresses()));
    setup.more_clusters = vec![fixed("nothing", &[responding(NOTHING)])];
    setup.launch()
}

/// The alerts that fire, by pool.
pub const ALERTS: &[Fired] = &[
    (
        "EppMisconfigured",
        &[
            "inference-pool",
            "modles",
            "lost",
            "astray",
            "empty",
            "by-cluster",
        ],
    ),
    // Not the pod's doing: none is ejected.
    ("EppServedElsewhere", &["inference-pool"]),
    ("EppBalancesBlindly", &["modles", "lost", "astray", "empty"]),
    // It fails closed.
    ("EppRefusesRequests", &["lost"]),
    // It fails open, and its filter removes all endpoints.
    ("EppRequestsUnrouted", &["filtered"]),
    ("EppDecidesWithoutMetrics", UNPOLLED),
    ("EppPollsFail", UNPOLLED),
    // All requests are another pool's or no pool's.
    ("EppRequestsLeftAlone", &["modles", "astray", "empty"]),
    ("EppRequestsLeftAlone", UNPOLLED),
];

/// What is told of each pool.
const TOLD: &[(&str, Finding, &str)] = &[
    (
        "inference-pool",
        Finding::NoOverrideHost,
        "cluster inference-pool, header x-gateway-destination-endpoint",
    ),
    (
        "modles",
        Finding::ClusterUnknown,
        "no cluster modles; there are models",
    ),
    (
        "lost",
        Finding::AdminUnreachable,
        "Envoy has no cluster \"nowhere\"",
    ),
    ("lost", Finding::BalancedBlindly, "cluster lost"),
    (
        "astray",
        Finding::AdminNotEnvoy,
        "cluster \"html\": not-a-page",
    ),
    (
        "empty",
        Finding::AdminNotEnvoy,
        "cluster \"nothing\": an empty page",
    ),
    (
        "by-cluster",
        Finding::MetricsClusterUnknown,
        "Envoy has no cluster \"pages\"",
    ),
    ("by-path", Finding::PollsFail, "3 of 3 endpoints: "),
    ("by-path", Finding::PollsFail, "(not-a-page)"),
    ("filtered", Finding::RequestsUnrouted, " requests"),
    ("refused", Finding::PollsFail, "(unreachable)"),
    ("missing", Finding::PollsFail, "(status 404)"),
    ("html", Finding::PollsFail, "(not-a-page)"),
    ("tls", Finding::PollsFail, "3 of 3 endpoints: "),
    ("tls", Finding::PollsFail, "(reset)"),
    ("alert", Finding::PollsFail, "(not-http)"),
    ("reset", Finding::PollsFail, "(reset)"),
    ("large", Finding::PollsFail, "(too-large)"),
    (
        "by-path",
        Finding::RequestsLeftAlone,
        "requests go to \"web\", none to by-path",
    ),
];

#[test]
fn what_is_misconfigured_is_told_with_its_names() {
    let sim = Sim::start(3, &Settings::default()).unwrap();
    let behind_tls = BehindTls::start(&sim.addresses());
    let proxy = start(&sim, &behind_tls);
    proxy.wait_until("Envoy listens", || get(proxy.port, "/lost/x").is_ok());
    let mut number = 0;
    proxy.wait_until("requests go elsewhere than they name", || {
        number += 1;
        let response = complete(proxy.port, "m", &format!("{number} of many"));
        assert_eq!(response.status, 200);
        assert_eq!(get(proxy.port, "/web/x").unwrap().status, 200);
        assert_eq!(get(proxy.port, "/filtered/x").unwrap().status, 200);
        super::open(&proxy, "inference-pool", Finding::NoOverrideHost) == Some(1)
    });
    for (cluster, finding, detail) in TOLD {
        is_told(&proxy, cluster, *finding, detail);
    }
    let ejections = proxy.counted_with("epp_wasm_ejections_total", "inference-pool");
    assert_eq!(ejections, 0);
    let left_alone = |to| proxy.counted_with("epp_wasm_left_alone_total", to);
    assert!(left_alone("pool=\"by-path\",route_cluster=\"web\"") > 10);
    assert_eq!(left_alone("route_cluster=\"inference-pool\""), 0);
    for (cluster, reason) in [
        ("refused", "unreachable"),
        ("missing", "status"),
        ("tls", "reset"),
        ("alert", "not-http"),
    ] {
        let page = proxy.prometheus();
        let mut errors = samples(&page, "llm_d_epp_datalayer_poll_errors_total");
        let found = errors.find(|(labels, _)| {
            labels.contains(&format!("pool=\"{cluster}\""))
                && labels.contains(&format!("reason=\"{reason}\""))
        });
        assert!(found.is_some_and(|(_, count)| count > 1.0), "{cluster}");
    }
    // The members of this one were waited for long enough: FailClose means what it says.
    proxy.wait_until("requests fail closed", || {
        get(proxy.port, "/lost/x").unwrap().status == 503
    });
    let refused = get(proxy.port, "/lost/x").unwrap();
    assert!(
        refused.body.contains("ServiceUnavailable"),
        "{}",
        refused.body
    );
    alerts_fire(&proxy);
}

fn alerts_fire(proxy: &Proxy) {
    let [phase] = Phase::record([proxy.admin], || {
        assert_eq!(complete(proxy.port, "m", "x").status, 200);
        assert_eq!(get(proxy.port, "/lost/x").unwrap().status, 503);
        assert_eq!(get(proxy.port, "/web/x").unwrap().status, 200);
        assert_eq!(get(proxy.port, "/filtered/x").unwrap().status, 200);
    });
    let recording = Recording {
        instance: "misconfigured",
        phases: vec![phase.without_times()],
    };
    fires(&[recording], &[ALERTS]);
}

/// With the setting of most templates, where a route leads to another cluster.
#[test]
fn requests_that_are_picked_for_and_routed_elsewhere_are_told() {
    let [sim, web] = [2, 1].map(|pods| Sim::start(pods, &Settings::default()).unwrap());
    let all = "{type: envoy-proxy, parameters: {requests: all}},";
    let mut setup = Setup::new(&sim.addresses(), &pool("inference-pool", "", all));
    setup.others = vec![("web".to_owned(), web.addresses())];
    setup.status_page = true;
    let proxy = setup.start();
    let told = Finding::RoutedElsewhere;
    proxy.wait_until("requests are routed elsewhere", || {
        assert_eq!(get(proxy.port, "/web/v1/models").unwrap().status, 200);
        super::open(&proxy, "inference-pool", told) == Some(1)
    });
    is_told(&proxy, "inference-pool", told, "the last one to \"web\"");
    let accused = super::open(&proxy, "inference-pool", Finding::NoOverrideHost);
    assert_eq!(accused, None);
}
