//! Hot reloads: what another configuration keeps, and what it begins with.

use super::abi::Action;
use super::fake_host::host;
use super::filter_tests::{destination, listed, post, request, vm, wait, ROOT};
use super::vm::Vm;

#[test]
fn a_reload_keeps_the_index_and_the_last_root_drops_it() {
    let mut vm = vm(&listed("prefix-cache-scorer", ""));
    assert!(vm.configure(2), "the listener is loaded again");
    vm.delete(ROOT);
    vm.tick(2);
    request(&[(":path", "/"), (":method", "GET")]);
    vm.request_headers(10, true);
    assert!(destination().is_some(), "the members are still known");
    vm.delete(10);
    vm.delete(2);
    request(&[(":path", "/"), (":method", "GET")]);
    vm.request_headers(11, true);
    assert_eq!(destination(), None);
}

#[test]
fn a_plan_for_another_cluster_gets_a_pool_of_its_own() {
    let of = |cluster: &str, more: &str| {
        let proxy = format!("- {{type: envoy-proxy, parameters: {{{more}cluster: {cluster}}}}}");
        listed("queue-scorer", &proxy)
    };
    let mut vm = vm(&of("first", "requests: all, "));
    host(|host| host.configuration = of("second", ""));
    // A hot reload: a new root beside the old one.
    assert!(vm.configure(2));
    for _ in 0..21 {
        host(|host| host.now += 50_000_000);
        vm.tick(2);
    }
    vm.delete(ROOT);
    let of_cluster = |cluster: &str| {
        host(|host| {
            let key = "xds.cluster_name".to_owned();
            host.properties.insert(key, cluster.to_owned())
        });
        post();
    };
    of_cluster("second");
    assert_eq!(vm.request_headers(10, true), Action::Continue);
    assert!(destination().is_some_and(|list| list.starts_with("10.0.0.")));
    of_cluster("first");
    vm.request_headers(11, true);
    assert_ne!(destination().as_deref(), Some("10.0.0.1:80,10.0.0.2:80"));
    // What is shared and exported has the new name.
    let (keys, metrics) = host(|host| (host.shared.clone(), host.metrics.clone()));
    let lease = |cluster: &str| format!("/picker/{cluster}/lease");
    assert!(
        keys.keys().any(|key| key.ends_with(&lease("second"))),
        "{keys:?}"
    );
    assert!(
        metrics
            .iter()
            .any(|(name, _)| name.contains(";pool=second")),
        "{metrics:?}"
    );
}

#[test]
fn a_plan_for_the_same_cluster_keeps_its_pool_whatever_requests_it_takes() {
    let of = |requests: &str| {
        let proxy = format!("- {{type: envoy-proxy, parameters: {{requests: {requests}}}}}");
        listed("queue-scorer", &proxy)
    };
    let mut vm = vm(&of("all"));
    host(|host| host.configuration = of("ofCluster"));
    assert!(vm.configure(2));
    vm.delete(ROOT);
    post();
    vm.request_headers(10, true);
    assert!(
        destination().is_some_and(|list| list.starts_with("10.0.0.")),
        "known without a tick"
    );
}

#[test]
fn a_pool_that_is_given_up_leaves_no_finding_open() {
    let misspelt = |cluster: &str| {
        listed("queue-scorer", "").replace(
            "type: static-discovery\n  parameters: {endpoints: [{name: a, address: 10.0.0.1, port: 80}, {name: b, address: 10.0.0.2, port: 80}]}",
            &format!("type: envoy-cluster-discovery\n  parameters: {{clusters: [{cluster}]}}"),
        )
    };
    let gauge = |name: &str| {
        let metrics = host(|host| host.metrics.clone());
        let mut metrics = metrics.into_iter();
        metrics
            .find(|(known, _)| known == name)
            .map(|(_, value)| value)
    };
    let mut vm = vm(&misspelt("modles"));
    wait(&mut vm, 5);
    let (blind, vms) = (
        "epp_wasm_finding;pool=modles;finding=balanced-blindly",
        "epp_wasm_sharing_vms;pool=modles",
    );
    assert_eq!((gauge(blind), gauge(vms)), (Some(1), Some(1)));
    host(|host| host.configuration = misspelt("models"));
    assert!(vm.configure(2));
    vm.delete(ROOT);
    assert_eq!((gauge(blind), gauge(vms)), (Some(0), Some(0)));
}

/// Has a VM of its own load the configuration. Returns what is logged, and whether it was accepted.
fn loaded(configuration: &str) -> (Vec<String>, bool) {
    host(|host| {
        host.log.clear();
        host.configuration = configuration.to_owned();
    });
    let accepted = Vm::default().configure(ROOT);
    (host(|host| host.log.clone()), accepted)
}

#[test]
fn of_all_vms_one_logs_a_configuration_and_what_it_is_warned_of() {
    drop(vm(&listed("queue-scorer", "")));
    let warned = listed("queue-scorer", "") + "featureGates: [dataLayer]\n";
    let (lines, accepted) = loaded(&warned);
    assert!(accepted);
    let of = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
    assert_eq!((of("in force: "), of("epp-wasm ")), (1, 0), "{lines:?}");
    assert!(lines.len() > 1, "no warning: {lines:?}");
    for _ in 0..3 {
        assert_eq!(loaded(&warned), (Vec::new(), true));
    }
    // Back to the former one.
    assert_eq!(loaded(&listed("queue-scorer", "")).0.len(), 1);
}

#[test]
fn a_refusal_counts_only_what_it_does_not_list() {
    drop(vm(&listed("queue-scorer", "")));
    let (lines, accepted) = loaded(&listed("queue-socrer", ""));
    assert!(!accepted);
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("invalid EndpointPickerConfig: "));
    assert!(lines[1].starts_with("EndpointPickerConfig refused: "));
    let many = "- {type: none}\n".repeat(30);
    let (lines, _) = loaded(&listed("queue-scorer", &many));
    let more = &lines[lines.len() - 2];
    assert!(more.ends_with(" more; eppctl check lists all"), "{lines:?}");
    assert_eq!(lines.len(), 22);
}
