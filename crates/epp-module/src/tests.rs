//! The module over a fake Envoy.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::fake_envoy::{FakeConfig, FakeFilter, LOG};

const DESTINATION: &str = "x-gateway-destination-endpoint";

/// A document with two listed endpoints; `scorer` decides whether bodies are needed.
fn listed(scorer: &str, extra: &str) -> String {
    format!(
        "apiVersion: inference.networking.x-k8s.io/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: {scorer}
- name: pods
  type: static-discovery
  parameters: {{endpoints: [{{name: a, address: 10.0.0.1, port: 80}}, {{name: b, address: 10.0.0.2, port: 80}}]}}
{extra}
dataLayer: {{discovery: {{pluginRef: pods}}}}
"
    )
}

/// Waits for what a thread of the module does.
fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A filter of this name with this document, that knows its endpoints.
fn configured(name: &str, document: &str) -> Box<FakeConfig> {
    let config = FakeConfig::new(name, document).unwrap();
    wait_until("the endpoints are known", || {
        config.schedule();
        config.metric("llm_d_epp_ready_endpoints inference-pool") == Some(2)
    });
    config
}

fn post(config: &FakeConfig) -> Box<FakeFilter> {
    post_with(config, "")
}

/// A request that gets this fault injected.
fn post_with(config: &FakeConfig, fault: &str) -> Box<FakeFilter> {
    let headers = [
        (super::fault::HEADER, fault),
        (":path", "/v1/completions"),
        (":method", "POST"),
        ("content-type", "application/json"),
        ("content-length", "34"),
        (DESTINATION, "6.6.6.6:6"),
    ];
    FakeFilter::new(config, &headers)
}

#[test]
fn a_request_is_held_to_the_end_of_its_body_and_sent_where_the_picker_says() {
    let config = configured("held", &listed("prefix-cache-scorer", ""));
    let mut filter = post(&config);
    assert!(filter.headers(false));
    assert_eq!(filter.header(DESTINATION), None, "the client's own is gone");
    assert_eq!(filter.body("{\"model\": \"m\", ", false), 1);
    assert_eq!(filter.body("\"prompt\": \"hello\"}", true), 0);
    let list = filter.header(DESTINATION).unwrap().to_owned();
    assert!(
        ["10.0.0.1:80,10.0.0.2:80", "10.0.0.2:80,10.0.0.1:80"].contains(&list.as_str()),
        "{list}"
    );
    let key = format!("envoy.lb {DESTINATION}");
    assert_eq!(filter.metadata.get(&key), Some(&list));
}

#[test]
fn a_body_that_does_not_come_is_given_up_by_the_clock_and_the_request_resumed_on_its_worker() {
    let extra = "- {type: envoy-proxy, parameters: {bodyTimeout: 100ms}}";
    let config = configured("late", &listed("prefix-cache-scorer", extra));
    let mut filter = post(&config);
    assert!(filter.headers(false));
    assert_eq!(filter.body("{\"prompt\": ", false), 1);
    let woken = filter.woken.clone();
    wait_until("it is woken", || woken.load(Ordering::SeqCst) > 0);
    assert_eq!(filter.resumed, 0, "only its own worker resumes it");
    filter.schedule();
    assert_eq!(filter.resumed, 1);
    assert!(filter.header(DESTINATION).is_some());
    assert_eq!(filter.body("\"hello\"}", true), 0, "the rest passes");
    assert_eq!(filter.sent, b"{\"prompt\": \"hello\"}");
}

#[test]
fn a_panic_ends_in_the_failure_mode() {
    let open = "- {type: envoy-proxy, parameters: {failureMode: FailOpen}}";
    for (name, extra, place) in [
        ("close headers", "", "headers"),
        ("close body", "", "body"),
        ("open headers", open, "headers"),
        ("open body", open, "body"),
    ] {
        let config = configured(name, &listed("prefix-cache-scorer", extra));
        let mut filter = post_with(&config, &format!("panic@request_{place}"));
        let held = filter.headers(false);
        let action = filter.body("{}", true);
        let closes = extra.is_empty();
        assert_eq!(filter.replies.len(), usize::from(closes), "{name}");
        assert_eq!(filter.header(DESTINATION), None, "{name}");
        if closes {
            assert_eq!(filter.replies[0].0, 500);
            assert!(held || place == "body" && action == 3);
        } else {
            assert_eq!((held, action), (place == "body", 0), "{name}");
        }
        // All others go on.
        let mut next = post(&config);
        assert!(next.headers(false));
        assert_eq!(
            next.body("{\"model\": \"m\", \"prompt\": \"hello\"}", true),
            0
        );
        assert!(next.header(DESTINATION).is_some());
        drop((filter, next));
        wait_until("it is counted", || {
            config.schedule();
            let callback = format!("epp_wasm_caught_panics_total inference-pool request_{place}");
            config.metric(&callback) == Some(1)
        });
    }
}

#[test]
fn a_document_that_is_not_valid_is_refused_with_its_problem_in_the_log() {
    assert!(FakeConfig::new("refused", "kind: Pod").is_none());
    let log = LOG.lock().unwrap();
    assert!(
        log.iter()
            .any(|line| line.starts_with("4 invalid EndpointPickerConfig: ")),
        "{log:?}"
    );
}

