//! Dashboard: every expression finds something in a real Prometheus that scrapes the demo's Envoy. Alerts: each has
//! its runbook. tests/e2e/drills has them fire. `scripts/prometheus` puts Prometheus into target/tools.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use envoy_harness::client;
use envoy_harness::{free_port, wait_until, Folder, Process};
use fake_model_server::Faults;
use serde_json::Value;

use crate::envoy::{self, top};
use crate::stage::{read, Stage};

/// A request with a short prompt.
const SHORT: &[u8] = br#"{"model": "demo", "prompt": "When?", "max_tokens": 1}"#;

/// Stands for what Grafana puts in: some scrapes long.
const RANGE: &str = "15s";

fn program(name: &str) -> PathBuf {
    let path = top().join("target/tools/prometheus/usr/bin").join(name);
    assert!(
        path.exists(),
        "{} is not there; call `make test`",
        path.display()
    );
    path
}

fn alerts() -> PathBuf {
    top().join("envoy/dashboards/alerts.yaml")
}

/// A Prometheus that scrapes Envoys.
struct Prometheus {
    _process: Process,
    port: u16,
}

impl Prometheus {
    fn start(folder: &Folder, targets: [u16; 4]) -> Self {
        let targets = targets.map(|port| format!("\"127.0.0.1:{port}\""));
        let targets = targets.join(", ");
        let config = format!(
            "global: {{scrape_interval: 1s}}
scrape_configs:
- job_name: envoy
  metrics_path: /stats/prometheus
  static_configs: [{{targets: [{targets}]}}]
"
        );
        let file = folder.path().join("prometheus.yaml");
        fs::write(&file, config).unwrap();
        let port = free_port();
        let mut command = Command::new(program("prometheus"));
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.path().join("tsdb").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let log = folder.path().join("prometheus.log");
        let mut process = Process::start("Prometheus", command, &log).unwrap();
        let ready = || client::get(port, "/-/ready").is_ok_and(|response| response.status == 200);
        process.wait_until("it is ready", ready).unwrap();
        Self {
            _process: process,
            port,
        }
    }

    /// Returns the number of series with a value that an expression finds.
    fn finds(&self, expression: &str) -> usize {
        let escaped: String = expression
            .bytes()
            .map(|byte| format!("%{byte:02X}"))
            .collect();
        let path = format!("/api/v1/query?query={escaped}");
        let response = client::get(self.port, &path).unwrap();
        let response: Value = serde_json::from_str(&response.body).unwrap();
        assert_eq!(response["status"], "success", "{expression}: {response}");
        let found = response["data"]["result"].as_array().unwrap();
        let number = |series: &&Value| series["value"][1] != "NaN";
        found.iter().filter(number).count()
    }
}

