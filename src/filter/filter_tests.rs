//! The filter over a host in the same process.

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::Action;

use super::fake_host::{host, Host};
use super::root::Root;

const SECOND: u64 = 1_000_000_000;

/// A plan with two listed endpoints; `scorer` decides whether bodies are needed.
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

/// A configured root, and a host whose requests go to our cluster.
fn root(name: &str, configuration: &str) -> Root {
    super::host::log_to_envoy();
    host(|host| {
        *host = Host {
            now: 1_000 * SECOND,
            configuration: configuration.to_owned(),
            ..Host::default()
        };
        let properties = [
            ("plugin_name", name),
            ("xds.cluster_name", "inference-pool"),
        ];
        host.properties = properties
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
    });
    let mut root = Root::new(1);
    assert!(root.on_configure(0));
    tick(&mut root);
    tick(&mut root);
    root
}

fn tick(root: &mut Root) {
    host(|host| host.now += 50_000_000);
    root.on_tick();
}

fn request(headers: &[(&str, &str)]) {
    let headers = headers
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    host(|host| host.request = headers.collect());
}

fn post() {
    request(&[
        (":path", "/v1/completions"),
        (":method", "POST"),
        ("content-type", "application/json"),
        ("content-length", "40"),
        ("x-gateway-destination-endpoint", "6.6.6.6:6"),
    ]);
}

fn destination() -> Option<String> {
    host(|host| {
        let mut headers = host.request.iter();
        let found = headers.find(|(name, _)| name == "x-gateway-destination-endpoint");
        found.map(|(_, value)| value.clone())
    })
}

fn stream(root: &Root, id: u32) -> Box<dyn HttpContext> {
    root.create_http_context(id).unwrap()
}

#[test]
fn without_a_body_the_endpoint_is_named_at_the_headers() {
    let root = root("get", &listed("queue-scorer", ""));
    request(&[
        (":path", "/v1/models"),
        (":method", "GET"),
        ("x-prefiller-host-port", "spoofed"),
    ]);
    assert_eq!(
        stream(&root, 10).on_http_request_headers(2, true),
        Action::Continue
    );
    let list = destination().unwrap();
    assert!(
        ["10.0.0.1:80,10.0.0.2:80", "10.0.0.2:80,10.0.0.1:80"].contains(&list.as_str()),
        "{list}"
    );
    assert!(host(|host| host
        .request
        .iter()
        .all(|(name, _)| name != "x-prefiller-host-port")));
}

#[test]
fn a_request_for_another_cluster_keeps_even_headers_of_ours() {
    let root = root("other", &listed("queue-scorer", ""));
    host(|host| {
        host.properties
            .insert("xds.cluster_name".to_owned(), "theirs".to_owned())
    });
    post();
    assert_eq!(
        stream(&root, 10).on_http_request_headers(4, false),
        Action::Continue
    );
    assert_eq!(destination().as_deref(), Some("6.6.6.6:6"));
}

#[test]
fn a_body_is_held_to_its_end_and_what_clients_name_is_replaced() {
    let root = root("hold", &listed("prefix-cache-scorer", ""));
    post();
    let mut stream = stream(&root, 10);
    assert_eq!(stream.on_http_request_headers(4, false), Action::Pause);
    assert_eq!(destination(), None, "the client's own is gone at once");
    host(|host| host.body = b"{\"model\": \"m\", ".to_vec());
    assert_eq!(stream.on_http_request_body(15, false), Action::Pause);
    host(|host| host.body.extend_from_slice(b"\"prompt\": \"hello\"}"));
    let size = host(|host| host.body.len());
    assert_eq!(stream.on_http_request_body(size, true), Action::Continue);
    assert!(destination().unwrap().contains("10.0.0.1:80"));
}

#[test]
fn a_plan_that_needs_nothing_of_the_body_does_not_hold_it() {
    let root = root("unread", &listed("queue-scorer", ""));
    post();
    let mut stream = stream(&root, 10);
    assert_eq!(stream.on_http_request_headers(4, false), Action::Continue);
    assert!(destination().unwrap().contains("10.0.0.1:80"));
}

