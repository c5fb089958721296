//! `eppctl lint` of folders, and its output for other programs.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use common::{eppctl, out, PLAIN};

/// Writes files into a folder of their own.
fn folder(name: &str, files: &[(&str, &str)]) -> std::path::PathBuf {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&folder);
    for (name, text) in files {
        let file = folder.join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }
    folder
}

#[test]
fn gateways_of_a_folder_are_counted() {
    let filter = PLAIN.replace("scorrer", "scorer");
    let gateways =
        "kind: Deployment\nspec: {replicas: 2, template: {spec: {containers: [{image: auto}]}}}\n";
    let files = [
        ("filter.yaml", filter.as_str()),
        ("gateways.yaml", gateways),
    ];
    let folder = folder("gateways", &files);
    let output = eppctl(&["lint", "--summary", folder.to_str().unwrap()], "");
    assert!(
        out(&output).contains("several-gateways"),
        "{}",
        out(&output)
    );
}

#[test]
fn a_folder_is_its_files_and_those_below() {
    let filter = PLAIN.replace("scorrer", "scorer");
    let patch = "kind: EnvoyFilter\nspec: {configPatches: [{applyTo: LISTENER, patch: {operation: MERGE, value: {per_connection_buffer_limit_bytes: 32768}}}]}\n";
    let folder = folder(
        "folder",
        &[
            ("a/filter.yaml", &filter),
            ("a/b/patch.yml", patch),
            ("service.json", "{\"kind\": \"Service\", \"spec\": {}}"),
            ("document.yaml", "kind: EndpointPickerConfig\n"),
            ("template.yaml", "a: {{ .Values.a }}\n  b: c\n"),
            (
                "picker.yaml",
                "kind: EndpointPickerConfig\na: {{ .Values.a }}\n",
            ),
            ("notes.txt", "kind: EndpointPickerConfig"),
            (".hidden/filter.yaml", &filter),
        ],
    );
    // A loop of links.
    std::os::unix::fs::symlink(&folder, folder.join("a/loop")).unwrap();
    let output = eppctl(&["lint", "-o", "json", folder.to_str().unwrap()], "");
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_str(&out(&output)).unwrap();
    assert_eq!(
        (&report["files"], &report["filters"]),
        (&2.into(), &1.into())
    );
    let place = |of: &serde_json::Value| {
        let file = of["file"].as_str().unwrap();
        let file = file.strip_prefix(folder.to_str().unwrap()).unwrap();
        file.to_owned()
    };
    let left_out = report["left_out"].as_array().unwrap().iter();
    let left_out: Vec<String> = left_out.map(place).collect();
    assert_eq!(
        left_out,
        ["/document.yaml", "/service.json", "/template.yaml"]
    );
    let findings = report["findings"].as_array().unwrap().iter();
    let findings: Vec<String> = findings
        .map(|one| format!("{} {}", place(one), one["rule"].as_str().unwrap()))
        .collect();
    for expected in [
        "/a/b/patch.yml edge-buffers",
        "/a/filter.yaml vm-id",
        "/picker.yaml not-recognised",
    ] {
        assert!(
            findings.iter().any(|found| found == expected),
            "{expected}: {findings:?}"
        );
    }
    let empty = folder.join("empty");
    std::fs::create_dir(&empty).unwrap();
    for nothing in [empty.to_str().unwrap(), "/nowhere"] {
        assert_eq!(
            eppctl(&["lint", nothing], "").status.code(),
            Some(2),
            "{nothing}"
        );
    }
}

#[test]
fn what_cannot_be_linted_is_named_with_what_can() {
    let folder = folder("unrelated", &[("a.yaml", "kind: Service\n")]);
    for (given, words) in [
        (
            folder.to_str().unwrap(),
            "unrelated/a.yaml: nothing that lint reads",
        ),
        ("http://127.0.0.1:1", "use --envoy http://127.0.0.1:1"),
        ("unix:/nowhere", "use --envoy unix:/nowhere"),
    ] {
        let output = eppctl(&["lint", given], "");
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{given}");
        assert!(error.contains(words), "{given}: {error}");
    }
}

