//! `eppctl check` as a user calls it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::process::Output;

use common::{eppctl, out};

fn check(files: &[&str], input: &str) -> Output {
    let arguments: Vec<&str> = [&["check"], files].concat();
    eppctl(&arguments, input)
}

#[test]
fn every_example_loads() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let output = check(&[path.to_str().unwrap()], "");
        assert!(output.status.success(), "{}", out(&output));
        assert!(out(&output).contains("loads: "), "{}", out(&output));
        seen += 1;
    }
    assert!(seen >= 5, "only {seen} examples");
}

#[test]
fn the_demos_envoy_has_the_gie_example_and_one_plugin_of_epp_wasm() {
    let top = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let envoy = std::fs::read_to_string(format!("{top}/envoy/envoy.yaml")).unwrap();
    let gie = std::fs::read_to_string(format!("{top}/examples/gie.yaml")).unwrap();
    let indented: String = gie
        .lines()
        .map(|line| format!("{}{line}\n", " ".repeat(20)))
        .collect();
    let own = "                    # The flag above delivers bodies, so clients that withhold theirs must not turn
                    # body reading off.
                    - type: envoy-proxy
                      parameters: {readBody: always}
";
    let without = envoy.replace(own, "");
    assert_ne!(without, envoy);
    assert!(without.contains(&indented));
}

#[test]
fn problems_are_reported_with_their_line_and_exit_code_1() {
    let output = check(&["-"], "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n- type: queue-socrer\n");
    assert_eq!(output.status.code(), Some(1));
    let text = out(&output);
    assert!(
        text.contains("error: -: plugins[0].type: found \"queue-socrer\""),
        "{text}"
    );
    assert!(text.contains("did you mean queue-scorer?"), "{text}");
    assert!(text.contains("4 | - type: queue-socrer"), "{text}");
    assert!(!text.contains('\u{1b}'), "colours on no terminal: {text}");
}

#[test]
fn the_parity_of_each_plugin_and_parameter_is_listed() {
    let text = out(&check(&["examples/llm-d.yaml", "-o", "json"], ""));
    let all: serde_json::Value = serde_json::from_str(&text).unwrap();
    let plugins = all.pointer("/0/plugins").unwrap().as_array().unwrap();
    let standing = |kind: &str| {
        let mut plugins = plugins.iter();
        let plugin = plugins.find(|plugin| plugin.get("type").unwrap() == kind);
        plugin.unwrap().get("standing").unwrap().as_str().unwrap()
    };
    assert_eq!(
        standing("max-score-picker"),
        "works as in the Endpoint Picker"
    );
    assert!(standing("queue-scorer").starts_with("differs on purpose: "));
    assert!(standing("static-discovery").starts_with("ours: "));
}

#[test]
fn a_document_that_does_not_load_has_a_parity_table_too() {
    let slip = "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
featureGates: [dataLayer]
plugins:
- type: queue-scorer
- {type: vllmgrpc-parser, name: p, parameters: {a: 1}}
- {type: max-score-picker, parameters: {maxNumOfEndpoints: many}}
- {type: queue-scorrer}
";
    let output = check(&["-", "-o", "json"], slip);
    assert_eq!(output.status.code(), Some(1));
    let all: serde_json::Value = serde_json::from_str(&out(&output)).unwrap();
    let standing = |path: &str| {
        let found = all.pointer(&format!("/0/{path}/standing"));
        found
            .unwrap_or_else(|| panic!("{path}: {all:#}"))
            .as_str()
            .unwrap()
            .to_owned()
    };
    for (path, expected) in [
        ("plugins/0", "differs on purpose: "),
        ("plugins/1", "refused: gRPC bodies"),
        ("plugins/1/parameters/0", "not checked"),
        ("plugins/2", "works as in the Endpoint Picker"),
        ("plugins/2/parameters/0", "refused: found \"many\""),
        ("plugins/3", "refused: found \"queue-scorrer\""),
        ("fields/0", "has no effect here: metrics are always read"),
    ] {
        let found = standing(path);
        assert!(found.starts_with(expected), "{path}: {found}");
    }
    let text = out(&check(&["-"], slip));
    assert!(text.contains("  p  refused: gRPC bodies"), "{text}");
}

