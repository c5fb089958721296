//! Each alert fires in its drill, and no other; none fires in the hours before, nor for the pool that is well beside
//! it. [`replay`] says how hours are made of seconds.

mod flow;
pub mod replay;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::Arc;

use envoy_harness::path_of;
use epp_core::findings::Finding;
use fake_model_server::{Faults, Metrics, Settings, Sim};
use serde_json::json;

use self::replay::{fires, Fired, Phase, Recording};
use super::{misconfigured, open, pool};
use crate::client::{complete, get, post, send};
use crate::document;
use crate::proxy::{Proxy, Setup};

/// An Envoy whose pools have one fault each, after hours without any.
const OF_POOLS: &[Fired] = &[
    // All pages of one have status 500; of the other, one of two pods is gone, and its page with it.
    ("EppMetricsAreStale", &["silent", "refusing"]),
    ("EppPollsFail", &["silent", "refusing"]),
    ("EppDecidesWithoutMetrics", &["silent"]),
    ("EppEndpointEjected", &["refusing"]),
    // The admin interface no longer responds.
    ("EppMembersAreOld", &["aged"]),
    ("EppMisconfigured", &["aged"]),
    // Prompts are new, and one of two pods fails Envoy's health checks.
    ("EppCacheHitsFall", &["inference-pool"]),
    ("EppEndpointsUnhealthy", &["inference-pool"]),
];

/// Two Envoys after hours without a fault. The first is sent a listener without bodies and a wrong one, panics, loses a
/// VM, its memory and its endpoints. The second is sent another build of the module, on a version of Envoy that was not
/// tested, and a wrong configuration by ECDS; one of its pods hangs.
const OF_ENVOYS: &[Fired] = &[
    ("EppDoesNotReadBodies", &["inference-pool"]),
    ("EppListenerUpdateRefused", &[]),
    ("EppConfigurationRefused", &[]),
    ("EppModulePanicked", &["inference-pool"]),
    ("EppModuleTrapped", &[]),
    ("EppMemoryIsHigh", &["inference-pool"]),
    ("EppNoEndpoints", &["inference-pool"]),
    ("EppRefusesRequests", &["inference-pool"]),
    ("EppFilterUpdateRefused", &[]),
    ("EppEndpointHung", &["inference-pool"]),
    ("EppVersionsDiffer", &[]),
    ("EppEnvoyUntested", &[]),
];

/// A new Envoy that has refused its first listener and its first filter.
const OF_BEGINNINGS: &[Fired] = &[
    ("EppListenerUpdateRefused", &[]),
    ("EppFilterUpdateRefused", &[]),
];

/// The pools without a fault, if each decision took a thousand times as long.
const OF_SLOWNESS: &[Fired] = &[(
    "EppDecisionsAreSlow",
    &["inference-pool", "fine", "silent", "refusing", "aged"],
)];

/// Prometheus gets no page, or one on which the filter has nothing, while requests are served as before.
const OF_MONITORING: &[Fired] = &[("EppNotMonitored", &[])];

const BAD: &str =
    "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n- type: queue-socrer\n";

/// Clients choose the profile: one that names none is refused, in hours without a fault, too.
const CHOOSING: &str = "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {type: header-profile-handler, parameters: {defaultProfile: default}}
- {type: queue-scorer}
- {name: members, type: envoy-cluster-discovery, parameters: {clusters: [fine]}}
schedulingProfiles:
- {name: default, plugins: [{pluginRef: queue-scorer}]}
- {name: other, plugins: [{pluginRef: queue-scorer}]}
dataLayer: {discovery: {pluginRef: members}}
";

/// Ejections last: pages tell whether an endpoint is ejected at two moments.
const LONG: &str = "{type: envoy-proxy, parameters: {avoidFirst: 30s}},";

#[test]
fn every_alert_has_a_drill() {
    let drills = [
        misconfigured::ALERTS,
        OF_POOLS,
        OF_ENVOYS,
        OF_BEGINNINGS,
        flow::ALERTS,
        OF_SLOWNESS,
        OF_MONITORING,
    ];
    let fired: BTreeSet<String> = drills
        .iter()
        .copied()
        .flatten()
        .map(|(alert, _)| (*alert).to_owned())
        .collect();
    assert_eq!(fired, replay::alerts());
}

/// A server between the admin interface and both the filter and Prometheus, which can be cut off.
pub struct Relay {
    pub address: SocketAddr,
    /// The port of the admin interface; 0 while it is cut off.
    pub target: Arc<AtomicU16>,
}

impl Relay {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let target = Arc::new(AtomicU16::new(0));
        let port = target.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut request = [0; 4096];
                let length = stream.read(&mut request).unwrap_or(0);
                let request = String::from_utf8_lossy(&request[..length]).into_owned();
                let path = request.split(' ').nth(1).unwrap_or("/");
                if let Ok(page) = get(port.load(Ordering::Relaxed), path) {
                    let (kind, length) = (page.header("content-type"), page.body.len());
                    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
                    let _ = stream.write_all(&[head.as_bytes(), page.body.as_bytes()].concat());
                }
            }
        });
        Self { address, target }
    }
}

