//! Dry runs: Envoy routes as without the filter, and the decisions are compared with that.

use envoy_harness::wait_until;
use fake_model_server::{Pinned, Settings, Sim};
use serde_json::json;

use crate::client::post;
use crate::proxy::{Proxy, Setup};

/// A document of a dry run.
fn document(filter: &str) -> String {
    format!(
        "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {{type: queue-scorer}}
- {{type: prefix-cache-scorer}}
- {{type: max-score-picker}}
- {{type: envoy-proxy, parameters: {{dryRun: true}}}}
{filter}
schedulingProfiles:
- name: default
  plugins: [{{pluginRef: queue-scorer, weight: 100}}, {{pluginRef: prefix-cache-scorer}}, {{pluginRef: max-score-picker}}]
"
    )
}

fn compared(proxy: &Proxy, status: &str) -> u64 {
    proxy.counted_with("epp_wasm_dry_run_total", &format!("status=\"{status}\""))
}

#[test]
fn a_dry_run_changes_no_request_and_says_what_it_would_have_done() {
    let sim = Sim::start(2, &Settings::default()).unwrap();
    sim.pod(1).pin(Pinned {
        waiting: Some(50),
        ..Pinned::default()
    });
    let proxy = Setup::new(&sim.addresses(), &document("")).start();
    assert!(proxy.logged().contains("DRY RUN"));
    wait_until("both are polled", || {
        proxy.counted("epp_wasm_endpoint_freshness") == 4
    });
    // As an Endpoint Picker in front of the filter names it.
    let ask = |number: usize| {
        let named = sim.addresses()[number].to_string();
        let headers = [
            ("x-gateway-destination-endpoint", named.as_str()),
            ("x-prefiller-host-port", "theirs"),
        ];
        let body = json!({"model": "m", "prompt": "Once upon a time. ".repeat(100)});
        let response = post(proxy.port, "/v1/completions", &body, &headers);
        assert_eq!(response.status, 200);
        assert_eq!(response.pod(), format!("pod-{}", number + 1));
    };
    (0..6).for_each(|_| ask(1));
    (0..4).for_each(|_| ask(0));
    wait_until("all are compared", || {
        compared(&proxy, "other") + compared(&proxy, "same") == 10
    });
    assert_eq!(compared(&proxy, "other"), 6, "the second pod has a queue");
    assert_eq!(compared(&proxy, "same"), 4);
    let seen = sim.pod(1).seen();
    let asked: Vec<_> = seen
        .iter()
        .filter(|seen| seen.path == "/v1/completions")
        .collect();
    assert_eq!(asked.len(), 6);
    for seen in asked {
        assert_eq!(seen.header("x-prefiller-host-port"), Some("theirs"));
    }
    assert_eq!(proxy.counted("epp_wasm_ejections_total"), 0);
    assert_eq!(proxy.counted("epp_wasm_served_elsewhere_total"), 0);
    wait_until("nothing is in flight", || {
        proxy.counted("llm_d_epp_inflight_requests") == 0
    });

    // A configuration that leaves no endpoint refuses no request.
    let none = "- {type: label-selector-filter, name: none, parameters: {matchLabels: {a: b}}}";
    let text = document(none).replace(
        "plugins: [{pluginRef: q",
        "plugins: [{pluginRef: none}, {pluginRef: q",
    );
    let mut proxy = proxy;
    proxy.set_config(&text);
    wait_until("it is in force", || {
        proxy.stat("listener_manager.lds.update_success") == 2
    });
    let body = json!({"model": "m", "prompt": "x"});
    wait_until("none is picked, and the request served", || {
        let response = post(proxy.port, "/v1/completions", &body, &[]);
        assert_eq!(response.status, 200);
        compared(&proxy, "none") > 0
    });
    assert_eq!(proxy.counted("llm_d_epp_request_error_total"), 0);
}
