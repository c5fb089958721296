//! Pages that are written by hand: what they name exists, and what exists they name.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::path::{Path, PathBuf};

use common::top;
use epp_core::plugins;

fn read(page: &str) -> String {
    std::fs::read_to_string(top().join(page)).unwrap()
}

/// Returns the texts between backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// Returns the cells of the lines of a page's tables, from the one with this heading on.
fn rows<'a>(page: &'a str, heading: &str) -> Vec<Vec<&'a str>> {
    let lines = page.lines().skip_while(|line| !line.starts_with(heading));
    let lines = lines.skip(2).take_while(|line| line.starts_with('|'));
    let cells = |line: &'a str| line.trim_matches('|').split(" | ").map(str::trim).collect();
    lines.map(cells).collect()
}

#[test]
fn the_plugin_types_that_the_readme_names_exist() {
    let readme = read("README.md");
    let rows = rows(&readme, "| type | what it does |");
    for cells in &rows {
        for name in quoted(cells[0]) {
            assert!(
                plugins::find(name).is_some(),
                "no plugin has the type {name}"
            );
        }
    }
}

/// Returns whether a crate has a module, given as `picker::hold`.
fn is_module(source: &Path, module: &str) -> bool {
    let path: PathBuf = module.split("::").collect();
    let file = source.join(&path).with_extension("rs");
    file.is_file() || source.join(&path).join("mod.rs").is_file()
}

/// Returns whether a place in a table exists: a crate, a module of it, or a file.
fn exists(place: &str) -> bool {
    let crates = top().join("crates");
    if place.starts_with("src") {
        return top().join(place).exists();
    }
    crates.join(place).is_dir()
        || is_module(&crates.join("epp-core/src"), place)
        || is_module(&crates.join("epp-sync/src"), place)
}

#[test]
fn the_paths_in_tables_exist() {
    let glossary = read("CONTRIBUTING.md");
    let bounds = read("docs/architecture.md");
    let tables = [
        (rows(&glossary, "| term | meaning | where |"), 2),
        (rows(&bounds, "| what | where | bound |"), 1),
    ];
    for (rows, column) in tables {
        assert!(rows.len() > 20, "{rows:?}");
        for cells in rows {
            for place in quoted(cells[column]) {
                assert!(exists(place), "{}: there is no {place}", cells[0]);
            }
        }
    }
}

#[test]
fn the_glossary_is_short() {
    let page = read("CONTRIBUTING.md");
    let terms = rows(&page, "| term | meaning | where |").len();
    assert!(
        terms <= 30,
        "{terms} terms: a reader learns no more than 30"
    );
}

/// CONTRIBUTING shows three plugins' files whole: they must be the files.
#[test]
fn the_worked_examples_of_contributing_are_the_files() {
    let text = std::fs::read_to_string(top().join("CONTRIBUTING.md")).unwrap();
    let examples = text.split("<!-- the file ").skip(1);
    let examples: Vec<(&str, &str)> = examples
        .map(|example| {
            let (file, shown) = example.split_once(" -->\n\n```rust\n").unwrap();
            let shown = shown.split_once("```\n\n<!-- end of the file -->");
            (file, shown.unwrap().0)
        })
        .collect();
    let kinds = ["scorer", "filter", "profile_handler"];
    assert_eq!(examples.len(), kinds.len());
    for ((file, shown), kind) in examples.into_iter().zip(kinds) {
        assert!(file.contains(&format!("plugins/{kind}/")), "{file}");
        let source = std::fs::read_to_string(top().join(file)).unwrap();
        assert_eq!(
            shown, source,
            "CONTRIBUTING.md no longer shows {file}; copy the file into it"
        );
    }
}