/// The dashboard's expressions, as Grafana would send them.
fn shown() -> Vec<String> {
    let text = fs::read_to_string(top().join("envoy/dashboards/epp-wasm.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.filter_map(|panel| panel["targets"].as_array());
    targets
        .flatten()
        .map(|target| target["expr"].as_str().unwrap())
        .map(|text| {
            text.replace("$__rate_interval", RANGE)
                .replace("$pool", ".+")
        })
        .collect()
}

/// The alerts.
fn rules() -> Vec<serde_yaml::Value> {
    let rules = read(&alerts());
    let rules = rules["groups"][0]["rules"].as_sequence();
    rules.unwrap().clone()
}

/// Starts an Envoy whose pool has only members that may not be picked, so it rejects requests.
fn refusing() -> (Stage, Process) {
    let mut config = read(&top().join("envoy/minimal.yaml"));
    let pool = &mut config["static_resources"]["clusters"][0]["load_assignment"];
    let members = pool["endpoints"][0]["lb_endpoints"].as_sequence_mut();
    for member in members.unwrap() {
        member["health_status"] = "DRAINING".into();
    }
    let stage = Stage::of(config);
    let envoy = envoy::start(&stage.folder, "envoy", &stage.text());
    let port = stage.port(10_000);
    let mut refused = 0;
    wait_until("requests are refused", || {
        let response = client::get(port, "/v1/models");
        refused += u32::from(response.is_ok_and(|response| {
            response.status == 503 && !response.header("x-llm-d-request-dropped-reason").is_empty()
        }));
        refused > 3
    });
    (stage, envoy)
}

/// Starts an Envoy whose configuration disaggregates.
fn disaggregating() -> (Stage, Process) {
    let stage = Stage::set(&top().join("envoy/disaggregated.yaml"));
    let envoy = envoy::start(&stage.folder, "envoy", &stage.text());
    let port = stage.port(10_000);
    wait_until("Envoy responds", || {
        client::get(port, "/v1/models").is_ok_and(|response| response.status == 200)
    });
    (stage, envoy)
}

/// Starts an Envoy with flow control, whose model servers are full with a request each and slow.
fn gating() -> (Stage, Process) {
    let text = fs::read_to_string(top().join("envoy/minimal.yaml")).unwrap();
    let line = |text: &str| format!("{:20}{text}\n", "");
    let gate = [
        "featureGates: [flowControl]",
        "flowControl: {saturationDetector: {pluginRef: concurrency-detector}}",
        "plugins:",
        "- {type: concurrency-detector, parameters: {maxConcurrency: 1}}",
    ];
    let gated = text.replacen(&line("plugins:"), &gate.map(line).concat(), 1);
    let stage = Stage::of(serde_yaml::from_str(&gated).unwrap());
    let slow = Faults {
        delay_ms: 300,
        ..Faults::default()
    };
    stage
        .sim
        .pods()
        .for_each(|pod| pod.set_faults(slow.clone()));
    let envoy = envoy::start(&stage.folder, "envoy", &stage.text());
    let port = stage.port(10_000);
    wait_until("Envoy responds", || {
        client::get(port, "/v1/models").is_ok_and(|response| response.status == 200)
    });
    (stage, envoy)
}

/// Requests that leave a trace in every metric: cached ones, ones served elsewhere. They go on until `enough`
/// says so, which is checked after every twentieth.
fn traffic(stage: &mut Stage, port: u16, mut enough: impl FnMut() -> bool) {
    let ask = |number: usize| {
        let prompt = "A timetable that all ask about. ".repeat(40);
        let response = client::complete(port, "demo", &format!("{prompt}{number}"));
        assert_eq!(response.status, 200);
        response.pod().to_owned()
    };
    let mut number = 0;
    wait_until("every expression finds something", || {
        let pods: Vec<String> = (number..number + 20).map(ask).collect();
        number += pods.len();
        // What goes to the pod with the prompt is served by the next one in the list from now on.
        if number == 60 {
            let pod = pods.last().and_then(|pod| pod.strip_prefix("pod-"));
            let place: usize = pod.unwrap().parse().unwrap();
            stage.sim.stop(place - 1);
        }
        number > 60 && enough()
    });
}

#[test]
fn every_expression_finds_something() {
    let mut stage = Stage::set(&top().join("envoy/envoy.yaml"));
    let (port, admin) = (stage.port(10_000), stage.port(9_901));
    let _envoy = envoy::start(&stage.folder, "envoy", &stage.text());
    let (refusing, _refusing) = refusing();
    let (disaggregating, _disaggregating) = disaggregating();
    let (gating, _gating) = gating();
    let others = [&refusing, &disaggregating, &gating].map(|stage| stage.port(9_901));
    let targets = [admin, others[0], others[1], others[2]];
    let prometheus = Prometheus::start(&stage.folder, targets);
    wait_until("Envoy responds", || {
        client::get(port, "/v1/models").is_ok_and(|response| response.status == 200)
    });
    let mut empty = shown();
    // Not in these Envoys: listeners and filters that are delivered, configurations that are refused, requests of no pool,
    // panics. The drills find them.
    empty.retain(|expression| {
        let missing = ["_rejected", "left_alone", "panics"].map(|name| expression.contains(name));
        let found = prometheus.finds(expression);
        assert!(missing == [false; 3] || found == 0, "{expression}");
        missing == [false; 3]
    });
    assert!(empty.len() > 25, "{}", empty.len());
    traffic(&mut stage, port, || {
        // A prompt that is too short for another endpoint to compute it.
        client::complete(disaggregating.port(10_000), "demo", "When?");
        // More at once than go on at once.
        let port = gating.port(10_000);
        for _ in 0..8 {
            thread::spawn(move || client::send(port, "POST", "/v1/completions", &[], SHORT));
        }
        empty.retain(|expression| prometheus.finds(expression) == 0);
        println!("nothing is found yet by {empty:#?}");
        empty.is_empty()
    });
    assert_eq!(prometheus.finds("epp_wasm_no_such_metric"), 0);
}

#[test]
fn alerts_are_well_formed() {
    let check = Command::new(program("promtool"))
        .args(["check", "rules"])
        .arg(alerts())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&check.stdout);
    assert!(
        check.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&check.stderr)
    );
    let count = rules().len();
    assert!(said.contains(&format!("{count} rules found")), "{said}");
}

/// The anchor that GitHub gives a heading.
fn anchor(heading: &str) -> String {
    let kept = |letter: &char| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_');
    let kept: String = heading.chars().filter(kept).collect();
    kept.to_lowercase().replace(' ', "-")
}

/// The runbooks by their anchors.
fn runbooks() -> BTreeMap<String, String> {
    let page = fs::read_to_string(top().join("docs/operations.md")).unwrap();
    let (_, runbooks) = page.split_once("\n## When something is wrong\n").unwrap();
    let (runbooks, _) = runbooks.split_once("\n## ").unwrap();
    let sections = runbooks.split("\n### ").skip(1);
    let sections = sections.map(|section| section.split_once('\n').unwrap());
    sections
        .map(|(heading, text)| (anchor(heading), text.to_owned()))
        .collect()
}

#[test]
fn every_alert_leads_to_its_runbook_which_begins_with_the_configuration() {
    let runbooks = runbooks();
    let mut missing: BTreeSet<&str> = runbooks.keys().map(String::as_str).collect();
    missing.remove("is-it-us");
    for rule in rules() {
        let name = rule["alert"].as_str().unwrap();
        let url = rule["annotations"]["runbook_url"].as_str().unwrap();
        let page = "https://github.com/epp-wasm/epp-wasm/blob/main/docs/operations.md#";
        let anchor = url.strip_prefix(page);
        let anchor = anchor.unwrap_or_else(|| panic!("{name}: {url}"));
        let runbook = runbooks.get(anchor);
        let runbook = runbook.unwrap_or_else(|| panic!("{name}: no runbook {anchor}"));
        assert!(
            runbook.contains(&format!("`{name}`")),
            "{anchor} does not name {name}"
        );
        let first = runbook.find("](#is-it-us)");
        assert!(first.is_some(), "{anchor}: is it us?");
        let suspects = runbook.find("model server").or(runbook.find("the server"));
        assert!(
            suspects.is_none_or(|place| first.unwrap() < place),
            "{anchor}: it is the model server before it is us"
        );
        missing.remove(anchor);
        let words = rule["expr"].as_str().unwrap().rsplit(' ');
        let threshold = words.into_iter().next().unwrap();
        assert!(threshold.parse::<f64>().is_ok(), "{name}: no threshold");
    }
    assert!(missing.is_empty(), "no alert leads to {missing:?}");
}
