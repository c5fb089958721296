use super::*;
use crate::config;
use crate::metrics::MetricUpdate;
use crate::picker::costs::MAX_REQUEST_TOKENS;
use crate::picker::testing::{begin, close, pass, respond, respond_with_body, NOW};
use crate::picker::{Effect, ExchangeId, Head, Picker};

/// Tokens in flight at one endpoint decide; the parameters of the load producer are left open.
fn picker(parameters: &str) -> Picker {
    let text = format!(
        "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{{type: token-load-scorer}}, {{type: inflight-load-producer, parameters: {{{parameters}}}}},
  {{name: pods, type: static-discovery, parameters: {{endpoints: [{{name: p0, address: 10.0.0.1, port: 80}}]}}}}]
schedulingProfiles: [{{name: default, plugins: [{{pluginRef: token-load-scorer}}]}}]
dataLayer: {{discovery: {{pluginRef: pods}}}}
"
    );
    let plan = config::load(&text).unwrap().plan;
    let mut picker = Picker::new(plan, 1);
    picker.tick(NOW);
    picker
}

fn tokens(picker: &Picker) -> u64 {
    picker.pool().load(Slot(0)).tokens
}

fn open(picker: &mut Picker, id: u32) {
    let head = Head::post_json("/v1/completions", Some(1 << 20));
    assert!(begin(picker, id, &head).is_none(), "it is held");
}

#[test]
fn a_prompt_that_comes_after_its_request_has_left_is_counted() {
    let mut picker = picker("addEstimatedOutputTokens: false");
    open(&mut picker, 1);
    picker.body_withheld(NOW, ExchangeId(1));
    assert_eq!(tokens(&picker), 0, "nothing was read");
    let body = format!(r#"{{"model":"m","prompt":"{}"#, "five ".repeat(4_000));
    pass(&mut picker, 1, 0, body.as_bytes(), false);
    let counted = tokens(&picker);
    assert!(counted > 1_000, "{counted}");
    respond(&mut picker, 1);
    respond_with_body(&mut picker, 1);
    assert_eq!(tokens(&picker), 0, "the prompt was computed");
    let rest = format!(r#"{}"}}"#, "six ".repeat(4_000));
    pass(&mut picker, 1, body.len(), rest.as_bytes(), true);
    assert_eq!(tokens(&picker), 0, "and costs no more, whatever follows");
    close(&mut picker, 1);
    assert_eq!(tokens(&picker), 0);
}

#[test]
fn no_estimate_makes_the_sum_wrap() {
    let mut picker = picker("addEstimatedOutputTokens: true, outputRatio: 1e300");
    let body = br#"{"model":"m","prompt":"one two three four five six seven eight"}"#;
    for id in 1..=3 {
        open(&mut picker, id);
        pass(&mut picker, id, 0, body, true);
        assert_eq!(tokens(&picker), u64::from(id) * MAX_REQUEST_TOKENS);
    }
    (1..=3).for_each(|id| close(&mut picker, id));
    assert_eq!(tokens(&picker), 0);
}

/// A picker that has the prompt computed and media encoded by other profiles' picks, with endpoints of these roles.
fn disaggregated(roles: &[&str]) -> Picker {
    let mut endpoints = String::new();
    for (place, role) in roles.iter().enumerate() {
        endpoints += &format!("    - {{name: p{place}, address: 10.0.0.{place}, port: 80, labels: {{llm-d.ai/role: {role}}}}}\n");
    }
    let text = format!(
        "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {{type: decode-filter}}
- {{type: prefill-filter}}
- {{type: encode-filter}}
- {{type: active-request-scorer}}
- {{type: max-score-picker, parameters: {{maxNumOfEndpoints: 2}}}}
- {{type: always-disagg-pd-decider}}
- {{type: always-disagg-multimodal-decider}}
- type: disagg-profile-handler
  parameters: {{deciders: {{prefill: always-disagg-pd-decider, encode: always-disagg-multimodal-decider}}}}
- name: pods
  type: static-discovery
  parameters:
    endpoints:
{endpoints}schedulingProfiles:
- {{name: decode, plugins: [{{pluginRef: decode-filter}}, {{pluginRef: active-request-scorer}}]}}
- {{name: prefill, plugins: [{{pluginRef: prefill-filter}}, {{pluginRef: active-request-scorer}}]}}
- {{name: encode, plugins: [{{pluginRef: encode-filter}}, {{pluginRef: active-request-scorer}}]}}
dataLayer: {{discovery: {{pluginRef: pods}}}}
"
    );
    let plan = config::load(&text)
        .unwrap_or_else(|rejected| panic!("{rejected:#?}"))
        .plan;
    let mut picker = Picker::new(plan, 1);
    picker.tick(NOW);
    picker
}

fn send_image(picker: &mut Picker) {
    let body = r#"{"model":"m","messages":[{"role":"user","content":[
        {"type":"image_url","image_url":{"url":"https://example.com/cat.png"}}]}]}"#;
    let head = Head::post_json("/v1/chat/completions", Some(body.len()));
    let early = begin(picker, 1, &head);
    let effect = early.or_else(|| pass(picker, 1, 0, body.as_bytes(), true));
    assert!(matches!(effect, Some(Effect::Forward { .. })), "{effect:?}");
}

/// Sends a request with an image. Returns the requests that each endpoint counts once it was sent, when the first
/// bytes of its response have come, and when it has ended.
fn counts<const N: usize>(roles: [&str; N]) -> [[u32; N]; 3] {
    let mut picker = disaggregated(&roles);
    let requests = |picker: &Picker| {
        let mut slot = 0;
        [(); N].map(|()| {
            slot += 1;
            picker.pool().load(Slot(slot - 1)).requests
        })
    };
    send_image(&mut picker);
    let sent = requests(&picker);
    respond(&mut picker, 1);
    assert_eq!(
        requests(&picker),
        sent,
        "the prompt may not be computed yet"
    );
    respond_with_body(&mut picker, 1);
    let flowing = requests(&picker);
    close(&mut picker, 1);
    [sent, flowing, requests(&picker)]
}

#[test]
fn every_part_of_a_request_counts_at_its_endpoint_until_it_is_done() {
    let all = ["decode", "prefill", "encode", "encode"];
    assert_eq!(counts(all), [[1, 1, 1, 1], [1, 0, 0, 0], [0; 4]]);
    // One endpoint that computes the prompt and generates has two parts of it.
    assert_eq!(counts(["both", "encode"]), [[2, 1], [1, 0], [0, 0]]);
    assert_eq!(
        counts(["both", "encode", "encode"]),
        [[2, 1, 1], [1, 0, 0], [0; 3]]
    );
    assert_eq!(counts(["encode-prefill-decode"]), [[3], [1], [0]]);
}

#[test]
fn a_missing_encode_endpoint_shows_in_the_metrics() {
    let reason = |roles: &[&str]| {
        let mut picker = disaggregated(roles);
        send_image(&mut picker);
        picker.dispatcher.statistics.registry.flush();
        let mut updates = std::iter::from_fn(|| picker.poll_metric());
        updates.find_map(|update| match update {
            MetricUpdate::Define { name, .. } => {
                Some(name.split_once("decision_type=")?.1.to_owned())
            }
            _ => None,
        })
    };
    let found = reason(&["decode", "prefill"]);
    assert_eq!(
        found.as_deref(),
        Some("prefill-decode;reason=no-encode-endpoint")
    );
    let found = reason(&["decode", "prefill", "encode"]);
    assert_eq!(found.as_deref(), Some("encode-prefill-decode"));
}
