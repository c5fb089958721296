//! The memory of a request that is decided early, from its headers to its end: counted at the allocator, over a
//! hundred simultaneous requests.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use epp_core::picker::{ExchangeId, Head, Picker};
use epp_core::time::Timestamp;

#[allow(dead_code)]
#[path = "memory/counting.rs"]
mod counting;
#[allow(dead_code)]
#[path = "clients/picker.rs"]
mod picker;

/// Requests under way.
const REQUESTS: u32 = 100;

/// Envoy hands bodies on in parts of about this size.
const PART: usize = 16 << 10;

/// The most bytes of a request, including Envoy's share. Both prompt windows are 16 KiB.
const MAX_BYTES_PER_REQUEST: usize = 64 << 10;

/// A new chat of half a megabyte, whose model comes first.
fn body(number: u32) -> String {
    let text = format!("{number} of many, ").repeat(32 << 10);
    format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{text}"}}]}}"#)
}

/// Opens a request and shows its body until it is decided. Returns how many bytes that took.
fn release(picker: &mut Picker, id: ExchangeId, body: &str) -> usize {
    let head = Head::post_json("/v1/chat/completions", Some(body.len()));
    picker.request_headers(Timestamp::default(), id, &head);
    let mut shown = 0;
    while !picker::is_decided(picker) {
        shown = body.len().min(shown + PART);
        picker::show(picker, id, body, shown);
    }
    shown
}

/// Returns the memory in use per request once all are released, and once all have ended; and the
/// most bytes that Envoy held of one.
fn held(plugins: &str) -> (usize, usize, usize) {
    let mut picker = picker::picker(plugins);
    let bodies: Vec<String> = (0..REQUESTS).map(body).collect();
    let before = counting::used();
    let ids = || (1..).map(ExchangeId).zip(&bodies);
    let fed: Vec<usize> = ids()
        .map(|(id, body)| release(&mut picker, id, body))
        .collect();
    let each = |used: usize| (used - before) / REQUESTS as usize;
    let released = each(counting::used());
    for ((id, body), fed) in ids().zip(&fed) {
        let last = body.len() - 1;
        for shown in (*fed..last).step_by(PART).chain([last]) {
            picker::show(&mut picker, id, body, shown);
        }
    }
    let ended = each(counting::used());
    (released, ended, fed.into_iter().max().unwrap_or_default())
}

#[test]
fn an_early_decision_keeps_little_memory() {
    for (plugins, dialect) in [
        (
            "apiVersion: inference.networking.x-k8s.io/v1alpha1
plugins: [{type: prefix-cache-scorer}, {type: queue-scorer}, {type: lora-affinity-scorer}",
            "GIE v1",
        ),
        (
            "apiVersion: llm-d.ai/v1alpha1
plugins: [{type: prefix-cache-scorer}, {type: queue-scorer}, {type: lora-affinity-scorer},
  {type: envoy-proxy, parameters: {earlyRelease: assumeAbsent}},
  {type: approx-prefix-cache-producer, parameters: {autoTune: false, maxPrefixTokensToMatch: 4096}}",
            "llm-d",
        ),
    ] {
        let (released, ended, fed) = held(plugins);
        println!("{dialect}: {released} B at the release, {ended} B at the end, {fed} B fed");
        assert!(released + fed < MAX_BYTES_PER_REQUEST, "{dialect}: {released} and {fed} fed");
        // The rest streams past, and leaves the hashes of its blocks.
        assert!(ended < 2 * MAX_BYTES_PER_REQUEST, "{dialect}: {ended}");
    }
}
