//! `eppctl migrate`: what a chart's release, its own proxy and its unknown values make of a result, and its time.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fmt::Write;
use std::time::{Duration, Instant};

use common::migrate::{line, migrate, parameters};
use common::{eppctl, out};

const ROUTER: &str = "tests/migrate/router-values.yaml";
const GIE: &str = "tests/migrate/gie-values.yaml";

fn read(file: &str) -> String {
    std::fs::read_to_string(common::top().join(file)).unwrap()
}

/// Returns exit status and result of values.
fn of_values(values: &str) -> (i32, serde_json::Value) {
    migrate(&["--cluster", "pool", "-"], values)
}

#[test]
fn a_charts_own_failure_mode_is_carried_over() {
    let values = read(ROUTER).replace("failureMode: FailOpen", "create: true");
    let (status, result) = migrate(&["--cluster", "pool", "-"], &values);
    assert_eq!(status, 0, "{result:#}");
    assert_eq!(
        parameters(&result, "envoy-proxy")["failureMode"],
        "FailOpen"
    );
    let values = read(GIE).replace("failureMode", "replicaCount");
    let (_, result) = migrate(&["--cluster", "pool", "-"], &values);
    assert_eq!(line(&result, "failureMode").0, "to-do");
}

#[test]
fn a_document_that_no_value_names_is_not_in_force() {
    let values = std::fs::read_to_string(common::top().join(ROUTER)).unwrap();
    let values = values.replace("    pluginsConfigFile: assistant.yaml\n", "");
    let (status, result) = migrate(&["--cluster", "pool", "-"], &values);
    assert_eq!(status, 1, "{result:#}");
    assert_eq!(result["source"], "the chart's own default-plugins.yaml");
    let lines = result["settings"].as_array().unwrap();
    assert!(lines.iter().any(|line| line["what"]
        .as_str()
        .unwrap()
        .contains("no pluginsConfigFile")));
}

/// Values of the GIE chart of a release, with its default document.
fn gie_of(tag: &str, more: &str) -> String {
    format!("inferenceExtension:\n  image: {{tag: {tag}}}\n{more}inferencePool:\n  modelServers: {{matchLabels: {{app: a}}}}\n")
}

#[test]
fn the_tag_of_the_image_decides_which_defaults_hold() {
    for (tag, mode, weight) in [
        ("v1.0.1", "FailClose", None),
        ("v1.3.0", "FailClose", Some(3)),
        ("v1.4.0-rc.1", "FailOpen", Some(3)),
        ("1.5.0", "FailOpen", Some(3)),
    ] {
        let (status, result) = of_values(&gie_of(tag, ""));
        assert_eq!(status, 0, "{tag}: {result:#}");
        assert_eq!(parameters(&result, "envoy-proxy")["failureMode"], mode);
        let last = &result["document"]["schedulingProfiles"][0]["plugins"][2];
        assert_eq!(last["weight"].as_i64(), weight, "{tag}");
        let (outcome, what) = line(&result, "inferenceExtension.image.tag");
        assert!(
            outcome == "not-needed" && what.contains("this release"),
            "{what}"
        );
    }
    for (tag, words) in [
        ("v9.1.0", "newer than every release"),
        ("v0.5.1", "decision tree"),
    ] {
        let (status, result) = of_values(&gie_of(tag, ""));
        let (outcome, what) = line(&result, "inferenceExtension.image.tag");
        assert!(
            status == 1 && outcome == "to-do" && what.contains(words),
            "{what}"
        );
    }
}

#[test]
fn a_tag_that_is_not_the_charts_leaves_its_version_open() {
    for (image, words) in [
        (
            "{name: llm-d-inference-scheduler, hub: ghcr.io/llm-d, tag: v0.7.0}",
            "the image llm-d-inference-scheduler v0.7.0 does not say which version of the chart",
        ),
        (
            "{repository: llm-d/llm-d-router-endpoint-picker, tag: v0.10.0}",
            "the image llm-d-router-endpoint-picker v0.10.0 does not say",
        ),
        ("{tag: main}", "the image's tag main does not say"),
        ("{}", "no image.tag says"),
    ] {
        let values = gie_of("v0.7.0", "").replace("{tag: v0.7.0}", image);
        let (status, result) = of_values(&values);
        let (outcome, what) = line(&result, "failureMode");
        assert!(
            status == 1 && outcome == "to-do" && what.starts_with(words),
            "{image}: {what}"
        );
        // The newest defaults.
        let mode = &parameters(&result, "envoy-proxy")["failureMode"];
        assert_eq!(mode, "FailOpen", "{image}");
        let last = &result["document"]["schedulingProfiles"][0]["plugins"][2];
        assert_eq!(last["weight"], 3, "{image}");
        assert!(!result.to_string().contains("decision tree"), "{image}");
    }
    for image in [
        "{name: epp, tag: v1.3.0}",
        "{repository: a/epp, tag: v1.3.0}",
    ] {
        let values = gie_of("v0.7.0", "").replace("{tag: v0.7.0}", image);
        let (status, result) = of_values(&values);
        assert_eq!(status, 0, "{image}: {result:#}");
        let mode = &parameters(&result, "envoy-proxy")["failureMode"];
        assert_eq!(mode, "FailClose", "{image}");
    }
}

