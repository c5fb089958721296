//! Names, paths and ports that are wrong from the start. The pools of one Envoy have one fault each.

use std::net::SocketAddr;

use envoy_harness::config::{fixed, policy};
use epp_core::findings::Finding;
use fake_model_server::{Settings, Sim};
use serde_json::json;

use super::{is_told, pool, responding};
use crate::client::{complete, get};
use crate::proxy::{Proxy, Setup};

const HTML: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-length: 15\r\ncontent-type: text/html\r\n\r\n<html></html>\r\n";
const NOT_FOUND: &[u8] = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
const NOTHING: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
/// A fatal alert, with which a TLS server responds to plain text.
const TLS_ALERT: &[u8] = b"\x15\x03\x01\x00\x02\x02\x46";

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

fn faulty_pools(pods: &[SocketAddr]) -> Vec<Faulty> {
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
        with("refused", &[closed], plain("refused")),
        with("missing", &[responding(NOT_FOUND)], plain("missing")),
        with("html", &[responding(HTML)], plain("html")),
        with("tls", &[responding(TLS_ALERT)], plain("tls")),
    ]
}

fn start(sim: &Sim) -> Proxy {
    // Its cluster does not follow the header.
    let mut setup = Setup::new(&sim.addresses(), &pool("inference-pool", "", ""));
    setup.cluster =
        json!({"load_balancing_policy": policy("round_robin", "RoundRobin", json!({}))});
    setup.status_page = true;
    for Faulty {
        name,
        members,
        config,
    } in faulty_pools(&sim.addresses())
    {
        setup.configs.push(config);
        setup.others.push((name.to_owned(), members));
    }
    setup.more_clusters = vec![fixed("nothing", &[responding(NOTHING)])];
    setup.launch()
}

#[test]
fn what_is_misconfigured_is_told_with_its_names() {
    let sim = Sim::start(3, &Settings::default()).unwrap();
    let proxy = start(&sim);
    proxy.wait_until("Envoy listens", || get(proxy.port, "/lost/x").is_ok());
    let (mut number, pod) = (0, |place: usize| sim.addresses()[place].to_string());
    let mut send = || {
        number += 1;
        assert_eq!(
            complete(proxy.port, "m", &format!("{number} of many")).status,
            200
        );
    };
    proxy.wait_until("requests go elsewhere than they name", || {
        send();
        super::open(&proxy, "inference-pool", Finding::NoOverrideHost) == Some(1)
    });
    let told = |cluster, finding, detail: &str| is_told(&proxy, cluster, finding, detail);
    let header = "cluster inference-pool, header x-gateway-destination-endpoint";
    told("inference-pool", Finding::NoOverrideHost, header);
    assert_eq!(
        proxy.counted_with("epp_wasm_ejections_total", "inference-pool"),
        0
    );
    told(
        "modles",
        Finding::ClusterUnknown,
        "no cluster modles; there are models",
    );
    told(
        "lost",
        Finding::AdminUnreachable,
        "Envoy has no cluster \"nowhere\"",
    );
    told("lost", Finding::BalancedBlindly, "cluster lost");
    told(
        "astray",
        Finding::AdminNotEnvoy,
        "cluster \"html\": not-a-page",
    );
    told(
        "empty",
        Finding::AdminNotEnvoy,
        "cluster \"nothing\": an empty page",
    );
    told(
        "by-cluster",
        Finding::MetricsClusterUnknown,
        "Envoy has no cluster \"pages\"",
    );
    told(
        "by-path",
        Finding::PollsFail,
        &format!("3 of 3 endpoints: {} (not-a-page)", pod(0)),
    );
    told("refused", Finding::PollsFail, "(refused)");
    told("missing", Finding::PollsFail, "(status 404)");
    told("html", Finding::PollsFail, "(not-a-page)");
    told("tls", Finding::PollsFail, "(not-http)");
    // The same reasons are a label.
    for (cluster, reason) in [
        ("refused", "refused"),
        ("missing", "status"),
        ("tls", "not-http"),
    ] {
        let page = proxy.prometheus();
        let mut errors =
            envoy_harness::statistics::samples(&page, "llm_d_epp_datalayer_poll_errors_total");
        let (cluster, reason) = (
            format!("pool=\"{cluster}\""),
            format!("reason=\"{reason}\""),
        );
        let found =
            errors.find(|(labels, _)| labels.contains(&cluster) && labels.contains(&reason));
        assert!(
            found.is_some_and(|(_, count)| count > 1.0),
            "{cluster} {reason}"
        );
    }
    told(
        "by-path",
        Finding::RequestsLeftAlone,
        "requests go to inference-pool, none to by-path",
    );
    assert!(
        proxy.counted_with(
            "epp_wasm_left_alone_total",
            "route_cluster=\"inference-pool\""
        ) > 10
    );
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
}
