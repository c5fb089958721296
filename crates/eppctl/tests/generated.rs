//! The pages that `make generate` writes must be up to date, and their examples must hold.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::{documents, eppctl, out, top};
use epp_core::config;
use serde_json::Value;

fn committed(file: &str, arguments: &[&str]) {
    let written = std::fs::read_to_string(top().join(file)).unwrap_or_default();
    let made = out(&eppctl(arguments, ""));
    if written != made {
        let line = written
            .lines()
            .zip(made.lines())
            .take_while(|(a, b)| a == b);
        let line = line.count() + 1;
        panic!("{file} is not what the code says (from line {line} on): run `make generate` and commit it");
    }
}

#[test]
fn the_schema_is_up_to_date() {
    committed("docs/schema.json", &["schema"]);
}

#[test]
fn the_reference_is_up_to_date() {
    committed("docs/configuration.md", &["reference"]);
}

#[test]
fn the_page_of_metrics_is_up_to_date() {
    committed("docs/metrics.md", &["reference", "--metrics"]);
}

#[test]
fn the_page_of_the_commands_is_up_to_date() {
    committed("docs/eppctl.md", &["manual"]);
}

#[test]
fn the_table_of_findings_is_up_to_date() {
    let written = std::fs::read_to_string(top().join("docs/operations.md")).unwrap();
    let table = out(&eppctl(&["reference", "--findings"], ""));
    assert!(table.lines().count() > 20, "{table}");
    let inserted = format!("<!-- eppctl reference: findings -->\n{table}<!-- end -->");
    assert!(
        written.contains(&inserted),
        "run `make generate` and commit docs/operations.md"
    );
}

fn validator() -> jsonschema::Validator {
    let text = std::fs::read_to_string(top().join("docs/schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&text).unwrap();
    jsonschema::meta::validate(&schema).unwrap();
    jsonschema::draft202012::new(&schema).unwrap()
}

fn as_json(text: &str) -> Value {
    serde_yaml::from_str(text).unwrap()
}

#[test]
fn an_independent_validator_accepts_all_documents() {
    let validator = validator();
    for (place, text) in documents() {
        let errors: Vec<String> = validator
            .iter_errors(&as_json(&text))
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{place}: {errors:#?}");
    }
}

const HEAD: &str = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n";

/// Each with one fault; what the loader refuses, the schema does.
const BROKEN: &[&str] = &[
    "kind: EndpointPickerConfig",
    "apiVersion: llm-d.ai/v1alpha1",
    "apiVersion: llm-d.ai/v2\nkind: EndpointPickerConfig",
    "HEAD plugin: []",
    "HEAD plugins: {}",
    "HEAD plugins: [{name: a}]",
    "HEAD plugins: [{type: queue-socrer}]",
    "HEAD plugins: [{type: decision-tree-filter}]",
    "HEAD plugins: [{type: queue-scorer, parameters: {a: 1}}]",
    "HEAD plugins: [{type: queue-scorer, weight: 1}]",
    "HEAD plugins: [{type: prefix-cache-scorer, parameters: {matchLengthWeight: 1.5}}]",
    "HEAD plugins: [{type: max-score-picker, parameters: {maxNumOfEndpoints: two}}]",
    "HEAD plugins: [{type: approx-prefix-cache-producer, parameters: {blockSizeTokens: 0}}]",
    "HEAD plugins: [{type: token-producer, parameters: {modelName: 1}}]",
    "HEAD plugins: [{type: envoy-proxy, parameters: {failureMode: FailSoft}}]",
    "HEAD plugins: [{type: envoy-proxy, parameters: {bodyTimeout: 5}}]",
    "HEAD plugins: [{type: envoy-proxy, parameters: {bodyTimeout: 5 s}}]",
    "HEAD plugins: [{type: static-discovery}]",
    "HEAD plugins: [{type: static-discovery, parameters: {endpoints: [{name: a, address: 10.0.0.1}]}}]",
    "HEAD plugins: [{type: static-discovery, parameters: {endpoints: [{name: a, address: 10.0.0.1, port: 99999}]}}]",
    "HEAD plugins: [{type: model-rewrite, parameters: {rules: []}}]",
    "HEAD plugins: [{type: model-rewrite, parameters: {rules: [{targets: [{weight: 1}]}]}}]",
    "HEAD schedulingProfiles: [{plugins: []}]",
    "HEAD schedulingProfiles: [{name: a, plugins: [{weight: 1}]}]",
    "HEAD dataLayer: {discovery: {plugin: a}}",
    "HEAD featureGates: [1]",
    "HEAD flowControl: {maxByte: 1}",
    "HEAD flowControl: {priorityBands: [{defaultRequestTTL: soon}]}",
    "apiVersion: inference.networking.x-k8s.io/v1alpha1\nkind: EndpointPickerConfig\nplugins: [{type: queue-scorer}]\nschedulingProfiles: [{name: a, plugins: [{pluginRef: queue-scorer, weight: heavy}]}]",
    "HEAD featureGates: true",
];

#[test]
fn the_schema_rejects_what_the_loader_rejects() {
    let validator = validator();
    for text in BROKEN {
        let text = text.replace("HEAD ", HEAD);
        assert!(config::load(&text).is_err(), "the loader takes {text}");
        assert!(
            !validator.is_valid(&as_json(&text)),
            "the schema takes {text}"
        );
    }
}

/// A row says once how a parameter compares with the Endpoint Picker's, and numbers without a bound show none.
#[test]
fn the_reference_says_nothing_twice() {
    let reference = std::fs::read_to_string(top().join("docs/configuration.md")).unwrap();
    let rows: Vec<&str> = reference
        .lines()
        .filter(|line| line.starts_with("| `"))
        .collect();
    assert!(rows.len() > 150, "only {} rows", rows.len());
    for row in rows {
        for words in ["no effect", "approximated", "ours:", "differs on purpose"] {
            assert!(row.matches(words).count() < 2, "{row}");
        }
        assert!(!row.contains("000000000000"), "{row}");
        assert!(!row.ends_with("|  |"), "{row}");
    }
}

#[test]
fn the_references_examples_load() {
    let reference = std::fs::read_to_string(top().join("docs/configuration.md")).unwrap();
    let examples: Vec<&str> = reference.split("```yaml\n").skip(1).collect();
    assert!(examples.len() >= 20, "only {}", examples.len());
    let validator = validator();
    for example in examples {
        let plugins = example.split("```").next().unwrap();
        let load = |version: &str| {
            let text =
                format!("apiVersion: {version}\nkind: EndpointPickerConfig\nplugins:\n{plugins}");
            let valid = validator.is_valid(&as_json(&text));
            config::load(&text).is_ok() && valid
        };
        let either = load("llm-d.ai/v1alpha1") || load("inference.networking.x-k8s.io/v1alpha1");
        assert!(either, "{plugins}");
    }
}
