//! Decisions recorded from a real Endpoint Picker (llm-d-router), replayed through the whole picker.
//!
//! The recordings and their format: tests/parity/recorded/README.md.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;

use parity::{replay, Report, Scenario};

#[test]
fn the_core_makes_the_recorded_decisions_of_a_real_picker() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity/recorded");
    let mut report = Report::default();
    let mut early = 0;
    for scenario in Scenario::read_folder(&folder).unwrap() {
        let outcome = replay(&scenario).unwrap();
        early += outcome.early;
        report.add(&outcome);
    }
    assert_eq!(report.differences, Vec::<String>::new());
    // A scenario or decision that is skipped must be meant.
    let all = report.all;
    assert_eq!((all.scenarios, all.agreeing), (80, 578));
    assert!(early > 50, "{early} were decided before their bodies' ends");
}

#[test]
fn a_decision_that_differs_is_reported() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity/recorded");
    let mut scenario = Scenario::read(&folder.join("s1.json")).unwrap();
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
    assert_ne!(replay(&scenario).unwrap().differences, Vec::<String>::new());
}