#[test]
fn the_gie_example_is_accepted_by_gie_and_refused_by_llm_d() {
    let gie = check(&["--dialect", "gie", "examples/gie.yaml"], "");
    assert_eq!(gie.status.code(), Some(0), "{}", out(&gie));
    let llm_d = check(&["--dialect", "llm-d", "examples/gie.yaml"], "");
    assert_eq!(llm_d.status.code(), Some(1));
    let report = out(&llm_d);
    assert!(
        report.contains("parameters.hashBlockSize: unknown parameter"),
        "{report}"
    );
    let slip = "apiVersion: inference.networking.x-k8s.io/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n- {type: queue-scorer, parameters: {depth: 3}}\n";
    let report = out(&check(&["--dialect", "gie", "-"], slip));
    assert!(
        report.contains("parameters.depth: silently ignored"),
        "{report}"
    );
    assert!(report.contains("would accept it"), "{report}");
}

#[test]
fn defaults_written_out_load_to_the_same_plan() {
    for (place, text) in common::documents() {
        let output = check(&["--print-defaults", "-"], &text);
        assert!(output.status.success(), "{place}: {}", out(&output));
        let plan = |text: &str| match epp_core::config::load(text) {
            Ok(loaded) => loaded.plan,
            Err(rejected) => panic!("{place}: {rejected:#?}\n{text}"),
        };
        let written = out(&output);
        assert_eq!(plan(&written), plan(&text), "{place}\n{written}");
    }
}

#[test]
fn a_missing_file_exits_with_2_and_the_others_are_still_checked() {
    let output = check(&["nowhere.yaml", "examples/gie.yaml"], "");
    assert_eq!(output.status.code(), Some(2));
    assert!(out(&output).contains("examples/gie.yaml: loads"));
    assert!(String::from_utf8_lossy(&output.stderr).contains("nowhere.yaml"));
}

/// Triton has a counter of what it ever ran, and no gauge of what it runs.
#[test]
fn a_counter_in_place_of_a_gauge_causes_a_warning() {
    let document = |parameters: &str| {
        format!(
            "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n\
             - {{type: running-requests-size-scorer}}\n- {{type: metrics-data-source}}\n\
             - {{type: core-metrics-extractor, parameters: {parameters}}}\n"
        )
    };
    for (parameters, place) in [
        ("{defaultEngine: triton}", "defaultEngine"),
        (
            "{engineConfigs: [{name: mine, runningRequestsSpec: nv_inference_exec_count}]}",
            "runningRequestsSpec",
        ),
        (
            "{engineConfigs: [{name: mine, queuedRequestsSpec: 'requests_total{a=b}'}]}",
            "queuedRequestsSpec",
        ),
    ] {
        let output = check(&["-o", "json", "-"], &document(parameters));
        assert!(output.status.success(), "{}", out(&output));
        let report: serde_json::Value = serde_json::from_str(&out(&output)).unwrap();
        let warnings = report[0]["warnings"].to_string();
        assert!(
            warnings.contains(place) && warnings.contains("counts all"),
            "{warnings}"
        );
    }
    for parameters in [
        "{defaultEngine: vllm}",
        "{defaultEngine: triton, engineConfigs: [{name: triton, runningRequestsSpec: mine}]}",
    ] {
        let output = check(&["-o", "json", "-"], &document(parameters));
        let report: serde_json::Value = serde_json::from_str(&out(&output)).unwrap();
        assert_eq!(report[0]["warnings"], serde_json::json!([]), "{parameters}");
    }
}

