//! `eppctl simulate` as a user calls it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::process::{Command, Output};

use serde_json::Value;

fn simulate(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_eppctl"))
        .arg("simulate")
        .args(arguments)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .output()
        .unwrap()
}

const LOAD: [&str; 8] = [
    "examples/llm-d.yaml",
    "examples/gie.yaml",
    "--trace=shared-prefix",
    "--requests=300",
    "--documents=20",
    "--rate=20",
    "--pods=6",
    "--seed=5",
];

#[test]
fn configurations_are_compared_with_the_simple_policies() {
    let output = simulate(&[&["-o", "json"], &LOAD[..]].concat());
    assert_eq!(output.status.code(), Some(0));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let policies = found["policies"].as_array().unwrap();
    let names: Vec<&str> = policies
        .iter()
        .map(|run| run["policy"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "examples/llm-d.yaml",
            "examples/gie.yaml",
            "round robin",
            "least request",
            "random"
        ]
    );
    for run in policies {
        assert_eq!(
            (run["completed"].as_u64(), run["refused"].as_u64()),
            (Some(300), Some(0))
        );
    }
    let cached = |place: usize| policies[place]["cached_share"].as_f64().unwrap();
    assert!(cached(0) > cached(2) + 0.2, "{} {}", cached(0), cached(2));
    // The same seed, to the last digit.
    assert_eq!(
        output.stdout,
        simulate(&[&["-o", "json"], &LOAD[..]].concat()).stdout
    );
}

#[test]
fn a_plot_is_an_svg_with_every_policy() {
    let file = std::env::temp_dir().join(format!("eppctl-{}.svg", std::process::id()));
    let plot = format!("--plot={}", file.display());
    let output = simulate(&[&LOAD[..], &[&plot]].concat());
    assert_eq!(output.status.code(), Some(0));
    let svg = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
    for name in [
        "examples/llm-d.yaml",
        "round robin",
        "least request",
        "random",
    ] {
        assert!(svg.contains(name), "{name}");
    }
}

#[test]
fn a_mooncake_trace_is_read_and_a_damaged_one_reported_with_its_line() {
    let file = std::env::temp_dir().join(format!("eppctl-{}.jsonl", std::process::id()));
    let line = |at: u32| {
        format!("{{\"timestamp\": {at}, \"input_length\": 1500, \"output_length\": 9, \"hash_ids\": [4, 5, 6]}}\n")
    };
    std::fs::write(&file, line(0) + &line(9_000)).unwrap();
    let trace = format!("--trace={}", file.display());
    let output = simulate(&["-o", "json", "examples/llm-d.yaml", &trace]);
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["policies"][0]["completed"], 2);
    assert!(found["policies"][0]["cached_share"].as_f64().unwrap() > 0.3);
    std::fs::write(&file, line(0) + "{\"timestamp\": 1}\n").unwrap();
    let output = simulate(&["examples/llm-d.yaml", &trace]);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("line 2: expected hash_ids"), "{error}");
}
