//! Calling eppctl as a user does, from the project's top folder.

#![allow(dead_code, reason = "each test program uses a part")]

pub mod migrate;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The project's top folder.
pub fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Runs eppctl with this on standard input.
pub fn eppctl(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_eppctl"))
        .args(arguments)
        .current_dir(top())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that reads no input may have ended already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// Returns the text that a command printed.
pub fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// All EndpointPickerConfig documents of the project, each with its place: the examples and those
/// of the recorded decisions.
pub fn documents() -> Vec<(String, String)> {
    let mut documents = Vec::new();
    let files = |folder: &str| {
        let entries = std::fs::read_dir(top().join(folder)).unwrap();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    };
    for path in files("examples") {
        let text = std::fs::read_to_string(&path).unwrap();
        documents.push((path.display().to_string(), text));
    }
    for path in files("tests/parity/recorded") {
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            let text = std::fs::read_to_string(&path).unwrap();
            let scenario: serde_json::Value = serde_json::from_str(&text).unwrap();
            let config = scenario.get("config").unwrap();
            documents.push((path.display().to_string(), config.to_string()));
        }
    }
    assert!(documents.len() > 50, "only {} documents", documents.len());
    documents
}

/// A filter at an Istio gateway as Istio documents it, with three faults and a misspelt plugin.
pub const PLAIN: &str = r#"apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: picker, namespace: models}
spec:
  configPatches:
  - applyTo: HTTP_FILTER
    match: {context: GATEWAY}
    patch:
      operation: INSERT_BEFORE
      value:
        name: picker
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
          config:
            vm_config: {runtime: envoy.wasm.runtime.v8}
            configuration:
              "@type": type.googleapis.com/google.protobuf.StringValue
              value: |
                apiVersion: llm-d.ai/v1alpha1
                kind: EndpointPickerConfig
                plugins:
                - {name: members, type: envoy-cluster-discovery, parameters: {clusters: ["outbound|80||a.models.svc"]}}
                - type: kv-cache-utilization-scorrer
                - type: prefix-cache-scorer
                schedulingProfiles:
                - name: default
                  plugins: [{pluginRef: prefix-cache-scorer}]
                dataLayer: {discovery: {pluginRef: members}}
"#;
