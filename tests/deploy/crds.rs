//! The manifests against the CRDs of Istio, of Envoy Gateway and of the Gateway API with its Inference Extension, which
//! `scripts/crds` puts into target/tools/crds.

use std::fs;
use std::path::Path;

use serde_json::{json, Value};
use serde_yaml::Value as Yaml;

use crate::envoy::top;
use crate::istio::documents;

/// The schema of a kind in a version, as strict as `kubectl --validate=strict`.
fn schema(api_version: &str, kind: &str) -> Value {
    let (group, version) = api_version.split_once('/').unwrap();
    let crd = crd(group, kind);
    let versions = crd["spec"]["versions"].as_sequence().unwrap();
    let found = versions.iter().find(|one| one["name"] == version).unwrap();
    let mut schema = serde_json::to_value(&found["schema"]["openAPIV3Schema"]).unwrap();
    // Kubernetes' own, which CRDs leave out.
    schema["properties"]["apiVersion"] = json!({"type": "string"});
    schema["properties"]["kind"] = json!({"type": "string"});
    schema["properties"]["metadata"] = json!({"type": "object", "required": ["name"]});
    close(&mut schema);
    schema
}

/// The CRD of a kind. Only documents that may be the one are parsed: together they have five megabytes.
fn crd(group: &str, kind: &str) -> Yaml {
    let files = fs::read_dir(top().join("target/tools/crds"));
    let files = files.expect("the CRDs are not there; call `make crds`");
    let names = [
        format!("\n    kind: {kind}\n"),
        format!("\n  group: {group}\n"),
    ];
    for file in files {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        for document in text.split("\n---\n") {
            if !names.iter().all(|name| document.contains(name)) {
                continue;
            }
            let crd: Yaml = serde_yaml::from_str(document).unwrap();
            if crd["spec"]["group"] == group && crd["spec"]["names"]["kind"] == kind {
                return crd;
            }
        }
    }
    panic!("no CRD for {group} {kind}; call `make crds`")
}

/// Refuses fields that are not known, but where the CRD keeps them.
fn close(schema: &mut Value) {
    if schema["x-kubernetes-preserve-unknown-fields"] != true
        && schema["properties"]
            .as_object()
            .is_some_and(|known| !known.is_empty())
        && schema["properties"] != json!({})
        && schema.get("additionalProperties").is_none()
    {
        schema["additionalProperties"] = false.into();
    }
    if schema["x-kubernetes-int-or-string"] == true {
        schema["type"] = json!(["integer", "string"]);
    }
    for key in ["properties", "items", "additionalProperties"] {
        match schema.get_mut(key) {
            Some(Value::Object(children)) if key == "properties" => {
                children.values_mut().for_each(close);
            }
            Some(child) if child.is_object() => close(child),
            _ => {}
        }
    }
}

/// What the CRD of its kind does not allow in a document.
fn problems(document: &Yaml) -> Vec<String> {
    let text = |key: &str| document[key].as_str().unwrap().to_owned();
    let schema = schema(&text("apiVersion"), &text("kind"));
    let validator = jsonschema::validator_for(&schema).unwrap();
    let instance = serde_json::to_value(document).unwrap();
    let errors = validator.iter_errors(&instance);
    errors
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect()
}

/// Validates the manifests of a folder, and returns the number of documents.
fn validated(folder: &Path) -> usize {
    let mut seen = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let file = entry.unwrap().path();
        if file.ends_with("kustomization.yaml") || file.extension().is_none_or(|end| end != "yaml")
        {
            continue;
        }
        for document in documents(&file) {
            if document["kind"] == "ConfigMap" {
                // Kubernetes' own; `istio::deployment` reads what is in them.
                continue;
            }
            let problems = problems(&document);
            assert!(problems.is_empty(), "{}: {problems:?}", file.display());
            seen += 1;
        }
    }
    seen
}

#[test]
fn istios_manifests_are_valid_against_the_crds() {
    let seen = validated(&top().join("envoy/istio"));
    assert!(seen >= 5, "{seen}");
}

#[test]
fn envoy_gateways_manifests_are_valid_against_the_crds() {
    let seen = validated(&top().join("envoy/gateway"));
    assert!(seen >= 10, "{seen}");
}

#[test]
fn the_validator_finds_what_the_crds_do_not_allow() {
    let istio = top().join("envoy/istio");
    let mut plugin = documents(&istio.join("wasmplugin.yaml")).remove(0);
    plugin["spec"]["allowOnHeadersStopIteration"] = true.into();
    assert_eq!(problems(&plugin).len(), 1, "{:?}", problems(&plugin));
    let mut filter = documents(&istio.join("filter.yaml")).remove(0);
    filter["spec"]["configPatches"][0]["patch"]["operation"] = "APPEND".into();
    assert_eq!(problems(&filter).len(), 1, "{:?}", problems(&filter));
    let mut policy = documents(&top().join("envoy/gateway/filter.yaml")).remove(0);
    policy["spec"]["wasm"][0]["allowOnHeadersStopIteration"] = true.into();
    assert_eq!(problems(&policy).len(), 1, "{:?}", problems(&policy));
}
