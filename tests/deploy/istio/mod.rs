//! The manifests in envoy/istio/: they are valid against Istio's CRDs, and the gateway that results from
//! them loads and routes in a real Envoy.
//!
//! The gateway before them is in gateway.yaml, as Istio's control plane makes it; `pilot` does to it
//! what that control plane does with the manifests.

mod deployment;
mod disaggregated;
mod locality;
mod pilot;
mod running;
pub mod several;

use std::fs;
use std::path::PathBuf;

use envoy_harness::wait_until;
use fake_model_server::Pinned;
use serde_yaml::Value;

use crate::envoy::top;
pub use pilot::{documents, parse};
use pilot::{Built, Gateway};
use running::{all_same, Running};

const SERVICE: &str = "service.example.com";
const POOL: &str = "pool.example.com";
const SUBSET: &str = "subset.example.com";
const OTHER_POOL: &str = "other-pool.example.com";
const SERVICE_CLUSTER: &str = "pool=\"outbound|8000||vllm.llm.svc.cluster.local\"";
/// The ConfigMap that the Gateway names in `infrastructure.parametersRef`.
const PARAMETERS: &str = "epp-gateway";

fn folder() -> PathBuf {
    top().join("envoy/istio")
}

fn manifest(name: &str) -> String {
    fs::read_to_string(folder().join(name)).unwrap()
}

fn manifests(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| manifest(name)).collect()
}

fn gateway_yaml() -> String {
    fs::read_to_string(top().join("tests/deploy/istio/gateway.yaml")).unwrap()
}

/// A gateway to which these manifests were applied, in this order.
fn built(gateway: String, manifests: &[String]) -> Built {
    let mut gateway = Gateway::new(serde_yaml::from_str(&gateway).unwrap());
    manifests.iter().for_each(|text| gateway.apply(text));
    gateway.built()
}

#[test]
fn a_gateway_routes_by_the_dynamic_module() {
    let gateway = Running::with(&["cluster.yaml", "dynamic-module.yaml"]);
    // Istio's bootstrap shows no statistics of dynamic modules.
    let pod = gateway.keeps_to(SERVICE);
    for _ in 0..4 {
        assert_eq!(gateway.conversation(SERVICE), vec![pod.clone(); 8]);
    }
    assert_eq!(gateway.leaked(), 0);
    let members = gateway.members("outbound|8000||vllm.llm.svc.cluster.local");
    gateway.keeps_its_choice(SERVICE, &members);
}

#[test]
fn a_gateway_routes_by_whole_requests() {
    let mut gateway = Running::with(&["cluster.yaml", "filter.yaml", "metric-labels.yaml"]);
    let pod = gateway.knows(2).keeps_to(SERVICE);
    assert_eq!(gateway.leaked(), 0);
    // Past Istio's matcher of statistics, and with labels.
    wait_until("picks are counted", || {
        let page = gateway.page();
        let mut picks = page
            .lines()
            .filter(|line| line.starts_with("llm_d_epp_scheduler_attempts_total{"));
        picks.any(|line| line.contains(SERVICE_CLUSTER) && line.contains("endpoint_name="))
    });
    // Beside Istio's own.
    let bootstrap = gateway.shown("/config_dump");
    for tag in ["wasm_filter", "endpoint_name"] {
        let tag = format!("\"tag_name\": \"{tag}\"");
        assert_eq!(bootstrap.matches(&tag).count(), 1, "{tag}");
    }
    // A retry with Istio's policy, which passes by hosts that were tried.
    gateway.stop(&pod);
    let rest = gateway.conversation(SERVICE);
    assert!(rest.iter().all(|other| *other != pod), "{rest:?}");
}

#[test]
fn an_inference_pool_needs_no_picker() {
    let mut gateway = Running::with(&["inference-pool.yaml", "metric-labels.yaml"]);
    let pod = gateway.knows(3).keeps_to(POOL);
    assert_eq!(gateway.leaked(), 0);
    gateway.stop(&pod);
    let rest = gateway.conversation(POOL);
    assert!(rest.iter().all(|other| *other != pod), "{rest:?}");
}

