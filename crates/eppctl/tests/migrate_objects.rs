//! `eppctl migrate`: objectives, rewrites and other objects, and documents that are not in force.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::migrate::{line, migrate, parameters};
use common::{eppctl, out};

/// A document with flow control, in a ConfigMap.
const CONFIG_MAP: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: epp}
data:
  epp.yaml: |
    apiVersion: llm-d.ai/v1alpha1
    kind: EndpointPickerConfig
    featureGates: [flowControl]
    plugins:
    - {type: queue-scorer}
";

const OBJECTS: &str = "
---
kind: InferenceObjective
metadata: {name: batch}
spec: {priority: -1, poolRef: {name: chat}}
---
kind: List
items:
- kind: InferenceObjective
  metadata: {name: chat}
  spec: {poolRef: {name: chat}}
- kind: InferenceObjective
  metadata: {name: broken}
  spec: {priority: high}
---
kind: InferenceModelRewrite
metadata: {name: r}
spec: {rules: []}
---
kind: Service
metadata: {name: chat-epp}
spec: {ports: [{port: 9002}]}
";

fn of(text: &str) -> (i32, serde_json::Value) {
    migrate(&["--cluster", "pool", "-"], text)
}

#[test]
fn objectives_are_carried_over_and_other_objects_are_named() {
    let (status, result) = of(&format!("{CONFIG_MAP}{OBJECTS}"));
    assert_eq!(status, 1, "{result:#}");
    let objectives = parameters(&result, "static-objectives")["objectives"].to_string();
    assert_eq!(
        objectives,
        r#"[{"name":"batch","priority":-1},{"name":"chat","priority":0}]"#
    );
    for (setting, outcome, words) in [
        ("InferenceObjective batch", "moved", "static-objectives"),
        ("InferenceObjective broken", "to-do", "a whole number"),
        ("InferenceModelRewrite r", "to-do", "into model-rewrite"),
        ("Service chat-epp", "not-needed", "not read"),
    ] {
        let found = line(&result, setting);
        assert!(
            found.0 == outcome && found.1.contains(words),
            "{setting}: {found:?}"
        );
    }
    // It has the document.
    assert!(!result.to_string().contains("ConfigMap epp"), "{result:#}");
    let output = eppctl(&["migrate", "-"], OBJECTS);
    assert_eq!(output.status.code(), Some(2), "{}", out(&output));
}

#[test]
fn objectives_of_the_document_stay() {
    let own = "    - {type: static-objectives, parameters: {objectives: [{name: a}]}}\n";
    let (_, result) = of(&format!("{CONFIG_MAP}{own}{OBJECTS}"));
    let objectives = &parameters(&result, "static-objectives")["objectives"];
    assert_eq!(objectives.to_string(), r#"[{"name":"a"}]"#);
    let (outcome, what) = line(&result, "InferenceObjective batch");
    assert!(
        outcome == "to-do" && what.contains("has others there already"),
        "{what}"
    );
}

#[test]
fn how_long_requests_wait_is_said() {
    let words = "requests wait while the pool is full, at most 60 s";
    let (_, result) = of(CONFIG_MAP);
    assert_eq!(line(&result, "flow control"), ("moved", words));
    let checked = out(&eppctl(&["check", "-"], &result["document"].to_string()));
    assert!(checked.contains(&format!("; {words}\n")), "{checked}");
    let without = CONFIG_MAP.replace("    featureGates: [flowControl]\n", "");
    assert!(!of(&without).1.to_string().contains("requests wait"));
}

#[test]
fn a_document_that_is_not_in_force_is_not_the_one_below() {
    let values = "
router:
  epp:
    pluginsCustomConfig:
      a.yaml: |
        apiVersion: llm-d.ai/v1alpha1
        kind: EndpointPickerConfig
        plugins: [{type: queue-scorer}]
";
    let (status, result) = of(values);
    let name = "router.epp.pluginsCustomConfig.a.yaml";
    let (outcome, what) = line(&result, name);
    assert!(
        outcome == "not-needed" && what.contains("no pluginsConfigFile names it"),
        "{what}"
    );
    assert_eq!(status, 1);
    assert!(!result.to_string().contains("the document below"));
    let named = format!("{values}    pluginsConfigFile: a.yaml\n");
    let (_, result) = of(&named);
    let section = line(&result, "router.epp.pluginsCustomConfig");
    assert_eq!(section, ("moved", "the document below"));
}

#[test]
fn values_of_a_proxy_mean_that_it_is_on() {
    let requests = |proxy: &str| {
        let (_, result) = of(&format!(
            "router:\n  epp: {{replicas: 1}}\n  proxy: {proxy}\n"
        ));
        parameters(&result, "envoy-proxy").get("requests").cloned()
    };
    assert_eq!(requests("{args: [--log-level, info]}"), Some("all".into()));
    assert_eq!(
        requests("{enabled: false, args: [--log-level, info]}"),
        None
    );
    assert_eq!(requests("{}"), None);
}
