//! Headers that only a picker may set, over a host in the same process.

use super::abi::Action;
use super::fake_host::host;
use super::filter_tests::{destination, listed, post, request, rewritten, tick, vm, ROOT};
use super::vm::Vm;
use epp_core::protocol::{OWNED_HEADERS, REWRITE_HEADERS};

const DESTINATION: &str = "x-gateway-destination-endpoint";

fn lead_to(cluster: &str) {
    let cluster = cluster.to_owned();
    host(|host| {
        let key = "xds.cluster_name".to_owned();
        host.properties.insert(key, cluster)
    });
}

fn calls(name: &str) -> u32 {
    host(|host| host.calls.get(name).copied().unwrap_or(0))
}

/// Returns the request's headers of this name.
fn sent(name: &str) -> Vec<String> {
    host(|host| {
        let own = host.request.iter().filter(|(key, _)| key == name);
        own.map(|(_, value)| value.clone()).collect()
    })
}

#[test]
fn a_request_for_another_cluster_loses_the_destination_header_and_nothing_else() {
    let mut vm = vm(&listed("queue-scorer", ""));
    lead_to("theirs");
    let own = [("x-prefiller-host-port", "theirs"), (":path", "/")];
    for values in [
        &["6.6.6.6:6"][..],
        &["6.6.6.6:6", "7.7.7.7:7"],
        &["", "6.6.6.6:6"],
        &[""],
    ] {
        let headers = values.iter().map(|value| (DESTINATION, *value));
        request(&headers.chain(own).collect::<Vec<_>>());
        assert_eq!(vm.request_headers(10, false), Action::Continue);
        assert_eq!(destination(), None, "{values:?}");
        assert_eq!(sent("x-prefiller-host-port"), ["theirs"]);
    }
    // No route, or one with a direct response: a later filter may still find another one.
    host(|host| host.properties.remove("xds.cluster_name"));
    post();
    assert_eq!(vm.request_headers(11, false), Action::Continue);
    assert_eq!(destination(), None);
}

#[test]
fn a_request_for_another_cluster_costs_one_look_at_the_header() {
    let mut vm = vm(&listed("queue-scorer", ""));
    lead_to("theirs");
    request(&[(":path", "/"), (":method", "GET")]);
    let before = host(|host| host.calls.values().sum::<u32>());
    vm.request_headers(10, true);
    // The cluster's name, and the header that is not there.
    assert_eq!(host(|host| host.calls.values().sum::<u32>()) - before, 2);
}

/// Two filters of one chain, each in a VM of its own. The route leads to the cluster of the first.
fn chain(second: &str) -> (Vm, Vm) {
    let parameters = format!("parameters: {{cluster: other{second}}}");
    let second = format!("- {{type: envoy-proxy, {parameters}}}");
    let second = vm(&listed("queue-scorer", &second));
    (vm(&listed("queue-scorer", "")), second)
}

#[test]
fn the_destination_of_another_filter_of_ours_stays() {
    let (mut first, mut second) = chain("");
    post();
    assert_eq!(first.request_headers(10, true), Action::Continue);
    let named = destination().unwrap();
    assert!(named.contains("10.0.0.1:80"), "{named}");
    assert_eq!(second.request_headers(11, true), Action::Continue);
    assert_eq!(destination(), Some(named));
}

#[test]
fn a_mark_for_one_header_does_not_let_a_client_set_another() {
    let (mut first, mut second) = chain(", destinationHeader: X-Second");
    post();
    host(|host| {
        let header = ("x-second".to_owned(), "6.6.6.6:6".to_owned());
        host.request.push(header);
    });
    first.request_headers(10, true);
    second.request_headers(11, true);
    assert!(destination().unwrap().contains("10.0.0.1:80"));
    assert_eq!(sent("x-second"), Vec::<String>::new());
}

#[test]
fn a_filter_for_all_requests_makes_no_further_calls() {
    let all = "- {type: envoy-proxy, parameters: {requests: all}}";
    for (extra, marks) in [(all, 0), ("", 1)] {
        let mut vm = vm(&listed("queue-scorer", extra));
        post();
        let looks = calls("proxy_get_header_map_value");
        vm.request_headers(10, true);
        assert_eq!(calls("proxy_set_property"), marks);
        assert_eq!(calls("proxy_get_header_map_value"), looks);
    }
}

#[test]
fn headers_that_cannot_be_read_leave_no_destination_of_the_clients() {
    let open = "- {type: envoy-proxy, parameters: {failureMode: FailOpen}}";
    for (extra, action) in [("", Action::Pause), (open, Action::Continue)] {
        let mut vm = vm(&listed("queue-scorer", extra));
        post();
        let all = || OWNED_HEADERS.iter().chain(&REWRITE_HEADERS);
        host(|host| {
            let own = all().map(|name| ((*name).to_owned(), "theirs".to_owned()));
            host.request.extend(own);
            host.unreadable = true;
        });
        assert_eq!(vm.request_headers(10, true), action);
        assert_eq!(destination(), None);
        all().for_each(|name| assert_eq!(sent(name), Vec::<String>::new(), "{name}"));
    }
}

#[test]
fn each_header_of_ours_is_removed_once_however_often_it_was_sent() {
    let mut vm = vm(&listed("queue-scorer", ""));
    let mut headers = vec![(":path", "/v1/models"), (":method", "GET")];
    for name in OWNED_HEADERS.iter().chain(&REWRITE_HEADERS) {
        headers.extend([(*name, "theirs"); 100]);
    }
    headers.push((DESTINATION, "6.6.6.6:6"));
    request(&headers);
    vm.request_headers(10, true);
    assert_eq!(calls("proxy_remove_header_map_value"), 10);
    for name in OWNED_HEADERS.iter().chain(&REWRITE_HEADERS) {
        assert_eq!(sent(name), Vec::<String>::new(), "{name}");
    }
    tick(&mut vm);
    vm.delete(ROOT);
}

#[test]
fn a_client_cannot_name_another_model_unless_allowed() {
    let body = r#"{"model": "cheap", "prompt": "x"}"#;
    let may = "- {type: envoy-proxy, parameters: {rewriteHeader: true}}";
    for name in REWRITE_HEADERS {
        let (_, got) = rewritten(body, (name, "premium"), "");
        assert_eq!(got, body, "{name}");
        assert_eq!(sent(name), Vec::<String>::new());
        let (_, got) = rewritten(body, (name, "premium"), may);
        assert_eq!(got, body.replace("cheap", "premium"), "{name}");
    }
}

#[test]
fn the_templates_remove_the_same_headers_early() {
    let expected = [&[DESTINATION][..], &OWNED_HEADERS, &REWRITE_HEADERS].concat();
    for (name, text) in [
        ("envoy", include_str!("../envoy/envoy.yaml")),
        ("minimal", include_str!("../envoy/minimal.yaml")),
        ("static", include_str!("../envoy/production/static.yaml")),
        ("dns", include_str!("../envoy/production/dns.yaml")),
        ("eds", include_str!("../envoy/production/eds.yaml")),
        ("tls", include_str!("../envoy/production/tls.yaml")),
        ("two", include_str!("../envoy/production/two-pools.yaml")),
        ("cluster", include_str!("../envoy/istio/cluster.yaml")),
        ("pool", include_str!("../envoy/istio/inference-pool.yaml")),
    ] {
        let lines = text.lines().map(str::trim);
        let removed: Vec<&str> = lines
            .filter_map(|line| line.strip_prefix("- remove: "))
            .collect();
        assert_eq!(removed, expected, "{name}");
    }
}
