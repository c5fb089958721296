//! Every API whose bodies are read: a prompt goes where it went before.

use fake_model_server::{Settings, Sim};
use serde_json::{json, Value};

use crate::client::post;
use crate::start;

/// The llm-d dialect with prefixes alone.
const PREFIXES: &str = "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{type: prefix-cache-scorer}]
schedulingProfiles: [{name: default, plugins: [{pluginRef: prefix-cache-scorer}]}]
";

/// A body of each API around a text, and one that differs from its first words on.
fn bodies(about: &str) -> Vec<(&'static str, Value)> {
    let text: String = (0..600)
        .map(|number| format!("{about} {number} "))
        .collect();
    let first = u64::from(about.as_bytes()[0]);
    let tokens: Vec<u64> = (0..1_000).map(|number| first * 10_000 + number).collect();
    let turns = json!([{"role": "user", "content": text}]);
    let parts = json!([{"role": "user", "content": [{"type": "text", "text": text}]}]);
    vec![
        (
            "/v1/chat/completions",
            json!({"model": "m", "messages": turns}),
        ),
        (
            "/v1/chat/completions",
            json!({"messages": parts, "model": "m"}),
        ),
        ("/v1/completions", json!({"model": "m", "prompt": text})),
        ("/v1/completions", json!({"model": "m", "prompt": tokens})),
        ("/v1/responses", json!({"model": "m", "input": turns})),
        ("/v1/conversations", json!({"model": "m", "items": turns})),
        ("/v1/embeddings", json!({"model": "m", "input": [text]})),
        (
            "/v1/messages",
            json!({"max_tokens": 1, "messages": parts, "model": "m"}),
        ),
        (
            "/inference/v1/generate",
            json!({"model": "m", "token_ids": tokens}),
        ),
        ("/generate", json!({"input_ids": tokens})),
    ]
}

#[test]
fn a_prompt_goes_where_it_went_before_in_every_api() {
    let sim = Sim::start(4, &Settings::default()).unwrap();
    let proxy = start(&sim, PREFIXES);
    // What was sent by one API may not attract the next one's prompt.
    let mut pods = [0; 4];
    let send = |path: &str, body: &Value| {
        let response = post(proxy.port, path, body, &[]);
        assert_eq!(response.status, 200, "{path}: {response:?}");
        response.pod().to_owned()
    };
    for about in ["red", "green", "blue"] {
        for (path, body) in bodies(about) {
            let pod = send(path, &body);
            (0..4).for_each(|_| assert_eq!(send(path, &body), pod, "{path} {about}"));
            let number: usize = pod.strip_prefix("pod-").unwrap().parse().unwrap();
            pods[number - 1] += 1;
        }
    }
    // New prompts are spread.
    assert!(
        pods.iter().filter(|count| **count > 0).count() >= 2,
        "{pods:?}"
    );
}
