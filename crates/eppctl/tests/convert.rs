//! `eppctl convert` over all documents.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::{documents, eppctl, out};
use epp_core::config;
use epp_core::plugins::Dialect;

fn convert(to: &str, text: &str) -> String {
    let output = eppctl(&["convert", "--to", to, "-"], text);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    out(&output)
}

#[test]
fn every_converted_document_loads_in_the_other_dialect() {
    for (place, text) in documents() {
        for (to, dialect) in [("llm-d", Dialect::LlmD), ("gie", Dialect::GieV1)] {
            let converted = convert(to, &text);
            match config::load(&converted) {
                Ok(loaded) => assert_eq!(loaded.plan.dialect, dialect, "{place}"),
                Err(rejected) => panic!("{place} to {to}: {:#?}\n{converted}", rejected.errors),
            }
        }
    }
}

#[test]
fn blocks_become_tokens_of_the_same_prompt_window() {
    let gie = std::fs::read_to_string(common::top().join("examples/full.yaml")).unwrap();
    let llm_d = convert("llm-d", &gie);
    // 256 blocks of 64 bytes are 4096 tokens of four bytes.
    assert!(llm_d.contains("maxPrefixTokensToMatch: 4096"), "{llm_d}");
    assert!(llm_d.contains("blockSizeTokens: 64"), "{llm_d}");
    assert!(
        llm_d.contains("# prefix-cache-scorer: blocks of 64 bytes become"),
        "{llm_d}"
    );
    let back = convert("gie", &llm_d);
    assert!(back.contains("hashBlockSize: 256"), "{back}");
    assert!(back.contains("maxPrefixBlocksToMatch: 64"), "{back}");
}

#[test]
fn fractions_become_whole_weights() {
    let text = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins: [{type: queue-scorer}, {type: kv-cache-utilization-scorer}]\nschedulingProfiles: [{name: a, plugins: [{pluginRef: queue-scorer, weight: 0.5}, {pluginRef: kv-cache-utilization-scorer}]}]\n";
    let gie = convert("gie", text);
    assert!(
        gie.contains("weight: 5\n") && gie.contains("weight: 10\n"),
        "{gie}"
    );
}

/// Parts of documents of later GIE releases.
const RELEASES: [&str; 8] = [
    "plugins: [{type: prefix-cache-scorer, parameters: {blockSize: 128}}]",
    "plugins: [{type: prefix-cache-scorer, parameters: {blockSizeTokens: 32, autoTune: false, maxPrefixTokensToMatch: 3200}}]",
    "plugins: [{type: queue-scorer}]\nfeatureGates: [dataLayer, prepareDataPlugins, enableLegacyMetrics, flowControl]\nflowControl: {maxBytes: 5}",
    "plugins: [{type: model-server-protocol-metrics, parameters: {defaultEngine: sglang}}, {type: queue-scorer}]\ndata: {sources: [{pluginRef: metrics-data-source, extractors: [{pluginRef: model-server-protocol-metrics}]}]}",
    "plugins: [{type: model-server-protocol-metrics, parameters: {QueueRequestsSpec: q, loraSpec: ''}}, {type: metrics-data-source, parameters: {Path: /m}}, {type: queue-scorer}]\ndata: {sources: [{pluginRef: metrics-data-source, extractors: [{pluginRef: model-server-protocol-metrics}]}]}",
    "plugins: [{type: utilization-detector}, {type: queue-scorer}, {type: fcfs-ordering-policy}]\nschedulingProfiles: [{name: p, plugins: [{pluginRef: queue-scorer, weight: 1.5}]}]\nsaturationDetector: {pluginRef: utilization-detector}",
    "plugins: [{type: approx-prefix-cache-producer, parameters: {blockSizeTokens: 128}}, {type: prefix-cache-scorer, parameters: {blockSizeTokens: 16}}]\nfeatureGates: [dataLayer]",
    "plugins: [{type: queue-scorer}]\nsaturationDetector: {queueDepthThreshold: 5, kvCacheUtilThreshold: 0.8}",
];

fn of_release(parts: &str) -> String {
    format!(
        "apiVersion: inference.networking.x-k8s.io/v1alpha1\nkind: EndpointPickerConfig\n{parts}\n"
    )
}

#[test]
fn documents_of_later_releases_are_converted_to_either_dialect() {
    for parts in RELEASES {
        let text = of_release(parts);
        for to in ["llm-d", "gie"] {
            let converted = convert(to, &text);
            let output = eppctl(&["check", "--dialect", to, "-"], &converted);
            assert!(
                output.status.success(),
                "{parts} to {to}\n{converted}\n{}",
                out(&output)
            );
            assert!(
                !out(&output).contains("silently ignored"),
                "{}",
                out(&output)
            );
        }
    }
    let llm_d = convert("llm-d", &of_release(RELEASES[4]));
    for part in [
        "queuedRequestsSpec: q\n",
        "loraSpec: ''\n",
        "kvUsageSpec: vllm:kv_cache_usage_perc\n",
        "path: /m\n",
    ] {
        assert!(llm_d.contains(part), "{part}\n{llm_d}");
    }
    let llm_d = convert("llm-d", &of_release(RELEASES[1]));
    for part in [
        "blockSizeTokens: 64",
        "maxPrefixTokensToMatch: 3200",
        "autoTune: false",
    ] {
        assert!(llm_d.contains(part), "{llm_d}");
    }
    let gie = convert("gie", &of_release(RELEASES[1]));
    for part in ["hashBlockSize: 128", "maxPrefixBlocksToMatch: 100"] {
        assert!(gie.contains(part), "{gie}");
    }
}

#[test]
fn a_nested_document_is_converted_unless_there_are_several() {
    let inside = |name: &str| {
        let document = of_release(RELEASES[0]);
        let lines = document.lines().map(|line| format!("    {line}\n"));
        format!("  {name}: |\n{}", lines.collect::<String>())
    };
    let one = format!("kind: ConfigMap\ndata:\n{}", inside("a.yaml"));
    assert!(convert("gie", &one).contains("hashBlockSize: 128"));
    let two = format!("{one}{}", inside("b.yaml"));
    let output = eppctl(&["convert", "--to", "gie", "-"], &two);
    assert_eq!(output.status.code(), Some(2));
    let report = String::from_utf8_lossy(&output.stderr).into_owned();
    for part in ["2 EndpointPickerConfigs", "data.a.yaml", "data.b.yaml"] {
        assert!(report.contains(part), "{report}");
    }
    let none = eppctl(&["convert", "--to", "gie", "-"], "kind: Service\n");
    assert_eq!(none.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&none.stderr).contains("found no EndpointPickerConfig"));
}
