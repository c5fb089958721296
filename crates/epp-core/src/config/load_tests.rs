use super::*;
use crate::plugins::Dialect;
use crate::scheduling::ProfileId;

const GIE_V1: &str = include_str!("../../../../examples/gie.yaml");

/// Returns a document in the dialect GIE v1 with these plugins and profiles.
fn gie_v1(rest: &str) -> String {
    format!(
        "apiVersion: inference.networking.x-k8s.io/v1alpha1\nkind: EndpointPickerConfig\n{rest}"
    )
}

/// Returns the same in llm-d's.
pub fn llm_d(rest: &str) -> String {
    format!("apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n{rest}")
}

fn plan(text: &str) -> Plan {
    load(text)
        .unwrap_or_else(|rejected| panic!("{text}\n{rejected:#?}"))
        .plan
}

/// Returns the errors of a text, one per line.
pub fn errors(text: &str) -> Vec<String> {
    match load(text) {
        Ok(_) => Vec::new(),
        Err(rejected) => rejected.errors.iter().map(ToString::to_string).collect(),
    }
}

/// Fails unless the text is refused with an error that has all these parts.
pub fn refused(text: &str, parts: &[&str]) {
    let errors = errors(text);
    let found = errors
        .iter()
        .any(|error| parts.iter().all(|part| error.contains(part)));
    assert!(found, "{text}\nexpected {parts:?}, found {errors:#?}");
}

fn scorers(plan: &Plan) -> Vec<(String, f64)> {
    let profile = plan.scheduler.profiles().get(ProfileId(0)).unwrap();
    let scorers = profile.scorers.iter();
    scorers
        .map(|weighted| (weighted.name.clone(), weighted.weight))
        .collect()
}

fn picker(plan: &Plan) -> &str {
    plan.profiles[0].picker.as_ref().unwrap().kind
}

#[test]
fn the_gie_example_and_its_short_form_are_one_plan() {
    let defaulted = gie_v1(
        "plugins:
- {name: prefix-cache-scorer, type: prefix-cache-scorer, parameters: {hashBlockSize: 5, maxPrefixBlocksToMatch: 256, lruCapacityPerServer: 31250}}
- {name: max-score-picker, type: max-score-picker, parameters: {maxNumOfEndpoints: 1}}
- {name: single-profile-handler, type: single-profile-handler}
schedulingProfiles:
- name: default
  plugins:
  - {pluginRef: max-score-picker}
  - {pluginRef: prefix-cache-scorer, weight: 50}
",
    );
    assert_eq!(plan(GIE_V1), plan(&defaulted));
    // What is not said is defaulted to what the long form says.
    let short = gie_v1(
        "plugins:
- {type: prefix-cache-scorer, parameters: {hashBlockSize: 5}}
schedulingProfiles:
- {name: default, plugins: [{pluginRef: prefix-cache-scorer, weight: 50}]}
",
    );
    assert_eq!(plan(GIE_V1), plan(&short));
    let other = GIE_V1.replace("hashBlockSize: 5", "hashBlockSize: 6");
    assert_ne!(plan(GIE_V1), plan(&other));
}

#[test]
fn json_and_istios_doubles_load_to_the_same_plan() {
    let json = include_str!("../../../../examples/istio-struct.json");
    assert_eq!(plan(GIE_V1), plan(json));
    assert_eq!(plan(GIE_V1), plan(&json.replace("  ", "\t")));
}

#[test]
fn without_profiles_one_refers_to_all_plugins() {
    let plan = plan(&gie_v1(
        "plugins:\n- type: queue-scorer\n- type: kv-cache-utilization-scorer\n",
    ));
    assert_eq!(
        plan.scheduler.profiles().get(ProfileId(0)).unwrap().name,
        "default"
    );
    let expected = [
        ("queue-scorer".to_owned(), 1.0),
        ("kv-cache-utilization-scorer".to_owned(), 1.0),
    ];
    assert_eq!(scorers(&plan), expected);
    assert_eq!(picker(&plan), "max-score-picker");
}

