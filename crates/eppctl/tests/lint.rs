//! `eppctl lint` over what the project itself ships.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use common::{eppctl, out, top, PLAIN};

fn yaml_below(folder: &std::path::Path, files: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            yaml_below(&path, files);
        } else if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            files.push(path.to_str().unwrap().to_owned());
        }
    }
}

#[test]
fn our_own_files_lint_clean() {
    let mut files = Vec::new();
    yaml_below(&top().join("envoy"), &mut files);
    // Alternatives to each other name the same filter, or are the same object.
    let ways: [&[&str]; 4] = [
        &[
            "istio/filter",
            "istio/dynamic-module",
            "gateway/headers-only",
            "gateway/from-file",
            "gateway/dynamic-module",
        ],
        &[
            "istio/disaggregated",
            "istio/dynamic-module",
            "gateway/filter",
            "gateway/patch",
            "gateway/from-file",
            "gateway/dynamic-module",
        ],
        &[
            "istio/disaggregated",
            "istio/dynamic-module",
            "gateway/filter",
            "gateway/patch",
            "gateway/headers-only",
            "gateway/proxy",
            "gateway/dynamic-module",
        ],
        &[
            "istio/filter",
            "istio/disaggregated",
            "gateway/filter",
            "gateway/patch",
            "gateway/headers-only",
            "gateway/from-file",
            "gateway/proxy",
        ],
    ];
    for left_out in ways {
        let is_in = |file: &&String| {
            let ends = |name: &&str| file.ends_with(&format!("{name}.yaml"));
            !left_out.iter().any(ends)
        };
        let own: Vec<&String> = files.iter().filter(is_in).collect();
        assert_eq!(own.len(), files.len() - left_out.len());
        let arguments = std::iter::once("lint").chain(own.iter().map(|file| file.as_str()));
        let arguments: Vec<&str> = arguments.collect();
        let output = eppctl(&arguments, "");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{}{stderr}", out(&output));
    }
}

/// What is easily missed, by what becomes of the manifests: docs/envoy-gateway.md.
const GATEWAY_TRAPS: &[(&str, &str, &str)] = &[
    (
        "    endpointOverride:\n      extractFrom:\n      - header: x-gateway-destination-endpoint\n",
        "",
        "no-override-host",
    ),
    (
        "{name: vllm, port: 8000}",
        "{name: vllm, port: 8000, filters: [{type: RequestHeaderModifier, requestHeaderModifier: {remove: [x-gateway-destination-endpoint]}}]}",
        "header-removed-early",
    ),
    (
        "    code:\n      type: Image\n",
        "    failOpen: true\n    code:\n      type: Image\n",
        "fail-closed",
    ),
    (
        "  filterOrder:\n",
        "  telemetry: {metrics: {prometheus: {disable: true}}}\n  filterOrder:\n",
        "prometheus-disabled",
    ),
    ("  filterOrder:\n", "  routingType: Service\n  filterOrder:\n", "service-routing"),
    ("  filterOrder:\n", "  mergeGateways: true\n  filterOrder:\n", "merged-gateways"),
    ("name: llm/llm/http", "name: llm/llm/https", "unmatched-patch"),
    (
        "@.typed_config.config.name==\"epp\"",
        "@.name==\"envoy.filters.http.wasm/envoyextensionpolicy/llm/epp/wasm/0\"",
        "unmatched-patch",
    ),
    ("bufferLimit: 2Mi", "bufferLimit: 32Ki", "edge-buffers"),
    ("initialStreamWindowSize: 2Mi", "initialStreamWindowSize: 64Ki", "edge-windows"),
    (
        "should read the header.\n  targetRefs:\n  - {group: gateway.networking.k8s.io, kind: HTTPRoute, name: vllm}",
        "\n  targetRefs:\n  - {group: gateway.networking.k8s.io, kind: HTTPRoute, name: chat}",
        "unowned-override-host",
    ),
    ("[\"httproute/llm/vllm/rule/0\"]", "[\"httproute/llm/chat/rule/0\"]", "unrouted"),
    ("      - x-gateway-destination-endpoint\n      - x-gateway-destination-endpoint-subset\n", "", "client-destination"),
    ("    timeouts: {request: 0s}\n", "", "route-timeout"),
];

