//! Defects of our own, injected: what a panic costs, and what a trap.
//!
//! The module is the one that `make wasm-faults` or `make module-faults` builds, where a request's `x-epp-fault` strikes
//! a fault (src/fault.rs, crates/epp-module/src/fault.rs).

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use fake_model_server::{Settings, Sim};
use serde_json::json;

use crate::client::{complete, post, Response};
use crate::document;
use crate::proxy::{Proxy, Setup};
use crate::ticks::{self, wait_until_vms_share, Vm};
use envoy_harness::host::Host;

/// An Envoy with the module that has faults, over a plan that reads bodies.
fn faulty(sim: &Sim, failure_mode: &str) -> Proxy {
    faulty_setup(sim, failure_mode).start()
}

fn faulty_setup(sim: &Sim, failure_mode: &str) -> Setup {
    let plugins = format!(
        "{{type: prefix-cache-scorer}}, {{type: queue-scorer}}, \
         {{type: envoy-proxy, parameters: {{failureMode: {failure_mode}}}}}"
    );
    let references = "{pluginRef: prefix-cache-scorer, weight: 2}, {pluginRef: queue-scorer}";
    let mut setup = Setup::new(&sim.addresses(), &document(&plugins, references));
    setup.module = setup.host.faulty_file();
    setup
}

fn with_fault(proxy: &Proxy, fault: &str) -> Response {
    let body = json!({"model": "m", "prompt": "hello", "max_tokens": 1});
    post(
        proxy.port,
        "/v1/completions",
        &body,
        &[("x-epp-fault", fault)],
    )
}

fn caught(proxy: &Proxy, callback: &str) -> u64 {
    let label = format!("callback=\"{callback}\"");
    proxy.counted_with("epp_wasm_caught_panics_total", &label)
}

/// VMs that Envoy has recreated after a trap.
fn reloads(proxy: &Proxy) -> u64 {
    proxy.stat_so_far("wasm.epp0.vm_reload_success")
}

#[test]
fn a_panic_affects_at_most_its_own_request() {
    let sim = Sim::start(2, &Settings::default()).unwrap();
    let places = [
        ("request_headers", 500),
        ("request_body", 500),
        // The response is on its way already.
        ("response_headers", 200),
        ("response_body", 200),
        ("delete", 200),
        ("tick", 200),
        ("poller_tick", 200),
        ("callout_response", 200),
    ];
    let proxy = faulty(&sim, "FailClose");
    for (place, status) in places {
        let response = with_fault(&proxy, &format!("panic@{place}"));
        assert_eq!(response.status, status, "{place}");
        if status == 500 {
            let expected = "inference gateway: Internal - the endpoint picker failed";
            assert_eq!(response.body, expected, "{place}");
        }
        assert_eq!(complete(proxy.port, "m", "hello").status, 200, "{place}");
        let callback = if place == "poller_tick" {
            "tick"
        } else {
            place
        };
        let expected = if place == "poller_tick" { 2 } else { 1 };
        proxy.wait_until("the panic is counted", || {
            caught(&proxy, callback) == expected
        });
    }
    assert_eq!(reloads(&proxy), 0);
    let log = proxy.logged();
    // All of them are of one place: once in each of the two VMs, or in the process.
    let times = match proxy.setup.host {
        Host::Wasm => 2,
        Host::Module => 1,
    };
    assert_eq!(
        log.matches("internal error, please report it").count(),
        times,
        "{log}"
    );
    assert!(log.contains("src/fault.rs:"), "{log}");
}

#[test]
fn with_fail_open_a_panic_affects_no_request() {
    let sim = Sim::start(2, &Settings::default()).unwrap();
    let proxy = faulty(&sim, "FailOpen");
    for place in ["request_headers", "request_body"] {
        let response = with_fault(&proxy, &format!("panic@{place}"));
        assert_eq!(response.status, 200, "{place}");
    }
    assert_eq!(reloads(&proxy), 0);
    // Its client may not choose even then.
    let first = sim.addresses()[0].to_string();
    let headers = [
        ("x-epp-fault", "panic"),
        ("x-gateway-destination-endpoint", first.as_str()),
    ];
    let body = json!({"model": "m", "prompt": "hello", "max_tokens": 1});
    let mut pods = Vec::new();
    for _ in 0..4 {
        let response = post(proxy.port, "/v1/completions", &body, &headers);
        assert_eq!(response.status, 200);
        pods.push(response.pod().to_owned());
    }
    pods.sort();
    pods.dedup();
    assert_eq!(pods.len(), 2, "Envoy's own balancing takes turns");
}