#[test]
fn a_body_that_stops_coming_is_released_by_the_clock() {
    let mut root = root("clock", &listed("prefix-cache-scorer", ""));
    post();
    let mut stream = stream(&root, 10);
    assert_eq!(stream.on_http_request_headers(4, false), Action::Pause);
    tick(&mut root);
    assert!(host(|host| host.resumed.is_empty()));
    host(|host| host.now += 6 * SECOND);
    tick(&mut root);
    assert_eq!(host(|host| host.resumed.clone()), [10]);
    assert!(destination().is_some());
    assert_eq!(stream.on_http_request_body(0, true), Action::Continue);
}

#[test]
fn nobody_to_pick_is_answered_or_left_to_envoy() {
    let nobody = |extra| {
        let text = listed("queue-scorer", extra);
        let from = text.find("endpoints: [").unwrap();
        let to = text.find("]}").unwrap();
        format!("{}endpoints: [{}", &text[..from], &text[to..])
    };
    let closed = root("closed", &nobody(""));
    post();
    assert_eq!(
        stream(&closed, 10).on_http_request_headers(4, true),
        Action::Pause
    );
    assert_eq!(host(|host| host.answers.last().unwrap().0), 503);
    let open = root(
        "open",
        &nobody("- {type: envoy-proxy, parameters: {failureMode: FailOpen}}"),
    );
    post();
    assert_eq!(
        stream(&open, 11).on_http_request_headers(4, true),
        Action::Continue
    );
    assert_eq!((destination(), host(|host| host.answers.len())), (None, 0));
}

#[test]
fn a_refused_configuration_is_told_and_leaves_the_old_one() {
    let mut first = root("refused", &listed("queue-scorer", ""));
    host(|host| host.configuration = "kind: Pod".to_owned());
    let mut second = Root::new(2);
    assert!(!second.on_configure(0));
    assert!(host(|host| host
        .log
        .iter()
        .any(|line| line.contains("kind (line 1, column 1)"))));
    tick(&mut first);
    request(&[(":path", "/"), (":method", "GET")]);
    stream(&first, 10).on_http_request_headers(2, true);
    assert!(destination().is_some());
}

#[test]
fn pages_are_asked_for_and_read() {
    let mut root = root("pages", &listed("queue-scorer", ""));
    let callouts = host(|host| host.callouts.clone());
    let (cluster, headers) = callouts.last().unwrap();
    assert_eq!(cluster, "inference-pool");
    assert!(headers.contains(&(":path".to_owned(), "/metrics".to_owned())));
    let page = "# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting 3\n";
    host(|host| host.answered = (vec![(":status".to_owned(), "200".to_owned())], page.into()));
    for token in 0..callouts.len() {
        root.on_http_call_response(token as u32, 1, page.len(), 0);
    }
    host(|host| host.now += SECOND);
    tick(&mut root);
    let fresh = |metrics: &[(String, i64)]| {
        let fresh = metrics
            .iter()
            .filter(|(name, state)| name.starts_with("epp_wasm_endpoint_freshness") && *state == 2);
        fresh.count()
    };
    assert_eq!(host(|host| fresh(&host.metrics)), 2);
}

#[test]
fn whatever_the_host_answers_nothing_panics_and_requests_go_on() {
    for status in 1..=12 {
        let mut root = root("odd", &listed("prefix-cache-scorer", ""));
        post();
        let mut held = stream(&root, 10);
        assert_eq!(held.on_http_request_headers(4, false), Action::Pause);
        host(|host| host.refuses = Some(status));
        assert_eq!(held.on_http_request_body(10, true), Action::Continue);
        held.on_http_response_headers(1, false);
        held.on_log();
        let mut fresh = stream(&root, 11);
        assert_eq!(fresh.on_http_request_headers(4, false), Action::Continue);
        // Through the SDK, whose callouts know two statuses.
        if matches!(status, 2 | 10) {
            tick(&mut root);
        }
        root.on_http_call_response(0, 1, 1, 0);
        assert!(!Root::new(9).on_configure(0) || status == NOT_FOUND);
    }
}

/// With no configuration at all the built-in one is in force.
const NOT_FOUND: u32 = 1;
