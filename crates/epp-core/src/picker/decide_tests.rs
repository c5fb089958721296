//! The work of deciding a request whose body comes in parts of a client's choice.

use crate::config;
use crate::picker::testing::{begin, close, exchange, pass, respond, show, NOW};
use crate::picker::{Effect, Head, Picker};
use crate::scheduling::Slot;

const PLAN: &str = "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{type: prefix-cache-scorer}, {type: queue-scorer},
  {type: approx-prefix-cache-producer, parameters: {autoTune: false}},
  {name: pods, type: static-discovery, parameters: {endpoints: [
    {name: p0, address: 10.0.0.1, port: 80}, {name: p1, address: 10.0.0.2, port: 80}]}}]
schedulingProfiles: [{name: default, plugins: [{pluginRef: queue-scorer, weight: 2}, {pluginRef: prefix-cache-scorer, weight: 3}]}]
dataLayer: {discovery: {pluginRef: pods}}
";

/// The endpoint that holds the prompt's beginning is the busier one, so that the length of the prompt decides.
#[test]
fn choices_are_compared_once_for_each_block_however_small_the_parts_are() {
    const PARTS: usize = 200;
    let mut picker = Picker::new(config::load(PLAN).unwrap().plan, 1);
    picker.tick(NOW);
    let start = format!(
        r#"{{"model":"m","cache_salt":"s","tools":[],"messages":[{{"role":"user","content":"{}"#,
        "k".repeat(3_000)
    );
    let first = format!(r#"{start}"}}]}}"#);
    let head = Head::post_json("/v1/chat/completions", Some(first.len()));
    begin(&mut picker, 1, &head);
    show(&mut picker, 1, first.as_bytes(), true);
    let holder = exchange(&picker, 1).primary().unwrap().slot;
    respond(&mut picker, 1);
    close(&mut picker, 1);
    for slot in [Slot(0), Slot(1)] {
        let waiting = if slot == holder { 9 } else { 0 };
        let page = format!("vllm:num_requests_waiting {waiting}\n");
        assert!(picker.fixture().read_page(NOW, slot, page.as_bytes()));
    }
    picker.tick(NOW);
    let head = Head::post_json("/v1/chat/completions", None);
    begin(&mut picker, 2, &head);
    let body = format!("{start}{}", "x".repeat(300));
    pass(&mut picker, 2, 0, body.as_bytes(), false);
    let before = exchange(&picker, 2).comparisons;
    for part in 0..PARTS {
        pass(&mut picker, 2, body.len() + part, b"x", false);
    }
    assert!(exchange(&picker, 2).is_held(), "its length decides");
    let compared = exchange(&picker, 2).comparisons - before;
    // A block is 256 bytes.
    assert!((1..=2).contains(&compared), "{compared} times");
}

/// A picker with two endpoints, these plugins and these profiles.
fn plan(plugins: &str, profiles: &str) -> Picker {
    let text = PLAN
        .split("{type: prefix-cache-scorer}, ")
        .collect::<String>();
    let (before, _) = text.split_once("schedulingProfiles").unwrap();
    let before = before.replace(
        "[{type: queue-scorer}",
        &format!("[{{type: queue-scorer}}, {plugins}"),
    );
    let text = format!(
        "{before}schedulingProfiles: {profiles}\ndataLayer: {{discovery: {{pluginRef: pods}}}}\n"
    );
    let mut picker = Picker::new(config::load(&text).unwrap().plan, 1);
    picker.tick(NOW);
    picker
}

/// Begins a request of a long prompt, and shows what follows of it in parts of four bytes. Returns how often choices were
/// compared meanwhile.
fn compared(picker: &mut Picker, parts: usize) -> usize {
    let body = format!(
        r#"{{"model":"m","cache_salt":"s","tools":[],"messages":[{{"role":"user","content":"{}"#,
        "k".repeat(3_300)
    );
    begin(picker, 1, &Head::post_json("/v1/chat/completions", None));
    pass(picker, 1, 0, body.as_bytes(), false);
    let before = exchange(picker, 1).comparisons;
    for part in 0..parts {
        pass(picker, 1, body.len() + 4 * part, b"xxxx", false);
    }
    assert!(exchange(picker, 1).is_held());
    exchange(picker, 1).comparisons - before
}

/// The threshold is so low that it cuts off the scores of every endpoint.
#[test]
fn a_plan_that_counts_tokens_compares_no_more_often() {
    let tokens = "{type: token-load-scorer, parameters: {queueThresholdTokens: 1}}";
    let decider =
        "{type: prefix-based-pd-decider, parameters: {nonCachedTokens: 5000, promptTokens: 5000}},
      {type: disagg-profile-handler, parameters: {deciders: {prefill: prefix-based-pd-decider}}}";
    let one = "[{name: default, plugins: [{pluginRef: queue-scorer}, {pluginRef: SCORER}]}]";
    let two = "[{name: prefill}, {name: decode, plugins: [{pluginRef: queue-scorer}]}]";
    for (plugins, profiles) in [
        (tokens, one.replace("SCORER", "token-load-scorer")),
        (decider, two.to_owned()),
    ] {
        let mut picker = plan(plugins, &profiles);
        let compared = compared(&mut picker, 256);
        // They are 1024 bytes: four blocks, or as often 64 tokens.
        assert!((4..=10).contains(&compared), "{plugins}: {compared} times");
    }
}

#[test]
fn what_depends_on_media_still_to_come_is_not_compared() {
    let profiles = "[{name: default, plugins: [{pluginRef: queue-scorer}, {pluginRef: mm-embeddings-cache-scorer}]}]";
    let mut picker = plan("{type: mm-embeddings-cache-scorer}", profiles);
    assert_eq!(compared(&mut picker, 256), 0);
}

/// A header that names no profile, one with a profile that leaves no endpoint, and one with an endpoint that is none.
#[test]
fn no_header_makes_filters_void() {
    let handler = "{type: header-profile-handler}, {type: decode-filter}, {type: prefill-filter},
      {type: envoy-proxy, parameters: {failureMode: FailOpen}}";
    let profiles = "[{name: decode, plugins: [{pluginRef: queue-scorer}]}, {name: prefill, plugins: [{pluginRef: prefill-filter}]}]";
    let testing = "{type: header-based-testing-filter}, {type: envoy-proxy, parameters: {failureMode: FailOpen}}";
    let one = "[{name: default, plugins: [{pluginRef: header-based-testing-filter}]}]";
    for (plugins, profiles, value) in [
        (handler, profiles, "nonsense"),
        (handler, profiles, "prefill"),
        (testing, one, "192.0.2.1"),
    ] {
        let mut picker = plan(plugins, profiles);
        let headers = [Some(value.as_bytes())];
        let head = Head {
            headers: &headers,
            end: true,
            ..Head::post_json("/v1/completions", None)
        };
        match begin(&mut picker, 1, &head) {
            Some(Effect::Reply { reply, .. }) => assert_eq!(reply.status, 429, "{value}"),
            other => panic!("{value}: {other:?}"),
        }
    }
}

#[test]
fn a_default_profile_without_endpoints_fails_open() {
    let handler = "{type: header-profile-handler, parameters: {defaultProfile: prefill}}, {type: prefill-filter},
      {type: envoy-proxy, parameters: {failureMode: FailOpen}}";
    let profiles = "[{name: decode, plugins: [{pluginRef: queue-scorer}]}, {name: prefill, plugins: [{pluginRef: prefill-filter}]}]";
    let mut picker = plan(handler, profiles);
    let head = Head {
        headers: &[None],
        end: true,
        ..Head::post_json("/v1/completions", None)
    };
    let effect = begin(&mut picker, 1, &head);
    assert!(matches!(effect, Some(Effect::Bypass { .. })), "{effect:?}");
}