/// A problem of a document inside of a file is shown with the file's line and the place inside.
#[test]
fn a_document_inside_another_resource_is_checked_there() {
    let file = "kind: ConfigMap
data:
  note: nothing
  epp.yaml: |
    apiVersion: llm-d.ai/v1alpha1
    kind: EndpointPickerConfig
    plugins:
    - type: queue-socrer
---
args:
- '--config-text={apiVersion: llm-d.ai/v1alpha1, kind: EndpointPickerConfig}'
";
    let output = check(&["-"], file);
    assert_eq!(output.status.code(), Some(1));
    let text = out(&output);
    for part in [
        "error: -: document 1: data.epp.yaml: plugins[0].type: found \"queue-socrer\"",
        "--> -:8:7",
        "8 |     - type: queue-socrer",
        "-: document 1: data.epp.yaml: does not load",
        "-: document 2: args[0]: loads: ",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let all: serde_json::Value =
        serde_json::from_str(&out(&check(&["-o", "json", "-"], file))).unwrap();
    assert_eq!(all[0]["place"], "document 1: data.epp.yaml");
    assert_eq!(all[0]["errors"][0]["path"], "plugins[0].type");
    assert_eq!(all[0]["errors"][0]["line"], 8);
    assert_eq!(all[1]["loads"], true);
}

#[test]
fn a_file_without_a_document_has_one_error() {
    let output = check(&["-o", "json", "-"], "kind: Service\nspec: {ports: []}\n");
    assert_eq!(output.status.code(), Some(1));
    let all: serde_json::Value = serde_json::from_str(&out(&output)).unwrap();
    let errors = all[0]["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 1, "{errors:?}");
    let message = errors[0]["message"].as_str().unwrap();
    assert!(message.contains("no EndpointPickerConfig") && message.contains("Helm values"));
}

#[test]
fn plugins_without_effect_are_in_the_table_and_in_the_section_below_it() {
    let text = "apiVersion: inference.networking.x-k8s.io/v1alpha1
kind: EndpointPickerConfig
plugins:
- {type: models-data-source, parameters: {scheme: https}}
- type: queue-scorer
schedulingProfiles: [{name: p, plugins: [{pluginRef: queue-scorer}]}]
";
    let report = out(&check(&["-"], text));
    for part in [
        "  models-data-source  no effect here: ",
        "    scheme: https",
    ] {
        assert!(report.contains(part), "{part}: {report}");
    }
    // What is written out has them, too, and loads the same.
    let written = out(&check(&["--print-defaults", "-"], text));
    assert!(written.contains("scheme: https"), "{written}");
    assert!(check(&["-"], &written).status.success());
    // Of one that does not load as well.
    let report = out(&check(
        &["-"],
        &text.replace("queue-scorer", "queue-socrer"),
    ));
    assert!(
        report.contains("  models-data-source  no effect here: "),
        "{report}"
    );
}

#[test]
fn errors_are_in_the_order_of_the_file() {
    let text = "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {type: queue-scorer, parameters: {a: 1}}
- type: vllmgrpc-parser
- {type: max-score-picker, parameters: {b: 1}}
";
    let all: serde_json::Value =
        serde_json::from_str(&out(&check(&["-o", "json", "-"], text))).unwrap();
    let errors = all[0]["errors"].as_array().unwrap();
    let lines: Vec<u64> = errors
        .iter()
        .map(|it| it["line"].as_u64().unwrap())
        .collect();
    assert_eq!(lines, [4, 5, 6]);
}

#[test]
fn each_dialect_refuses_names_of_other_releases() {
    let text = "apiVersion: inference.networking.x-k8s.io/v1alpha1
kind: EndpointPickerConfig
plugins:
- {type: prefix-cache-scorer, parameters: {blockSize: 64}}
- {type: model-server-protocol-metrics}
featureGates: [dataLayer]
data: {sources: []}
";
    let report = out(&check(&["--dialect", "gie", "-"], text));
    assert!(
        report.contains("parameters.blockSize: silently ignored"),
        "{report}"
    );
    let report = out(&check(&["--dialect", "llm-d", "-"], text));
    for part in [
        "parameters.blockSize: unknown parameter",
        "plugins[1].type: unknown plugin type model-server-protocol-metrics",
        "featureGates[0]: unknown feature gate",
        "data: unknown field",
    ] {
        assert!(report.contains(part), "{part}: {report}");
    }
}

/// A plugin that is approximated here, and a gate without effect on a decision.
const APPROXIMATED: &str = "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
featureGates: [dataLayer]
plugins: [{type: dcgm-data-source}, {type: queue-scorer}]
";

#[test]
fn strict_refuses_what_is_approximated_and_no_more() {
    let text = out(&check(&["-"], APPROXIMATED));
    assert!(text.contains("1 approximated, see the warnings"), "{text}");
    assert!(check(&["-"], APPROXIMATED).status.success());
    assert_eq!(
        check(&["--strict", "-"], APPROXIMATED).status.code(),
        Some(1)
    );
    let exact = APPROXIMATED.replace("{type: dcgm-data-source}, ", "");
    assert!(check(&["--strict", "-"], &exact).status.success());

    // A document that asks for it does not load.
    let strict = |text: &str| {
        let own = "{type: envoy-proxy, parameters: {strict: true}}]";
        check(&["-"], &text.replace("}]", &format!("}}, {own}")))
    };
    let refused = out(&strict(APPROXIMATED));
    let error = "error: -: plugins[0].type: dcgm-data-source is approximated here: ";
    assert!(
        refused.contains(error) && refused.contains("which `strict` refuses"),
        "{refused}"
    );
    assert!(strict(&exact).status.success());
}
