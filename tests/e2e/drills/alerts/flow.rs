//! Alerts about flow control: a gate that nothing opens, and a pool that is full for long.

use std::thread::spawn;
use std::time::Duration;

use epp_core::findings::Finding;
use fake_model_server::{Faults, Settings, Sim};

use super::replay::{fires, Fired, Phase, Recording};
use super::{open, silence};
use crate::client::{complete, get, send};
use crate::proxy::Setup;

/// One pool loses its metrics while it is idle; the other gets more requests than it takes.
pub const ALERTS: &[Fired] = &[
    ("EppGateShutWhileIdle", &["inference-pool"]),
    ("EppMetricsAreStale", &["inference-pool"]),
    ("EppPollsFail", &["inference-pool"]),
    ("EppDecidesWithoutMetrics", &["inference-pool"]),
    ("EppRequestsExpire", &["full"]),
    ("EppQueueFull", &["full"]),
];

const PROMPT: &[u8] = br#"{"model": "m", "prompt": "x", "max_tokens": 1}"#;

/// Returns a document with flow control for a cluster.
fn gated(cluster: &str, detector: &str, flow: &str) -> String {
    format!(
        "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
featureGates: [flowControl]
plugins:
- {{type: queue-scorer}}
- {{name: detector, {detector}}}
- {{name: members, type: envoy-cluster-discovery, parameters: {{clusters: [{cluster}], interval: 100ms}}}}
flowControl: {{saturationDetector: {{pluginRef: detector}}, {flow}}}
schedulingProfiles: [{{name: default, plugins: [{{pluginRef: queue-scorer}}]}}]
dataLayer: {{discovery: {{pluginRef: members}}}}
"
    )
}

#[test]
fn alerts_about_flow_control_fire_in_their_drills_and_never_before() {
    let start = || Sim::start(1, &Settings::default()).unwrap();
    let (silent, full) = (start(), start());
    let patient = "defaultRequestTTL: 0s";
    let config = gated("inference-pool", "type: utilization-detector", patient);
    let mut setup = Setup::new(&silent.addresses(), &config);
    setup.configs.push(gated(
        "full",
        "type: concurrency-detector, parameters: {maxConcurrency: 1}",
        "defaultRequestTTL: 300ms, maxRequests: 2",
    ));
    setup.others.push(("full".to_owned(), full.addresses()));
    let proxy = setup.start();
    let port = proxy.port;
    proxy.wait_until("both pools have fresh metrics", || {
        proxy.counted("epp_wasm_endpoint_freshness") == 4
    });
    let ask = || {
        assert_eq!(complete(port, "m", "x").status, 200);
        assert_eq!(get(port, "/full/v1/models").unwrap().status, 200);
    };
    ask();
    let [before] = Phase::record([proxy.admin], ask);

    silence(&silent);
    full.pod(0).set_faults(Faults {
        delay_ms: 1_000,
        ..Faults::default()
    });
    // Their clients go while they wait: others follow.
    let overload = || {
        spawn(move || get(port, "/v1/models"));
        for _ in 0..6 {
            spawn(move || send(port, "POST", "/full/v1/completions", &[], PROMPT));
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    for (name, finding) in [
        ("inference-pool", Finding::OwnCounts),
        ("inference-pool", Finding::GateShut),
        ("full", Finding::QueueFull),
        ("full", Finding::RequestsExpire),
    ] {
        proxy.wait_until("it is found", || {
            overload();
            open(&proxy, name, finding) == Some(1)
        });
    }
    let [during] = Phase::record([proxy.admin], overload);
    let recording = Recording {
        instance: "flow",
        phases: [before, during].map(Phase::without_times).into(),
    };
    fires(&[recording], &[&[], ALERTS]);
}