#[test]
fn a_summary_has_numbers_only() {
    let output = eppctl(&["lint", "--summary", "-"], PLAIN);
    assert_eq!(output.status.code(), Some(1));
    let text = out(&output);
    assert!(
        text.contains("   1 vm-id\n") && text.ends_with("4 findings\n"),
        "{text}"
    );
    assert!(!text.contains("fix:"), "{text}");
    let json = out(&eppctl(&["lint", "--summary", "-o", "json", "-"], PLAIN));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&json["findings"], &json["rules"]["vm-id"]),
        (&4.into(), &1.into())
    );
}

/// What SARIF 2.1.0 requires, and code scanning shows.
#[test]
fn sarif_has_what_code_scanning_shows() {
    let folder = folder("sarif", &[("a filter.yaml", PLAIN)]);
    let file = folder.join("a filter.yaml");
    let output = eppctl(&["lint", "-o", "sarif", file.to_str().unwrap()], "");
    assert_eq!(output.status.code(), Some(1));
    let log: serde_json::Value = serde_json::from_str(&out(&output)).unwrap();
    assert_eq!(log["version"], "2.1.0");
    let run = &log["runs"][0];
    let driver = &run["tool"]["driver"];
    let rules = driver["rules"].as_array().unwrap();
    for rule in rules {
        for text in ["shortDescription", "fullDescription", "help"] {
            let text = rule[text]["text"].as_str().unwrap();
            assert!(
                text.len() > 10 && text.ends_with('.') && !text.contains('`'),
                "{text}"
            );
        }
        assert!(rule["helpUri"].as_str().unwrap().starts_with("https://"));
    }
    let results = run["results"].as_array().unwrap();
    assert_eq!(results.len(), 4);
    for result in results {
        let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
        assert_eq!(rules[index]["id"], result["ruleId"]);
        assert_eq!(result["level"], "warning");
        assert!(result["message"]["text"]
            .as_str()
            .unwrap()
            .contains("To fix it: "));
        let place = &result["locations"][0]["physicalLocation"];
        let uri = place["artifactLocation"]["uri"].as_str().unwrap();
        assert!(
            uri.starts_with("file:///") && uri.ends_with("/sarif/a%20filter.yaml"),
            "{uri}"
        );
        assert!(place["region"]["startLine"].as_u64().unwrap() > 1);
    }
    let invocation = &run["invocations"][0];
    assert_eq!(invocation["executionSuccessful"], true);
    assert_eq!(
        invocation["toolExecutionNotifications"],
        serde_json::json!([])
    );
}

#[test]
fn sarif_has_no_results_for_what_was_not_seen() {
    let noted = out(&eppctl(
        &["lint", "-o", "sarif", "envoy/istio/filter.yaml"],
        "",
    ));
    let noted: serde_json::Value = serde_json::from_str(&noted).unwrap();
    let invocation = &noted["runs"][0]["invocations"][0];
    assert_eq!(noted["runs"][0]["results"], serde_json::json!([]));
    let notes = invocation["toolExecutionNotifications"].as_array().unwrap();
    assert!(
        notes
            .iter()
            .any(|note| note["associatedRule"]["id"] == "no-override-host"),
        "{notes:?}"
    );
    // Standard input is not a file.
    let input: serde_json::Value =
        serde_json::from_str(&out(&eppctl(&["lint", "-o", "sarif", "-"], PLAIN))).unwrap();
    let place = &input["runs"][0]["results"][0]["locations"][0];
    assert!(place.get("physicalLocation").is_none() && place.get("logicalLocations").is_some());
}

#[test]
fn junit_has_a_case_for_each_finding() {
    let output = eppctl(&["lint", "-o", "junit", "-"], PLAIN);
    assert_eq!(output.status.code(), Some(1));
    let xml = out(&output);
    assert_eq!(xml.matches("<failure ").count(), 4);
    assert!(xml.contains(" failures=\"4\" "), "{xml}");
    let cases = xml.matches("<testcase ").count();
    assert!(
        xml.contains(&format!(" tests=\"{cases}\" ")) && cases > 20,
        "{xml}"
    );
    assert!(xml.contains("scorrer") && !xml.contains("<no"), "{xml}");
    let clean = out(&eppctl(&["lint", "-o", "junit", "envoy/envoy.yaml"], ""));
    assert!(clean.contains(" failures=\"0\" "), "{clean}");
    let other = eppctl(&["check", "-o", "junit", "examples/gie.yaml"], "");
    assert_eq!(other.status.code(), Some(2));
    let error = String::from_utf8_lossy(&other.stderr);
    assert!(error.contains("eppctl lint"), "{error}");
}
