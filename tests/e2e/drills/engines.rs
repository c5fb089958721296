//! An engine that hangs, a pool whose members come late and whose pages fail, and a VM that is lost while it polls.

use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use envoy_harness::config::fixed;
use envoy_harness::host::Host;
use envoy_harness::PATIENCE;
use epp_core::findings::Finding;
use fake_model_server::{Faults, Metrics, Settings, Sim};
use serde_json::json;

use super::alerts::Relay;
use super::{is_over, is_told, open, pool, section};
use crate::client::{agent_within, complete, get, post, send_by};
use crate::proxy::{Proxy, Setup};

const SHORT: &str = "{type: metrics-data-source, parameters: {stalenessThreshold: 500ms}}, \
                     {type: envoy-proxy, parameters: {avoidFirst: 300ms, avoidMost: 1s}},";

#[test]
fn what_engines_and_workers_do_is_told_while_it_lasts() {
    let [sim, late] = [3, 2].map(|pods| Sim::start(pods, &Settings::default()).unwrap());
    let relay = Relay::start();
    // Random picks: a queue would keep requests away from the pod that hangs.
    let random = pool("inference-pool", "", SHORT).replace(
        "{pluginRef: queue-scorer}",
        "{pluginRef: queue-scorer, weight: 0}",
    );
    let mut setup = Setup::new(&sim.addresses(), &random);
    setup
        .configs
        .push(pool("late", ", adminCluster: relay", SHORT));
    setup.others.push(("late".to_owned(), late.addresses()));
    setup.more_clusters = vec![fixed("relay", &[relay.address])];
    setup.module = setup.host.faulty_file();
    setup.status_page = true;
    let proxy = setup.start();
    decision_modes_are_told(&proxy, &late, || {
        relay.target.store(proxy.admin, Ordering::Relaxed)
    });
    a_hung_engine_is_told(&proxy, &sim);
    if proxy.setup.host == Host::Wasm {
        // By a trap.
        another_poller_is_told(&proxy);
    }
}

/// Waits until the pool `late` decides by this, as metric and page say.
fn decides(proxy: &Proxy, mode: u64, basis: &str) {
    proxy.wait_until(&format!("the decision mode is {mode}"), || {
        proxy.counted_with("epp_wasm_decision_mode", "pool=\"late\"") == mode
    });
    proxy.wait_until("the page has it", || {
        section(proxy, "late").contains(&format!(">{basis}</td>"))
    });
}

/// The admin interface, which cannot be reached at first, is there after `connect`.
fn decision_modes_are_told(proxy: &Proxy, late: &Sim, connect: impl FnOnce()) {
    is_told(proxy, "late", Finding::BalancedBlindly, "cluster late");
    is_told(
        proxy,
        "late",
        Finding::AdminUnreachable,
        "cluster \"relay\": reset",
    );
    decides(proxy, 0, "nothing yet");
    connect();
    is_over(proxy, "late", Finding::BalancedBlindly);
    is_over(proxy, "late", Finding::AdminUnreachable);
    decides(proxy, 2, "metrics");
    set_metrics(late, Metrics::Error);
    let fresh = "0 of 2 endpoints have fresh metrics";
    is_told(proxy, "late", Finding::OwnCounts, fresh);
    decides(proxy, 1, "its own counts");
    set_metrics(late, Metrics::Fine);
    is_over(proxy, "late", Finding::OwnCounts);
    decides(proxy, 2, "metrics");
}

/// Has the metrics pages of all pods fail, or not.
fn set_metrics(sim: &Sim, metrics: Metrics) {
    let faults = Faults {
        metrics,
        ..Faults::default()
    };
    sim.pods().for_each(|pod| pod.set_faults(faults.clone()));
}

/// What is known of the members stays: without any page the pool decides by its own counts, and by nothing only once
/// Envoy has started again.
#[test]
fn a_pool_without_any_page_decides_by_nothing_once_envoy_has_started_again() {
    let sim = Sim::start(2, &Settings::default()).unwrap();
    let relay = Relay::start();
    let config = pool("late", ", adminCluster: relay", SHORT);
    let mut setup = Setup::new(&sim.addresses(), &config);
    setup.others.push(("late".to_owned(), sim.addresses()));
    setup.more_clusters = vec![fixed("relay", &[relay.address])];
    setup.base_id = Some(std::process::id());
    setup.status_page = true;
    let mut proxy = setup.launch();
    relay.target.store(proxy.admin, Ordering::Relaxed);
    proxy.wait_until_it_serves();
    decides(&proxy, 2, "metrics");

    set_metrics(&sim, Metrics::Error);
    relay.target.store(0, Ordering::Relaxed);
    is_told(
        &proxy,
        "late",
        Finding::AdminUnreachable,
        "cluster \"relay\": reset",
    );
    let fresh = "0 of 2 endpoints have fresh metrics";
    is_told(&proxy, "late", Finding::OwnCounts, fresh);
    decides(&proxy, 1, "its own counts");
    assert_ne!(open(&proxy, "late", Finding::BalancedBlindly), Some(1));

    proxy.replace_process();
    proxy.wait_until("the other process has taken over", || {
        get(proxy.admin, "/server_info")
            .is_ok_and(|info| info.body.contains("\"restart_epoch\": 1"))
    });
    is_told(&proxy, "late", Finding::BalancedBlindly, "cluster late");
    decides(&proxy, 0, "nothing yet");
    relay.target.store(proxy.admin, Ordering::Relaxed);
    decides(&proxy, 1, "its own counts");
    set_metrics(&sim, Metrics::Fine);
    decides(&proxy, 2, "metrics");
    is_over(&proxy, "late", Finding::BalancedBlindly);
}

