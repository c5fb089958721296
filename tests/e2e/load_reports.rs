//! What model servers report of their load with responses.

use fake_model_server::{Pinned, Settings, Sim};
use serde_json::json;

use crate::client::{post, Response};
use crate::proxy::Proxy;
use crate::{document, start};

const FORMAT: &str = "endpoint-load-metrics-format";
const REPORT: &str = "endpoint-load-metrics";

/// Starts an Envoy that reads each page once, with these parameters of `envoy-proxy`, over two pods, of which the first
/// becomes busy after that.
fn started(parameters: &str) -> (Sim, Proxy) {
    let sim = Sim::start(2, &Settings::default()).unwrap();
    let plugins = format!(
        "{{type: queue-scorer}}, {{type: envoy-proxy, parameters: {parameters}}}, \
         {{type: metrics-data-source, parameters: {{interval: 5m, maxInterval: 5m, stalenessThreshold: 10m}}}}"
    );
    let proxy = start(&sim, &document(&plugins, "{pluginRef: queue-scorer}"));
    proxy.wait_until("the pages are read", || {
        let page = proxy.prometheus();
        let states = page.lines();
        let fresh = states.filter(|line| {
            line.starts_with("epp_wasm_endpoint_freshness{") && line.ends_with(" 2")
        });
        fresh.count() == 2
    });
    sim.pod(0).pin(Pinned {
        waiting: Some(50),
        ..Pinned::default()
    });
    (sim, proxy)
}

fn ask(proxy: &Proxy, headers: &[(&str, &str)]) -> Response {
    let body = json!({"model": "m", "prompt": "hello", "max_tokens": 1});
    let response = post(proxy.port, "/v1/completions", &body, headers);
    assert_eq!(response.status, 200, "{response:?}");
    response
}

/// Waits until no request is sent to the first pod any more, which only its reports can bring about.
fn wait_until_avoided(sim: &Sim, proxy: &Proxy, headers: &[(&str, &str)]) {
    proxy.wait_until("the busy pod is avoided", || {
        (0..20).all(|_| ask(proxy, headers).pod() == "pod-2")
    });
    assert!(!sim.pod(0).seen().is_empty(), "it has reported");
}

/// Returns how often the pods were sent this value of the header that asks for a report.
fn asked(sim: &Sim, format: &str) -> usize {
    let seen = sim.pods().flat_map(|pod| pod.seen());
    seen.filter(|request| request.header(FORMAT) == Some(format))
        .count()
}

#[test]
fn reports_that_the_picker_asks_for_count_and_are_not_passed_on() {
    let (sim, proxy) = started("{requestLoadMetrics: true}");
    wait_until_avoided(&sim, &proxy, &[]);
    assert!(asked(&sim, "text") > 20);
    for _ in 0..4 {
        assert_eq!(ask(&proxy, &[]).header(REPORT), "");
    }
    let own = ask(&proxy, &[(FORMAT, "JSON")]);
    assert!(own.header(REPORT).starts_with("JSON {"), "{own:?}");
    assert_eq!(asked(&sim, "JSON"), 1, "it is the client's own");
}

#[test]
fn reports_that_a_client_asks_for_count_and_are_its_own() {
    let (sim, proxy) = started("{}");
    assert_eq!(ask(&proxy, &[]).header(REPORT), "");
    assert_eq!(asked(&sim, "text"), 0);
    let headers = [(FORMAT, "text")];
    let response = ask(&proxy, &headers);
    assert!(response.header(REPORT).starts_with("TEXT "), "{response:?}");
    wait_until_avoided(&sim, &proxy, &headers);
}
