//! Pages that are written by hand: what they name exists, and what exists they name.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use common::top;
use epp_core::{config, plugins, protocol};

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

#[test]
fn the_readme_links_each_plugin_type_to_its_reference() {
    let (readme, reference) = (read("README.md"), read("docs/configuration.md"));
    for cells in rows(&readme, "| type | what it does |") {
        for name in quoted(cells[0]) {
            let link = format!("[`{name}`](docs/configuration.md#{name})");
            let documented = reference.contains(&format!("\n### `{name}`\n"));
            assert!(documented && cells[0].contains(&link), "{link}");
        }
    }
    assert!(!readme.contains("](src/"), "no reader is sent to sources");
}

#[test]
fn the_readme_names_the_version() {
    let version = format!("**Status:** version {},", env!("CARGO_PKG_VERSION"));
    assert!(read("README.md").contains(&version), "{version}");
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

/// Returns the texts in backticks of a column of the table between a marker and its end.
fn column(page: &str, marker: &str, column: usize) -> BTreeSet<String> {
    let (_, table) = page.split_once(&format!("<!-- {marker} -->\n")).unwrap();
    let (table, _) = table.split_once("<!-- end -->").unwrap();
    let rows = table.lines().filter(|line| line.starts_with('|')).skip(2);
    let cells = rows.map(|row| row.trim_matches('|').split(" | ").nth(column).unwrap());
    cells.flat_map(quoted).map(str::to_owned).collect()
}

/// Documents whose plugins read request headers by their default names.
const READERS: [&str; 11] = [
    "{type: session-affinity-scorer}",
    "{type: session-affinity-filter, parameters: {strategy: session_id}}",
    "{type: session-affinity-scorer, parameters: {strategy: session_id, sessionIdConfig: {sources: [{attribute: agent-identity}]}}}, {type: agent-identity}",
    "{type: header-profile-handler}",
    "{type: header-phase-profile-handler}",
    "{type: header-based-testing-filter}",
    "{type: prefix-based-pd-decider, parameters: {nonCachedTokens: 5}}",
    "{type: session-id-producer, parameters: {headerName: x-session-id}}",
    "{type: max-score-picker}",
    "{type: slo-deadline-ordering-policy}",
    "{type: static-objectives, parameters: {objectives: [{name: interactive, priority: 1}]}}",
];

/// docs/clients.md has the headers that are removed, and those that plugins read.
#[test]
fn the_headers_of_clients_are_all_listed() {
    let page = read("docs/clients.md");
    let set = |names: &[&str]| {
        names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<BTreeSet<_>>()
    };
    let mut removed = set(&protocol::OWNED_HEADERS);
    removed.insert(protocol::DESTINATION_HEADER.to_owned());
    let mut listed = column(&page, "removed", 0);
    assert!(listed.remove("destinationHeader"));
    assert_eq!(listed, removed);
    assert_eq!(column(&page, "trusted", 0), set(&protocol::REWRITE_HEADERS));

    let mut known = set(&[protocol::EXPLAIN_HEADER, "x-gateway-model-name"]);
    for plugins in READERS {
        let text = format!(
            "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nfeatureGates: [flowControl]\nplugins: [{plugins}]\n"
        );
        let loaded = config::load(&text).unwrap_or_else(|rejected| panic!("{text}: {rejected:#?}"));
        known.extend(loaded.plan.headers);
    }
    let listed = column(&page, "read", 0);
    let missing: Vec<_> = known.difference(&listed).collect();
    assert!(missing.is_empty(), "docs/clients.md lacks {missing:?}");
    // What is read of every request, and parameters that name other headers.
    let names =
        |name: &str| name.ends_with("Name") || name.contains("Config") || name.ends_with("Headers");
    let others = set(&[
        "modelHeader",
        "if-available",
        ":path",
        ":method",
        "content-type",
        "content-encoding",
        "content-length",
        "upgrade",
    ]);
    let unknown: Vec<_> = listed
        .difference(&known)
        .filter(|name| !names(name) && !others.contains(*name))
        .collect();
    assert!(unknown.is_empty(), "nothing reads {unknown:?}");
}

/// A plugin that reads headers is one of those above: its file calls what asks for one.
#[test]
fn all_plugins_that_read_headers_are_among_the_readers() {
    for (plugin, source) in plugins::KINDS.iter().flat_map(|kind| kind.plugins) {
        let code = source.split("#[cfg(test)]").next().unwrap();
        if ["build.header(", "build.cookie(", "session::"]
            .iter()
            .any(|call| code.contains(call))
        {
            let own = plugin
                .former_names
                .iter()
                .map(|former| former.name)
                .chain([plugin.name]);
            let mut own = own.map(|name| format!("type: {name}"));
            let listed = own.any(|name| READERS.iter().any(|reader| reader.contains(&name)));
            // Its header has no default.
            assert!(
                listed || plugin.name == "header-label-affinity-scorer",
                "{}",
                plugin.name
            );
        }
    }
}
