//! Requests that are dropped for their priority, and those that carry it to the model server.

use super::testing::{begin, NOW};
use super::*;
use crate::config;
use crate::scheduling::Slot;

/// A picker of two endpoints with these plugins, under this `apiVersion`.
fn picker(version: &str, plugins: &str) -> Picker {
    let text = format!(
        "apiVersion: {version}
kind: EndpointPickerConfig
plugins: [{plugins}, {{type: random-picker}},
  {{name: pods, type: static-discovery, parameters: {{endpoints: [
    {{name: p0, address: 10.0.0.1, port: 80}}, {{name: p1, address: 10.0.0.2, port: 80}}]}}}}]
dataLayer: {{discovery: {{pluginRef: pods}}}}
"
    );
    let mut picker = Picker::new(config::load(&text).unwrap().plan, 1);
    picker.tick(NOW);
    picker
}

const OBJECTIVES: &str =
    "{type: static-objectives, parameters: {objectives: [{name: batch, priority: -1}, {name: chat, priority: 1}]}}";
const LLM_D: &str = "llm-d.ai/v1alpha1";
const GIE_V1: &str = "inference.networking.x-k8s.io/v1alpha1";

/// Sets how many requests wait at both endpoints.
fn wait(picker: &mut Picker, waiting: [u32; 2]) {
    for (slot, waiting) in [Slot(0), Slot(1)].into_iter().zip(waiting) {
        let page = format!("vllm:num_requests_waiting {waiting}\n");
        assert!(picker.fixture().read_page(NOW, slot, page.as_bytes()));
    }
    picker.tick(NOW);
}

/// Returns the status and reason of the local reply to a request of this objective, if it gets one.
fn dropped(picker: &mut Picker, id: u32, objective: &str) -> Option<(u32, Option<&'static str>)> {
    // Requests that are in flight count as waiting until a page shows them.
    let headers = picker.plan().headers.clone();
    let values = headers
        .iter()
        .map(|name| (name == "x-gateway-inference-objective").then_some(objective.as_bytes()));
    let values: Vec<Option<&[u8]>> = values.collect();
    let head = Head {
        headers: &values,
        end: true,
        ..Head::post_json("/v1/completions", None)
    };
    let effect = begin(picker, id, &head).unwrap();
    testing::close(picker, id);
    match effect {
        Effect::Reply { reply, .. } => Some((reply.status, reply.reason)),
        Effect::Forward { .. } => None,
        other => panic!("{other:?}"),
    }
}

const SHED: Option<(u32, Option<&str>)> = Some((429, Some("rejected-saturated")));

#[test]
fn only_sheddable_requests_are_dropped_and_only_while_the_pool_is_full() {
    let mut picker = picker(LLM_D, OBJECTIVES);
    assert_eq!(
        dropped(&mut picker, 1, "batch"),
        SHED,
        "without a page all are full"
    );
    wait(&mut picker, [9, 0]);
    assert_eq!(dropped(&mut picker, 2, "batch"), None, "0.9 on average");
    wait(&mut picker, [10, 0]);
    assert_eq!(dropped(&mut picker, 3, "batch"), SHED);
    wait(&mut picker, [99, 99]);
    for (id, objective) in (4..).zip(["chat", "", "unlisted", "Batch"]) {
        assert_eq!(dropped(&mut picker, id, objective), None, "{objective}");
    }
    assert_eq!(dropped(&mut picker, 9, "batch"), SHED);
}

#[test]
fn the_predecessor_sheds_once_no_endpoint_has_room() {
    let mut picker = picker(GIE_V1, OBJECTIVES);
    for (id, waiting, expected) in [(1, [6, 5], None), (2, [99, 0], None), (3, [6, 6], SHED)] {
        wait(&mut picker, waiting);
        assert_eq!(dropped(&mut picker, id, "batch"), expected, "{waiting:?}");
    }
    assert_eq!(dropped(&mut picker, 4, "chat"), None);
}

/// Under `FailOpen` the host's own load balancing would send what is dropped to a full pool.
#[test]
fn what_is_dropped_is_dropped_under_either_failure_mode() {
    let open =
        format!("{OBJECTIVES}, {{type: envoy-proxy, parameters: {{failureMode: FailOpen}}}}");
    let mut picker = picker(LLM_D, &open);
    wait(&mut picker, [9, 9]);
    assert_eq!(dropped(&mut picker, 1, "batch"), SHED);
}

#[test]
fn a_dry_run_drops_nothing() {
    let dry = format!("{OBJECTIVES}, {{type: envoy-proxy, parameters: {{dryRun: true}}}}");
    let mut picker = picker(LLM_D, &dry);
    wait(&mut picker, [9, 9]);
    let head = Head {
        headers: &[Some(b"batch"), None],
        end: true,
        ..Head::post_json("/v1/completions", None)
    };
    assert!(matches!(
        begin(&mut picker, 1, &head),
        Some(Effect::Bypass { .. })
    ));
}

