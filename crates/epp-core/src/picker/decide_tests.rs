//! The work of deciding a request whose body comes in parts of a client's choice.

use crate::config;
use crate::picker::testing::{begin, close, exchange, pass, respond, show, NOW};
use crate::picker::{Head, Picker};
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