#[test]
fn a_panic_in_a_configuration_leaves_the_old_one() {
    let sim = Sim::start(1, &Settings::default()).unwrap();
    let mut proxy = faulty(&sim, "FailClose");
    with_fault(&proxy, "panic@configure");
    let config = proxy.setup.configs[0].replace("weight: 2", "weight: 3");
    proxy.set_config(&config);
    proxy.wait_until("the update is refused", || {
        proxy.stat_so_far("listener_manager.lds.update_rejected") > 0
    });
    assert_eq!(complete(proxy.port, "m", "hello").status, 200);
}

#[test]
fn after_a_trap_service_is_back_within_two_seconds() {
    let sim = Sim::start(2, &Settings::default()).unwrap();
    for kind in ["trap", "stack"] {
        let proxy = faulty(&sim, "FailClose");
        assert_eq!(complete(proxy.port, "m", "hello").status, 200);
        let left = proxy.counted("epp_wasm_fallback_total");
        let response = with_fault(&proxy, kind);
        assert_eq!(response.status, 503, "{kind}");
        // A request sent later than that is served. Until then each is rejected at once; the one that is served
        // waits for V8 to compile the module, which is not an outage.
        let since = Instant::now();
        loop {
            let sent = since.elapsed();
            if complete(proxy.port, "m", "hello").status == 200 {
                break;
            }
            assert!(sent < Duration::from_secs(2), "{kind}");
            sleep(Duration::from_millis(20));
        }
        assert_eq!(reloads(&proxy), 1, "{kind}");
        // It knew the members before its first tick: no request was left to chance or refused.
        assert_eq!(proxy.counted("epp_wasm_fallback_total"), left, "{kind}");
        let memory = proxy.counted_with("epp_wasm_vm_memory_bytes", "vm=\"main\"");
        assert!((1 << 20..64 << 20).contains(&memory), "{memory}");
    }
}

#[test]
fn after_a_trap_on_the_main_thread_a_worker_polls() {
    let sim = Sim::start(2, &Settings::default()).unwrap();
    let mut setup = faulty_setup(&sim, "FailClose");
    setup.status_page = true;
    let proxy = setup.start();
    wait_until_vms_share(&proxy, 2);
    let worker = || ticks::vms(&proxy).into_values().find(|vm| vm.serves);
    assert_eq!(with_fault(&proxy, "trap@poller_tick").status, 200);
    let before = worker().unwrap().heartbeats;
    let mut now = Vm::default();
    proxy.wait_until("the worker polls", || {
        now = worker().unwrap();
        now.polls
    });
    // Counted in its ticks, two seconds if they are on time: some until the trap, 15 until the lease has expired
    // for a VM that serves requests, 10 until its report.
    let ticks = now.heartbeats - before;
    assert!(ticks <= 40, "{ticks} ticks");
    let scrapes = || -> usize { sim.pods().map(|pod| pod.scrapes()).sum() };
    let before = scrapes();
    proxy.wait_until("the pods are polled", || {
        assert_eq!(complete(proxy.port, "m", "hello").status, 200);
        scrapes() >= before + 4
    });
    // The worker's VM was not touched.
    assert_eq!(reloads(&proxy), 0);
}

#[test]
fn a_release_has_no_fault_injection() {
    let has = |module: &Path| {
        let module = std::fs::read(module).unwrap();
        memchr::memmem::find(&module, b"x-epp-fault").is_some()
    };
    let host = Host::of_environment();
    assert!(has(&host.faulty_file()), "the check sees nothing");
    assert!(!has(&host.file()));
}
