//! The part of real clients' bodies that is read before they are decided. The table in
//! docs/holding-requests.md shows these results.
//!
//! tests/clients/recorded/README.md has the origin of the bodies.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod body;
mod picker;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::Path;

use epp_core::picker::Picker;

use body::{fields, Recorded};
use picker::{bytes_read, picker, read_saying};

/// A prompt of this many bytes more than fills the window of the plans below, so that the releases
/// that wait for a full window are seen too.
const PROMPT: usize = 24 << 10;

/// The plans of the table's columns: two endpoints, without metrics, and with a prompt that no endpoint
/// has cached. Both windows are 16 KiB, the default of GIE v1.
const PLANS: [(&str, &str); 4] = [
    (
        "GIE v1",
        "apiVersion: inference.networking.x-k8s.io/v1alpha1
plugins: [{type: prefix-cache-scorer}, {type: queue-scorer}, {type: kv-cache-utilization-scorer}, {type: lora-affinity-scorer}",
    ),
    (
        "llm-d",
        "apiVersion: llm-d.ai/v1alpha1
plugins: [{type: prefix-cache-scorer}, {type: queue-scorer}, {type: kv-cache-utilization-scorer}, {type: lora-affinity-scorer},
  {type: approx-prefix-cache-producer, parameters: {autoTune: false, maxPrefixTokensToMatch: 4096}}",
    ),
    (
        "llm-d, `assumeAbsent`",
        "apiVersion: llm-d.ai/v1alpha1
plugins: [{type: prefix-cache-scorer}, {type: queue-scorer}, {type: kv-cache-utilization-scorer}, {type: lora-affinity-scorer},
  {type: approx-prefix-cache-producer, parameters: {autoTune: false, maxPrefixTokensToMatch: 4096}},
  {type: envoy-proxy, parameters: {earlyRelease: assumeAbsent}}",
    ),
    (
        "LoRA, no prefix",
        "apiVersion: llm-d.ai/v1alpha1
plugins: [{type: queue-scorer}, {type: lora-affinity-scorer}",
    ),
];

/// Fields that a decision can depend on; the prompt's last.
const RELEVANT_FIELDS: [&str; 8] = [
    "model",
    "cache_salt",
    "tools",
    "system",
    "instructions",
    "messages",
    "prompt",
    "input",
];
const PROMPTS: &[&str] = &["messages", "prompt", "input"];

/// Returns the position in a body after this many bytes, in words.
fn place(body: &str, read: usize) -> String {
    if read == 0 {
        return "at the headers".to_owned();
    }
    if read == body.len() {
        return "at the end".to_owned();
    }
    let fields = fields(body);
    let last = fields.iter().rfind(|(_, value)| value.start < read);
    let (key, value) = last.unwrap();
    if !PROMPTS.contains(key) {
        return format!("at `{key}`");
    }
    if read < value.end {
        return "in the prompt".to_owned();
    }
    format!("behind `{key}`")
}

/// Returns the keys that a reader may need, in the body's order, and the parts of the prompt.
fn order(body: &str) -> String {
    let fields = fields(body);
    let relevant = fields
        .iter()
        .filter(|(key, _)| RELEVANT_FIELDS.contains(key));
    let named = relevant.map(|(key, value)| {
        let value = body[value.clone()].replace(' ', "");
        let made_of = match *key {
            "messages" if value.contains("\"content\":[") => " of parts",
            "prompt" | "input" if value.starts_with("[{") => " of messages",
            "prompt" | "input" if value.starts_with('[') => " of texts",
            _ => "",
        };
        format!("{key}{made_of}")
    });
    named.collect::<Vec<_>>().join(", ")
}

/// The positions that the requests of an API with the same keys wait for.
struct Row {
    /// The positions, by plan.
    places: Vec<String>,
    clients: BTreeSet<String>,
}

/// The rows by API and order of keys.
fn rows() -> BTreeMap<(&'static str, String), Row> {
    let mut pickers: Vec<Picker> = PLANS.iter().map(|(_, plan)| picker(plan)).collect();
    let mut rows = BTreeMap::new();
    for request in Recorded::all() {
        let client = format!("{} {}", request.client, request.version);
        let (api, path) = request.api();
        let body = request.asking(PROMPT);
        // A prompt of its own, so that no picker has seen it before.
        let body = body.replacen("Why is", &format!("{client} {}", request.what), 1);
        let places = pickers
            .iter_mut()
            .map(|picker| place(&body, bytes_read(picker, path, &body)));
        let places: Vec<String> = places.collect();
        let row = rows.entry((api, order(&body))).or_insert_with(|| Row {
            places: places.clone(),
            clients: BTreeSet::new(),
        });
        let (what, others) = (&request.what, &row.clients);
        assert_eq!(row.places, places, "{client} {what}: unlike {others:?}");
        row.clients.insert(client);
    }
    rows
}

#[test]
fn the_table_says_what_each_body_waits_for() {
    let plans: Vec<&str> = PLANS.iter().map(|(name, _)| *name).collect();
    let mut table = format!("| API | keys | {} | clients |\n", plans.join(" | "));
    table += &"|---".repeat(plans.len() + 3);
    table += "|\n";
    for ((api, keys), Row { places, clients }) in rows() {
        let clients: Vec<String> = clients.into_iter().collect();
        let (places, clients) = (places.join(" | "), clients.join(", "));
        writeln!(table, "| {api} | {keys} | {places} | {clients} |").unwrap();
    }
    assert_says("docs/holding-requests.md", &table);
}

#[test]
fn the_list_of_recordings_names_their_keys() {
    let mut table =
        String::from("| client | version | request | outermost keys |\n|---|---|---|---|\n");
    for request in Recorded::all() {
        let keys: Vec<&str> = fields(&request.body)
            .into_iter()
            .map(|(key, _)| key)
            .collect();
        let Recorded {
            client,
            version,
            what,
            ..
        } = &request;
        writeln!(
            table,
            "| {client} | {version} | {what} | {} |",
            keys.join(", ")
        )
        .unwrap();
    }
    assert_says("tests/clients/recorded/README.md", &table);
}

#[test]
fn a_plan_that_needs_nothing_of_a_body_does_not_wait_for_it() {
    let mut picker = picker(
        "apiVersion: llm-d.ai/v1alpha1
plugins: [{type: queue-scorer}, {type: kv-cache-utilization-scorer}",
    );
    for request in Recorded::all() {
        let read = bytes_read(&mut picker, request.api().1, &request.body);
        assert_eq!(read, 0, "{} {}", request.client, request.what);
    }
}

#[test]
fn a_known_prompt_is_followed_to_its_end_or_the_windows() {
    let (_, gie_v1) = PLANS[0];
    let mut picker = picker(gie_v1);
    let recorded = Recorded::all();
    let chat = |own: &&Recorded| own.what == "chat" && order(&own.body) == "model, messages";
    let request = recorded.iter().find(chat).unwrap();
    let (_, path) = request.api();
    // A field behind the messages may still make it another prompt, unless they fill the window.
    for (bytes, expected) in [(PROMPT, "in the prompt"), (4 << 10, "at the end")] {
        let body = request.asking(bytes);
        // A beginning of its own for each length.
        let body = body.replacen("Why", &bytes.to_string(), 1);
        let first = bytes_read(&mut picker, path, &body);
        assert_eq!(place(&body, first), "in the prompt");
        let again = bytes_read(&mut picker, path, &body);
        assert_eq!(place(&body, again), expected);
        assert!(again > first + bytes / 2, "{first} bytes, then {again}");
    }
}

#[test]
fn a_body_is_held_as_far_as_its_declared_length_allows() {
    let limit = 32 << 10;
    let (_, llm_d) = PLANS[1];
    let proxy = format!("{{type: envoy-proxy, parameters: {{decideAfterBytes: {limit}}}}}");
    let mut picker = picker(&format!("{llm_d}, {proxy}"));
    let recorded = Recorded::all();
    let request = recorded.iter().find(|own| own.what == "chat").unwrap();
    let (_, path) = request.api();
    let body = request.asking(PROMPT);
    assert_eq!(bytes_read(&mut picker, path, &body), body.len());
    // Three quarters of what may be held, and the byte with which it is more.
    for length in [Some(limit + 1), None] {
        let read = read_saying(&mut picker, path, &body, length);
        assert_eq!(read, limit / 4 * 3 + 1, "{length:?}");
    }
}

/// Asserts that a page contains this text.
fn assert_says(page: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    let found = fs::read_to_string(path).unwrap();
    assert!(found.contains(text), "{page} should say:\n{text}");
}