#[test]
fn a_profile_without_a_picker_gets_the_first_that_is_declared() {
    let text = gie_v1(
        "plugins:
- type: random-picker
- type: max-score-picker
- type: queue-scorer
schedulingProfiles:
- {name: p, plugins: [{pluginRef: queue-scorer}]}
",
    );
    assert_eq!(picker(&plan(&text)), "random-picker");
}

#[test]
fn a_scorer_behind_the_picker_weighs_one() {
    let text = gie_v1(
        "plugins: [{type: random-picker}, {type: queue-scorer}]
schedulingProfiles: [{name: p, plugins: [{pluginRef: random-picker}, {pluginRef: queue-scorer}]}]
",
    );
    assert_eq!(scorers(&plan(&text)), [("queue-scorer".to_owned(), 1.0)]);
}

#[test]
fn one_type_under_several_names_and_one_plugin_twice() {
    let text = gie_v1(
        "plugins:
- {name: small, type: prefix-cache-scorer, parameters: {hashBlockSize: 16}}
- {name: large, type: prefix-cache-scorer, parameters: {hashBlockSize: 256}}
schedulingProfiles:
- {name: p, plugins: [{pluginRef: small, weight: 2}, {pluginRef: large}, {pluginRef: small}]}
",
    );
    let plan = plan(&text);
    assert_eq!(plan.producers.len(), 2);
    assert_eq!(scorers(&plan).len(), 3);
}

#[test]
fn nothing_declared_still_picks() {
    for text in [
        gie_v1("plugins: []\n"),
        gie_v1(""),
        gie_v1("schedulingProfiles: [{name: p}]\n"),
    ] {
        let plan = plan(&text);
        assert_eq!(
            (picker(&plan), scorers(&plan)),
            ("max-score-picker", vec![])
        );
    }
}

#[test]
fn an_empty_text_is_the_built_in_configuration() {
    let plan = plan("");
    assert_eq!(plan.dialect, Dialect::LlmD);
    let weights: Vec<f64> = scorers(&plan).iter().map(|(_, weight)| *weight).collect();
    assert_eq!(weights, [2.0, 2.0, 3.0]);
}

#[test]
fn each_dialect_cuts_prompts_in_its_own_way() {
    let seeds = plan(GIE_V1);
    assert_eq!(seeds.producers[0].1.dialect, Dialect::GieV1);
    let todays = plan(&llm_d("plugins: [{type: prefix-cache-scorer}]\n"));
    let (name, producer) = &todays.producers[0];
    assert_eq!(
        (name.as_str(), producer.dialect),
        ("approx-prefix-cache-producer", Dialect::LlmD)
    );
    // llm-d-router still accepts GIE v1's apiVersion.
    let former = plan(&gie_v1(
        "plugins: [{type: prefix-cache-scorer}, {type: approx-prefix-cache-producer, parameters: {blockSizeTokens: 128, autoTune: false}}]\n",
    ));
    assert_eq!(
        (former.dialect, former.producers[0].1.block),
        (Dialect::LlmD, 128)
    );
    assert_eq!(former.producers.len(), 1);
}