/// The document's own failure mode is in force.
#[test]
fn a_failure_mode_of_the_document_is_kept() {
    let document = "  pluginsConfigFile: a.yaml
  pluginsCustomConfig:
    a.yaml: |
      apiVersion: inference.networking.x-k8s.io/v1alpha1
      kind: EndpointPickerConfig
      plugins:
      - {type: queue-scorer}
      - {type: envoy-proxy, parameters: {failureMode: FailClose}}
";
    let (status, result) = of_values(&gie_of("v1.5.0", document));
    assert_eq!(status, 0, "{result:#}");
    let mode = &parameters(&result, "envoy-proxy")["failureMode"];
    assert_eq!(mode, "FailClose");
}

#[test]
fn requests_of_the_charts_own_proxy_are_all_decided() {
    let sidecar = "  sidecar: {enabled: true}\n";
    let (status, result) = of_values(&gie_of("v1.5.0", sidecar));
    assert_eq!(status, 0, "{result:#}");
    let proxy = parameters(&result, "envoy-proxy");
    assert_eq!(
        (&proxy["requests"], &proxy["failureMode"]),
        (&"all".into(), &"FailClose".into())
    );
    let (outcome, what) = line(&result, "inferenceExtension.sidecar.enabled");
    assert!(
        outcome == "moved" && what.contains("other routes"),
        "{what}"
    );

    let router =
        |proxy: &str| read(ROUTER).replace("router:\n", &format!("router:\n  proxy: {proxy}\n"));
    let (_, result) = of_values(&router("{enabled: true, mode: service}"));
    assert_eq!(parameters(&result, "envoy-proxy")["requests"], "all");
    let (status, result) = of_values(&router("{enabled: false}"));
    assert_eq!(status, 0, "{result:#}");
    assert!(parameters(&result, "envoy-proxy").get("requests").is_none());
    let (status, result) = of_values(&router("{enabled: true, failOpen: false}"));
    assert_eq!(
        (status, line(&result, "router.proxy.failOpen").0),
        (1, "to-do")
    );
}

/// Without plugins that need them, bodies are not read.
#[test]
fn bodies_are_read_where_plugins_need_them() {
    let values = read(ROUTER).replace(
        "assistant.yaml\n    plugins",
        "payload-agnostic.yaml\n    plugins",
    );
    let (_, result) = of_values(&values);
    assert_eq!(result["source"], "the chart's own payload-agnostic.yaml");
    assert!(parameters(&result, "envoy-proxy").get("readBody").is_none());
    let never = read(ROUTER).replace(
        "        - type: lora-affinity-scorer\n",
        "        - type: lora-affinity-scorer\n        - {type: envoy-proxy, parameters: {readBody: never}}\n",
    );
    let (_, result) = of_values(&never);
    assert_eq!(parameters(&result, "envoy-proxy")["readBody"], "never");
}

#[test]
fn values_that_are_not_known_are_named() {
    let values = read(ROUTER).replace(
        "    replicas: 2\n",
        "    replicas: 2\n    pluginConfigFile: a.yaml\n",
    );
    let (status, result) = of_values(&values);
    let (outcome, what) = line(&result, "router.epp.pluginConfigFile");
    assert!(
        status == 1 && outcome == "to-do" && what.contains("unknown"),
        "{what}"
    );
    let (status, result) = of_values(&(read(ROUTER) + "costCenter: {password: hidden}\n"));
    assert_eq!(status, 0, "{result:#}");
    let (outcome, what) = line(&result, "costCenter");
    assert!(
        outcome == "not-needed" && what.contains("left out"),
        "{what}"
    );
    assert!(!result.to_string().contains("hidden"), "{result:#}");
}

/// Ten thousand of each take a second; compared each with each, they took minutes.
#[test]
fn crafted_files_take_time_in_proportion() {
    const MANY: usize = 10_000;
    let mut flags = "args: [--pool-name=a".to_owned();
    let mut values = "router:\n  epp:\n".to_owned();
    let mut texts = "kind: ConfigMap\ndata:\n".to_owned();
    let mut documents = String::new();
    for number in 0..MANY {
        write!(flags, ", --f{number}=1").unwrap();
        writeln!(values, "    v{number}: 1").unwrap();
        writeln!(texts, "  t{number}: plugins").unwrap();
        writeln!(documents, "---\nkind: EndpointPickerConfig\na: {number}").unwrap();
    }
    flags.push(']');
    for (what, text) in [
        ("flags", flags),
        ("values", values),
        ("texts", texts),
        ("documents", documents),
    ] {
        let begun = Instant::now();
        let output = eppctl(&["migrate", "--cluster", "pool", "-"], &text);
        let taken = begun.elapsed();
        assert!(
            matches!(output.status.code(), Some(1 | 2)),
            "{what}: {}",
            out(&output)
        );
        assert!(taken < Duration::from_secs(60), "{what}: {taken:?}");
    }
}
