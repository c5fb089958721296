//! `eppctl lint` over what the project itself ships.

#![allow(clippy::unwrap_used)]

mod common;

use common::{eppctl, out, top};

fn yaml_below(folder: &std::path::Path, files: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            yaml_below(&path, files);
        } else if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            files.push(path.to_str().unwrap().to_owned());
        }
    }
}

#[test]
fn our_own_files_lint_clean() {
    let mut files = Vec::new();
    yaml_below(&top().join("envoy"), &mut files);
    assert!(!files.is_empty());
    let arguments = std::iter::once("lint").chain(files.iter().map(String::as_str));
    let arguments: Vec<&str> = arguments.collect();
    let output = eppctl(&arguments, "");
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}{}",
        out(&output),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn findings_have_their_line_and_exit_code_1() {
    let text = std::fs::read_to_string(top().join("envoy/envoy.yaml")).unwrap();
    let slip = text.replace("hashBlockSize: 5", "hashBlokSize: 5");
    let line = slip
        .lines()
        .position(|line| line.contains("hashBlokSize"))
        .unwrap()
        + 1;
    let output = eppctl(&["lint", "-"], &slip);
    assert_eq!(output.status.code(), Some(1));
    let told = out(&output);
    assert!(told.contains(&format!("-:{line}:")), "line {line}: {told}");
    assert!(told.contains("did you mean hashBlockSize?"), "{told}");
    assert!(told.contains("fix: "), "{told}");
}

#[test]
fn names_that_would_not_be_looked_at_are_misuse() {
    let output = eppctl(&["lint", "-"], "{filters: [{typedConfig: {a: 1}}]}");
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("config_dump"), "{error}");
}

#[test]
fn the_endpoint_pickers_document_by_itself_is_for_check() {
    let output = eppctl(&["lint", "examples/seed.yaml"], "");
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("eppctl check"), "{error}");
    let nothing = eppctl(&["lint", "-"], "admin: {}");
    assert!(out(&nothing).contains("no filter"), "{}", out(&nothing));
}
