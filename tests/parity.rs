//! Decisions recorded from a real Endpoint Picker (llm-d-router), replayed through the whole picker.
//!
//! The recordings and their format: tests/parity/recorded/README.md and tests/parity/catalogue/README.md.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;

use parity::{replay, Report, Scenario};

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

/// The counts by family: scenarios, requests that waited in a queue, decisions, and how many of these agree at least.
const FAMILIES: [(&str, usize, usize, usize, usize); 13] = [
    ("affinity", 17, 0, 145, 145),
    ("attr", 5, 0, 46, 0),
    ("dp", 6, 0, 53, 53),
    ("epd", 5, 0, 43, 43),
    ("flow", 17, 16, 131, 131),
    ("header", 3, 0, 29, 29),
    ("labels", 5, 0, 40, 23),
    ("load", 7, 0, 65, 27),
    ("lru", 10, 0, 90, 90),
    ("pd", 12, 0, 106, 106),
    ("pdhandler", 5, 0, 49, 49),
    ("pdheaders", 3, 0, 22, 22),
    ("session", 1, 0, 7, 7),
];

#[test]
fn the_core_makes_the_recorded_decisions_over_the_whole_catalogue() {
    let mut report = Report::default();
    for scenario in recorded("catalogue") {
        report.add(&replay(&scenario));
    }
    let differences = report.differences.join("\n");
    assert_eq!(report.families.len(), FAMILIES.len());
    for (family, scenarios, waiting, decisions, agreeing) in FAMILIES {
        let found = report.families[family];
        let counts = (found.scenarios, found.waiting, found.decisions);
        assert_eq!(counts, (scenarios, waiting, decisions), "{family}");
        let more = found.agreeing >= agreeing;
        assert!(more, "{family}: {} agree\n{differences}", found.agreeing);
    }
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