#[test]
fn the_references_error_rows_are_errors() {
    let plugins =
        "plugins: [{type: queue-scorer}, {type: max-score-picker}, {type: random-picker}]\n";
    let profile = |inside: &str| format!("{plugins}schedulingProfiles: [{inside}]\n");
    for (text, parts) in [
        ("plugins: [testing 1 2 3]\n".to_owned(), vec!["plugins[0]", "mapping"]),
        ("plugins: [{name: x}]\n".to_owned(), vec!["plugins[0].type", "nothing"]),
        ("plugins: [{type: plover-scorer-x}]\n".to_owned(), vec!["plugins[0].type", "expected a plugin type"]),
        ("plugins: [{type: queue-socrer}]\n".to_owned(), vec!["did you mean queue-scorer?"]),
        ("plugins: [{type: queue-scorer}, {type: queue-scorer}]\n".to_owned(), vec!["plugins[1]", "second plugin named"]),
        ("plugins: [{type: prefix-cache-scorer, parameters: {hashBlockSize: asdf}}]\n".to_owned(), vec!["plugins[0].parameters.hashBlockSize", "asdf", "whole number"]),
        ("plugins: [{type: prefix-cache-scorer, parameters: {hashBlockSise: 5}}]\n".to_owned(), vec!["parameters.hashBlockSise", "did you mean hashBlockSize?"]),
        ("plugins: [{type: queue-scorer, parameters: {x: 5}}]\n".to_owned(), vec!["parameters.x", "unknown field"]),
        (profile("{plugins: []}"), vec!["schedulingProfiles[0].name"]),
        (profile("{name: p, plugins: [{weight: 10}]}"), vec!["schedulingProfiles[0].plugins[0].pluginRef"]),
        (profile("{name: p, plugins: [{pluginRef: plover}]}"), vec!["plugins[0].pluginRef", "plover", "there are: queue-scorer"]),
        (profile("{name: p, plugins: [{pluginRef: queue-scorr}]}"), vec!["did you mean queue-scorer?"]),
        (profile("{name: p}, {name: p}"), vec!["schedulingProfiles[1].name", "second profile"]),
        (profile("{name: p, plugins: [{pluginRef: max-score-picker}, {pluginRef: random-picker}]}"), vec!["plugins[1].pluginRef", "second picker"]),
        (profile("{name: p, plugins: [{pluginRef: max-score-picker}, {pluginRef: max-score-picker}]}"), vec!["second picker"]),
        (profile("{name: p}, {name: q}"), vec!["no profile handler"]),
        ("plugins: [{type: single-profile-handler}, {name: b, type: single-profile-handler}]\n".to_owned(), vec!["plugins[1]", "second profile handler"]),
        ("plugins: [{type: single-profile-handler}]\nschedulingProfiles: [{name: p}, {name: q}]\n".to_owned(), vec!["single-profile-handler supports exactly one"]),
        ("plugins: [{type: max-score-picker}, {type: random-picker}]\n".to_owned(), vec!["second picker"]),
        ("metadata: {name: x}\n".to_owned(), vec!["metadata", "unknown field"]),
        ("plugins: []\nplugins: []\n".to_owned(), vec!["plugins", "twice"]),
        (profile("{name: p, name: q}"), vec!["schedulingProfiles[0].name", "twice"]),
        ("featureGates: [unknown-gate]\n".to_owned(), vec!["featureGates[0]", "a feature gate"]),
        ("featureGates: [flowControl=qwerty]\n".to_owned(), vec!["featureGates[0]", "true or false"]),
        ("dataLayer: {discovery: {pluginRef: nowhere}}\n".to_owned(), vec!["dataLayer.discovery.pluginRef", "nowhere"]),
        (format!("{plugins}dataLayer: {{discovery: {{pluginRef: queue-scorer}}}}\n"), vec!["expected a discovery plugin"]),
        (format!("{plugins}dataLayer: {{sources: [{{pluginRef: queue-scorer}}]}}\n"), vec!["dataLayer.sources[0].pluginRef", "metrics source"]),
        (format!("{plugins}requestHandler: {{parsers: [{{pluginRef: queue-scorer}}]}}\n"), vec!["expected a parser"]),
    ] {
        let parts: Vec<&str> = parts;
        refused(&gie_v1(&text), &parts);
        refused(&llm_d(&text.replace("hashBlockSi", "matchLengthWeightX")), &parts[..1]
            .iter()
            .copied()
            .filter(|part| !part.contains("hashBlockSi"))
            .collect::<Vec<_>>());
    }
}

