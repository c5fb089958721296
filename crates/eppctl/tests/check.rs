//! `eppctl check` as a user calls it.

#![allow(clippy::unwrap_used)]

mod common;

use std::process::Output;

use common::{eppctl, out};

fn check(files: &[&str], input: &str) -> Output {
    let arguments: Vec<&str> = [&["check"], files].concat();
    eppctl(&arguments, input)
}

#[test]
fn every_example_loads() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let output = check(&[path.to_str().unwrap()], "");
        assert!(output.status.success(), "{}", out(&output));
        assert!(out(&output).contains("loads: "), "{}", out(&output));
        seen += 1;
    }
    assert!(seen >= 5, "only {seen} examples");
}

#[test]
fn the_demos_envoy_has_the_seeds_example_to_the_letter() {
    let top = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let envoy = std::fs::read_to_string(format!("{top}/envoy/envoy.yaml")).unwrap();
    let seed = std::fs::read_to_string(format!("{top}/examples/seed.yaml")).unwrap();
    let indented: String = seed
        .lines()
        .map(|line| format!("{}{line}\n", " ".repeat(20)))
        .collect();
    assert!(envoy.contains(&indented));
}

#[test]
fn problems_are_told_with_their_place_and_exit_code_1() {
    let output = check(&["-"], "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n- type: queue-socrer\n");
    assert_eq!(output.status.code(), Some(1));
    let text = out(&output);
    assert!(
        text.contains("-: error: plugins[0].type (line 4, column 3): found \"queue-socrer\""),
        "{text}"
    );
    assert!(text.contains("did you mean queue-scorer?"), "{text}");
}

#[test]
fn a_file_that_is_not_there_is_exit_code_2_and_the_others_are_still_checked() {
    let output = check(&["nowhere.yaml", "examples/seed.yaml"], "");
    assert_eq!(output.status.code(), Some(2));
    assert!(out(&output).contains("examples/seed.yaml: loads"));
    assert!(String::from_utf8_lossy(&output.stderr).contains("nowhere.yaml"));
}
