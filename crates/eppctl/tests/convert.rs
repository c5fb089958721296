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

/// Documents of llm-d-router with what is deprecated there, and parts that the newest version of each has.
const DEPRECATED: [(&str, &[&str]); 9] = [
    (
        "plugins: [{type: prefill-header-handler}, {type: always-disagg-pd-decider}, {type: disagg-profile-handler, parameters: {deciderPluginName: always-disagg-pd-decider, decodeProfile: d}}]\nschedulingProfiles: [{name: d, plugins: [{pluginRef: prefill-header-handler}]}, {name: prefill}]",
        &["deciders:\n      prefill: always-disagg-pd-decider", "profiles:\n      decode: d"],
    ),
    (
        "plugins: [{type: prefix-based-pd-decider, parameters: {nonCachedTokens: 9}}, {type: disagg-headers-handler}, {type: pd-profile-handler, parameters: {prefixPluginType: a, prefixPluginName: b, primaryPort: 0}}]\nschedulingProfiles: [{name: decode}, {name: prefill}]",
        &["type: disagg-profile-handler", "deciders:\n      prefill: prefix-based-pd-decider"],
    ),
    (
        "plugins: [{type: by-label, parameters: {label: a, validValues: [b, c]}}]\nschedulingProfiles: [{name: p, plugins: [{pluginRef: by-label}]}]",
        &["name: by-label", "type: label-selector-filter", "operator: In"],
    ),
    (
        "plugins: [{type: kv-cache-scorer}, {type: tokenizer}]\nschedulingProfiles: [{name: p, plugins: [{pluginRef: kv-cache-scorer, weight: 2}]}]",
        &["type: token-producer", "pluginRef: kv-cache-utilization-scorer"],
    ),
    (
        "plugins: [{type: by-label-selector, name: by-label-selector, parameters: {matchLabels: {a: b}}}]\nschedulingProfiles: [{name: p, plugins: [{pluginRef: by-label-selector}]}]",
        &["type: label-selector-filter", "pluginRef: by-label-selector"],
    ),
    (
        "plugins: [{type: prefix-cache-scorer, parameters: {autoTune: false, blockSizeTokens: 128, maxPrefixBlocksToMatch: 256}}]\nschedulingProfiles: [{name: p, plugins: [{pluginRef: prefix-cache-scorer}]}]",
        &["type: approx-prefix-cache-producer", "maxPrefixTokensToMatch: 0"],
    ),
    (
        "plugins: [{type: approx-prefix-cache-producer, parameters: {blockSize: 128}}, {type: prefix-cache-scorer, parameters: {autoTune: true}}]",
        &["blockSizeTokens: 128"],
    ),
    (
        "plugins: [{type: precise-prefix-cache-scorer, parameters: {tokenProcessorConfig: {blockSize: 80}}}]\nschedulingProfiles: [{name: p, plugins: [{pluginRef: precise-prefix-cache-scorer, weight: 2}]}]",
        &["type: precise-prefix-cache-producer", "blockSizeTokens: 80", "type: prefix-cache-scorer"],
    ),
    (
        "plugins: [{type: static-discovery, parameters: {endpoints: []}}]\ndataLayer: {discovery: {pluginRef: static-discovery}, peerDiscovery: {pluginRef: p}, crossReplicaSyncInterval: 1s}\nparser: {pluginRef: openai-parser}\nsaturationDetector: {pluginRef: utilization-detector}",
        &["endpoints:\n      pluginRef: static-discovery", "syncInterval: 1s", "parsers:\n  - pluginRef", "flowControl:\n  saturationDetector"],
    ),
];

#[test]
fn deprecated_names_and_places_become_the_newest() {
    for (parts, expected) in DEPRECATED {
        let text = format!("apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n{parts}\n");
        let converted = convert("llm-d", &text);
        for part in expected.iter().chain(&["apiVersion: llm-d.ai/v1\n"]) {
            assert!(converted.contains(part), "{part}\n{converted}");
        }
        let before = config::load(&text).unwrap();
        let after = config::load(&converted).unwrap();
        let said = after.warnings.iter().map(ToString::to_string);
        let said = said.filter(|it| {
            it.contains("renamed") || it.contains("moved") || it.contains("deprecated")
        });
        assert_eq!(
            said.collect::<Vec<_>>(),
            Vec::<String>::new(),
            "{converted}"
        );
        let cut = |loaded: &config::Loaded| -> Vec<_> {
            let producers = loaded.plan.producers.iter();
            producers.map(|(_, producer)| producer.clone()).collect()
        };
        assert_eq!(cut(&after), cut(&before), "{converted}");
        assert_eq!(after.plan.discovery, before.plan.discovery, "{converted}");
    }
}

#[test]
fn what_has_another_meaning_in_the_newest_version_is_noted_or_left() {
    let converted = |parts: &str| {
        let head = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n";
        convert("llm-d", &format!("{head}{parts}\n"))
    };
    let handler = converted("plugins: [{type: prefix-based-pd-decider}, {type: pd-profile-handler}]\nschedulingProfiles: [{name: decode}, {name: prefill}]");
    assert!(handler.contains("missingPrefill: decodeOnly"), "{handler}");
    // An empty value keeps endpoints without the label, too, unlike that of a selector.
    let label = converted("plugins: [{type: by-label, parameters: {label: a, validValues: [b, '']}}]\nschedulingProfiles: [{name: p, plugins: [{pluginRef: by-label}]}]");
    for part in ["type: by-label\n", "left as it is"] {
        assert!(label.contains(part), "{label}");
    }
}

#[test]
fn the_file_of_a_file_discovery_is_written_into_the_document() {
    let folder = std::env::temp_dir().join(format!("eppctl-convert-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let endpoints = "endpoints:\n- {name: a, address: 10.0.0.1, port: \"8000\", labels: {llm-d.ai/role: decode}}\n";
    std::fs::write(folder.join("endpoints.yaml"), endpoints).unwrap();
    let document = folder.join("epp.yaml");
    let text = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins: [{type: file-discovery, parameters: {path: /etc/epp/endpoints.yaml, watchFile: true}}]\ndataLayer: {discovery: {pluginRef: file-discovery}}\n";
    std::fs::write(&document, text).unwrap();
    let run = |document: &std::path::Path| {
        eppctl(
            &["convert", "--to", "llm-d", document.to_str().unwrap()],
            "",
        )
    };
    let converted = out(&run(&document));
    std::fs::remove_file(folder.join("endpoints.yaml")).unwrap();
    let missing = run(&document);
    std::fs::remove_dir_all(&folder).unwrap();
    let plan = config::load(&converted).unwrap().plan;
    assert!(plan.summary().contains("1 endpoints listed"), "{converted}");
    assert_eq!(missing.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("beside the document"));
}
