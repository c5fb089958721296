//! The filter over a host in the same process.

use super::abi::{Action, BodyAction};
use super::fake_host::{host, Host};
use super::vm::Vm;
use tested_envoys::TESTED_TEXT;

pub const SECOND: u64 = 1_000_000_000;

/// A plan with two listed endpoints; `scorer` decides whether bodies are needed.
pub fn listed(scorer: &str, extra: &str) -> String {
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

/// A VM with a configured root, and a host whose requests go to our cluster.
pub fn vm(configuration: &str) -> Vm {
    host(|host| {
        *host = Host {
            now: 1_000 * SECOND,
            configuration: configuration.to_owned(),
            ..Host::default()
        };
        let properties = [
            ("plugin_name", "picker"),
            ("xds.cluster_name", "inference-pool"),
        ];
        host.properties = properties
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
    });
    let mut vm = Vm::default();
    assert!(vm.configure(ROOT));
    tick(&mut vm);
    tick(&mut vm);
    vm
}

pub const ROOT: u32 = 1;

pub fn tick(vm: &mut Vm) {
    host(|host| host.now += 50_000_000);
    vm.tick(ROOT);
}

/// Ticks once a second for this many seconds: a picker treats a longer step as one of the wall clock.
pub fn wait(vm: &mut Vm, seconds: u64) {
    for _ in 0..seconds {
        host(|host| host.now += SECOND - 50_000_000);
        tick(vm);
    }
}

pub fn request(headers: &[(&str, &str)]) {
    let headers = headers
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    host(|host| host.request = headers.collect());
}

pub fn post() {
    request(&[
        (":path", "/v1/completions"),
        (":method", "POST"),
        ("content-type", "application/json"),
        ("content-length", "40"),
        ("x-gateway-destination-endpoint", "6.6.6.6:6"),
    ]);
}

pub fn destination() -> Option<String> {
    host(|host| {
        let mut headers = host.request.iter();
        let found = headers.find(|(name, _)| name == "x-gateway-destination-endpoint");
        found.map(|(_, value)| value.clone())
    })
}

#[test]
fn without_a_body_the_endpoint_is_named_at_the_headers() {
    let mut vm = vm(&listed("queue-scorer", ""));
    request(&[
        (":path", "/v1/models"),
        (":method", "GET"),
        ("x-prefiller-host-port", "spoofed"),
    ]);
    assert_eq!(vm.request_headers(10, true), Action::Continue);
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
fn a_body_is_held_to_its_end_and_what_clients_name_is_replaced() {
    let mut vm = vm(&listed("prefix-cache-scorer", ""));
    post();
    assert_eq!(vm.request_headers(10, false), Action::Pause);
    assert_eq!(destination(), None, "the client's own is gone at once");
    host(|host| host.body = b"{\"model\": \"m\", ".to_vec());
    assert_eq!(vm.request_body(10, 15, false), BodyAction::Buffer);
    host(|host| host.body.extend_from_slice(b"\"prompt\": \"hello\"}"));
    let size = host(|host| host.body.len());
    assert_eq!(vm.request_body(10, size, true), BodyAction::Continue);
    assert!(destination().unwrap().contains("10.0.0.1:80"));
}

#[test]
fn trailers_end_a_body() {
    let mut vm = vm(&listed("prefix-cache-scorer", ""));
    post();
    vm.request_headers(10, false);
    host(|host| host.body = br#"{"prompt": "hello", "model": "m"#.to_vec());
    let size = host(|host| host.body.len());
    assert_eq!(vm.request_body(10, size, false), BodyAction::Buffer);
    assert_eq!(vm.request_trailers(10), Action::Continue);
    assert!(destination().is_some());
}

#[test]
fn a_body_of_unknown_length_is_shown_in_passing() {
    let mut vm = vm(&listed("prefix-cache-scorer", ""));
    request(&[
        (":path", "/v1/completions"),
        (":method", "POST"),
        ("content-type", "application/json"),
    ]);
    assert_eq!(vm.request_headers(10, false), Action::Pause);
    for (part, end, action) in [
        (r#"{"prompt": "hel"#, false, BodyAction::Watermark),
        (r#"lo", "model": "#, false, BodyAction::Watermark),
        (r#""m"}"#, true, BodyAction::Continue),
    ] {
        host(|host| host.body = part.as_bytes().to_vec());
        assert_eq!(vm.request_body(10, part.len(), end), action, "{part}");
    }
    assert!(destination().is_some());
}

/// A body whose model is behind more text than the window of [`windowed`] holds.
fn long_body() -> String {
    let text = "x".repeat(40_000);
    format!(r#"{{"prompt": "{text}", "model": "m"}}"#)
}

/// A plan with a window of a few bytes, and a request that names its length.
fn windowed(length: usize) -> Vm {
    let vm = vm(&listed("prefix-cache-scorer", "").replace(
        "- type: prefix-cache-scorer",
        "- {type: prefix-cache-scorer, parameters: {hashBlockSize: 8, maxPrefixBlocksToMatch: 4}}",
    ));
    post();
    host(|host| {
        let mut headers = host.request.iter_mut();
        let found = headers.find(|(name, _)| name == "content-length");
        found.unwrap().1 = length.to_string();
    });
    vm
}

#[test]
fn behind_the_window_a_body_is_read_from_its_end() {
    let body = long_body();
    let mut vm = windowed(body.len());
    vm.request_headers(10, false);
    for end in [16_000, 32_000, body.len()] {
        host(|host| {
            host.body = body.as_bytes()[..end].to_vec();
            host.given = 0;
        });
        let action = vm.request_body(10, end, end == body.len());
        let expected = match end == body.len() {
            true => BodyAction::Continue,
            false => BodyAction::Buffer,
        };
        assert_eq!(action, expected);
        let given = host(|host| host.given);
        assert!(given < 5_000, "{given} bytes were taken over at {end}");
    }
    assert!(destination().is_some());
}

#[test]
fn unread_parts_are_read_when_the_body_pauses() {
    let body = long_body();
    // More is said to come than does.
    let mut vm = windowed(body.len() + 100);
    vm.request_headers(10, false);
    host(|host| host.body = body.clone().into_bytes());
    let size = host(|host| host.body.len());
    assert_eq!(vm.request_body(10, size, false), BodyAction::Buffer);
    tick(&mut vm);
    assert_eq!(destination(), None);
    tick(&mut vm);
    assert_eq!(host(|host| host.resumed.clone()), [10]);
    assert!(destination().is_some());
    // What Envoy held is set aside until it has the rest.
    assert!(host(|host| host.body.is_empty()));
    host(|host| host.body = b" ".to_vec());
    assert_eq!(vm.request_body(10, 1, true), BodyAction::Buffer);
    tick(&mut vm);
    assert_eq!(
        host(|host| host.body.clone()),
        format!("{body} ").into_bytes()
    );
}

fn header(name: &str) -> Option<String> {
    host(|host| {
        let mut headers = host.request.iter();
        let found = headers.find(|(known, _)| known == name);
        found.map(|(_, value)| value.clone())
    })
}

/// Sends a body in two parts, under a plan that needs no bodies.
pub fn rewritten(body: &str, header: (&str, &str), plugin: &str) -> (Option<String>, String) {
    let mut vm = vm(&listed("queue-scorer", plugin));
    post();
    let length = ("content-length", body.len().to_string());
    let more = [header, (length.0, length.1.as_str())];
    host(|host| {
        host.request.retain(|(name, _)| name != "content-length");
        let more = more.map(|(name, value)| (name.to_owned(), value.to_owned()));
        host.request.extend(more);
    });
    vm.request_headers(10, false);
    for end in [body.len() / 2, body.len()] {
        host(|host| host.body = body.as_bytes()[..end].to_vec());
        vm.request_body(10, end, end == body.len());
        let gone_on = destination().is_some();
        if gone_on && end < body.len() {
            let rest = &body.as_bytes()[end..];
            host(|host| host.body.extend_from_slice(rest));
            break;
        }
    }
    let body = host(|host| String::from_utf8(host.body.clone()).unwrap());
    (self::header("content-length"), body)
}

#[test]
fn only_the_model_in_a_body_is_rewritten() {
    let rule = "- {type: model-rewrite, parameters: {rules: [{models: [m], targets: [{model: long-name}]}]}}";
    let header = ("x-llm-d-model-name-rewrite", "n\"1");
    let obeyed = "- {type: envoy-proxy, parameters: {rewriteHeader: true}}";
    let none = ("x-other", "");
    for (body, given, plugin, expected) in [
        (
            r#"{"model": "m", "prompt": "m"}"#,
            header,
            obeyed,
            r#"{"model": "n\"1", "prompt": "m"}"#,
        ),
        (
            r#"{"prompt": "\"model\"", "model":"m" }"#,
            header,
            obeyed,
            r#"{"prompt": "\"model\"", "model":"n\"1" }"#,
        ),
        (
            r#"{"prompt": "hello", "model": "m"}"#,
            none,
            rule,
            r#"{"prompt": "hello", "model": "long-name"}"#,
        ),
        (
            r#"{"prompt": "hello", "model": "m"}"#,
            header,
            &format!("{rule}\n{obeyed}"),
            r#"{"prompt": "hello", "model": "long-name"}"#,
        ),
        (
            r#"{"prompt": "hello", "model": "other"}"#,
            none,
            rule,
            r#"{"prompt": "hello", "model": "other"}"#,
        ),
    ] {
        let (length, got) = rewritten(body, given, plugin);
        assert_eq!(got, expected, "{body}");
        assert_eq!(length, Some(expected.len().to_string()), "{body}");
    }
}

#[test]
fn a_model_at_a_long_bodys_end_is_rewritten_too() {
    let body = long_body();
    let plugin = "- {type: model-rewrite, parameters: {rules: [{targets: [{model: n}]}]}}";
    let (length, got) = rewritten(&body, ("x-other", ""), plugin);
    assert_eq!(got, body.replace("\"m\"", "\"n\""));
    assert_eq!(length, Some(body.len().to_string()));
}

#[test]
fn a_plan_that_needs_nothing_of_the_body_does_not_hold_it() {
    let mut vm = vm(&listed("queue-scorer", ""));
    post();
    assert_eq!(vm.request_headers(10, false), Action::Continue);
    assert!(destination().unwrap().contains("10.0.0.1:80"));
}

#[test]
fn a_body_that_stops_is_released_by_the_timeout() {
    let mut vm = vm(&listed("prefix-cache-scorer", ""));
    post();
    assert_eq!(vm.request_headers(10, false), Action::Pause);
    tick(&mut vm);
    assert!(host(|host| host.resumed.is_empty()));
    wait(&mut vm, 6);
    assert_eq!(host(|host| host.resumed.clone()), [10]);
    assert!(destination().is_some());
    assert_eq!(vm.request_body(10, 0, true), BodyAction::Continue);
}

#[test]
fn without_an_endpoint_a_request_gets_a_local_reply_or_is_left_to_envoy() {
    let no_endpoint = |extra| {
        let text = listed("queue-scorer", extra);
        let from = text.find("endpoints: [").unwrap();
        let to = text.find("]}").unwrap();
        format!("{}endpoints: [{}", &text[..from], &text[to..])
    };
    let mut closed = vm(&no_endpoint(""));
    post();
    assert_eq!(closed.request_headers(10, true), Action::Pause);
    assert_eq!(host(|host| host.local_replies.last().unwrap().0), 503);
    let mut open = vm(&no_endpoint(
        "- {type: envoy-proxy, parameters: {failureMode: FailOpen}}",
    ));
    post();
    assert_eq!(open.request_headers(11, true), Action::Continue);
    assert_eq!(
        (destination(), host(|host| host.local_replies.len())),
        (None, 0)
    );
}

#[test]
fn a_rejected_configuration_is_logged_and_leaves_the_old_one() {
    let mut vm = vm(&listed("queue-scorer", ""));
    host(|host| host.configuration = "kind: Pod".to_owned());
    assert!(!vm.configure(2));
    assert!(host(|host| host
        .log
        .iter()
        .any(|line| line.contains("kind (line 1, column 1)"))));
    tick(&mut vm);
    request(&[(":path", "/"), (":method", "GET")]);
    vm.request_headers(10, true);
    assert!(destination().is_some());
}

#[test]
fn the_first_log_line_says_if_the_host_is_not_a_tested_version() {
    // The message of Envoy's node in Protocol Buffers' encoding.
    let said = |message: &[u8]| {
        vm(&listed("queue-scorer", ""));
        let message = String::from_utf8(message.to_vec()).unwrap();
        let name = "xds.node.user_agent_build_version.version".to_owned();
        host(|host| host.properties.insert(name, message));
        host(|host| host.log.clear());
        host(|host| host.shared.clear());
        // Even if the document is refused.
        host(|host| host.configuration = "plugins: [{type: none}]".to_owned());
        assert!(!Vm::default().configure(ROOT));
        let line = host(|host| host.log.remove(0));
        line.rsplit_once("), ").unwrap().1.to_owned()
    };
    assert_eq!(said(&[8, 1, 16, 38, 24, 2]), "Envoy 1.38.2");
    assert_eq!(said(&[8, 1, 16, 40]), "Envoy 1.40.0");
    let other = said(&[8, 1, 16, 40, 24, 1]);
    assert_eq!(other, format!("Envoy 1.40.1; tested with {TESTED_TEXT}"));
    assert_eq!(said(&[9]), "a host of unknown version");
}

#[test]
fn of_several_plugins_in_one_vm_the_one_of_the_request_decides() {
    let mut vm = vm(&listed("queue-scorer", ""));
    host(|host| {
        host.properties
            .insert("plugin_name".to_owned(), "other".to_owned());
        host.configuration = host.configuration.replace("10.0.0.", "10.9.9.");
    });
    assert!(vm.configure(2));
    vm.tick(2);
    vm.tick(2);
    post();
    vm.request_headers(10, true);
    assert!(destination().unwrap().starts_with("10.9.9."));
    host(|host| {
        host.properties
            .insert("plugin_name".to_owned(), "picker".to_owned())
    });
    post();
    vm.request_headers(11, true);
    assert!(destination().unwrap().starts_with("10.0.0."));
}

#[test]
fn a_request_makes_few_host_calls() {
    let extra = "- {type: envoy-proxy, parameters: {requests: all}}";
    let mut vm = vm(&listed("prefix-cache-scorer", extra));
    host(|host| host.body = br#"{"model": "m", "prompt": "hello"}"#.to_vec());
    let size = host(|host| host.body.len());
    // The first ones pay for the periodic checks of each endpoint, and are more responses than
    // are read between two ticks.
    for id in 10..80 {
        host(|host| host.calls.clear());
        post();
        // The response's headers, which this host keeps in the same place.
        let status = (":status".to_owned(), "200".to_owned());
        host(|host| host.request.push(status));
        vm.request_headers(id, false);
        vm.request_body(id, size, true);
        vm.response_headers(id);
        vm.response_body(id, 20);
        vm.delete(id);
    }
    let calls = host(|host| host.calls.clone());
    let dear = ["proxy_get_header_map_pairs", "proxy_get_buffer_bytes"];
    let calls_of = |name: &str| calls.get(name).copied().unwrap_or(0);
    assert_eq!(dear.map(calls_of), [1, 1], "{calls:?}");
    assert_eq!(calls_of("proxy_get_property"), 0, "{calls:?}");
    assert!(calls.values().sum::<u32>() <= 7, "{calls:?}");
}

#[test]
fn pages_are_fetched_and_read() {
    let mut vm = vm(&listed("queue-scorer", ""));
    let callouts = host(|host| host.callouts.clone());
    let (cluster, headers) = callouts.last().unwrap();
    assert_eq!(cluster, "inference-pool");
    assert!(headers.contains(&(":path".to_owned(), "/metrics".to_owned())));
    let page = "# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting 3\n";
    host(|host| {
        host.callout_response = (vec![(":status".to_owned(), "200".to_owned())], page.into())
    });
    for token in 0..callouts.len() {
        vm.called_back(ROOT, token as u32, 1, page.len());
    }
    host(|host| host.now += SECOND);
    tick(&mut vm);
    let fresh = |metrics: &[(String, i64)]| {
        let fresh = metrics
            .iter()
            .filter(|(name, state)| name.starts_with("epp_wasm_endpoint_freshness") && *state == 2);
        fresh.count()
    };
    assert_eq!(host(|host| fresh(&host.metrics)), 2);
}

#[test]
fn whatever_the_host_returns_nothing_panics_and_requests_continue() {
    for status in 1..=12 {
        let mut vm = vm(&listed("prefix-cache-scorer", ""));
        post();
        assert_eq!(vm.request_headers(10, false), Action::Pause);
        host(|host| host.refuses = Some(status));
        assert_eq!(vm.request_body(10, 10, true), BodyAction::Continue);
        vm.response_headers(10);
        vm.response_body(10, 10);
        vm.delete(10);
        assert_eq!(vm.request_headers(11, false), Action::Continue);
        tick(&mut vm);
        vm.called_back(ROOT, 0, 1, 1);
        assert!(!vm.configure(9) || status == NOT_FOUND);
    }
}

/// Without any configuration the built-in one is in force.
const NOT_FOUND: u32 = 1;
