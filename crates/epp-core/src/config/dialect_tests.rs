//! Documents of the releases v1.0 to v1.5 of the Gateway API Inference Extension
//! (`inference.networking.x-k8s.io/v1alpha1`), and documents with one problem per cause.

use super::tests::{errors, llm_d, refused};
use super::value::moved::place_of;
use super::*;
use crate::endpoints::engine::{built_in, EngineConfig};
use crate::endpoints::spec::MetricSpec;
use crate::plugins::scorer::prefix_cache;
use crate::plugins::{Dialect, PrefixProducer};
use crate::scheduling::ProfileId;
use crate::scheduling::{Metrics, Pool};
use crate::testing::pool;

pub const PROFILE: &str =
    "schedulingProfiles: [{name: p, plugins: [{pluginRef: prefix-cache-scorer}]}]\n";

pub fn gie_v1(rest: &str) -> String {
    format!(
        "apiVersion: inference.networking.x-k8s.io/v1alpha1\nkind: EndpointPickerConfig\n{rest}"
    )
}

pub fn loaded(text: &str) -> Loaded {
    load(text).unwrap_or_else(|rejected| panic!("{text}\n{rejected:#?}"))
}

pub fn warnings(text: &str) -> Vec<String> {
    loaded(text)
        .warnings
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// Fails unless the text loads with exactly these warnings, each with its parts.
pub fn warned(text: &str, expected: &[&[&str]]) {
    let found = warnings(text);
    let all = expected.iter().all(|parts| {
        let has = |warning: &String| parts.iter().all(|part| warning.contains(part));
        found.iter().any(has)
    });
    assert!(all && found.len() == expected.len(), "{text}\n{found:#?}");
}

/// The producer of a scorer with these parameters, and other fields of the document.
fn cut_by(parameters: &str, rest: &str) -> PrefixProducer {
    let plugins =
        format!("plugins: [{{type: prefix-cache-scorer, parameters: {{{parameters}}}}}]\n");
    let plan = loaded(&gie_v1(&format!("{plugins}{PROFILE}{rest}"))).plan;
    assert_eq!(plan.dialect, Dialect::GieV1);
    plan.producers[0].1.clone()
}

#[test]
fn each_releases_block_size_is_read_in_its_unit() {
    for (parameters, bytes, tuned) in [
        ("hashBlockSize: 128", 128, false),
        ("blockSize: 128", 128, true),
        ("blockSize: 128, autoTune: false", 128, false),
        ("blockSizeTokens: 32", 128, true),
        ("blockSizeTokens: 32, autoTune: false", 128, false),
        ("autoTune: true", 64, true),
        ("blockSize: 0, autoTune: false", 64, false),
    ] {
        let producer = cut_by(parameters, "");
        let found = (producer.block, producer.auto_tune);
        assert_eq!(found, (bytes, tuned), "{parameters}");
    }
    assert_eq!(
        cut_by("maxPrefixBlocksToMatch: 0", "").max_blocks,
        Some(256)
    );
    // Of two names the newer one counts, as in v1.4.
    let both = gie_v1(&format!("plugins: [{{type: prefix-cache-scorer, parameters: {{blockSizeTokens: 32, blockSize: 7, hashBlockSize: 9}}}}]\n{PROFILE}"));
    assert_eq!(loaded(&both).plan.producers[0].1.block, 128);
    warned(
        &both,
        &[&["parameters.blockSize"], &["parameters.hashBlockSize"]],
    );
}

#[test]
fn tuned_blocks_are_what_the_first_server_reports_and_the_window_is_kept() {
    let reporting = |size| -> Pool {
        pool([Metrics {
            block_size: size,
            ..Metrics::default()
        }])
    };
    let spec = |parameters: &str, size| {
        let spec = cut_by(parameters, "").block_spec(&reporting(size));
        (spec.block_bytes, spec.max_blocks)
    };
    assert_eq!(spec("autoTune: true", Some(32)), (128, Some(256)));
    assert_eq!(spec("autoTune: true", None), (64, Some(256)));
    assert_eq!(spec("autoTune: true", Some(0)), (64, Some(256)));
    assert_eq!(
        spec("autoTune: false, blockSize: 80", Some(32)),
        (80, Some(256))
    );
    // Without the newer parameters, as v1.0 does.
    assert_eq!(spec("hashBlockSize: 80", Some(32)), (80, Some(256)));
    let window = "blockSizeTokens: 16, maxPrefixTokensToMatch: 1024";
    assert_eq!(spec(window, None), (64, Some(64)));
    assert_eq!(spec(window, Some(64)), (256, Some(16)));
    // A server that reports what no prompt fills has none cut.
    assert_eq!(spec(window, Some(u32::MAX)).1, Some(0));
    assert_eq!(spec("autoTune: true", Some(u32::MAX)).0, u32::MAX as usize);
}

#[test]
fn parameters_load_beside_every_section_of_their_releases() {
    for rest in [
        "featureGates: [dataLayer]\n",
        "featureGates: [flowControl]\n",
        "data: {sources: [{pluginRef: metrics-data-source, extractors: [{pluginRef: model-server-protocol-metrics}]}]}\n",
        "saturationDetector: {queueDepthThreshold: 5, kvCacheUtilThreshold: 0.8, metricsStalenessThreshold: 200ms}\n",
        "flowControl: {maxBytes: 1000}\n",
        "dataLayer: {sources: [{pluginRef: metrics-data-source}]}\n",
        "parser: {pluginRef: openai-parser}\n",
    ] {
        assert_eq!(cut_by("blockSize: 128", rest).block, 128);
    }
}

#[test]
fn gates_without_effect_are_warnings_under_both_versions() {
    let gates = "featureGates: [dataLayer, prepareDataPlugins, enableLegacyMetrics=true]\n";
    let expected: [&[&str]; 3] = [
        &["featureGates[0]", "no effect here", "metrics"],
        &["featureGates[1]", "no effect here"],
        &["featureGates[2]", "no effect here"],
    ];
    warned(&gie_v1(gates), &expected);
    warned(&llm_d(gates), &expected);
    warned(&gie_v1("featureGates: [dataLayer=false]\n"), &[]);
    warned(&gie_v1("featureGates: [flowControl]\n"), &[]);
    let section = "flowControl: {maxBytes: 10Gi}\n";
    warned(
        &llm_d(&format!("featureGates: [flowControl]\n{section}")),
        &[],
    );
    warned(
        &llm_d(&format!("featureGates: [flowControl=false]\n{section}")),
        &[&["flowControl", "the feature gate flowControl is off"]],
    );
    warned(&llm_d("flowControl: {saturationDetector: {}}\n"), &[]);
    refused(
        &gie_v1("featureGates: [dataLayr]\n"),
        &["featureGates[0]", "did you mean dataLayer?"],
    );
    refused(
        &gie_v1("featureGates: [dataLayer=maybe]\n"),
        &["true or false"],
    );
}

#[test]
fn data_is_the_data_layers_former_name_under_the_former_version_only() {
    let plugins = "plugins: [{name: a, type: metrics-data-source, parameters: {path: /a}}, {name: b, type: metrics-data-source, parameters: {path: /b}}]\n";
    let text = gie_v1(&format!("{plugins}data: {{sources: [{{pluginRef: b}}]}}\n"));
    let loaded = loaded(&text);
    assert_eq!(loaded.plan.source.path, "/b");
    assert_eq!(loaded.plan.dialect, Dialect::GieV1);
    refused(&llm_d("data: {sources: []}\n"), &["data", "use dataLayer"]);
    refused(
        &gie_v1("data: {discovery: {pluginRef: x}}\n"),
        &["data.discovery", "unknown field"],
    );
    // Not every known type is a source.
    refused(
        &gie_v1("data: {sources: [{pluginRef: queue-scorer}]}\n"),
        &["data.sources[0].pluginRef"],
    );
}

#[test]
fn the_extractors_former_name_is_the_extractor() {
    let text = gie_v1(
        "plugins: [{type: model-server-protocol-metrics, parameters: {defaultEngine: sglang}}]\n",
    );
    let loaded = loaded(&text);
    assert_eq!(loaded.plan.extractor.default_engine, "sglang");
    warned(&text, &[&["plugins[0].type", "use core-metrics-extractor"]]);
}

/// The engines of an extractor by its former name with these parameters, under GIE v1's version.
fn engines(parameters: &str) -> Vec<EngineConfig> {
    let entry = "plugins: [{type: model-server-protocol-metrics, parameters:";
    loaded(&gie_v1(&format!("{entry} {{{parameters}}}}}]\n")))
        .plan
        .extractor
        .engines
}

#[test]
fn the_extractor_of_v1_3_reads_specs_in_any_case_as_one_engine() {
    let vllm = built_in().swap_remove(0);
    let spec = |name| Some(MetricSpec::family(name));
    let found = engines("queueRequestsSpec: q, RunningRequestsSpec: r, kvusagespec: k, LoRASpec: l, cacheInfoSpec: c");
    let expected = EngineConfig {
        queued: spec("q"),
        running: spec("r"),
        kv_usage: spec("k"),
        old_kv_usage: None,
        lora: spec("l"),
        cache_info: spec("c").map(|spec| (spec, String::new(), String::new())),
        ..vllm.clone()
    };
    assert_eq!(found, [expected]);
    // What is not given is vLLM's; an empty text is nothing that is read.
    let expected = EngineConfig {
        queued: spec("q"),
        lora: None,
        ..vllm
    };
    let found = engines("QueueRequestsSpec: q, loraSpec: '', kvUsageSpec: null");
    assert_eq!(found, [expected]);
    assert_eq!(engines(""), built_in());
    // From v1.4 on engines have the specs.
    assert_eq!(engines("kvUsageSpec: k, defaultEngine: vllm"), built_in());
    let entry = "plugins: [{type: model-server-protocol-metrics, parameters: {kvUsageSpec: k}}]\n";
    refused(
        &llm_d(entry),
        &["plugins[0].parameters.kvUsageSpec", "unknown"],
    );
    let newer = entry.replace("model-server-protocol-metrics", "core-metrics-extractor");
    refused(
        &gie_v1(&newer),
        &["plugins[0].parameters.kvUsageSpec", "unknown"],
    );
    let misspelt = entry.replace("kvUsageSpec", "queuedRequestsSpec");
    refused(&gie_v1(&misspelt), &["did you mean queueRequestsSpec?"]);
}

#[test]
fn the_data_source_of_v1_3_is_read_in_any_case() {
    let entry = "plugins: [{type: metrics-data-source, parameters: {Scheme: http, PATH: /m, InsecureSkipVerify: true}}]\n";
    assert_eq!(loaded(&gie_v1(entry)).plan.source.path, "/m");
    warned(&gie_v1(entry), &[&["insecureSkipVerify", "no effect"]]);
    refused(&llm_d(entry), &["unknown field; did you mean path?"]);
}

#[test]
fn a_detector_filters_in_a_profile() {
    for kind in ["utilization-detector", "concurrency-detector"] {
        let plugins = format!("plugins: [{{name: d, type: {kind}}}, {{type: queue-scorer}}]\n");
        let profile = "schedulingProfiles: [{name: p, plugins: [{pluginRef: queue-scorer}, {pluginRef: d}]}]\n";
        // Without profiles there is one of all plugins.
        for text in [plugins.clone(), format!("{plugins}{profile}")] {
            for text in [gie_v1(&text), llm_d(&text)] {
                let plan = loaded(&text).plan;
                let profile = plan.scheduler.profiles().get(ProfileId(0)).unwrap();
                assert_eq!(profile.filters.len(), 1, "{text}");
            }
        }
    }
}

#[test]
fn types_without_effect_are_warnings() {
    let policies: Vec<&str> = all_elsewhere()
        .filter(|known| known.here == Here::Idle)
        .map(|known| known.name)
        .collect();
    assert!(policies.contains(&"endpoint-notification-source"));
    for policy in policies {
        let text = llm_d(&format!("plugins: [{{type: {policy}}}]\n"));
        warned(&text, &[&["plugins[0].type", "no effect here"]]);
        // A profile that refers to one ignores it, as there, which is not another warning.
        let text = llm_d(&format!("plugins: [{{type: {policy}}}]\nschedulingProfiles: [{{name: p, plugins: [{{pluginRef: {policy}}}]}}]\n"));
        assert_eq!(warnings(&text).len(), 1, "{policy}");
    }
}

#[test]
fn a_scorers_own_blocks_beside_a_producer_are_ignored_as_in_v1_5_and_moved_today() {
    let beside = "plugins: [{type: approx-prefix-cache-producer, parameters: {blockSizeTokens: 128}}, {type: prefix-cache-scorer, parameters: {autoTune: false, blockSizeTokens: 16}}]\n";
    let text = gie_v1(&format!("{beside}{PROFILE}"));
    let plan = loaded(&text).plan;
    assert_eq!((plan.producers.len(), plan.producers[0].1.block), (1, 128));
    let warnings = warnings(&text);
    let named = |it: &&String| {
        it.contains("plugins[1].parameters.blockSizeTokens") && it.contains("no effect")
    };
    assert_eq!(warnings.iter().filter(named).count(), 1, "{warnings:#?}");
    let plan = loaded(&llm_d(&format!("{beside}{PROFILE}"))).plan;
    assert_eq!((plan.producers.len(), plan.producers[0].1.block), (1, 128));
    // Which scorer's would the producer's be? One error for each of them.
    let two = "plugins: [{name: a, type: prefix-cache-scorer, parameters: {blockSizeTokens: 16, autoTune: true}}, {name: b, type: prefix-cache-scorer, parameters: {autoTune: false}}]\n";
    let errors = errors(&llm_d(two));
    assert_eq!(errors.len(), 1, "{errors:#?}");
    assert!(errors[0].contains("moved to approx-prefix-cache-producer"));
}

#[test]
fn the_scorers_own_blocks_are_read_as_a_producers() {
    for (former, now) in [
        (
            "blockSizeTokens: 128, autoTune: false",
            "blockSizeTokens: 128, autoTune: false",
        ),
        (
            "blockSize: 510, lruCapacityPerServer: 7",
            "blockSizeTokens: 128, lruCapacityPerServer: 7",
        ),
        ("hashBlockSize: 512", "blockSizeTokens: 128"),
        (
            "hashBlockSize: 4, blockSizeTokens: 256",
            "blockSizeTokens: 256",
        ),
        (
            "maxPrefixBlocksToMatch: 256",
            "maxPrefixBlocksToMatch: 256, maxPrefixTokensToMatch: 0",
        ),
    ] {
        let text = llm_d(&format!("plugins: [{{type: prefix-cache-scorer, parameters: {{matchLengthWeight: 0.5, {former}}}}}]\n{PROFILE}"));
        warned(
            &text,
            &[&[
                "plugins[0].parameters.",
                "moved; use the parameters of approx-prefix-cache-producer",
            ]],
        );
        let newer = llm_d(&format!("plugins: [{{type: prefix-cache-scorer, parameters: {{matchLengthWeight: 0.5}}}}, {{type: approx-prefix-cache-producer, parameters: {{{now}}}}}]\n{PROFILE}"));
        assert_eq!(loaded(&text).plan, loaded(&newer).plan, "{former}");
    }
    refused(
        &llm_d("plugins: [{type: prefix-cache-scorer, parameters: {blockSizeTokens: many}}]\n"),
        &["plugins[0].parameters.blockSizeTokens", "\"many\""],
    );
}

#[test]
fn weights_may_be_fractions_as_from_v1_4_on() {
    let weighed = |weight: &str| {
        gie_v1(&format!("plugins: [{{type: queue-scorer}}]\nschedulingProfiles: [{{name: p, plugins: [{{pluginRef: queue-scorer, weight: {weight}}}]}}]\n"))
    };
    let plan = loaded(&weighed("1.5")).plan;
    assert_eq!(
        plan.scheduler.profiles().get(ProfileId(0)).unwrap().scorers[0].weight,
        1.5
    );
    refused(&weighed(".nan"), &["weight", "a number"]);
    refused(&weighed("heavy"), &["weight", "a number"]);
}

#[test]
fn a_reference_to_a_refused_plugin_is_not_another_error() {
    for (text, count) in [
        // A profile, a scorer, a load producer.
        ("plugins: [{type: low-queue-filter}, {type: prefix-cache-scorer, parameters: {prefixMatchInfoProducerName: low-queue-filter}}, {type: inflight-load-producer, parameters: {prefixMatchInfoProducerName: low-queue-filter}}]
schedulingProfiles: [{name: p, plugins: [{pluginRef: low-queue-filter}, {pluginRef: prefix-cache-scorer}]}]\n", 1),
        // Sections.
        ("plugins: [{name: s, type: request-attribute-reporter}, {name: v, type: vllmgrpc-parser}, {name: f, type: lora-affinity-filter}]
dataLayer: {sources: [{pluginRef: s}], discovery: {pluginRef: f}}
requestHandler: {parsers: [{pluginRef: v}]}\n", 3),
        // The handler of several profiles, and one that is misspelt.
        ("plugins: [{type: slo-aware-profile-handler}]\nschedulingProfiles: [{name: p}, {name: d}]\n", 1),
        ("plugins: [{type: queue-socrer}, {type: single-profile-handlr}]\nschedulingProfiles: [{name: p, plugins: [{pluginRef: queue-socrer}]}, {name: d}]\n", 2),
        // A filter is not a handler: that there is none is another error.
        ("plugins: [{type: decision-tree-filter}]\nschedulingProfiles: [{name: p}, {name: d}]\n", 2),
        // A name that nothing has, beside one that is refused.
        ("plugins: [{type: decision-tree-filter}]\nschedulingProfiles: [{name: p, plugins: [{pluginRef: decision-tree-filter}, {pluginRef: nowhere}]}]\n", 2),
    ] {
        let errors = errors(&llm_d(text));
        assert_eq!(errors.len(), count, "{text}\n{errors:#?}");
    }
}

#[test]
fn a_second_picker_without_profiles_is_reported_at_its_declaration() {
    refused(
        &llm_d("plugins: [{type: max-score-picker}, {type: random-picker}]\n"),
        &["plugins[1] (line 3", "second picker"],
    );
}

#[test]
fn the_supported_types_are_listed_once() {
    let text = llm_d("plugins: [{type: decision-tree-filter}, {type: vllmgrpc-parser}, {type: plover}, {type: queue-socrer}]\n");
    let errors = errors(&text);
    let listing = |it: &&String| it.contains("single-profile-handler, ");
    assert_eq!(errors.len(), 4, "{errors:#?}");
    assert_eq!(errors.iter().filter(listing).count(), 1, "{errors:#?}");
}

#[test]
fn a_document_of_another_kind_has_one_error() {
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: epp}\ndata: {a: b}\n";
    assert_eq!(errors(map).len(), 1);
    refused(map, &["kind", "\"ConfigMap\"", "EndpointPickerConfig"]);
}

#[test]
fn a_misspelt_version_still_selects_the_dialect() {
    let text = gie_v1("plugins: [{type: prefix-cache-scorer, parameters: {hashBlockSize: 5}}]\n");
    let errors = errors(&text.replace("v1alpha1", "v1alfa1"));
    assert_eq!(errors.len(), 1, "{errors:#?}");
    assert!(errors[0].starts_with("apiVersion"), "{errors:#?}");
}

#[test]
fn an_unrecognisable_document_is_reported_as_such() {
    refused(
        &llm_d("plugins: [{type: prefix-cache-scorer, parameters: {prefixMatchInfoProducerName: p}}]\n"),
        &["expected the name of a prefix producer; there is none"],
    );
}

#[test]
fn known_fields_are_listed_once() {
    for parts in [
        "zzzzzz: 1\n",
        "plugins: [{type: core-metrics-extractor, parameters: {zzzzzz: 1}}]\n",
        "plugins: [{type: prefix-cache-scorer, parameters: {zzzzzz: 1}}]\n",
        "plugins: [{type: approx-prefix-cache-producer, parameters: {zzzzzz: 1}}]\n",
    ] {
        for text in [gie_v1(parts), llm_d(parts)] {
            let errors = errors(&text);
            let error = errors.iter().find(|error| error.contains("known here: "));
            let (_, known) = error.and_then(|it| it.split_once("known here: ")).unwrap();
            let names: Vec<&str> = known.split(", ").collect();
            for name in &names {
                let times = names.iter().filter(|other| *other == name).count();
                assert_eq!(times, 1, "{name}: {errors:#?}");
            }
        }
    }
}

#[test]
fn a_parameter_in_the_other_dialects_place_is_named_with_its_own() {
    for (entry, words) in [
        (
            "{type: approx-prefix-cache-producer, parameters: {hashBlockSize: 64}}",
            "under llm-d.ai approx-prefix-cache-producer has blockSizeTokens",
        ),
        (
            "{type: no-hit-lru-scorer, parameters: {lruCapacityPerServer: 5}}",
            "prefix-cache-scorer has it under inference.networking.x-k8s.io/v1alpha1, approx-prefix-cache-producer",
        ),
        (
            "{type: core-metrics-extractor, parameters: {queueRequestsSpec: a}}",
            "engineConfigs has it, as queuedRequestsSpec",
        ),
    ] {
        refused(&llm_d(&format!("plugins: [{entry}]\n")), &[words]);
    }
    for name in prefix_cache::CUTTING {
        assert!(place_of(name).is_some(), "{name}");
    }
}
