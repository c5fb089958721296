//! Requests for which no endpoint can be picked.

use fake_model_server::{Settings, Sim};

use crate::client::{complete, get};
use crate::proxy::Setup;
use crate::{document, scorer, start};

const NO_PODS: &str =
    "inference gateway: ServiceUnavailable - failed to find candidate pods for serving the request";

/// A setup whose discovery finds no member, while the cluster has one.
fn empty_pool(extra: &str) -> String {
    let plugins = format!("{{type: queue-scorer}}, {{name: none, type: static-discovery, parameters: {{endpoints: []}}}}{extra}");
    document(&plugins, "{pluginRef: queue-scorer}") + "dataLayer: {discovery: {pluginRef: none}}\n"
}

#[test]
fn an_empty_pool_gets_the_endpoint_pickers_response() {
    let sim = Sim::start(1, &Settings::default()).unwrap();
    let proxy = Setup::new(&sim.addresses(), &empty_pool("")).launch();
    proxy.wait_until("Envoy responds", || get(proxy.port, "/v1/models").is_ok());
    let response = complete(proxy.port, "m", "x");
    assert_eq!((response.status, response.body.as_str()), (503, NO_PODS));
    assert_eq!(
        response.header("x-llm-d-request-dropped-reason"),
        "rejected-no-endpoints"
    );
    assert!(sim.pod(0).seen().is_empty());
    proxy.wait_until("it is counted", || {
        proxy.prometheus().contains(
        "llm_d_epp_request_error_total{pool=\"inference-pool\",error_code=\"ServiceUnavailable\"}"
    )
    });
}

#[test]
fn failing_open_leaves_the_choice_to_envoy() {
    let sim = Sim::start(2, &Settings::default()).unwrap();
    let open = empty_pool(", {type: envoy-proxy, parameters: {failureMode: FailOpen}}");
    let proxy = Setup::new(&sim.addresses(), &open).launch();
    proxy.wait_until("Envoy responds", || {
        get(proxy.port, "/v1/models").is_ok_and(|response| response.status == 200)
    });
    for _ in 0..4 {
        assert_eq!(complete(proxy.port, "m", "x").status, 200);
    }
    assert!(
        sim.pods().all(|pod| !pod.seen().is_empty()),
        "round robin serves both"
    );
}

#[test]
fn a_pool_that_empties_is_empty_and_comes_back() {
    let sim = Sim::start(2, &Settings::default()).unwrap();
    let mut proxy = start(&sim, &scorer("queue-scorer"));
    // No member is left by EDS: that is a response, unlike none.
    proxy.set_pods(&[]);
    proxy.wait_until("the pool is empty", || {
        complete(proxy.port, "m", "x").status == 503
    });
    proxy.set_pods(&sim.addresses());
    proxy.wait_until("the pool is back", || {
        complete(proxy.port, "m", "x").status == 200
    });
}
