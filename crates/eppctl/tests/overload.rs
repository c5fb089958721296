//! The worked example of docs/flow-control.md: the same load without flow control and with it, and where an operator
//! sees what waits.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::path::Path;
use std::thread::scope;
use std::time::Duration;

use common::{eppctl, out};
use demo::flow::{self, Class};
use envoy_harness::envoy::{command, BaseId};
use envoy_harness::{client, free_port, path_of, statistics, wait_until, Folder, Process};
use fake_model_server::{Settings, Sim};

/// For how long the load is sent.
const LOAD: Duration = Duration::from_secs(5);

/// The ports of an Envoy.
struct Ports {
    llm: u16,
    admin: u16,
    status: u16,
}

/// Starts Envoy with the example's document, with flow control or without it.
fn start(sim: &Sim, folder: &Folder, flow_control: bool) -> (Process, Ports) {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let read = |file| fs::read_to_string(top.join(file)).unwrap();
    let (bootstrap, document) = (read("envoy/envoy.yaml"), read("examples/flow-control.yaml"));
    let mut text = flow::bootstrap(&bootstrap, &document, flow_control).unwrap();
    let ports = Ports {
        llm: free_port(),
        admin: free_port(),
        status: free_port(),
    };
    let pods = sim.addresses();
    for (from, to) in [
        (10_000, ports.llm),
        (9_901, ports.admin),
        (10_001, ports.status),
        (8_001, pods[0].port()),
        (8_002, pods[1].port()),
    ] {
        let (in_bootstrap, in_document) =
            (format!("port_value: {from}}}"), format!("port: \"{from}\""));
        text = text.replace(&in_bootstrap, &format!("port_value: {to}}}"));
        text = text.replace(&in_document, &format!("port: \"{to}\""));
    }
    let module = path_of("EPP_WASM").display().to_string();
    let text = text.replace("target/epp_wasm.wasm", &module);
    let name = if flow_control { "with" } else { "without" };
    let file = folder.path().join(format!("{name}.yaml"));
    fs::write(&file, text).unwrap();
    let command = command(&path_of("ENVOY"), &file, BaseId::Unique);
    let log = folder.path().join(format!("{name}.log"));
    let envoy = Process::start("Envoy", command, &log).unwrap();
    wait_until("the endpoints are known", || {
        value(&ports, "llm_d_epp_ready_endpoints", "") == Some(flow::SERVERS as f64)
    });
    // The worker knows listed endpoints a tick after the VM that polls, and refuses requests until then.
    let body = serde_json::json!({"model": "demo", "prompt": "Ready?", "max_tokens": 1});
    wait_until("the worker knows the endpoints", || {
        client::post(ports.llm, "/v1/completions", &body, &[]).status == 200
    });
    (envoy, ports)
}

/// Returns the value of the first sample of a metric that has this label.
fn value(ports: &Ports, name: &str, label: &str) -> Option<f64> {
    let page = client::get(ports.admin, "/stats/prometheus").ok()?;
    let mut samples = statistics::samples(&page.body, name);
    let found = samples.find(|(labels, _)| labels.contains(label));
    found.map(|(_, value)| value)
}

/// Looks where the page tells operators to look, while requests wait.
fn look(ports: &Ports) {
    wait_until("requests of priority 0 wait", || {
        value(ports, "llm_d_epp_flow_control_queue_size", "priority=\"0\"") > Some(20.0)
    });
    let admin = format!("http://127.0.0.1:{}", ports.admin);
    let holds = |text: &str, parts: &[&str]| {
        for part in parts {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    };
    // The workers report once the page is open.
    wait_until("the status page says what waits, and why", || {
        let page = client::get(ports.status, "/").unwrap().body;
        let parts = [
            "<h3>Flow control</h3>",
            "concurrency-detector measures ",
            "priority 0: ",
        ];
        parts.iter().all(|part| page.contains(part))
    });
    let top = out(&eppctl(&["top", "--once", &admin], ""));
    holds(&top, &["flow control: saturation ", " of priority 0"]);
    let status = out(&eppctl(&["status", &admin], ""));
    holds(&status, &["flow control  saturation: ", " of priority 0 ("]);
    let headers = [
        ("x-llm-d-inference-objective", "interactive"),
        ("x-epp-explain", "1"),
    ];
    let body = serde_json::json!({"model": "demo", "prompt": "When?", "max_tokens": 8});
    let response = client::post(ports.llm, "/v1/completions", &body, &headers);
    holds(
        response.header("x-epp-explain"),
        &["queue: ", " with priority 10"],
    );
}

/// Sends the load to model servers behind an Envoy of their own.
fn play(folder: &Folder, flow_control: bool) -> [Class; 2] {
    let settings = Settings {
        max_running: flow::RUNNING,
        token_time: Duration::from_millis(1),
        ..Settings::default()
    };
    let sim = Sim::start(flow::SERVERS, &settings).unwrap();
    let (_envoy, ports) = start(&sim, folder, flow_control);
    let classes = scope(|scope| {
        if flow_control {
            scope.spawn(|| look(&ports));
        }
        flow::overload(ports.llm, |passed| passed > LOAD)
    });
    println!("flow control: {flow_control}: {classes:?}");
    for class in &classes {
        assert!(class.answered > 50 && class.dropped == 0, "{class:?}");
    }
    classes
}

#[test]
fn at_twice_the_load_interactive_requests_keep_their_latency_and_the_others_wait_where_it_is_seen()
{
    let folder = Folder::new("overload");
    let (without, with) = scope(|scope| {
        let without = scope.spawn(|| play(&folder, false));
        let with = play(&folder, true);
        (without.join().unwrap(), with)
    });
    let [before, _] = without;
    let [interactive, others] = with;
    assert!(
        interactive.median * 3 < before.median * 2 && interactive.p95 * 3 < before.p95 * 2,
        "{interactive:?}, without flow control {before:?}"
    );
    assert!(
        others.median * 2 > interactive.median * 3,
        "{others:?}, {interactive:?}"
    );
}