/// A configuration that keeps prompts where they are cached.
fn cached() -> String {
    document(
        "{type: prefix-cache-scorer}, {type: queue-scorer}",
        "{pluginRef: prefix-cache-scorer, weight: 100}, {pluginRef: queue-scorer}",
    )
}

fn prompt(number: u32) -> String {
    format!("{number} is the number of this prompt. ").repeat(40)
}

/// Has the metrics pages of all pods fail.
fn silence(sim: &Sim) {
    let fault = Faults {
        metrics: Metrics::Error,
        ..Faults::default()
    };
    sim.pods().for_each(|pod| pod.set_faults(fault.clone()));
}

/// Starts an Envoy whose pools are well so far: a fine one, those that the faults of these servers are about, and one
/// that reads its members through the relay.
fn with_pools(sims: [&Sim; 4], relay: &Relay) -> Proxy {
    let [fine, unwell, silent, refusing] = sims;
    let mut setup = Setup::new(&unwell.addresses(), &cached());
    setup.cluster = json!({"health_checks": [{"timeout": "1s", "interval": "0.2s", "no_traffic_interval": "0.2s",
        "unhealthy_threshold": 1, "healthy_threshold": 1, "http_health_check": {"path": "/health"}}]});
    for (name, sim, config) in [
        ("fine", fine, CHOOSING.to_owned()),
        ("silent", silent, pool("silent", "", LONG)),
        ("refusing", refusing, pool("refusing", "", LONG)),
        ("aged", fine, pool("aged", ", adminCluster: relay", "")),
    ] {
        setup.configs.push(config);
        setup.others.push((name.to_owned(), sim.addresses()));
    }
    setup.more_clusters = vec![envoy_harness::config::fixed("relay", &[relay.address])];
    let proxy = setup.launch();
    relay.target.store(proxy.admin, Ordering::Relaxed);
    proxy.wait_until_it_serves();
    proxy.wait_until("all pools have fresh metrics", || {
        proxy.counted("epp_wasm_endpoint_freshness") == 20
    });
    proxy
}

#[test]
fn alerts_about_pools_fire_in_their_drills_and_never_before() {
    let start = || Sim::start(2, &Settings::default()).unwrap();
    let (fine, unwell, silent, mut refusing) = (start(), start(), start(), start());
    let relay = Relay::start();
    let proxy = with_pools([&fine, &unwell, &silent, &refusing], &relay);

    let mut number = 0;
    let mut ask = |prompts: u32| {
        number += 1;
        let response = complete(proxy.port, "m", &prompt(number % prompts));
        assert_eq!(response.status, 200);
        for name in ["fine", "silent", "refusing", "aged"] {
            let _ = get(proxy.port, &format!("/{name}/v1/models"));
        }
        let refused = send(
            proxy.port,
            "GET",
            "/fine/x",
            &[("epp-profile", "none")],
            b"",
        );
        assert_eq!(refused.unwrap().status, 429);
    };
    ask(4);
    let [before] = Phase::record([relay.address.port()], || ask(4));

    unwell.pod(0).set_faults(Faults {
        status: Some(500),
        ..Faults::default()
    });
    // Before that, requests would fail.
    proxy.wait_until("a pod is unhealthy", || {
        open(&proxy, "inference-pool", Finding::EndpointsUnhealthy) == Some(1)
    });
    silence(&silent);
    refusing.stop(1);
    relay.target.store(0, Ordering::Relaxed);
    for (name, finding) in [
        ("silent", Finding::OwnCounts),
        ("refusing", Finding::EndpointsEjected),
        ("aged", Finding::AdminUnreachable),
    ] {
        proxy.wait_until("it is found", || {
            ask(u32::MAX);
            open(&proxy, name, finding) == Some(1)
        });
    }
    let ports = [proxy.admin, relay.address.port()];
    let [during, cut_off] = Phase::record(ports, || ask(u32::MAX));
    judge_pools(&before, during, cut_off);
}

/// Checks which alerts fire as the pages of the pools follow each other.
fn judge_pools(before: &Phase, during: Phase, cut_off: Phase) {
    // Decisions take some 50 µs even where Envoy has a fraction of a core: no drill makes them slow.
    let slow = before.clone().with_slow_decisions();
    let before = before.clone().without_times();
    let bare = before.clone().without_filter();
    for (phases, expected) in [
        (
            vec![before.clone(), during.without_times()],
            &[&[], OF_POOLS] as &[_],
        ),
        (vec![slow], &[OF_SLOWNESS]),
        (vec![before.clone(), cut_off], &[&[], OF_MONITORING]),
        (vec![before, bare], &[&[], OF_MONITORING]),
    ] {
        let recording = Recording {
            instance: "pools",
            phases,
        };
        fires(&[recording], expected);
    }
}

