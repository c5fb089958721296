//! `eppctl status` on a real Envoy with the real module.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use common::{eppctl, out};
use envoy_harness::client::{complete, get};
use envoy_harness::config::policy;
use envoy_harness::proxy::{Proxy, Setup};
use fake_model_server::{Settings, Sim};
use serde_json::{json, Value};

const CONFIG: &str = "
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{type: queue-scorer}, {type: kv-cache-utilization-scorer}, {type: prefix-cache-scorer},
  {type: envoy-proxy, parameters: {readBody: always, failureMode: FailClose}}]
";

/// Returns the status, and the exit code.
fn status(admin: &str) -> (Value, Option<i32>) {
    let output = eppctl(&["status", "-o", "json", admin], "");
    let report = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (report, output.status.code())
}

/// Returns the ids of the findings that change the verdict.
fn faults(report: &Value) -> Vec<&str> {
    let findings = report["findings"].as_array().map_or(&[][..], Vec::as_slice);
    let faults = findings
        .iter()
        .filter(|finding| finding["severity"] != "note");
    faults
        .map(|finding| finding["id"].as_str().unwrap())
        .collect()
}

#[test]
fn a_running_envoy_is_healthy_until_its_pool_is_empty() {
    let sim = Sim::start(2, &Settings::default()).unwrap();
    // Lint finds that clients can choose an endpoint, which is a note: the verdict is the filter's.
    let mut proxy = Setup::new(&sim.addresses(), CONFIG).start();
    let admin = format!("127.0.0.1:{}", proxy.admin);
    for turn in 0..5 {
        complete(proxy.port, "m", &format!("the same prompt. {turn}"));
    }
    let mut last = (Value::Null, None);
    proxy.wait_until("it is healthy", || {
        last = status(&admin);
        last.1 == Some(0) && last.0["pools"][0]["picked"].as_f64() > Some(4.0)
    });
    let report = &last.0;
    assert_eq!(report["verdict"], "healthy");
    assert_eq!(report["pools"][0]["pool"], "inference-pool");
    assert_eq!(
        (&report["pools"][0]["ready"], &report["pools"][0]["fresh"]),
        (&2.0.into(), &2.into())
    );
    assert_eq!(report["envoy"]["state"], "LIVE");
    assert_eq!(report["envoy"]["filters"], 1);
    assert_eq!(report["builds"][0]["version"], env!("CARGO_PKG_VERSION"));
    let text = out(&eppctl(&["status", &admin], ""));
    assert!(
        text.starts_with("healthy: 2 endpoints of inference-pool can be picked"),
        "{text}"
    );

    proxy.set_pods(&[]);
    proxy.wait_until("the empty pool is a finding", || {
        last = status(&admin);
        faults(&last.0).contains(&"pool-empty")
    });
    assert_eq!(
        (&last.0["verdict"], last.1),
        (&"not-healthy".into(), Some(1))
    );
    let text = out(&eppctl(&["status", &admin], ""));
    assert!(
        text.contains("broken: pool-empty of inference-pool\n  cause: "),
        "{text}"
    );
}

/// Returns a server's address that responds to any request with 404.
fn without_pages() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
        }
    });
    address
}

