//! `eppctl explain` as a user calls it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::{eppctl, out};
use serde_json::Value;

const POOL: &str = "endpoints:
- {name: idle, address: 10.0.0.1:8000, waiting: 0, kvUsage: 0.1}
- {name: busy, address: 10.0.0.2:8000, waiting: 9, kvUsage: 0.9}
- {name: gone, address: 10.0.0.3:8000, available: false}
";

fn file(name: &str, text: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn body() -> String {
    let question = "What is the rain in Spain? ".repeat(300);
    format!(
        r#"{{"model": "m", "messages": [{{"role": "user", "content": "{question}"}}], "max_tokens": 5}}"#
    )
}

fn explain(more: &[&str]) -> Value {
    let (pool, body) = (file("pool.yaml", POOL), file("body.json", &body()));
    let fixed = [
        "explain",
        "examples/full.yaml",
        "-o",
        "json",
        "--endpoints",
        &pool,
        "--request",
        &body,
    ];
    let output = eppctl(&[&fixed, more].concat(), "");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_str(&out(&output)).unwrap()
}

#[test]
fn a_cold_prompt_goes_to_the_idlest_after_a_part_of_it() {
    let told = explain(&[]);
    let destination = told["destination"].as_str().unwrap();
    assert!(destination.starts_with("10.0.0.1:8000"), "{destination}");
    assert_eq!(told["candidates"].as_array().unwrap().len(), 2);
    assert_eq!(told["endpoints"], 3);
    assert!(
        told["bytes_needed"].as_u64() < told["body_bytes"].as_u64(),
        "{told}"
    );
}

#[test]
fn who_served_the_conversation_before_has_its_prefix() {
    let body = file("earlier.json", &body());
    let told = explain(&["--warm", &format!("busy={body}")]);
    let busy = told["candidates"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["name"] == "default/busy" || one["name"] == "busy");
    let prefix = &busy.unwrap()["scores"][0];
    assert_eq!(prefix["scorer"], "prefix-cache-scorer");
    assert!(prefix["raw"].as_f64().unwrap() > 0.9, "{told}");
}

#[test]
fn a_snapshot_with_a_slip_is_misuse_that_says_where_to_look() {
    let pool = file(
        "slip.yaml",
        "endpoints:\n- {name: a, address: 10.0.0.1:80, wating: 1}\n",
    );
    let output = eppctl(
        &[
            "explain",
            "examples/full.yaml",
            "--endpoints",
            &pool,
            "--request",
            "-",
        ],
        "{}",
    );
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        error.contains("wating") && error.contains("--help"),
        "{error}"
    );
}
