//! The manifests in envoy/gateway/: what Envoy Gateway makes of them loads and routes in a real Envoy.
//!
//! What Envoy Gateway's own translators generate is recorded beside this file; `generated` puts it into a bootstrap, where
//! Envoy Gateway sends it by xDS.

mod generated;
mod running;

use std::collections::BTreeSet;

use envoy_harness::client;
use envoy_harness::host::Host;
use envoy_harness::traffic::Http;
use envoy_harness::wait_until;
use fake_model_server::{Faults, Pinned};
use serde_yaml::Value;

use crate::envoy::top;
use crate::istio::documents;
use crate::stage::{read, Stage};
use generated::Generated;
use running::Running;

/// The ways to run the filter.
const WAYS: [&str; 3] = ["full", "headers-only", "from-file"];
const POOL: &str = "pool=\"httproute/llm/vllm/rule/0\"";
/// More than the buffers that Envoy Gateway sets by default.
const LONG: usize = 200_000;

#[test]
fn what_is_recorded_is_of_these_manifests() {
    for way in WAYS {
        let generated = Generated::read(way);
        generated.assert_current();
        for (policy, conditions) in generated.conditions() {
            for (condition, status) in conditions {
                assert_eq!(status, "True", "{way}: {policy} {condition}");
            }
        }
    }
}

#[test]
fn the_filter_runs_after_filters_that_reject_requests() {
    let wasm = "envoy.filters.http.wasm/envoyextensionpolicy/llm/epp/wasm/0";
    for (way, filter) in [("full", wasm), ("headers-only", wasm), ("from-file", "epp")] {
        let chain = Generated::read(way).chain();
        let expected = [
            "envoy.filters.http.rbac",
            filter,
            "envoy.filters.http.router",
        ];
        assert_eq!(chain, expected, "{way}");
    }
}

#[test]
fn prompts_are_routed_over_both_protocols() {
    for way in ["full", "from-file"] {
        let gateway = Running::of(Generated::read(way).bootstrap());
        gateway.knows(3);
        for http in [Http::One, Http::Two] {
            let pod = gateway.keeps_to(http);
            let (long, status) = gateway.conversation(http, LONG);
            assert_eq!(status, BTreeSet::from([200]), "{way}, {http:?}");
            assert_eq!(long.len(), 1, "{way}, {http:?}: {long:?}, before {pod}");
        }
        assert!(gateway
            .page()
            .contains(&format!("epp_wasm_reads_bodies{{{POOL}}} 1")));
        assert_eq!(gateway.leaked(), 0, "{way}");
        gateway.obeys_no_client();
        labels_are_labels(&gateway.page());
    }
}

/// Envoy Gateway's listener with the filter of dynamic-module.yaml, as its translators of version 1.9 make it, in place of the
/// wasm module's. This is not recorded.
#[test]
fn the_dynamic_module_reads_bodies_without_a_patch() {
    let yaml = serde_yaml::to_string(&Generated::read("headers-only").bootstrap()).unwrap();
    let module = std::path::Path::new("/etc/envoy/epp/libepp.so");
    let config = Host::Module.bootstrap(&yaml, module).unwrap();
    let policy = documents(&top().join("envoy/gateway/dynamic-module.yaml")).remove(1);
    let document = &policy["spec"]["dynamicModule"][0]["config"];
    let document = serde_json::to_string(document).unwrap();
    let mut config: Value = serde_yaml::to_value(config).unwrap();
    let filters = generated::filters(&mut config);
    let own = filters.iter_mut().find(|filter| {
        let kind = filter["typed_config"]["@type"].as_str().unwrap();
        kind.ends_with("DynamicModuleFilter")
    });
    own.unwrap()["typed_config"]["filter_config"]["value"] = document.into();
    let gateway = Running::of(config);
    gateway.knows(3);
    for http in [Http::One, Http::Two] {
        let pod = gateway.keeps_to(http);
        let (long, status) = gateway.conversation(http, LONG);
        assert_eq!(status, BTreeSet::from([200]), "{http:?}");
        assert_eq!(long.len(), 1, "{http:?}: {long:?}, before {pod}");
    }
    gateway.obeys_no_client();
    labels_are_labels(&gateway.page());
}

#[test]
fn a_retry_goes_to_the_next_best_endpoint() {
    let mut gateway = Running::of(Generated::read("full").bootstrap());
    let pod = gateway.knows(3).keeps_to(Http::One);
    gateway.stop(&pod);
    let (pods, status) = gateway.conversation(Http::One, 1000);
    assert_eq!(status, BTreeSet::from([200]));
    assert!(!pods.contains(&pod), "{pods:?}");
}

#[test]
fn headers_alone_route_by_metrics() {
    let gateway = Running::of(Generated::read("headers-only").bootstrap());
    gateway.knows(3);
    for pod in 0..2 {
        gateway.stage.sim.pod(pod).pin(Pinned {
            waiting: Some(50),
            ..Pinned::default()
        });
    }
    let idle = BTreeSet::from(["pod-3".to_owned()]);
    // One conversation may keep to a pod by chance, three do not.
    wait_until("the idle pod gets all", || {
        (0..3).all(|_| gateway.conversation(Http::One, 1000).0 == idle)
    });
    let (pods, status) = gateway.conversation(Http::Two, LONG);
    assert_eq!((pods, status), (idle, BTreeSet::from([200])));
    gateway.obeys_no_client();
    assert!(gateway
        .page()
        .contains(&format!("epp_wasm_reads_bodies{{{POOL}}} 0")));
}

