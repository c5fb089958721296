//! Metrics of whole and streamed responses of three APIs.

use std::time::Duration;

use fake_model_server::{Settings, Sim};
use serde_json::{json, Value};

use crate::client::{complete, post};
use crate::proxy::Proxy;
use crate::{scorer, start};

/// Returns the sum of a counter over all endpoints, for the model of these tests.
fn total(proxy: &Proxy, name: &str) -> f64 {
    let page = proxy.prometheus();
    let own = page
        .lines()
        .filter(|line| line.starts_with(&format!("{name}{{")) && line.contains("\"m\""));
    own.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum()
}

/// Returns a request of each API, streamed or not, with the field that limits its response.
fn requests(stream: bool) -> [(&'static str, Value); 3] {
    let turns = json!([{"role": "user", "content": "Why is the sky blue?"}]);
    let chat = json!({"model": "m", "messages": turns, "max_tokens": 5, "stream": stream,
        "stream_options": {"include_usage": true}});
    let messages = json!({"model": "m", "messages": turns, "max_tokens": 5, "stream": stream});
    let responses = json!({"model": "m", "input": turns, "max_output_tokens": 5, "stream": stream});
    [
        ("/v1/chat/completions", chat),
        ("/v1/messages", messages),
        ("/v1/responses", responses),
    ]
}

#[test]
fn responses_of_three_apis_are_counted_whole_and_streamed() {
    let settings = Settings {
        token_time: Duration::from_millis(2),
        ..Settings::default()
    };
    let sim = Sim::start(1, &settings).unwrap();
    let proxy = start(&sim, &scorer("prefix-cache-scorer"));
    for stream in [false, true] {
        for (path, body) in requests(stream) {
            let response = post(proxy.port, path, &body, &[]);
            assert_eq!(response.status, 200, "{path}: {response:?}");
            let events = response.body.contains("data: ");
            assert_eq!(events, stream, "{path}: {response:?}");
        }
    }
    let reaches = |name: &str, expected: f64| {
        let name = format!("llm_d_epp_request_{name}");
        proxy.wait_until(&name, || total(&proxy, &name) == expected);
    };
    for (name, expected) in [
        ("ttft_seconds_count", 6.0),
        ("input_tokens_count", 6.0),
        ("output_tokens_count", 6.0),
        ("output_tokens_sum", 30.0),
        ("cached_tokens_count", 6.0),
        ("ntpot_seconds_count", 6.0),
        ("streaming_tpot_seconds_count", 3.0),
    ] {
        reaches(name, expected);
    }
    // Three tokens a prompt at least.
    let prompts = total(&proxy, "llm_d_epp_request_input_tokens_sum");
    assert!(prompts >= 18.0, "{prompts}");
    // All six say what was cached.
    let reporting = total(&proxy, "epp_wasm_reporting_input_tokens_total");
    assert_eq!(reporting, prompts);
}

/// Tokens that the index expected to be cached, and those that the pod reported, after one prompt
/// was sent some times.
fn expected_and_reported(settings: &Settings) -> (f64, f64) {
    let sim = Sim::start(1, settings).unwrap();
    let proxy = start(&sim, &scorer("prefix-cache-scorer"));
    let prompt = "a prompt of a hundred blocks ".repeat(220);
    (0..6).for_each(|_| {
        complete(proxy.port, "m", &prompt);
    });
    let counted = || total(&proxy, "llm_d_epp_request_cached_tokens_count");
    proxy.wait_until("all are counted", || counted() == 6.0);
    (
        total(&proxy, "epp_wasm_predicted_cached_tokens_total"),
        total(&proxy, "epp_wasm_reported_cached_tokens_total"),
    )
}

#[test]
fn the_index_is_compared_with_what_the_pods_report() {
    let (expected, reported) = expected_and_reported(&Settings::default());
    assert!(reported > 5.0 * 1_500.0, "{reported}");
    let ratio = expected / reported;
    assert!((0.98..1.02).contains(&ratio), "{expected} of {reported}");
    // A pod whose cache holds next to nothing: the index expects more, and the metric shows the difference.
    let small = Settings {
        cache_blocks: 10,
        ..Settings::default()
    };
    let (expected, reported) = expected_and_reported(&small);
    assert!(expected > 5.0 * 1_500.0, "{expected}");
    assert!(reported < expected / 2.0, "{expected}, {reported}");
}
