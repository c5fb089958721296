//! Decisions recorded from a real Endpoint Picker (llm-d-router), replayed through the whole picker.
//!
//! The recordings and their format: tests/parity/recorded/README.md and tests/parity/catalogue/README.md.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;

use parity::{replay, replay_as_it_is, Report, Scenario};

fn recorded(folder: &str) -> Vec<Scenario> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity");
    Scenario::read_folder(&top.join(folder)).unwrap()
}

fn scenario(file: &str) -> Scenario {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity");
    Scenario::read(&top.join(file)).unwrap()
}

#[test]
fn the_core_makes_the_recorded_decisions_of_a_real_picker() {
    let mut report = Report::default();
    let mut early = 0;
    for scenario in recorded("recorded") {
        let outcome = replay(&scenario);
        early += outcome.early;
        report.add(&outcome);
    }
    assert_eq!(report.differences, Vec::<String>::new());
    // A scenario or decision that is skipped must be meant.
    let all = report.all;
    assert_eq!((all.scenarios, all.agreeing, all.waiting), (80, 578, 0));
    assert!(early > 50, "{early} were decided before their bodies' ends");
}

/// The counts by family: scenarios, decisions, and requests that waited in a queue.
const FAMILIES: [(&str, usize, usize, usize); 13] = [
    ("affinity", 17, 145, 0),
    ("attr", 5, 46, 0),
    ("dp", 6, 53, 0),
    ("epd", 5, 43, 0),
    ("flow", 17, 131, 16),
    ("header", 3, 29, 0),
    ("labels", 5, 40, 0),
    ("load", 7, 65, 0),
    ("lru", 10, 90, 0),
    ("pd", 12, 106, 0),
    ("pdhandler", 5, 49, 0),
    ("pdheaders", 3, 22, 0),
    ("session", 1, 7, 0),
];

#[test]
fn the_core_makes_the_recorded_decisions_over_the_whole_catalogue() {
    let mut report = Report::default();
    for scenario in recorded("catalogue") {
        report.add(&replay(&scenario));
    }
    assert_eq!(report.differences, Vec::<String>::new());
    let found = report.families.iter();
    let found = found.map(|(family, counts)| {
        assert_eq!(counts.agreeing, counts.decisions, "{family}");
        assert_eq!(counts.waiting_agreeing, counts.waiting, "{family}");
        (
            family.as_str(),
            counts.scenarios,
            counts.decisions,
            counts.waiting,
        )
    });
    assert_eq!(found.collect::<Vec<_>>(), FAMILIES);
}

/// Decisions that differ with the gate's detector as a filter, as newer releases and epp-wasm add it: the recorded release
/// sent requests to endpoints that were at their limit, or counted them among the candidates.
const WITH_THE_GATE_AS_A_FILTER: [&str; 28] = [
    "t101 step 11",
    "t101 step 12",
    "t105 step 2",
    "t105 step 3",
    "t124 step 6",
    "t124 step 7",
    "t124 step 12",
    "t124 step 13",
    "t126 step 11",
    "t126 step 13",
    "t126 step 14",
    "t141 step 7",
    "t141 step 8",
    "t161 step 3",
    "t161 step 6",
    "t161 step 8",
    "t163 step 2",
    "t163 step 3",
    "t163 step 7",
    "t163 step 8",
    "t163 step 11",
    "t170 step 10",
    "t170 step 13",
    "t170 step 14",
    "t178 step 9",
    "t194 step 7",
    "t194 step 8",
    "t194 step 9",
];

#[test]
fn a_gate_that_is_a_filter_differs_where_endpoints_were_at_their_limit() {
    let mut report = Report::default();
    let scenarios = recorded("catalogue");
    for scenario in scenarios.iter().filter(|one| one.family == "flow") {
        report.add(&replay_as_it_is(scenario));
    }
    let steps = report.differences.iter().map(|difference| {
        let (step, _) = difference.split_once(':').unwrap();
        step
    });
    assert_eq!(steps.collect::<Vec<_>>(), WITH_THE_GATE_AS_A_FILTER);
    assert_eq!((report.all.waiting, report.all.waiting_agreeing), (16, 16));
}

#[test]
fn a_request_that_waited_and_would_not_wait_here_is_reported() {
    let mut flow = scenario("catalogue/t105.json");
    for plugin in flow.config["plugins"].as_array_mut().unwrap() {
        if plugin["type"] == "concurrency-detector" {
            plugin["parameters"]["maxConcurrency"] = 9.into();
        }
    }
    let outcome = replay(&flow);
    assert_eq!((outcome.waiting, outcome.waiting_agreeing), (3, 0));
    let mut flow = scenario("catalogue/t105.json");
    flow.config["flowControl"]["defaultRequestTTL"] = "3s".into();
    let outcome = replay(&flow);
    assert_eq!(
        (outcome.waiting, outcome.waiting_agreeing),
        (3, 1),
        "{:?}",
        outcome.differences
    );
}

#[test]
fn a_decision_that_differs_is_reported() {
    let mut scenario = scenario("recorded/s1.json");
    for plugin in scenario.config["plugins"].as_array_mut().unwrap() {
        if plugin["type"] == "kv-cache-utilization-scorer" {
            plugin["type"] = "queue-scorer".into();
        }
    }
    for reference in scenario.config["schedulingProfiles"][0]["plugins"]
        .as_array_mut()
        .unwrap()
    {
        if reference["pluginRef"] == "kv-cache-utilization-scorer" {
            reference["pluginRef"] = "queue-scorer".into();
        }
    }
    assert_ne!(replay(&scenario).differences, Vec::<String>::new());
}