/// With `telemetry.metrics.prometheus.disable: true`, Envoy Gateway's bootstrap has neither the listener nor the cluster;
/// and one whose cluster leads to something that never answers.
#[test]
fn an_admin_cluster_that_is_missing_or_silent_is_told_and_fails_closed() {
    let recorded = serde_yaml::to_string(&Generated::read("full").bootstrap()).unwrap();
    let parameters = r#"{"clusters":["httproute/llm/vllm/rule/0"]"#;
    assert!(recorded.contains(parameters) && recorded.contains("FailOpen"));
    let impatient = recorded
        .replace(parameters, &format!(r#"{parameters},"timeout":"6s""#))
        .replace("FailOpen", "FailClose");
    let mut missing: Value = serde_yaml::from_str(&impatient).unwrap();
    let mut silent = missing.clone();
    for key in ["clusters", "listeners"] {
        let own = missing["static_resources"][key].as_sequence_mut().unwrap();
        own.remove(0);
    }
    // An address other than the admin interface's, which gets a model server.
    generated::admin_port(&mut silent).clone_from(&1.into());
    for (config, is_silent, detail) in [
        (missing, false, "Envoy has no cluster \"prometheus_stats\""),
        (silent, true, "cluster \"prometheus_stats\": timeout"),
    ] {
        let mut stage = Stage::of(config);
        if is_silent {
            let port = generated::admin_port(&mut stage.config).as_u64();
            let mut addresses = stage.sim.addresses().into_iter();
            let pod = addresses.position(|at| Some(at.port().into()) == port);
            stage.sim.pod(pod.unwrap()).set_faults(Faults {
                hang: true,
                ..Faults::default()
            });
        }
        let gateway = Running::on(stage);
        wait_until("the log says so", || gateway.logged().contains(detail));
        let finding = "finding=\"admin-unreachable\"} 1";
        wait_until("the metric says so", || gateway.metrics().contains(finding));
        wait_until("requests fail closed", || {
            gateway.send(Http::One, 1000).unwrap().0 == 503
        });
    }
}

/// Why traffic.yaml has the sizes: with Envoy Gateway's own, long prompts fail over either protocol.
#[test]
fn long_prompts_fail_with_the_default_buffers() {
    let mut config = Generated::read("full").bootstrap();
    let listener = generated::listener(&mut config);
    listener["per_connection_buffer_limit_bytes"] = 32_768.into();
    let window = "initial_stream_window_size";
    let http2 = &mut generated::manager(listener)["http2_protocol_options"];
    assert!(http2[window].as_u64() > Some(1 << 20));
    http2[window] = 65_536.into();
    let gateway = Running::of(config);
    gateway.knows(3);
    assert_eq!(gateway.send(Http::One, LONG).unwrap().0, 413);
    let two = gateway.send(Http::Two, LONG);
    assert!(
        two.as_ref().is_ok_and(|sent| sent.0 == 413) || two.is_err(),
        "{two:?}"
    );
}

#[test]
fn the_status_page_shows_the_pool() {
    let gateway = Running::of(Generated::read("from-file").bootstrap());
    gateway.knows(3);
    wait_until("the page shows all endpoints", || {
        let page = client::get(gateway.stage.port(9902), "/").unwrap().body;
        let mut addresses = gateway.stage.sim.addresses().into_iter();
        addresses.all(|address| page.contains(&address.to_string()))
    });
}

/// No label was left in a metric's name, and Envoy Gateway's own labels are still there.
fn labels_are_labels(page: &str) {
    let ours = |line: &&str| line.starts_with("epp_wasm_") || line.starts_with("llm_d_epp_");
    let without = [
        "epp_wasm_build_info",
        "epp_wasm_rejected_configurations_total",
    ];
    let of_pool =
        |line: &&str| line.contains(POOL) || without.iter().any(|name| line.starts_with(name));
    let lines: Vec<&str> = page.lines().filter(ours).collect();
    assert!(lines.len() > 6 && lines.iter().all(of_pool), "{lines:?}");
    assert!(page
        .lines()
        .any(|line| line.contains("envoy_cluster_name=\"httproute/llm/vllm/rule/0\"")));
}

/// As `bootstraps::all_templates_define_the_same_labels` has it of the others.
#[test]
fn both_proxies_define_the_labels_of_the_demo() {
    let pair = |tag: &Value| {
        let text = |key: &str| tag[key].as_str().unwrap().to_owned();
        (text("tag_name"), text("regex"))
    };
    let demo = read(&top().join("envoy/envoy.yaml"));
    let demo = demo["stats_config"]["stats_tags"].as_sequence().unwrap();
    let demo: BTreeSet<_> = demo.iter().map(pair).collect();
    for name in ["proxy.yaml", "from-file.yaml"] {
        let proxy = documents(&top().join("envoy/gateway").join(name)).remove(0);
        let patches = proxy["spec"]["bootstrap"]["jsonPatches"]
            .as_sequence()
            .unwrap();
        let added: BTreeSet<_> = patches.iter().map(|patch| pair(&patch["value"])).collect();
        assert_eq!(added, demo, "{name}");
    }
}
