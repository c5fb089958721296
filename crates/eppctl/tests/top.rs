//! `eppctl top --once` on a real Envoy with the real module.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::process::{Command, Output};

use envoy_harness::client::complete;
use envoy_harness::proxy::Setup;
use fake_model_server::{Pinned, Settings, Sim};
use serde_json::Value;

const CONFIG: &str = "
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{type: queue-scorer}, {type: kv-cache-utilization-scorer}, {type: prefix-cache-scorer}]
";

fn top(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_eppctl"))
        .arg("top")
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn endpoints_and_decisions_of_a_running_envoy_are_shown() {
    let sim = Sim::start(2, &Settings::default()).unwrap();
    sim.pod(0).pin(Pinned {
        waiting: Some(7),
        kv_usage: Some(0.25),
        ..Pinned::default()
    });
    let proxy = Setup::new(&sim.addresses(), CONFIG).start();
    let admin = format!("http://127.0.0.1:{}", proxy.admin);
    let [first, second] = [0, 1].map(|pod| sim.addresses()[pod].to_string());
    let mut table = Value::Null;
    proxy.wait_until("top shows what the pods and requests say", || {
        for _ in 0..5 {
            complete(proxy.port, "m", &"the same prompt. ".repeat(40));
        }
        let output = top(&["-o", "json", "--once", "--sort", "queue", &admin]);
        table = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let rows = &table["endpoints"];
        rows[0]["queue"] == 7.0
            && rows[0]["fresh"] == 2.0
            && rows[0]["kv"] == 0.25
            && rows[1]["picks"].as_f64().is_some_and(|picks| picks > 0.0)
            && table["pools"][0]["hit_ratio"]
                .as_f64()
                .is_some_and(|ratio| ratio > 0.0)
            && table["pools"][0]["decision_p99_us"].is_number()
    });
    assert_eq!(table["pools"][0]["ready"], 2.0);
    assert_eq!(
        [
            &table["endpoints"][0]["endpoint"],
            &table["endpoints"][1]["endpoint"]
        ],
        [&first, &second]
    );
    let plain = top(&["--once", &admin]);
    let text = String::from_utf8_lossy(&plain.stdout);
    assert!(
        text.contains("IN FLIGHT") && text.contains(&second) && text.contains("fresh"),
        "{text}"
    );
}

#[test]
fn a_refused_connection_is_reported_with_what_to_do() {
    let output = top(&["--once", "127.0.0.1:1"]);
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("admin interface"), "{error}");
}

#[test]
fn without_a_terminal_the_live_view_names_the_flag_that_needs_none() {
    let output = top(&["127.0.0.1:1"]);
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("needs a terminal: --once"), "{error}");
}
