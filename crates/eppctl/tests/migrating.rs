//! docs/migrating.md: what it says of plugins and parameters is what the loader does.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::BTreeSet;

use common::top;
use epp_core::config::value::Node;
use epp_core::config::{self, Here};
use epp_core::plugins::{self, Dialect};

fn page() -> String {
    std::fs::read_to_string(top().join("docs/migrating.md")).unwrap()
}

/// Returns the texts between backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// Returns the tables' rows: the Endpoint Picker's types, and what this page says about them.
fn rows(page: &str) -> Vec<(&str, &str)> {
    let lines = page.lines().filter(|line| line.starts_with("| "));
    let cells = lines.filter_map(|line| line.trim_matches('|').split_once(" | "));
    cells
        .map(|(there, here)| (there.trim(), here.trim()))
        .collect()
}

/// A document with a plugin of this type.
fn with(kind: &str) -> String {
    format!(
        "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins: [{{type: queue-scorer, name: q}}, {{type: {kind}}}]\n"
    )
}

#[test]
fn exactly_the_types_listed_as_refused_are_refused_with_the_listed_words() {
    let page = page();
    let mut named = BTreeSet::new();
    for (there, here) in rows(&page) {
        let Some(words) = here.strip_prefix("refused: ") else {
            continue;
        };
        for kind in quoted(there) {
            assert!(named.insert(kind.to_owned()), "{kind} is listed twice");
            let rejected = match config::load(&with(kind)) {
                Ok(_) => panic!("{kind} loads"),
                Err(rejected) => rejected,
            };
            let report: Vec<String> = rejected.errors.iter().map(ToString::to_string).collect();
            let found = report
                .iter()
                .any(|error| error.contains(kind) && error.contains(words));
            assert!(found, "{kind}: {words}: {report:#?}");
        }
    }
    let known = config::all_elsewhere().filter(|known| known.here == Here::Refused);
    let known: BTreeSet<String> = known.map(|known| known.name.to_owned()).collect();
    assert_eq!(named, known);
}

#[test]
fn each_type_that_does_not_run_here_loads_with_the_listed_warning() {
    let page = page();
    let mut named = BTreeSet::new();
    for (there, here) in rows(&page) {
        let words = here.strip_prefix("no effect: ");
        let Some(words) = words.or_else(|| here.strip_prefix("approximated: ")) else {
            continue;
        };
        let others = quoted(there).into_iter();
        for kind in others.filter(|kind| plugins::find(kind).is_none()) {
            named.insert(kind.to_owned());
            let text = with(kind) + "schedulingProfiles: [{name: p, plugins: [{pluginRef: q}]}]\n";
            let loaded = config::load(&text).unwrap();
            let report: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
            assert!(
                report.iter().any(|it| it.contains(words)),
                "{kind}: {report:#?}"
            );
        }
    }
    let known = config::all_elsewhere().filter(|known| known.here != Here::Refused);
    let known: BTreeSet<String> = known.map(|known| known.name.to_owned()).collect();
    assert_eq!(named, known);
}

#[test]
fn the_tables_of_types_are_up_to_date() {
    let copy = std::env::temp_dir().join(format!("eppctl-migrating-{}.md", std::process::id()));
    std::fs::write(&copy, page()).unwrap();
    let into = copy.to_str().unwrap();
    let output = common::eppctl(
        &["reference", "--into", into, "--documents", "tests/configs"],
        "",
    );
    let made = std::fs::read_to_string(&copy).unwrap();
    std::fs::remove_file(&copy).unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(
        made == page(),
        "docs/migrating.md is not what the code says: call `make generate`"
    );
}

/// `plugin`, `parameter` (`default`) in the second column.
#[test]
fn flags_map_to_existing_parameters_with_the_listed_defaults() {
    let page = page();
    let mut checked = 0;
    for (flag, here) in rows(&page) {
        if !flag.contains("`--") && !flag.contains("`Fail") {
            continue;
        }
        let words = quoted(here);
        let Some(plugin) = words.first().and_then(|name| plugins::find(name)) else {
            continue;
        };
        let questions = plugins::questions(plugin, Dialect::LlmD);
        let name = words.get(1).unwrap();
        let question = questions
            .iter()
            .find(|question| question.path.to_string() == *name);
        let question = question.unwrap_or_else(|| panic!("{}: no parameter {name}", plugin.name));
        checked += 1;
        let (_, rest) = here.split_once(&format!("`{name}`")).unwrap();
        if let Some(stated) = rest.strip_prefix(" (`") {
            let (stated, _) = stated.split_once('`').unwrap();
            let default = match question.default.as_ref() {
                Some(Node::String(text)) => text.clone(),
                Some(Node::List(entries)) => {
                    let entries: Vec<String> = entries
                        .iter()
                        .map(|entry| match entry {
                            Node::String(text) => text.clone(),
                            other => other.found(),
                        })
                        .collect();
                    format!("[{}]", entries.join(", "))
                }
                other => panic!("{name}: {other:?}"),
            };
            assert_eq!(stated, default, "{flag}");
        }
    }
    assert!(checked >= 6, "only {checked} flags lead to parameters");
}