#[test]
fn what_is_easily_missed_with_envoy_gateway_is_found() {
    let names = ["proxy", "gateway", "traffic", "filter", "patch"];
    let text = |name: &str| {
        let file = top().join(format!("envoy/gateway/{name}.yaml"));
        std::fs::read_to_string(file).unwrap()
    };
    let manifests = names.map(text).join("---\n");
    assert_eq!(rules(&manifests), (Vec::new(), Some(0)));
    for (right, wrong, rule) in GATEWAY_TRAPS {
        assert!(manifests.contains(right), "{right}");
        let (found, _) = rules(&manifests.replace(right, wrong));
        assert!(found.iter().any(|name| name == rule), "{rule}: {found:?}");
    }
}

/// A value with the fields' names as JSON has them.
fn camel(value: serde_json::Value) -> serde_json::Value {
    match value {
        serde_json::Value::Object(entries) if entries.get("kind") != Some(&PICKER.into()) => {
            let entries = entries.into_iter().map(|(key, value)| {
                if key.contains('.') {
                    // The name of a runtime setting, which is not a field.
                    return (key, value);
                }
                let mut parts = key.split('_');
                let mut name = parts.next().unwrap().to_owned();
                for part in parts.filter(|part| !part.is_empty()) {
                    name.push_str(&part[..1].to_uppercase());
                    name.push_str(&part[1..]);
                }
                (name, camel(value))
            });
            entries.collect()
        }
        serde_json::Value::Array(values) => values.into_iter().map(camel).collect(),
        leaf => leaf,
    }
}

const PICKER: &str = "EndpointPickerConfig";

/// A value with each message in a `TypedStruct`.
fn typed_structs(value: serde_json::Value) -> serde_json::Value {
    match value {
        serde_json::Value::Object(mut entries) => {
            let url = entries.remove("@type");
            let fields: serde_json::Map<_, _> = entries
                .into_iter()
                .map(|(key, value)| (key, typed_structs(value)))
                .collect();
            match url {
                Some(url) => serde_json::json!({
                    "@type": "type.googleapis.com/xds.type.v3.TypedStruct",
                    "type_url": url,
                    "value": fields,
                }),
                None => fields.into(),
            }
        }
        serde_json::Value::Array(values) => values.into_iter().map(typed_structs).collect(),
        leaf => leaf,
    }
}

#[test]
fn forms_of_our_own_files_lint_as_they_are() {
    let mut files = Vec::new();
    yaml_below(&top().join("envoy"), &mut files);
    let others = ["/dashboards/", "/kustomization.yaml", "/metric-labels.yaml"];
    files.retain(|file| !others.iter().any(|other| file.contains(other)));
    let slips = [
        ("", ""),
        ("timeout: 0s", "timeout: 20s"),
        ("vm_id: epp", "vm_id: ''"),
        ("FAIL_RELOAD", "FAIL_CLOSED"),
        ("readBody: always", "readBody: auto"),
        ("allow_on_headers_stop_iteration: true", "fail_open: false"),
        (
            "override_host.v3.OverrideHost",
            "least_request.v3.LeastRequest",
        ),
        ("remove: x-gateway-destination-endpoint", "remove: x-other"),
        ("metadata_namespace: envoy.lb", "metadata_namespace: other"),
        ("type: queue-scorer", "type: queue-scorrer"),
    ];
    let mut seen = std::collections::BTreeSet::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for (right, wrong) in slips {
            // Once as it is, then with each slip that the file can have.
            if !right.is_empty() && !text.contains(right) {
                continue;
            }
            let text = match right {
                "" => text.clone(),
                _ => text.replace(right, wrong),
            };
            let documents = serde_yaml::Deserializer::from_str(&text);
            let documents: Vec<serde_json::Value> = documents
                .map(|document| serde::Deserialize::deserialize(document).unwrap())
                .collect();
            let expected = rules(&text);
            seen.extend(expected.0.iter().cloned());
            let forms: [fn(serde_json::Value) -> serde_json::Value; 3] =
                [camel, typed_structs, |value| camel(typed_structs(value))];
            for form in forms {
                let documents = documents.iter().cloned();
                let text: Vec<String> = documents.map(|value| form(value).to_string()).collect();
                assert_eq!(rules(&text.join("\n")), expected, "{file}: {wrong}");
            }
        }
    }
    assert!(seen.len() >= 8, "{seen:?}");
}

