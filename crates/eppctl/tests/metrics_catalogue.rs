//! The metrics' catalogue, beside what operators are given: templates, dashboard, alerts and documentation.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use common::top;
use epp_core::metrics::definitions::{Description, CATALOGUE};

/// Returns the files in these folders with this extension.
fn files(folders: &[&str], ending: &str) -> Vec<PathBuf> {
    let entries = folders.iter().flat_map(|folder| {
        let entries = fs::read_dir(top().join(folder)).unwrap();
        entries.map(|entry| entry.unwrap().path())
    });
    entries
        .filter(|path| path.to_string_lossy().ends_with(ending))
        .collect()
}

/// The words of a text that begin like a metric, but names of files.
fn names(text: &str) -> BTreeSet<&str> {
    let word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let begins = ["llm_d_epp_", "epp_wasm_"];
    let words = text.split(|letter| !word(letter) && letter != '.');
    words
        .map(|word| word.trim_end_matches(['.', '_']))
        .filter(|word| begins.iter().any(|begin| word.starts_with(begin)))
        .filter(|word| !word.contains('.'))
        .collect()
}

fn is_known(name: &str) -> bool {
    let parts = ["_bucket", "_sum", "_count"];
    let is = |metric: &Description| match name.strip_prefix(metric.name) {
        Some("") => true,
        Some(part) => metric.kind == "Histogram" && parts.contains(&part),
        None => false,
    };
    CATALOGUE.iter().any(is)
}

#[test]
fn metrics_in_docs_dashboards_and_alerts_are_exported() {
    let mut paths = files(&["envoy/dashboards"], "");
    paths.extend(files(&["docs", "."], ".md"));
    // The log of changes has the names that there were.
    paths.retain(|path| !path.ends_with("CHANGELOG.md"));
    let mut found = 0;
    for path in paths {
        let text = fs::read_to_string(&path).unwrap();
        let names = names(&text);
        found += names.len();
        let unknown = names.iter().filter(|name| !is_known(name));
        let unknown: Vec<&&str> = unknown.collect();
        assert!(unknown.is_empty(), "{}: {unknown:?}", path.display());
    }
    assert!(found > 100, "{found}");
}

#[test]
fn every_template_extracts_all_labels() {
    let mut paths = files(&["envoy", "envoy/production"], ".yaml");
    // The dynamic module gives Envoy the labels themselves: docs/hosts.md.
    paths.retain(|path| !path.ends_with("module.yaml"));
    paths.push(top().join("envoy/istio/metric-labels.yaml"));
    paths.push(top().join("charts/epp-wasm/templates/istio/metric-labels.yaml"));
    assert!(paths.len() > 7, "{paths:?}");
    let labels = CATALOGUE.iter().flat_map(|metric| metric.labels).copied();
    let labels: BTreeSet<&str> = labels.chain(["pool", "le"]).collect();
    for path in paths {
        let text = fs::read_to_string(&path).unwrap();
        for label in &labels {
            let tag = format!("\"(;{label}=([^;]*))\"");
            assert!(text.contains(&tag), "{}: {label}", path.display());
        }
    }
}