#[test]
fn kind_and_version_are_needed_and_known() {
    refused("kind: EndpointPickerConfig\n", &["apiVersion", "nothing"]);
    refused(
        "apiVersion: llm-d.ai/v2\nkind: EndpointPickerConfig\n",
        &["apiVersion", "llm-d.ai/v2\"", "expected"],
    );
    refused(
        "apiVersion: llm-d.ai/v1alpha1\nkind: Pod\n",
        &["kind", "\"Pod\"", "EndpointPickerConfig"],
    );
    refused("- a\n- b\n", &["a list", "EndpointPickerConfig"]);
    refused("a: [\n", &["neither YAML nor JSON"]);
}

#[test]
fn types_that_only_the_endpoint_picker_has_are_named_as_such() {
    refused(
        &llm_d("plugins: [{type: least-queue-filter}]\n"),
        &["known to the Endpoint Picker: ", "v1.0", "queue-scorer"],
    );
    refused(
        &llm_d("plugins: [{type: file-discovery, parameters: {path: /a, watchFile: true}}]\n"),
        &[
            "parameters.endpoints",
            "a filter reads no files",
            "eppctl convert",
        ],
    );
}

#[test]
fn every_problem_is_reported_with_its_location() {
    let text = gie_v1(
        "plugins:\n- type: queue-scorer\n  parametres: {}\n- type: nonesuch-at-all\nmetadata: {}\n",
    );
    let errors = errors(&text);
    assert_eq!(errors.len(), 3, "{errors:#?}");
    for (error, place) in
        errors
            .iter()
            .zip(["(line 5, column", "(line 6, column", "(line 7, column"])
    {
        assert!(
            errors.iter().any(|error| error.contains(place)),
            "{error} {place}"
        );
    }
    let json = "{\n  \"kind\": \"EndpointPickerConfig\",\n  \"apiVersion\": \"llm-d.ai/v1alpha1\",\n  \"plugin\": []\n}";
    refused(json, &["plugin (line 4, column", "did you mean plugins?"]);
}

#[test]
fn settings_without_effect_are_warnings() {
    let text = llm_d(
        "plugins: [{type: queue-scorer}]
featureGates: [flowControl=false]
flowControl: {maxRequests: 10}
saturationDetector: {pluginRef: utilization-detector}
parser: {pluginRef: openai-parser}
requestHandler: {parsers: [{pluginRef: openai-parser}]}
dataLayer: {injectDefaults: false, sources: [{pluginRef: metrics-data-source, extractors: [{pluginRef: core-metrics-extractor}]}]}
",
    );
    let loaded = load(&text).unwrap();
    let warned: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    for part in [
        "flowControl (line",
        "saturationDetector (line",
        "parser (line",
    ] {
        assert!(
            warned.iter().any(|warning| warning.contains(part)),
            "{part} in {warned:#?}"
        );
    }
}

#[test]
fn a_billion_laughs_are_not_laughed() {
    let mut text = "a: &a [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (this, last) in ('b'..='i').zip('a'..='h') {
        text.push_str(&format!(
            "{this}: &{this} [{}]\n",
            vec![format!("*{last}"); 9].join(", ")
        ));
    }
    assert!(!errors(&text).is_empty());
}

#[test]
fn mutilated_documents_are_refused_or_load_and_never_panic() {
    for end in 0..GIE_V1.len() {
        let _ = load(&GIE_V1[..end]);
    }
    let mut rng = fastrand::Rng::with_seed(1);
    for _ in 0..2_000 {
        let mut bytes = GIE_V1.as_bytes().to_vec();
        for _ in 0..rng.usize(1..5) {
            let place = rng.usize(0..bytes.len());
            bytes[place] = rng.u8(..);
        }
        let _ = load_bytes(&bytes);
    }
}