/// Sends a request, and waits for its response for as long as it may take to find that the engine hangs.
fn complete_patiently(port: u16) -> u16 {
    let body = json!({"model": "m", "prompt": "x", "max_tokens": 1}).to_string();
    let agent = agent_within(PATIENCE * 4);
    let sent = send_by(
        &agent,
        port,
        "POST",
        "/v1/completions",
        &[],
        body.as_bytes(),
    );
    sent.unwrap().status
}

fn a_hung_engine_is_told(proxy: &Proxy, sim: &Sim) {
    let port = proxy.port;
    // Each pod gets a history, in each worker.
    for _ in 0..200 {
        assert_eq!(complete(port, "m", "x").status, 200);
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    sim.pod(0).set_faults(Faults {
        hang: true,
        ..Faults::default()
    });
    let mut clients: Vec<JoinHandle<u16>> = Vec::new();
    proxy.wait_until("it is found", || {
        let waiting = clients.iter().filter(|client| !client.is_finished());
        if waiting.count() < 20 {
            clients.extend((0..5).map(|_| std::thread::spawn(move || complete_patiently(port))));
        }
        open(proxy, "inference-pool", Finding::EndpointHung) == Some(1)
    });
    let pod = sim.addresses()[0];
    let detail = format!("1 of 3 endpoints: {pod} (hung)");
    is_told(proxy, "inference-pool", Finding::EndpointHung, &detail);
    let log = proxy.logged();
    assert!(
        log.contains(&format!("endpoint {pod} is ejected: hung")),
        "{log}"
    );
    proxy.wait_until("its row says why and for how long", || {
        section(proxy, "inference-pool").contains("no: ejected, hung, for ")
    });
    sim.pod(0).set_faults(Faults::default());
    for client in clients {
        assert_eq!(client.join().unwrap(), 200);
    }
    proxy.wait_until("it is over", || {
        // One of them is the probe.
        let _ = complete(port, "m", "x");
        open(proxy, "inference-pool", Finding::EndpointHung) == Some(0)
    });
    is_over(proxy, "inference-pool", Finding::EndpointHung);
    let back = format!("endpoint {pod} may be picked again: it was ejected for ");
    assert!(proxy.logged().contains(&back));
}

/// The main thread's VM polls for the pool that gets no requests, and is lost: a worker takes over.
fn another_poller_is_told(proxy: &Proxy) {
    let line = "pool late: this worker polls members and metrics for all from now on";
    let poller = || {
        let page = section(proxy, "late");
        let rows = page.split("<tr>").find(|row| row.contains("polls\">yes<"));
        rows.and_then(|row| {
            row.split("<td class=\"worker\">")
                .nth(1)?
                .split('<')
                .next()
                .map(str::to_owned)
        })
    };
    proxy.wait_until("the page says who polls", || poller().is_some());
    let (before, said) = (poller(), proxy.logged().matches(line).count());
    let body = json!({"model": "m", "prompt": "x", "max_tokens": 1});
    let fault = [("x-epp-fault", "trap@poller_tick")];
    assert_eq!(
        post(proxy.port, "/v1/completions", &body, &fault).status,
        200
    );
    proxy.wait_until("another one says that it polls", || {
        proxy.logged().matches(line).count() == said + 1
    });
    proxy.wait_until("the page says which", || {
        poller().is_some_and(|now| Some(now) != before)
    });
    proxy.wait_until("the VM is gone", || {
        proxy.counted_with("epp_wasm_sharing_vms", "pool=\"late\"") == 1
    });
    let no_poller = open(proxy, "late", Finding::NoPoller);
    assert_ne!(no_poller, Some(1), "it takes less than a finding");
    assert_eq!(get(proxy.port, "/v1/models").unwrap().status, 200);
}
