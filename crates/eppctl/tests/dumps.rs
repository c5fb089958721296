//! A running Envoy is linted as completely as the files that it was started with.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use common::{eppctl, out, top};
use envoy_harness::envoy::{command, BaseId};
use envoy_harness::{free_port, path_of, wait_until, Folder, Process};
use rcgen::{CertifiedKey, KeyPair};
use serde_json::Value;

/// Mistakes that Envoy accepts: what is right in a template, and what is wrong instead.
const SLIPS: [(&str, &str); 9] = [
    ("timeout: 0s", "timeout: 20s"),
    ("vm_id: epp\n", "vm_id: ''\n"),
    ("failure_policy: FAIL_RELOAD\n", "fail_open: false\n"),
    ("readBody: always", "readBody: auto"),
    (
        "sources: [{header: x-gateway-destination-endpoint}]",
        "sources: [{header: x-other}]",
    ),
    (
        "- remove: x-gateway-destination-endpoint\n",
        "- remove: x-other\n",
    ),
    ("limit_bytes: 1048576", "limit_bytes: 32768"),
    ("max_requests: 16384", "max_requests: 1"),
    // Of the dynamic module's template, which has none of the settings of VMs.
    (
        "strip_custom_stat_prefix: true",
        "strip_custom_stat_prefix: false",
    ),
];

/// A template with mistakes, in place.
struct Placed {
    folder: Folder,
    files: Vec<PathBuf>,
}

impl Placed {
    fn of(template: &Path) -> Self {
        let folder = Folder::new("dumps");
        let mut placed = Self {
            folder,
            files: Vec::new(),
        };
        placed.write(template, "envoy.yaml");
        // What it reads beside itself, as /etc/envoy/NAME/….
        let beside = template.with_extension("");
        for entry in fs::read_dir(&beside).into_iter().flatten() {
            let file = entry.unwrap().path();
            placed.write(
                &file,
                file.strip_prefix(beside.parent().unwrap())
                    .unwrap()
                    .to_str()
                    .unwrap(),
            );
        }
        let CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(vec!["llm-gateway".to_owned()]).unwrap();
        placed.certificates(&cert.pem(), &signing_key);
        placed
    }

    fn certificates(&self, certificate: &str, key: &KeyPair) {
        let folder = self.folder.path().join("tls");
        fs::create_dir_all(&folder).unwrap();
        for file in ["ca.crt", "client.crt"] {
            fs::write(folder.join(file), certificate).unwrap();
        }
        fs::write(folder.join("client.key"), key.serialize_pem()).unwrap();
    }

    fn write(&mut self, template: &Path, name: &str) {
        let mut text = fs::read_to_string(template).unwrap();
        for (right, wrong) in SLIPS {
            text = text.replace(right, wrong);
        }
        // Whatever it is called, with a version or without.
        for name in text.split("/etc/envoy/").skip(1) {
            let Some((name, _)) = name.split_once(".wasm") else {
                continue;
            };
            let module = self.folder.path().join(format!("{name}.wasm"));
            if name.starts_with("epp_wasm") && !module.exists() {
                symlink(path_of("EPP_WASM"), module).unwrap();
            }
        }
        let module = self.folder.path().join("libepp.so");
        if text.contains("/etc/envoy/libepp.so") && !module.exists() {
            symlink(path_of("EPP_MODULE"), module).unwrap();
        }
        let folder = self.folder.path().to_str().unwrap();
        let mut text = text
            .replace("/etc/envoy", folder)
            .replace("/run/envoy", folder);
        for port in ["8080", "9902"] {
            let free = format!("port_value: {}", free_port());
            text = text.replace(&format!("port_value: {port}"), &free);
        }
        let file = self.folder.path().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
        self.files.push(file);
    }

    fn start(&self) -> Process {
        let program = path_of("ENVOY");
        let mut command = command(&program, &self.files[0], BaseId::Unique);
        command.args(["--concurrency", "1"]);
        Process::start("Envoy", command, &self.folder.path().join("envoy.log")).unwrap()
    }
}

/// Returns the rules that find something, each with what it finds, sorted; and the number of filters.
fn found(arguments: &[&str]) -> Option<(Vec<(String, String)>, u64)> {
    let output = eppctl(&[&["lint", "-o", "json"], arguments].concat(), "");
    let report: Value = serde_json::from_str(&out(&output)).ok()?;
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
    let findings = report["findings"].as_array()?.iter();
    let findings = findings.map(|finding| (text(finding, "rule"), text(finding, "found")));
    let mut findings: Vec<_> = findings.collect();
    findings.sort();
    Some((findings, report["filters"].as_u64()?))
}

#[test]
fn a_running_envoy_is_linted_as_its_files_are() {
    let entries = fs::read_dir(top().join("envoy/production")).unwrap();
    let files = entries.map(|entry| entry.unwrap().path());
    let templates = files.filter(|file| file.extension().is_some_and(|end| end == "yaml"));
    let placed: Vec<_> = templates
        .map(|template| (Placed::of(&template), template))
        .collect();
    assert!(placed.len() >= 6);
    // They start side by side: each compiles the module.
    let running: Vec<_> = placed.iter().map(|(placed, _)| placed.start()).collect();
    for (placed, template) in &placed {
        let files: Vec<&str> = placed
            .files
            .iter()
            .map(|file| file.to_str().unwrap())
            .collect();
        let expected = found(&files).unwrap();
        assert!(
            expected.0.len() >= 6 && expected.1 > 0,
            "{}: {expected:?}",
            template.display()
        );
        let admin = placed.folder.path().join("admin.sock");
        // Dynamic resources arrive after the interface responds.
        let mut last = None;
        wait_until(
            &format!("{} is linted as its files", template.display()),
            || {
                last = found(&["--envoy", admin.to_str().unwrap()]);
                last.as_ref() == Some(&expected)
            },
        );
        assert_eq!(last, Some(expected));
    }
    drop(running);
}