/// The drills (tests/e2e/drills) compare the page with log and metrics; this, three of their causes with the verdict.
#[test]
fn causes_and_remedies_are_those_of_the_status_page() {
    // Random picks among three: picks among two would follow Envoy's round robin.
    let sim = Sim::start(3, &Settings::default()).unwrap();
    let of_cluster = |cluster: &str| {
        format!(
            "{}  {{type: random-picker}}, {{name: members, type: envoy-cluster-discovery, parameters: {{clusters: [{cluster}]}}}}]
schedulingProfiles: [{{name: default, plugins: [{{pluginRef: queue-scorer}}, {{pluginRef: random-picker}}]}}]
dataLayer: {{discovery: {{pluginRef: members}}}}
",
            CONFIG.trim_end().trim_end_matches(']').to_owned() + ",\n"
        )
    };
    let mut setup = Setup::new(&sim.addresses(), &of_cluster("inference-pool"));
    // This cluster does not follow the header.
    setup.cluster =
        json!({"load_balancing_policy": policy("round_robin", "RoundRobin", json!({}))});
    for (name, members) in [
        ("models", sim.addresses()),
        ("missing", vec![without_pages()]),
    ] {
        setup.others.push((name.to_owned(), members));
    }
    setup.configs.extend(["modles", "missing"].map(of_cluster));
    setup.status_page = true;
    let proxy = setup.start();
    let admin = format!("127.0.0.1:{}", proxy.admin);
    let expected = [
        ("no-override-host", "inference-pool"),
        ("cluster-unknown", "modles"),
        ("polls-fail", "missing"),
    ];
    let mut report = Value::Null;
    let found = |report: &Value, (id, pool): (&str, &str)| {
        let findings = report["findings"].as_array()?.iter();
        let mut own = findings.filter(|finding| finding["id"] == id && finding["pool"] == pool);
        own.next().cloned()
    };
    let mut number = 0;
    proxy.wait_until("all are found", || {
        for _ in 0..10 {
            number += 1;
            complete(proxy.port, "m", &format!("{number} of many"));
        }
        report = status(&admin).0;
        expected.iter().all(|one| found(&report, *one).is_some())
    });
    assert_eq!(report["verdict"], "not-healthy");
    let text = out(&eppctl(&["status", &admin], ""));
    for (id, pool) in expected {
        let finding = found(&report, (id, pool)).unwrap();
        let [cause, remedy] = ["cause", "remedy"].map(|key| finding[key].as_str().unwrap());
        assert!(
            text.contains(cause) && text.contains(remedy),
            "{id}: {text}"
        );
        // Both, in the section of this pool.
        proxy.wait_until(&format!("{id} is on the page"), || {
            let page = get(proxy.status, "/").map_or_else(|_| String::new(), |page| page.body);
            let title = format!("Pool {pool}<");
            let mut sections = page.split("<section");
            let section = sections.find(|section| section.contains(&title));
            section.is_some_and(|section| section.contains(cause) && section.contains(remedy))
        });
    }
}

#[test]
fn what_is_not_an_envoy_with_the_filter_has_no_verdict() {
    let output = eppctl(&["status", "127.0.0.1:1"], "");
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        error.contains("admin interface") && error.contains("unix:"),
        "{error}"
    );
}

/// Returns how many updates of filters Envoy has accepted.
fn accepted(proxy: &Proxy) -> u64 {
    let page = proxy.prometheus();
    let counts = page
        .lines()
        .filter(|line| line.contains("_http_filter_") && line.contains("_update_success{"));
    counts
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum()
}

/// Whether the last update of the filter is in force is told, however it is delivered.
#[test]
fn a_refused_update_is_a_fault_until_it_is_corrected() {
    for (discovered, id) in [(true, "filter-updates-refused"), (false, "refused-update")] {
        let sim = Sim::start(2, &Settings::default()).unwrap();
        let mut setup = Setup::new(&sim.addresses(), CONFIG);
        setup.filters_discovered = discovered;
        let mut proxy = setup.start();
        let (admin, module) = (
            format!("127.0.0.1:{}", proxy.admin),
            proxy.setup.module.clone(),
        );
        let is_healthy = |proxy: &Proxy| {
            proxy.wait_until("it is healthy", || status(&admin).1 == Some(0));
        };
        let is_refused = |proxy: &Proxy| {
            proxy.wait_until("the refused update is a fault", || {
                let (report, code) = status(&admin);
                faults(&report).contains(&id) && code == Some(1)
            });
        };
        is_healthy(&proxy);
        for _ in 0..2 {
            proxy.set_config(&CONFIG.replace("queue-scorer", "queue-socrer"));
            is_refused(&proxy);
            proxy.set_config(CONFIG);
            is_healthy(&proxy);
        }
        proxy.set_module(Path::new("/nowhere.wasm"));
        is_refused(&proxy);
        if discovered {
            // Envoy counts the refused filter as accepted when it comes again.
            let before = accepted(&proxy);
            proxy.set_config(CONFIG);
            proxy.wait_until("it has come again", || accepted(&proxy) > before);
            is_refused(&proxy);
        } else {
            proxy.set_module(&module);
            is_healthy(&proxy);
        }
    }
}
