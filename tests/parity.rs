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

/// The counts by family: scenarios, decisions, and requests that waited in a queue. Nothing is queued in the proxy, so
/// that these are not compared.
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
        (
            family.as_str(),
            counts.scenarios,
            counts.decisions,
            counts.waiting,
        )
    });
    assert_eq!(found.collect::<Vec<_>>(), FAMILIES);
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
