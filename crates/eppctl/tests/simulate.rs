//! `eppctl simulate` as a user calls it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

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

fn json(arguments: &[&str]) -> Value {
    let output = simulate(&[&["-o", "json"], arguments].concat());
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{error}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn names(found: &Value) -> Vec<&str> {
    let policies = found["policies"].as_array().unwrap().iter();
    policies
        .map(|run| run["policy"].as_str().unwrap())
        .collect()
}

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
    for policy in policies {
        let runs = policy["runs"].as_array().unwrap();
        let seeds: Vec<u64> = runs
            .iter()
            .map(|run| run["seed"].as_u64().unwrap())
            .collect();
        assert_eq!(seeds, [5, 6, 7]);
        for run in runs {
            let counted = (run["completed"].as_u64(), run["refused"].as_u64());
            assert_eq!(counted, (Some(300), Some(0)));
        }
    }
    let cached = |place: usize, of: &str| policies[place][of]["cached_share"].as_f64().unwrap();
    // The picker's worst run is better than the best of round robin.
    let (picker, robin) = (cached(0, "lowest"), cached(2, "highest"));
    assert!(picker > robin + 0.2, "{picker} {robin}");
    let middle = cached(0, "median");
    assert!(
        picker <= middle && middle <= cached(0, "highest"),
        "{middle}"
    );
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
    let policy = &found["policies"][0];
    assert_eq!(policy["runs"][0]["completed"], 2);
    assert!(policy["median"]["cached_share"].as_f64().unwrap() > 0.3);
    std::fs::write(&file, line(0) + "{\"timestamp\": 1}\n").unwrap();
    let output = simulate(&["examples/llm-d.yaml", &trace]);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("line 2: expected hash_ids"), "{error}");
}

#[test]
fn a_sweep_compares_variants_of_a_configuration() {
    let sweep = "--sweep=prefix-cache-scorer.weight=0,5";
    let load = ["examples/llm-d.yaml", sweep, "--seeds=1"];
    let found = json(&[&load, &LOAD[2..]].concat());
    assert_eq!(
        names(&found)[..2],
        [
            "examples/llm-d.yaml prefix-cache-scorer.weight=0",
            "examples/llm-d.yaml prefix-cache-scorer.weight=5"
        ]
    );
    let cached = |place: usize| {
        let policy = &found["policies"][place];
        policy["median"]["cached_share"].as_f64().unwrap()
    };
    assert!(cached(1) > cached(0) + 0.2, "{} {}", cached(0), cached(1));
    let output = simulate(
        &[
            &["examples/llm-d.yaml", "--sweep=no-such.weight=1"],
            &LOAD[2..],
        ]
        .concat(),
    );
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        error.contains("examples/llm-d.yaml: --sweep no-such.weight"),
        "{error}"
    );
    // A value with which the document does not load is reported as every such document is.
    let refused = "--sweep=queue-scorer.weight=many";
    let output = simulate(&[&["examples/llm-d.yaml", refused], &LOAD[2..]].concat());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        error.contains("queue-scorer.weight=many: does not load"),
        "{error}"
    );
}

#[test]
fn gateways_and_adapters_are_simulated() {
    let load = ["--gateways=1,4", "--seeds=1", "--adapters=6"];
    let found = json(&[&load, &LOAD[1..]].concat());
    assert_eq!(
        names(&found)[..3],
        [
            "examples/gie.yaml, 1 gateway",
            "examples/gie.yaml, 4 gateways",
            "round robin, 1 gateway"
        ]
    );
    let cached = |place: usize| {
        let policy = &found["policies"][place];
        policy["median"]["cached_share"].as_f64().unwrap()
    };
    assert!(cached(0) > cached(1), "{} {}", cached(0), cached(1));
}

#[test]
fn a_saturated_pool_is_said_to_be_and_one_that_keeps_up_is_not() {
    let at = |rate: &str| {
        let load = [
            "examples/llm-d.yaml",
            "--trace=shared-prefix",
            "--documents=1000000",
        ];
        let output = simulate(
            &[
                &load[..],
                &["--requests=600", "--pods=1", "--seeds=1", rate],
            ]
            .concat(),
        );
        String::from_utf8(output.stdout).unwrap()
    };
    // A server computes 15,928 tokens a second, and a prompt has 4,352.
    let text = at("--rate=7.3");
    let said = text
        .lines()
        .find(|line| line.starts_with("The pool is saturated under"));
    let said = said.unwrap_or_else(|| panic!("{text}"));
    assert!(
        said.contains("round robin (") && said.contains("examples/llm-d.yaml ("),
        "{said}"
    );
    let excess = said.split("round robin (").nth(1).unwrap();
    let excess: f64 = excess.split(' ').next().unwrap().parse().unwrap();
    assert!((85.0..115.0).contains(&excess), "{said}");
    assert!(!at("--rate=2").contains("saturated"));
}

#[test]
fn what_would_take_too_long_is_refused() {
    let load = [
        "examples/llm-d.yaml",
        "--trace=multi-turn",
        "--requests=1000000",
        "--seeds=10",
    ];
    let output = simulate(&load);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        error.contains("40000000 simulated requests; at most 10000000"),
        "{error}"
    );
}

/// The page shows how several gateways compare, and the command that says so.
#[test]
fn the_comparison_of_gateways_in_the_docs_is_what_the_command_prints() {
    let page = include_str!("../../../docs/sizing.md");
    let command = page.split("--package eppctl -- simulate ").nth(1).unwrap();
    let command = command.split("\n```").next().unwrap().replace('\\', " ");
    let arguments: Vec<&str> = command.split_whitespace().collect();
    let shown = page.split("```text\n").nth(1).unwrap();
    let shown = shown.split("```").next().unwrap();
    assert!(shown.lines().count() > 9, "{shown}");
    let output = simulate(&arguments);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains(shown),
        "docs/sizing.md is out of date; the command prints\n{text}"
    );
}