/// Plays the faults of the first Envoy.
fn first_faults(proxy: &mut Proxy) {
    proxy.setup.bodies_first = false;
    proxy.set_config(&cached());
    proxy.wait_until("bodies are no longer read", || {
        let _ = complete(proxy.port, "m", "x");
        proxy.counted("epp_wasm_reads_bodies") == 0
    });
    proxy.set_config(BAD);
    proxy.wait_until("the listener is refused", || {
        proxy.stat("listener_manager.lds.update_rejected") == 1
    });
    let fault = |kind| {
        let body = json!({"model": "m", "prompt": "x", "max_tokens": 1});
        let _ = post(
            proxy.port,
            "/v1/completions",
            &body,
            &[("x-epp-fault", kind)],
        );
    };
    fault("panic");
    // The VM counts at its next tick.
    proxy.wait_until("the panic is counted", || {
        proxy.counted("epp_wasm_caught_panics_total") == 1
    });
    fault("trap");
    proxy.wait_until("the VM is back", || {
        complete(proxy.port, "m", "x").status == 200
            && proxy.stat_so_far("wasm.epp0.vm_reload_success") == 1
    });
    fault("hoard@response_body");
    proxy.wait_until("memory is high", || {
        let _ = complete(proxy.port, "m", "x");
        proxy.counted_with("epp_wasm_vm_memory_bytes", "vm=\"worker\"") > 512 << 20
    });
    proxy.set_pods(&[]);
    proxy.wait_until("requests are rejected", || {
        let _ = complete(proxy.port, "m", "x");
        proxy.counted("llm_d_epp_request_error_total") > 0
    });
}

/// Plays the faults of the second Envoy.
fn second_faults(proxy: &mut Proxy, sim: &Sim) {
    let build = |proxy: &Proxy| {
        let page = proxy.prometheus();
        let mut lines = page.lines();
        let line = lines.find(|line| line.starts_with("epp_wasm_build_info{"));
        line.unwrap().to_owned()
    };
    let former = build(proxy);
    proxy.set_module(&path_of("EPP_WASM"));
    proxy.wait_until("the other build is in force, alone", || {
        let _ = complete(proxy.port, "m", "x");
        !proxy.prometheus().contains(&former)
    });
    proxy.set_config(BAD);
    proxy.wait_until("the filter is refused", || {
        proxy.stat("extension_config_discovery.http_filter.wasm0.update_rejected") == 1
    });
    for number in 0..100 {
        let _ = complete(proxy.port, "m", &prompt(number));
    }
    sim.pod(0).set_faults(Faults {
        hang: true,
        ..Faults::default()
    });
    let port = proxy.port;
    proxy.wait_until("a pod hangs", || {
        for _ in 0..5 {
            std::thread::spawn(move || complete(port, "m", "x").status);
        }
        proxy.counted_with("epp_wasm_endpoint_ejected", "reason=\"hung\"") == 1
    });
}

/// Has the counters begin at 1, as where Prometheus finds an Envoy that has refused what it was sent first.
fn begin_with_refusals(phases: [Phase; 2]) {
    let [listener, filter] = phases.map(Phase::without_times);
    let counters = [
        (listener, "envoy_listener_manager_lds_update_rejected"),
        (
            filter,
            "envoy_extension_config_discovery_http_filter_epp_update_rejected",
        ),
    ];
    let recordings = counters.map(|(phase, counter)| Recording {
        instance: counter,
        phases: vec![phase.with(&format!("{counter}{{}} 0"), &format!("{counter}{{}} 1"))],
    });
    fires(&recordings, &[OF_BEGINNINGS]);
}

#[test]
fn alerts_about_envoys_fire_in_their_drills_and_never_before() {
    let sims = [2, 3].map(|pods| Sim::start(pods, &Settings::default()).unwrap());
    let config = document(
        &format!("{{type: queue-scorer}}, {{type: random-picker}}, {LONG}"),
        "{pluginRef: random-picker}, {pluginRef: queue-scorer, weight: 0}",
    );
    let [mut first, mut second] = [&sims[0], &sims[1]].map(|sim| {
        let mut setup = Setup::new(&sim.addresses(), &config);
        setup.module = setup.host.faulty_file();
        setup
    });
    first.configs = vec![cached()];
    second.filters_discovered = true;
    let [mut first, mut second] = [first, second].map(Setup::start);
    let ports = [first.port, second.port];
    let admins = [first.admin, second.admin];
    let ask = || ports.map(|port| complete(port, "m", &prompt(1)).status);
    let before = Phase::record(admins, || assert_eq!(ask(), [200; 2]));
    begin_with_refusals(before.clone());
    first_faults(&mut first);
    second_faults(&mut second, &sims[1]);
    let during = Phase::record(admins, || {
        let _ = ask();
    });
    // Those that it holds end.
    sims[1].pod(0).set_faults(Faults::default());
    let [first, second] = during;
    // There is no Envoy here with which the module was not tested.
    let during = [first, second.with("tested=\"yes\"", "tested=\"no\"")];
    let names = ["first", "second"].into_iter();
    let recordings = names
        .zip(before)
        .zip(during)
        .map(|((instance, before), during)| Recording {
            instance,
            phases: [before, during].map(Phase::without_times).into(),
        });
    fires(&recordings.collect::<Vec<_>>(), &[&[], OF_ENVOYS]);
}
