//! The requests that a filter handles, and the headers that only it may set.

use fake_model_server::{Pinned, Settings, Sim};
use serde_json::json;

use crate::client::{post, send};
use crate::preferences::settles_on;
use crate::proxy::Setup;
use crate::{document, scorer, start};

#[test]
fn a_client_cannot_choose_an_endpoint_and_its_picker_headers_are_removed() {
    let sim = Sim::start(2, &Settings::default()).unwrap();
    sim.pod(1).pin(Pinned {
        waiting: Some(50),
        ..Pinned::default()
    });
    let proxy = start(&sim, &scorer("queue-scorer"));
    settles_on(proxy.port, "pod-1");
    let busy = sim.addresses()[1].to_string();
    let owned = [
        "x-gateway-destination-endpoint",
        "x-gateway-destination-endpoint-subset",
        "x-gateway-destination-endpoint-served",
        "x-prefiller-host-port",
        "x-encoder-hosts-ports",
        "x-data-parallel-host-port",
        "x-kv-cache-source-host-port",
    ];
    let headers: Vec<(&str, &str)> = owned.iter().map(|name| (*name, busy.as_str())).collect();
    sim.pod(0).forget();
    for path in ["/v1/completions", "/v1/anything"] {
        let response = post(
            proxy.port,
            path,
            &json!({"model": "m", "prompt": "x"}),
            &headers,
        );
        assert_eq!(response.pod(), "pod-1", "{path}");
    }
    assert_eq!(
        send(proxy.port, "GET", "/v1/models", &headers, b"")
            .unwrap()
            .pod(),
        "pod-1"
    );
    let seen = sim.pod(0).seen();
    assert!(seen.len() >= 3);
    for seen in seen {
        for name in owned {
            assert_eq!(seen.header(name), None, "{name}");
        }
    }
}

#[test]
fn a_request_for_another_cluster_is_not_touched() {
    let sim = Sim::start(1, &Settings::default()).unwrap();
    let other = Sim::start(1, &Settings::default()).unwrap();
    let mut setup = Setup::new(&sim.addresses(), &scorer("queue-scorer"));
    setup.others = vec![("other".to_owned(), other.addresses())];
    let proxy = setup.start();
    let body = vec![b'x'; 3 << 20];
    let headers = [
        ("content-type", "application/json"),
        ("x-prefiller-host-port", "theirs"),
    ];
    let response = send(proxy.port, "POST", "/other/v1/completions", &headers, &body).unwrap();
    assert_eq!(response.header("x-body-bytes"), body.len().to_string());
    let seen = &other.pod(0).seen()[0];
    assert_eq!(seen.header("x-prefiller-host-port"), Some("theirs"));
    assert_eq!(proxy.counted("epp_wasm_forced_release_total"), 0);
}

#[test]
fn filters_of_two_pools_in_one_chain_each_handle_their_own_requests() {
    let one = Sim::start(2, &Settings::default()).unwrap();
    let two = Sim::start(2, &Settings::default()).unwrap();
    one.pod(0).pin(Pinned {
        waiting: Some(9),
        ..Pinned::default()
    });
    two.pod(1).pin(Pinned {
        waiting: Some(9),
        ..Pinned::default()
    });
    let mut setup = Setup::new(&one.addresses(), &scorer("queue-scorer"));
    setup.others = vec![("second".to_owned(), two.addresses())];
    let plugins = "{type: queue-scorer}, {name: members, type: envoy-cluster-discovery, parameters: {clusters: [second]}}";
    let second = document(plugins, "{pluginRef: queue-scorer}")
        + "dataLayer: {discovery: {pluginRef: members}}\n";
    setup.configs.push(second);
    let proxy = setup.start();
    let chosen = |path: &str| {
        let response = post(proxy.port, path, &json!({"model": "m", "prompt": "x"}), &[]);
        response.pod().to_owned()
    };
    proxy.wait_until("each pool's idle pod is preferred", || {
        (0..14).all(|_| {
            chosen("/v1/completions") == "pod-2" && chosen("/second/v1/completions") == "pod-1"
        })
    });
}
