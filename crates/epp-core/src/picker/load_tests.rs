use super::*;
use crate::config;
use crate::picker::costs::MAX_REQUEST_TOKENS;
use crate::picker::testing::{begin, close, pass, respond, respond_with_body, NOW};
use crate::picker::{ExchangeId, Head, Picker};

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
