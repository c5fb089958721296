//! The dynamic module's destination as dynamic metadata, for a cluster that reads nothing else, as Istio makes it for an
//! InferencePool.

use envoy_harness::config::policy;
use envoy_harness::host::Host;
use fake_model_server::{Pinned, Settings, Sim};
use serde_json::json;

use crate::client::post;
use crate::preferences::settles_on;
use crate::proxy::Setup;
use crate::scorer;

const DESTINATION: &str = "x-gateway-destination-endpoint";

#[test]
fn a_cluster_that_reads_metadata_only_follows_the_dynamic_module_and_no_client() {
    let sim = Sim::start(3, &Settings::default()).unwrap();
    for busy in [0, 2] {
        sim.pod(busy).pin(Pinned {
            waiting: Some(50),
            ..Pinned::default()
        });
    }
    let mut setup = Setup::new(&sim.addresses(), &scorer("queue-scorer"));
    setup.host = Host::Module;
    setup.module = Host::Module.file();
    let sources = json!([{"metadata": {"key": "envoy.lb", "path": [{"key": DESTINATION}]}}]);
    let round_robin = policy("round_robin", "RoundRobin", json!({}));
    setup.cluster = json!({"load_balancing_policy": policy("override_host", "OverrideHost",
        json!({"override_host_sources": sources, "fallback_policy": round_robin}))});
    let proxy = setup.start();
    settles_on(proxy.port, "pod-2");
    let busy = sim.addresses()[0].to_string();
    let body = json!({"model": "m", "prompt": "x"});
    for _ in 0..6 {
        let response = post(
            proxy.port,
            "/v1/completions",
            &body,
            &[(DESTINATION, &busy)],
        );
        assert_eq!(response.pod(), "pod-2");
    }
}
