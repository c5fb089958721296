//! `eppctl parity` as a user calls it, and the tables that it keeps in docs/parity.md.

#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

const TOP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

fn parity(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_eppctl"))
        .arg("parity")
        .args(arguments)
        .current_dir(TOP)
        .output()
        .unwrap()
}

#[test]
fn the_tables_in_the_docs_are_the_output_of_eppctl_parity() {
    let copy = std::env::temp_dir().join(format!("eppctl-parity-{}.md", std::process::id()));
    let committed = std::fs::read_to_string(format!("{TOP}/docs/parity.md")).unwrap();
    std::fs::write(&copy, &committed).unwrap();
    let into = format!("--into={}", copy.display());
    let output = parity(&[
        &into,
        "tests/parity/recorded",
        "tests/parity/catalogue",
        "tests/vectors/reference",
    ]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let made = std::fs::read_to_string(&copy).unwrap();
    std::fs::remove_file(&copy).unwrap();
    assert!(
        committed == made,
        "docs/parity.md is not what the code says: call `make generate`"
    );
}

#[test]
fn a_decision_that_differs_is_reported_with_its_step_and_exit_code_1() {
    let recorded = std::fs::read_to_string(format!("{TOP}/tests/parity/recorded/s1.json")).unwrap();
    let mut scenario: serde_json::Value = serde_json::from_str(&recorded).unwrap();
    let steps = scenario["steps"].as_array_mut().unwrap();
    let request = steps
        .iter_mut()
        .find(|step| step.get("expect").is_some())
        .unwrap();
    let scores = request["expect"]["scores"].as_object_mut().unwrap();
    *scores.values_mut().next().unwrap() = 7.into();
    let file = std::env::temp_dir().join(format!("eppctl-parity-{}.json", std::process::id()));
    std::fs::write(&file, scenario.to_string()).unwrap();
    let output = parity(&[file.to_str().unwrap()]);
    std::fs::remove_file(&file).unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("s1 step ") && text.contains("recorded 7"),
        "{text}"
    );
}

#[test]
fn a_file_that_is_not_a_scenario_is_an_error() {
    let output = parity(&["README.md"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("README.md"));
}
