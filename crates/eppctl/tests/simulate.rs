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
            "random",
            "ring hash"
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
        "ring hash",
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
    assert_eq!(found["gateways"], serde_json::json!([1, 4]));
    for (place, gateways) in [(0, 1), (1, 4), (2, 1)] {
        assert_eq!(found["policies"][place]["gateways"], gateways);
    }
}

#[test]
fn a_result_says_how_many_gateways_there_were() {
    let first_line = |gateways: &[&str]| {
        let load = ["--seeds=1", "--requests=20", "--trace=multi-turn"];
        let output = simulate(&[&LOAD[1..2], &load, gateways].concat());
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().next().unwrap().to_owned()
    };
    let one = "20 requests of multi-turn, 8 pods; seed 1";
    assert_eq!(first_line(&[]), one);
    let several = one.replace("pods", "pods behind 16 gateways");
    assert_eq!(first_line(&["--gateways=16"]), several);
    let compared = one.replace("pods", "pods behind 1 or 4 gateways");
    assert_eq!(first_line(&["--gateways=1,4"]), compared);
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
        error.contains("50000000 simulated requests; at most 10000000"),
        "{error}"
    );
}

/// Servers that run four requests at a time, of some 0.4 s each, and a gate that lets as many through.
const OVERLOAD: [&str; 11] = [
    "examples/flow-control.yaml",
    "--sweep=concurrency-detector.maxConcurrency=4",
    "--trace=shared-prefix",
    "--documents=4",
    "--requests=250",
    "--pods=2",
    "--seeds=2",
    "--max-running=4",
    "--token-ms=3",
    "--step-tokens=0",
    "--tenants=3:1",
];

#[test]
fn flow_control_is_compared_with_none_by_priority_in_multiples_of_the_capacity() {
    let load = ["--load=0.5,2", "--objectives=interactive=10:1,batch=0:3"];
    let found = json(&[&load, &OVERLOAD[..]].concat());
    // Two servers complete some 20 requests per second.
    let capacity = found["capacity"].as_f64().unwrap();
    assert!((17.0..22.0).contains(&capacity), "{capacity}");
    let loads = found["loads"].as_array().unwrap();
    assert_eq!(loads.len(), 2);
    assert_eq!(loads[1]["policies"][1]["gateways"], 1);
    assert_eq!(loads[1]["rate"].as_f64().unwrap(), 2.0 * capacity);
    let name = "examples/flow-control.yaml concurrency-detector.maxConcurrency=4";
    let policies = [&format!("{name}, no flow control"), name];
    let bands = ["interactive", "batch"];
    let figure = |load: usize, policy: usize, band: usize, of: &str, figure: &str| {
        let policy_of = &loads[load]["policies"][policy];
        assert_eq!(policy_of["policy"], policies[policy]);
        let found = &policy_of["bands"][band];
        assert_eq!(found["objective"], bands[band]);
        found[of][figure].as_f64().unwrap()
    };
    // Below the capacity nothing waits for long; beyond it the lower priority does.
    assert!(figure(0, 1, 1, "median", "wait_p50_ms") < 20.0);
    let high = figure(1, 1, 0, "highest", "wait_p99_ms");
    let low = figure(1, 1, 1, "lowest", "wait_p50_ms");
    assert!(high < 500.0 && low > 2_000.0, "{high} {low}");
    // Without flow control both wait, and in the servers.
    for band in [0, 1] {
        assert_eq!(figure(1, 0, band, "highest", "wait_p99_ms"), 0.0);
        assert!(figure(1, 0, band, "lowest", "ttft_p50_ms") > 2_000.0);
    }
    let done = |policy| {
        let done = |band| figure(1, policy, band, "median", "completed_per_second");
        done(0) + done(1)
    };
    assert!(
        (done(1) / done(0) - 1.0).abs() < 0.15,
        "{} {}",
        done(1),
        done(0)
    );
    let tenants = &loads[1]["policies"][1]["bands"][1]["median"]["tenants"];
    let first = tenants[0].as_f64().unwrap();
    assert!((0.4..0.6).contains(&first), "{tenants}");
}

#[test]
fn each_gateway_lets_as_much_through_as_one() {
    let load = ["--load=2", "--gateways=1,3", "--seeds=1"];
    let load = [&OVERLOAD[..6], &OVERLOAD[7..], &load].concat();
    let output = simulate(&load);
    let text = String::from_utf8(output.stdout).unwrap();
    // The document's own objectives.
    let rows = |objective: &str| {
        let rows = text
            .lines()
            .filter(|line| line.trim_start().starts_with(objective));
        rows.map(|row| row.split_whitespace().map(str::to_owned).collect())
            .collect::<Vec<Vec<String>>>()
    };
    assert_eq!(rows("batch").len(), 4, "{text}");
    let server = |row: usize| rows("interactive")[row][7].parse::<f64>().unwrap();
    assert!(server(2) < 40.0 && server(3) > 300.0, "{text}");
    assert!(
        text.contains("maxConcurrency=4, no flow control, 3 gateways"),
        "{text}"
    );
}

#[test]
fn what_the_load_is_to_be_is_read_strictly() {
    for (argument, expected) in [
        ("--load=0", "expected a number above 0"),
        ("--tenants=3:1", "--load"),
        ("--objectives=a", "expected NAME=PRIORITY"),
        ("--objectives=a=1.5", "expected NAME=PRIORITY"),
        ("--objectives=a=1:0", "expected NAME=PRIORITY"),
        ("--token-ms-each=-1", "expected a number not below 0"),
        ("--adapter-ms=NaN", "expected a number not below 0"),
        ("--documents=0", "not in 1.."),
        ("--max-running=0", "not in 1.."),
        (
            "--documents=5",
            "--documents: expected --trace shared-prefix, found --trace multi-turn",
        ),
    ] {
        let output = simulate(&["examples/flow-control.yaml", "--trace=multi-turn", argument]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(expected), "{argument}: {error}");
    }
    let load = [
        "examples/flow-control.yaml",
        "--trace=multi-turn",
        "--load=1",
        "--rate=3",
    ];
    let error = String::from_utf8(simulate(&load).stderr).unwrap();
    assert!(error.contains("cannot be used with"), "{error}");
    for option in ["--rate=3", "--documents=5", "--adapters=2"] {
        let output = simulate(&["examples/llm-d.yaml", "--trace=some.jsonl", option]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        let (name, _) = option.split_once('=').unwrap();
        let expected = format!("{name}: expected --trace ");
        assert!(error.contains(&expected), "{error}");
        assert!(error.contains("found --trace some.jsonl"), "{error}");
    }
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