#[test]
fn findings_have_their_line_and_exit_code_1() {
    let text = std::fs::read_to_string(top().join("envoy/envoy.yaml")).unwrap();
    let slip = text.replace("hashBlockSize: 5", "hashBlokSize: 5");
    let line = slip
        .lines()
        .position(|line| line.contains("hashBlokSize"))
        .unwrap()
        + 1;
    let output = eppctl(&["lint", "-"], &slip);
    assert_eq!(output.status.code(), Some(1));
    let report = out(&output);
    assert!(
        report.contains(&format!("-:{line}:")),
        "line {line}: {report}"
    );
    assert!(report.contains("did you mean hashBlockSize?"), "{report}");
    assert!(report.contains("fix: "), "{report}");
}

/// The rules that find something, sorted, and the exit code.
fn rules(text: &str) -> (Vec<String>, Option<i32>) {
    let output = eppctl(&["lint", "-", "-o", "json"], text);
    let findings: serde_json::Value = serde_json::from_str(&out(&output)).unwrap();
    let findings = findings["findings"].as_array().unwrap().iter();
    let mut rules: Vec<String> = findings
        .map(|finding| finding["rule"].as_str().unwrap().to_owned())
        .collect();
    rules.sort();
    (rules, output.status.code())
}

/// Returns the resources as JSON in a list, as kubectl prints them.
fn listed(text: &str) -> String {
    let item: serde_json::Value = serde_yaml::from_str(text).unwrap();
    let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": [item]});
    serde_json::to_string_pretty(&list).unwrap()
}

/// Returns the message in a `TypedStruct`.
fn typed(text: &str, package: &str) -> String {
    let mut document: serde_json::Value = serde_yaml::from_str(text).unwrap();
    let place = "/spec/configPatches/0/patch/value/typed_config";
    let place = document.pointer_mut(place).unwrap();
    let mut fields = place.take();
    let url = fields.as_object_mut().unwrap().remove("@type").unwrap();
    let kind = format!("type.googleapis.com/{package}.TypedStruct");
    *place = serde_json::json!({"@type": kind, "type_url": url, "value": fields});
    document.to_string()
}

#[test]
fn one_configuration_is_found_the_same_in_every_form() {
    let expected = rules(PLAIN);
    let names = ["body-unread", "fail-closed", "plugin-config", "vm-id"].map(str::to_owned);
    assert_eq!(expected, (names.to_vec(), Some(1)));
    let camel = PLAIN
        .replace("typed_config", "typedConfig")
        .replace("vm_config", "vmConfig");
    assert_ne!(camel, PLAIN);
    let udpa = typed(PLAIN, "udpa.type.v1");
    let forms = [
        camel.clone(),
        PLAIN.replace('\n', "\r\n"),
        format!("--- # {PLAIN}"),
        format!("\u{feff}# a comment\n{PLAIN}...\n"),
        listed(PLAIN),
        listed(&camel),
        format!("[{}]", listed(PLAIN)),
        listed(&udpa),
        listed(&udpa)
            .replace("vm_config", "vmConfig")
            .replace("type_url", "typeUrl"),
        typed(PLAIN, "xds.type.v3"),
        udpa,
    ];
    for form in forms {
        assert_eq!(rules(&form), expected, "{form}");
    }
}

