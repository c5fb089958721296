//! Dashboard and alerts: every expression finds something in a real Prometheus that scrapes the
//! demo's Envoy. `scripts/prometheus` puts it into target/tools.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use envoy_harness::client;
use envoy_harness::{free_port, wait_until, Folder, Process};
use serde_json::Value;

use crate::envoy::{self, top};
use crate::stage::{read, Stage};

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
    fn start(folder: &Folder, targets: [u16; 3]) -> Self {
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

/// The alerts' expressions without their thresholds.
fn alerted() -> Vec<String> {
    let rules = read(&alerts());
    let rules = rules["groups"][0]["rules"].as_sequence().unwrap();
    rules
        .iter()
        .map(|rule| {
            let text = rule["expr"].as_str().unwrap();
            let cut = text.rfind([' ']).unwrap();
            let threshold = &text[cut + 1..];
            assert!(
                threshold.parse::<f64>().is_ok(),
                "{text}: no threshold at its end"
            );
            let before = text[..cut].trim_end_matches(['<', '>']);
            before.trim_end().to_owned()
        })
        .collect()
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

/// Starts an Envoy whose configuration disaggregates, and sends it a prompt that is too short for that.
fn disaggregating() -> (Stage, Process) {
    let stage = Stage::set(&top().join("envoy/disaggregated.yaml"));
    let envoy = envoy::start(&stage.folder, "envoy", &stage.text());
    let port = stage.port(10_000);
    wait_until("Envoy responds", || {
        client::get(port, "/v1/models").is_ok_and(|response| response.status == 200)
    });
    assert_eq!(client::complete(port, "demo", "When?").status, 200);
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
    let targets = [admin, refusing.port(9_901), disaggregating.port(9_901)];
    let prometheus = Prometheus::start(&stage.folder, targets);
    wait_until("Envoy responds", || {
        client::get(port, "/v1/models").is_ok_and(|response| response.status == 200)
    });
    let mut empty: Vec<String> = shown().into_iter().chain(alerted()).collect();
    assert!(empty.len() > 25, "{}", empty.len());
    traffic(&mut stage, port, || {
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
    assert!(said.contains("13 rules found"), "{said}");
}