#[test]
fn a_configuration_that_envoy_takes_back_gives_way_to_the_one_before() {
    let refused = |config: &FakeConfig| config.metric("epp_wasm_rejected_configurations_total");
    let body_is_read = |config: &FakeConfig| {
        let mut filter = post(config);
        filter.headers(false)
    };
    let first = configured("reload", &listed("prefix-cache-scorer", ""));
    assert!(body_is_read(&first));
    assert!(FakeConfig::new("reload", "kind: Pod").is_none());
    // Another test's may be counted here, too.
    assert!(refused(&first) >= Some(1));
    let second = FakeConfig::new("reload", &listed("queue-scorer", "")).unwrap();
    assert!(!body_is_read(&second));
    assert!(!body_is_read(&first), "there is one pool");
    drop(second);
    assert!(body_is_read(&first));
    let third = FakeConfig::new("reload", &listed("queue-scorer", "")).unwrap();
    drop(first);
    assert!(!body_is_read(&third));
}

#[test]
fn what_pickers_fetch_is_fetched_by_callouts_and_what_is_cut_off_is_fetched_again() {
    let document = "apiVersion: inference.networking.x-k8s.io/v1alpha1
kind: EndpointPickerConfig
plugins: [{type: queue-scorer}]
";
    let config = FakeConfig::new("fetches", document).unwrap();
    let members = "prometheus_stats /clusters?filter=%5Einference-pool%24";
    let asked = |count: usize| {
        config.schedule();
        let callouts = config.callouts.lock().unwrap();
        callouts.iter().filter(|call| *call == members).count() == count
    };
    wait_until("members are fetched", || asked(1));
    config.call_back(0, None);
    wait_until("they are fetched again", || asked(2));
    let page = "inference-pool::10.0.0.1:80::health_flags::healthy
inference-pool::10.0.0.1:80::weight::1
";
    config.call_back(1, Some(("200", page)));
    wait_until("the endpoint's page is fetched", || {
        config.schedule();
        let callouts = config.callouts.lock().unwrap();
        callouts
            .iter()
            .any(|call| call == "inference-pool /metrics")
    });
}

/// Envoy counts the callouts of each configuration by themselves: after a reload the same numbers come again.
#[test]
fn a_callout_of_another_configuration_is_another_one_though_it_has_the_same_number() {
    let document = listed("queue-scorer", "");
    let polls_both = |config: &FakeConfig| {
        wait_until("both endpoints are polled", || {
            config.schedule();
            config.callouts.lock().unwrap().len() >= 2
        });
    };
    let first = FakeConfig::new("numbers", &document).unwrap();
    polls_both(&first);
    let second = FakeConfig::new("numbers", &document).unwrap();
    polls_both(&second);
    (0..2).for_each(|number| first.call_back(number, None));
    let page = "vllm:num_requests_waiting{model_name=\"m\"} 3\n";
    (0..2).for_each(|number| second.call_back(number, Some(("200", page))));
    wait_until("the pages are known", || {
        second.schedule();
        let metrics = second.metrics.lock().unwrap();
        let fresh = |(name, value): &(&String, &u64)| {
            name.starts_with("epp_wasm_endpoint_freshness ") && **value == 2
        };
        metrics.iter().filter(fresh).count() == 2
    });
}

#[test]
fn polling_goes_on_where_callouts_are_cut_off_with_their_configuration() {
    let document = listed("queue-scorer", "");
    let first = configured("cut", &document);
    wait_until("the pages are fetched", || {
        first.schedule();
        first.callouts.lock().unwrap().len() == 2
    });
    let second = FakeConfig::new("cut", &document).unwrap();
    drop(first);
    wait_until("they are fetched again", || {
        second.schedule();
        second.callouts.lock().unwrap().len() == 2
    });
}

#[test]
fn requests_to_other_clusters_are_left_alone_but_for_the_destination_header() {
    const CLUSTER_NAME: u32 = 57;
    let config = configured("elsewhere", &listed("queue-scorer", ""));
    let mut filter = post(&config);
    filter.attributes.insert(CLUSTER_NAME, "other".to_owned());
    assert!(!filter.headers(false));
    assert_eq!(filter.header(DESTINATION), None);
    assert_eq!(filter.body("{}", true), 0);
    assert!(filter.metadata.is_empty());
}

#[test]
fn a_model_is_rewritten_in_the_body_and_its_length_said() {
    let extra = "- {type: envoy-proxy, parameters: {rewriteHeader: true}}";
    let config = configured("rewrite", &listed("prefix-cache-scorer", extra));
    let mut filter = post(&config);
    let rewrite = ("x-llm-d-model-name-rewrite".to_owned(), "longer".to_owned());
    filter.request.push(rewrite);
    assert!(filter.headers(false));
    assert_eq!(filter.body("{\"model\": \"m\", ", false), 1);
    assert_eq!(filter.body("\"prompt\": \"hello\"}", true), 0);
    let body = "{\"model\": \"longer\", \"prompt\": \"hello\"}";
    assert_eq!(String::from_utf8_lossy(&filter.sent), body);
    assert_eq!(filter.header("content-length"), Some("39"));
}

#[test]
fn a_load_report_is_taken_from_the_response_and_not_passed_on() {
    let extra = "- {type: envoy-proxy, parameters: {requestLoadMetrics: true}}";
    let config = configured("reports", &listed("queue-scorer", extra));
    for (own, kept) in [("", false), ("JSON", true)] {
        let mut filter = post(&config);
        let header = "endpoint-load-metrics-format";
        if kept {
            filter.request.push((header.to_owned(), own.to_owned()));
        }
        assert!(!filter.headers(false));
        let format = if kept { own } else { "text" };
        assert_eq!(filter.header(header), Some(format));
        filter.response = vec![(":status".to_owned(), "200".to_owned())];
        let report = "endpoint-load-metrics".to_owned();
        filter.response.push((
            report.clone(),
            "TEXT named_metrics.num_requests_waiting=1.0".to_owned(),
        ));
        filter.responded();
        let names: Vec<&String> = filter.response.iter().map(|(name, _)| name).collect();
        assert_eq!(names.contains(&&report), kept, "{names:?}");
    }
}