#[test]
fn a_wasm_plugin_routes_by_metrics() {
    let gateway = Running::with(&["cluster.yaml", "wasmplugin.yaml", "metric-labels.yaml"]);
    gateway.stage.sim.pod(0).pin(Pinned {
        waiting: Some(50),
        ..Pinned::default()
    });
    gateway.knows(2);
    // Eight turns over two pods may agree by chance, three times eight do not.
    wait_until("the idle pod gets all", || {
        (0..3).all(|_| gateway.conversation(SERVICE) == vec!["pod-2"; 8])
    });
    assert_eq!(gateway.conversation(SERVICE), vec!["pod-2"; 8]);
    assert_eq!(gateway.leaked(), 0);
    let mode = format!("epp_wasm_reads_bodies{{{SERVICE_CLUSTER}}} 0");
    assert!(gateway.page().contains(&mode), "{}", gateway.page());
}

#[test]
fn other_hosts_of_the_gateway_are_left_alone() {
    let gateway = Running::with(&["cluster.yaml", "filter.yaml"]);
    wait_until("the pool's own filter is called", || {
        gateway.ask(SERVICE, "x").status == 200
    });
    let pods = gateway.conversation(POOL);
    assert!(!all_same(&pods), "nothing picks here: {pods:?}");
}

#[test]
fn no_other_cluster_of_the_gateway_obeys_a_client() {
    // A subset is another cluster, and a pool of Istio's own has the policy.
    let service: (&[&str], &[&str]) = (&["cluster.yaml", "filter.yaml"], &[SUBSET, OTHER_POOL]);
    let pool: (&[&str], &[&str]) = (&["inference-pool.yaml"], &[OTHER_POOL]);
    for (names, hosts) in [service, pool] {
        for runs in [true, false] {
            let mut built = built(gateway_yaml(), &manifests(names));
            if !runs {
                // As with FAIL_OPEN after a trap.
                built.remove_filters("epp");
            }
            let gateway = Running::of(built);
            hosts.iter().for_each(|host| gateway.obeys_no_client(host));
        }
    }
}

/// Returns the clusters of a gateway that read the destination header or the metadata made of it.
fn obeying(manifest: &str) -> Vec<String> {
    let built = built(gateway_yaml(), &[manifest.to_owned()]);
    let clusters = built.config["static_resources"]["clusters"]
        .as_sequence()
        .unwrap();
    let text = |value: &Value| serde_yaml::to_string(value).unwrap();
    let names = clusters
        .iter()
        .filter(|one| text(one).contains("- header: x-gateway"));
    names
        .map(|one| one["name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn only_the_cluster_that_the_filter_serves_obeys_it() {
    let own = "outbound|8000||vllm.llm.svc.cluster.local";
    let manifest = manifest("cluster.yaml");
    assert_eq!(obeying(&manifest), [own]);
    // What the manifest must not say.
    let by_name = format!("cluster: {{name: \"{own}\"}}");
    let by_service = "cluster: {service: vllm.llm.svc.cluster.local, portNumber: 8000}";
    assert!(manifest.contains(&by_name));
    let subset = "outbound|8000|v1|vllm.llm.svc.cluster.local";
    let wrong = manifest.replace(&by_name, by_service);
    assert_eq!(obeying(&wrong), [own, subset]);
}

#[test]
fn only_the_pool_of_the_manifest_does_without_its_endpoint_picker() {
    // Both pools say FailClose, and no picker responds: where one is called, a request fails.
    let closed = gateway_yaml().replace("failure_mode_allow: true", "failure_mode_allow: false");
    let manifest = manifest("inference-pool.yaml");
    let gateway = Running::of(built(closed.clone(), std::slice::from_ref(&manifest)));
    gateway.knows(3).keeps_to(POOL);
    assert_eq!(gateway.ask(OTHER_POOL, "x").status, 500);
    // Without the patch of the route, the pool's own picker is called as well.
    let (begin, patch) = manifest.split_once("  - applyTo: HTTP_ROUTE").unwrap();
    assert!(!patch.contains("applyTo"));
    let gateway = Running::of(built(closed, &[begin.to_owned()]));
    assert_eq!(gateway.ask(POOL, "x").status, 500);
}