#[test]
fn a_patch_in_another_file_counts() {
    let folder = std::env::temp_dir().join(format!("eppctl-lint-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let filter = write("filter.yaml", &PLAIN.replace("scorrer", "scorer"));
    let patch = "apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {name: edge, namespace: models}\nspec: {configPatches: [{applyTo: LISTENER, patch: {operation: MERGE, value: {per_connection_buffer_limit_bytes: 32768}}}]}\n";
    let patch = write("patch.yaml", patch);
    let apart = [&filter, &patch].map(|file| out(&eppctl(&["lint", file], "")));
    let together = out(&eppctl(&["lint", &filter, &patch], ""));
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(apart.iter().all(|text| !text.contains("edge-buffers")));
    let finding = format!("{patch}:4:");
    assert!(
        together.contains(&finding) && together.contains("edge-buffers"),
        "{together}"
    );
}

#[test]
fn several_bootstraps_stand_by_themselves() {
    let text = std::fs::read_to_string(top().join("envoy/envoy.yaml")).unwrap();
    let faulty = text.replace(
        "override_host.v3.OverrideHost",
        "least_request.v3.LeastRequest",
    );
    let expected = (vec!["no-override-host".to_owned()], Some(1));
    // The first one's cluster has the same name.
    assert_eq!(rules(&format!("{text}\n---\n{faulty}")), expected);
    // A cluster, and the patch that is merged into it.
    let listener = "  - name: llm\n    address";
    let low = text.replace(
        listener,
        "  - name: llm\n    per_connection_buffer_limit_bytes: 32768\n    address",
    );
    assert_eq!(rules(&low).1, Some(1));
    let patch = "\n---\nkind: EnvoyFilter\nspec: {configPatches: [{applyTo: LISTENER, patch: {operation: MERGE, value: {per_connection_buffer_limit_bytes: 2097152}}}]}\n";
    assert_eq!(rules(&format!("{low}{patch}")).1, Some(0));
}

#[test]
fn an_unrecognised_document_is_a_finding() {
    let carriers = [
        "kind: ConfigMap\ndata:\n  picker.yaml: |\n    kind: EndpointPickerConfig\n",
        "kind: Unknown\nspec: {config: {kind: EndpointPickerConfig}}\n",
        "- kind: EndpointPickerConfig\n",
    ];
    for text in carriers {
        let expected = (vec!["not-recognised".to_owned()], Some(1));
        assert_eq!(rules(text), expected, "{text}");
    }
}

/// Nothing was checked, which is not the same as no findings.
#[test]
fn a_run_without_anything_to_read_is_an_error() {
    for text in [
        "kind: Service\nspec: {}\n",
        "",
        "# nothing\n",
        "{}",
        "[]",
        "a: b",
    ] {
        let output = eppctl(&["lint", "-"], text);
        assert_eq!(output.status.code(), Some(2), "{text}");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains("nothing that lint reads"), "{text}: {error}");
    }
}

#[test]
fn a_setting_that_another_file_may_have_is_not_a_finding() {
    let text = std::fs::read_to_string(top().join("envoy/istio/filter.yaml")).unwrap();
    let output = eppctl(&["lint", "-"], &text);
    assert_eq!(output.status.code(), Some(0));
    let report = out(&output);
    assert!(report.contains("not seen: a CLUSTER patch"), "{report}");
    assert!(report.contains("no findings"), "{report}");
    assert_eq!(rules(&text), (Vec::new(), Some(0)));
    let json: serde_json::Value =
        serde_json::from_str(&out(&eppctl(&["lint", "-", "-o", "json"], &text))).unwrap();
    let note = &json["not_seen"][0];
    assert!(note["found"]
        .as_str()
        .unwrap()
        .starts_with("a CLUSTER patch"));
    assert_eq!(note["rule"], "no-override-host");
    assert_eq!(json["filters"], 1);
}

#[test]
fn the_endpoint_pickers_document_by_itself_is_for_check() {
    let output = eppctl(&["lint", "examples/gie.yaml"], "");
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("eppctl check"), "{error}");
    let nothing = eppctl(&["lint", "-"], "admin: {}");
    assert!(out(&nothing).contains("no filter"), "{}", out(&nothing));
}
