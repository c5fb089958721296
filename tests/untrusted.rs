//! docs/clients.md says what a client can and cannot do, and names the test that holds each row:
//! these are there.

// clippy.toml recognises tests only by their attribute, and these are helpers.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The section's heading.
const SECTION: &str = "## What an untrusted client can and cannot do";

/// The folders with tests.
const FOLDERS: [&str; 4] = ["src", "tests", "crates", "benches"];

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The section, to the next of its level.
fn section() -> String {
    let text = fs::read_to_string(top().join("docs/clients.md")).unwrap();
    let (_, rest) = text.split_once(SECTION).unwrap();
    rest.split("\n## ").next().unwrap().to_owned()
}

/// Returns the cells of the last column of its first table, which name the tests of each row.
fn held_by(section: &str) -> Vec<String> {
    let rows = section.lines().skip_while(|line| !line.starts_with('|'));
    let rows = rows.take_while(|line| line.starts_with('|')).skip(2);
    rows.map(|row| {
        row.trim_end_matches('|')
            .rsplit('|')
            .next()
            .unwrap()
            .to_owned()
    })
    .collect()
}

/// Returns the texts between pairs of this mark.
fn between(text: &str, mark: char) -> impl Iterator<Item = &str> {
    text.split(mark).skip(1).step_by(2)
}

/// All Rust of a folder.
fn sources(folder: &Path, found: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            *found += &fs::read_to_string(path).unwrap();
        }
    }
}

/// The names of functions that are tests: those behind an attribute, comments and others aside.
fn tests() -> BTreeSet<String> {
    let mut source = String::new();
    for folder in FOLDERS {
        sources(&top().join(folder), &mut source);
    }
    let parts = source.split("#[test]").skip(1);
    let names = parts.filter_map(|part| part.split_once("fn ")?.1.split_once('('));
    names.map(|(name, _)| name.to_owned()).collect()
}

/// The names of the fault suite's rows.
fn faults() -> BTreeSet<String> {
    let mut source = String::new();
    sources(&top().join("crates/faults/src/rows"), &mut source);
    let parts = source.split("name: \"").skip(1);
    parts
        .map(|part| part.split('"').next().unwrap().to_owned())
        .collect()
}

#[test]
fn the_claims_on_untrusted_clients_name_existing_tests() {
    let (tests, faults, section) = (tests(), faults(), section());
    let rows = held_by(&section);
    assert!(rows.len() >= 10, "{rows:?}");
    for row in rows {
        let mut named = 0;
        for test in between(&row, '`') {
            assert!(tests.contains(test), "there is no test {test}");
            named += 1;
        }
        for fault in between(&row, '*') {
            assert!(faults.contains(fault), "the fault suite has no row {fault}");
            named += 1;
        }
        assert!(named > 0, "no test is named: {row}");
    }
}

#[test]
fn the_templates_set_the_limits_that_envoy_must_enforce() {
    let section = section();
    let (_, settings) = section.split_once("### What Envoy has to bound").unwrap();
    let rows = settings
        .lines()
        .filter(|line| line.starts_with('|'))
        .skip(2);
    let mut names = Vec::new();
    for row in rows {
        let mut cells = row.trim_matches('|').split('|');
        let (setting, value) = (cells.next().unwrap(), cells.next().unwrap());
        if value.trim() == "–" {
            // It depends on the site.
            continue;
        }
        let keys = between(setting, '`').map(|name| name.split(':').next().unwrap());
        names.extend(keys.map(|key| key.rsplit('.').next().unwrap()));
    }
    assert!(names.len() >= 8, "{names:?}");
    let mut read = 0;
    for entry in fs::read_dir(top().join("envoy/production")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|end| end != "yaml") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for name in &names {
            let set = text.contains(&format!("{name}:")) || text.contains(&format!(".{name}\n"));
            assert!(set, "{}: {name}", path.display());
        }
        read += 1;
    }
    assert!(read >= 4, "{read}");
}