#[test]
fn only_the_first_of_many_problems_are_looked_for_in_the_text() {
    let wrong = "- {type: queue-scorer, weigth: 1}\n".repeat(1_000);
    let rejected = load(&llm_d(&format!("plugins:\n{wrong}"))).unwrap_err();
    let located = |problem: &Problem| problem.location.is_some();
    let errors = rejected.errors.len();
    assert!(errors >= 1_000);
    let places = rejected
        .errors
        .iter()
        .take_while(|problem| located(problem));
    assert_eq!(places.count(), 20);
    assert_eq!(
        rejected
            .errors
            .iter()
            .filter(|problem| located(problem))
            .count(),
        20
    );
}

#[test]
fn a_second_plugin_of_a_single_kind_is_an_error() {
    let named =
        |kind: &str| format!("- {{name: first, type: {kind}}}\n- {{name: other, type: {kind}}}\n");
    for kind in [
        "envoy-proxy",
        "metrics-data-source",
        "core-metrics-extractor",
        "inflight-load-producer",
        "envoy-cluster-discovery",
        "single-profile-handler",
    ] {
        let plugins = named(kind);
        let parts = [
            "plugins[1] (line 5, column",
            "second",
            "\"other\"",
            "plugins[0] came first",
        ];
        refused(&llm_d(&format!("plugins:\n{plugins}")), &parts);
    }
    let rewrite = "model-rewrite, parameters: {rules: [{targets: [{model: m}]}]}";
    refused(
        &llm_d(&format!("plugins:\n{}", named(rewrite))),
        &["plugins[1]", "second model-rewrite"],
    );
    // Two kinds of discovery are two, as well.
    let listed = "plugins: [{type: envoy-cluster-discovery}, {type: static-discovery, parameters: {endpoints: []}}]\n";
    refused(&llm_d(listed), &["plugins[1]", "second discovery plugin"]);
}

#[test]
fn a_reference_chooses_among_several() {
    let plugins = "plugins:
- {name: a, type: metrics-data-source, parameters: {path: /a}}
- {name: b, type: metrics-data-source, parameters: {path: /b}}
- {name: c, type: envoy-cluster-discovery}
- {name: d, type: static-discovery, parameters: {endpoints: []}}
";
    let text = |layer: &str| llm_d(&format!("{plugins}dataLayer: {layer}\n"));
    let chosen = plan(&text(
        "{sources: [{pluginRef: b}], discovery: {pluginRef: d}}",
    ));
    assert_eq!(chosen.source.path, "/b");
    assert!(matches!(
        chosen.discovery,
        crate::plugins::Discovery::Static(_)
    ));
    let both = text("{sources: [{pluginRef: b}, {pluginRef: a}], discovery: {pluginRef: d}}");
    refused(&both, &["plugins[1]", "second metrics source"]);
    refused(
        &text("{sources: [{pluginRef: a}]}"),
        &["plugins[3]", "second discovery plugin"],
    );
}

#[test]
fn producers_are_told_of_endpoints() {
    let sources = |extractor: &str| {
        llm_d(&format!(
            "plugins: [{{type: {extractor}}}, {{type: endpoint-notification-source}}]
dataLayer: {{sources: [{{pluginRef: endpoint-notification-source, extractors: [{{pluginRef: {extractor}}}]}}]}}
"
        ))
    };
    for extractor in [
        "mm-embeddings-cache-producer",
        "inflight-load-producer",
        "approx-prefix-cache-producer",
    ] {
        if let Err(rejected) = load(&sources(extractor)) {
            panic!("{extractor}: {:?}", rejected.errors);
        }
    }
    assert!(load(&sources("queue-scorer")).is_err());
}

#[test]
fn plugins_that_remember_prompts_are_bounded() {
    let producers = |count: usize| {
        let one = |n| format!("- {{name: p{n}, type: approx-prefix-cache-producer}}\n");
        llm_d(&format!(
            "plugins:\n{}",
            (0..count).map(one).collect::<String>()
        ))
    };
    assert!(load(&producers(64)).is_ok());
    refused(
        &producers(65),
        &[
            "plugins[64].parameters (line",
            "found 65, expected at most 64",
        ],
    );
}