#[test]
fn requests_in_flight_fill_the_pool_before_a_page_shows_them() {
    let mut picker = picker(LLM_D, OBJECTIVES);
    wait(&mut picker, [0, 0]);
    let head = Head {
        end: true,
        ..Head::post_json("/v1/completions", None)
    };
    for id in 100..110 {
        assert_eq!(dropped(&mut picker, 1, "batch"), None, "after {id}");
        begin(&mut picker, id, &head).unwrap();
    }
    assert_eq!(dropped(&mut picker, 1, "batch"), SHED, "10 of 10 in flight");
    testing::close(&mut picker, 100);
    assert_eq!(dropped(&mut picker, 1, "batch"), None);
}

#[test]
fn the_admitter_drops_a_part_of_the_sheddable_requests() {
    let admitter = format!("{OBJECTIVES}, {{type: probabilistic-admitter, parameters: {{power: 1, k: 1, queueDepthThreshold: 20}}}}, {{type: utilization-detector, parameters: {{queueDepthThreshold: 999999}}}}");
    let mut picker = picker(LLM_D, &admitter);
    wait(&mut picker, [10, 10]);
    let count = |picker: &mut Picker, objective: &str| {
        let replies = (1..=400).filter_map(|id| dropped(picker, id, objective));
        let replies: Vec<_> = replies.collect();
        assert!(
            replies.iter().all(|reply| *reply == (500, None)),
            "{replies:?}"
        );
        replies.len()
    };
    let found = count(&mut picker, "batch");
    assert!(
        (150..=250).contains(&found),
        "{found} of 400 at a saturation of a half"
    );
    assert_eq!(count(&mut picker, "chat"), 0);
}

/// Returns the body that reaches the endpoint, of a request of this objective whose body comes in parts.
fn forwarded(picker: &mut Picker, objective: &str, body: &str, parts: bool) -> String {
    let length = (!parts).then_some(body.len());
    let head = Head {
        headers: &[None, Some(objective.as_bytes())],
        ..Head::post_json("/v1/completions", length)
    };
    picker.request_headers(NOW, ExchangeId(1), &head);
    let mut at = body.find(",").filter(|_| parts).unwrap_or(body.len());
    let mut shown = crate::body::SliceBody::passing(&body.as_bytes()[..at], 0, !parts);
    picker.request_body(NOW, ExchangeId(1), &mut shown);
    let mut rewrites = Vec::new();
    let mut sent = false;
    loop {
        while let Some(effect) = picker.poll_effect() {
            sent |= effect.is_decision();
            rewrites.extend(match effect {
                Effect::RewriteBody { rewrite, .. } => Some(rewrite),
                Effect::Forward { route, .. } => route.rewrite,
                _ => None,
            });
        }
        if sent {
            break;
        }
        assert!(at < body.len(), "it is sent at its end");
        let mut shown = crate::body::SliceBody::passing(&body.as_bytes()[at..], at, true);
        at = body.len();
        picker.request_body(NOW, ExchangeId(1), &mut shown);
    }
    testing::close(picker, 1);
    let mut text = body.to_owned();
    assert!(rewrites.len() < 2, "{rewrites:?}");
    for rewrite in rewrites {
        text.replace_range(rewrite.range, &rewrite.text);
    }
    text
}

#[test]
fn a_priority_reaches_the_model_server_in_its_own_sense() {
    let propagating = |labels: &str, more: &str| {
        let text = format!(
            "apiVersion: {LLM_D}
kind: EndpointPickerConfig
requestHandler: {{propagatePriority: true}}
plugins: [{OBJECTIVES}, {{type: random-picker}}, {more}
  {{name: pods, type: static-discovery, parameters: {{endpoints: [
    {{name: p0, address: 10.0.0.1, port: 80, labels: {{{labels}}}}}]}}}}]
dataLayer: {{discovery: {{pluginRef: pods}}}}
"
        );
        let mut picker = Picker::new(config::load(&text).unwrap().plan, 1);
        picker.tick(NOW);
        let page = b"vllm:num_requests_waiting 0\n";
        picker.fixture().read_page(NOW, Slot(0), page);
        picker.tick(NOW);
        picker
    };
    let body = r#"{"model":"m","prompt":"hello"}"#;
    for parts in [false, true] {
        let mut vllm = propagating("", "");
        let mut sent = |objective| forwarded(&mut vllm, objective, body, parts);
        assert_eq!(
            sent("chat"),
            r#"{"model":"m","priority":-1,"prompt":"hello"}"#
        );
        assert_eq!(
            sent("batch"),
            r#"{"model":"m","priority":1,"prompt":"hello"}"#
        );
        assert_eq!(sent("unlisted"), body);
        let mut sglang = propagating("llm-d.ai/engine-type: sglang", "");
        let sent = forwarded(&mut sglang, "chat", body, parts);
        assert_eq!(sent, r#"{"model":"m","priority":1,"prompt":"hello"}"#);
        let renamed = "{type: model-rewrite, parameters: {rules: [{targets: [{model: n}]}]}},";
        let sent = forwarded(&mut propagating("", renamed), "chat", body, parts);
        assert_eq!(sent, r#"{"model":"n","priority":-1,"prompt":"hello"}"#);
    }
    let last = r#"{"prompt":"hello","model":"m"}"#;
    let sent = forwarded(&mut propagating("", ""), "chat", last, false);
    assert_eq!(sent, r#"{"prompt":"hello","model":"m","priority":-1}"#);
}
