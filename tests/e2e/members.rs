//! Endpoints that join, leave, refuse, hang, or have no usable metrics page.

use std::collections::HashSet;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fake_model_server::{Faults, Metrics, Pinned, Settings, Sim};
use serde_json::json;

use crate::client::complete;
use crate::preferences::settles_on;
use crate::proxy::Setup;
use crate::ticks::wait_for_statistics;
use crate::{document, scorer, start};

/// Passes connections on to a port, until it is stopped.
struct Relay {
    address: SocketAddr,
    port: Arc<AtomicU16>,
    open: Arc<Mutex<Option<Vec<TcpStream>>>>,
}

impl Relay {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let relay = Self {
            address: listener.local_addr().unwrap(),
            port: Arc::default(),
            open: Arc::new(Mutex::new(Some(Vec::new()))),
        };
        let (port, open) = (relay.port.clone(), relay.open.clone());
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let Ok(far) = TcpStream::connect(("127.0.0.1", port.load(Ordering::SeqCst))) else {
                    continue;
                };
                let Some(open) = &mut *open.lock().unwrap() else {
                    return;
                };
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    open.push(from.try_clone().unwrap());
                    std::thread::spawn(move || std::io::copy(&mut from, &mut to));
                }
            }
        });
        relay
    }

    fn stop(&self) {
        for stream in self.open.lock().unwrap().take().unwrap() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

#[test]
fn without_the_admin_interface_the_last_known_members_stay() {
    let sim = Sim::start(2, &Settings::default()).unwrap();
    let relay = Relay::start();
    let plugins = "{type: random-picker}, {name: members, type: envoy-cluster-discovery, parameters: {adminCluster: through-relay}}";
    let config = document(plugins, "{pluginRef: random-picker}")
        + "dataLayer: {discovery: {pluginRef: members}}\n";
    let mut setup = Setup::new(&sim.addresses(), &config);
    setup.others = vec![("through-relay".to_owned(), vec![relay.address])];
    let proxy = setup.launch();
    relay.port.store(proxy.admin, Ordering::SeqCst);
    let age = || proxy.counted("epp_wasm_members_age_milliseconds");
    let picks = || proxy.counted("llm_d_epp_scheduler_attempts_total");
    proxy.wait_until("members are known", || {
        crate::client::get(proxy.port, "/v1/models").is_ok() && picks() > 0
    });
    assert!(age() < 5_000);
    relay.stop();
    proxy.wait_until("their age shows it", || age() > 4_000);
    let pods: HashSet<String> = serving_pods(proxy.port, 20).into_iter().collect();
    assert_eq!(pods.len(), 2);
    let before = picks();
    proxy.wait_until("they are still picked", || picks() > before);
}

/// Two more clusters have the pool's endpoints by role; requests go to the pool's own.
#[test]
fn members_of_labelled_clusters_have_roles() {
    let sim = Sim::start(4, &Settings::default()).unwrap();
    let addresses = sim.addresses();
    let plugins = "{type: decode-filter}, {type: random-picker}, {name: members, type: envoy-cluster-discovery, parameters: {clusters: \
                   [inference-pool, {name: decode, labels: {llm-d.ai/role: decode}}, {name: prefill, labels: {llm-d.ai/role: prefill}}]}}";
    let references = "{pluginRef: decode-filter}, {pluginRef: random-picker}";
    let config = document(plugins, references) + "dataLayer: {discovery: {pluginRef: members}}\n";
    let mut setup = Setup::new(&addresses, &config);
    setup.workers = 2;
    let (decode, prefill) = addresses.split_at(2);
    setup.others = vec![
        ("decode".to_owned(), decode.to_vec()),
        ("prefill".to_owned(), prefill.to_vec()),
    ];
    let proxy = setup.start();
    let pods: HashSet<String> = serving_pods(proxy.port, 40).into_iter().collect();
    let decode: HashSet<String> = (1..3).map(|pod| format!("pod-{pod}")).collect();
    assert_eq!(pods, decode);
}

#[test]
fn an_endpoint_that_leaves_finishes_what_it_has_and_gets_nothing_new() {
    let slow = Settings {
        token_time: Duration::from_millis(100),
        ..Settings::default()
    };
    let sim = Sim::start(2, &slow).unwrap();
    let mut proxy = start(&sim, &scorer("active-request-scorer"));
    let port = proxy.port;
    let long = std::thread::spawn(move || {
        let body = json!({"model": "m", "prompt": "x", "max_tokens": 60, "stream": true});
        crate::client::post(port, "/v1/completions", &body, &[])
    });
    let busy = || {
        sim.pods().position(|pod| {
            pod.seen()
                .iter()
                .any(|seen| seen.path.contains("completions"))
        })
    };
    proxy.wait_until("one pod is responding", || busy().is_some());
    let leaving = busy().unwrap();
    proxy.set_pods(&[sim.addresses()[1 - leaving]]);
    proxy.wait_until("it has left", || {
        proxy.counted("llm_d_epp_ready_endpoints") == 1
    });
    sim.pod(leaving).forget();
    serving_pods(port, 10);
    let got = sim.pod(leaving).seen();
    assert!(
        got.iter().all(|seen| !seen.path.contains("completions")),
        "{got:?}"
    );
    let response = long.join().unwrap();
    assert_eq!(response.status, 200);
    assert!(
        response.body.ends_with("data: [DONE]\n\n"),
        "{}",
        response.body
    );
    proxy.wait_until("nothing stays counted", || {
        proxy.counted("llm_d_epp_inflight_requests") == 0
    });
    // The next endpoint in its slot starts without load.
    proxy.set_pods(&sim.addresses());
    proxy.wait_until("it is back", || {
        proxy.counted("llm_d_epp_ready_endpoints") == 2
    });
    assert_eq!(proxy.counted("llm_d_epp_inflight_requests"), 0);
}

/// Returns the pods that serve some requests without a common prefix, all with status 200.
fn serving_pods(port: u16, requests: usize) -> Vec<String> {
    let one = |number: usize| {
        let response = complete(port, "m", &format!("{number} of many"));
        assert_eq!(response.status, 200, "{response:?}");
        response.pod().to_owned()
    };
    (0..requests).map(one).collect()
}

#[test]
fn listed_endpoints_are_the_only_candidates() {
    let sim = Sim::start(3, &Settings::default()).unwrap();
    let endpoints: Vec<String> = sim
        .addresses()
        .iter()
        .take(2)
        .enumerate()
        .map(|(number, at)| {
            format!(
                "{{name: p{number}, address: {}, port: \"{}\"}}",
                at.ip(),
                at.port()
            )
        })
        .collect();
    let plugins = format!(
        "{{type: queue-scorer}}, {{name: pods, type: static-discovery, parameters: {{endpoints: [{}]}}}}",
        endpoints.join(", ")
    );
    let config = document(&plugins, "{pluginRef: queue-scorer}")
        + "dataLayer: {discovery: {pluginRef: pods}}\n";
    let proxy = start(&sim, &config);
    let pods: HashSet<String> = serving_pods(proxy.port, 30).into_iter().collect();
    assert_eq!(
        pods,
        HashSet::from(["pod-1".to_owned(), "pod-2".to_owned()])
    );
}

#[test]
fn members_come_and_go_without_a_restart() {
    let mut sim = Sim::start(1, &Settings::default()).unwrap();
    let mut proxy = start(&sim, &scorer("queue-scorer"));
    assert!(serving_pods(proxy.port, 14)
        .iter()
        .all(|pod| pod == "pod-1"));
    sim.add(0, Settings::default()).unwrap();
    sim.pod(0).pin(Pinned {
        waiting: Some(50),
        ..Pinned::default()
    });
    proxy.set_pods(&sim.addresses());
    proxy.wait_until("the new pod is used", || {
        complete(proxy.port, "m", "x").pod() == "pod-2"
    });
    proxy.set_pods(&sim.addresses()[..1]);
    proxy.wait_until("the pod that left is not", || {
        serving_pods(proxy.port, 14)
            .iter()
            .all(|pod| pod == "pod-1")
    });
}

#[test]
fn a_pod_that_refuses_costs_no_request() {
    let mut sim = Sim::start(3, &Settings::default()).unwrap();
    let proxy = start(&sim, &scorer("prefix-cache-scorer"));
    let favourite = complete(proxy.port, "m", &"a long shared prompt ".repeat(20))
        .pod()
        .to_owned();
    let number = favourite
        .strip_prefix("pod-")
        .unwrap()
        .parse::<usize>()
        .unwrap()
        - 1;
    sim.stop(number);
    let again = || {
        let response = complete(proxy.port, "m", &"a long shared prompt ".repeat(20));
        assert_eq!(response.status, 200);
        assert_ne!(response.pod(), favourite);
    };
    (0..20).for_each(|_| again());
    // The filter samples which endpoint served a request, so it takes more than one.
    proxy.wait_until("it was picked first", || {
        again();
        proxy.counted("epp_wasm_served_elsewhere_total") > 0
    });
    sim.restart(number).unwrap();
    proxy.wait_until("it is used again", || {
        serving_pods(proxy.port, 10).contains(&favourite)
    });
}

#[test]
fn pods_without_metrics_do_not_attract_all_requests() {
    let sim = Sim::start(4, &Settings::default()).unwrap();
    // Two have no metrics from the start, two are moderately busy.
    for number in [0, 1] {
        sim.pod(number).set_faults(Faults {
            metrics: Metrics::Hang,
            ..Faults::default()
        });
    }
    for number in [2, 3] {
        sim.pod(number).pin(Pinned {
            waiting: Some(3),
            kv_usage: Some(0.3),
            ..Pinned::default()
        });
    }
    let config = document(
        "{type: queue-scorer}, {type: kv-cache-utilization-scorer}",
        "{pluginRef: queue-scorer}, {pluginRef: kv-cache-utilization-scorer}",
    );
    let proxy = start(&sim, &config);
    // 2 is fresh: the two with a metrics page.
    proxy.wait_until("two metrics pages are known", || {
        proxy.counted("epp_wasm_endpoint_freshness") == 4
    });
    let pods = serving_pods(proxy.port, 80);
    let hidden = pods
        .iter()
        .filter(|pod| ["pod-1", "pod-2"].contains(&pod.as_str()))
        .count();
    // The Endpoint Picker would send all 80 to them; neutral means a fair share.
    assert!(
        (15..=65).contains(&hidden),
        "{hidden} of 80 to pods without metrics"
    );
}

#[test]
fn metrics_expire_once_scrapes_hang() {
    let sim = Sim::start(2, &Settings::default()).unwrap();
    sim.pod(1).pin(Pinned {
        kv_usage: Some(0.5),
        ..Pinned::default()
    });
    let proxy = start(&sim, &scorer("kv-cache-utilization-scorer"));
    proxy.wait_until("the emptier pod is preferred", || {
        serving_pods(proxy.port, 14)
            .iter()
            .all(|pod| pod == "pod-1")
    });
    sim.pod(0).set_faults(Faults {
        metrics: Metrics::Hang,
        ..Faults::default()
    });
    // Stale after 2 s, it is neutral: as good as the other.
    proxy.wait_until("frozen metrics no longer decide", || {
        serving_pods(proxy.port, 20).contains(&"pod-2".to_owned())
    });
}

#[test]
fn invalid_metrics_pages_are_not_used() {
    for fault in [Metrics::Error, Metrics::Garbage] {
        let sim = Sim::start(2, &Settings::default()).unwrap();
        sim.pod(0).set_faults(Faults {
            metrics: fault,
            ..Faults::default()
        });
        sim.pod(1).pin(Pinned {
            waiting: Some(7),
            ..Pinned::default()
        });
        let proxy = start(&sim, &scorer("queue-scorer"));
        proxy.wait_until("the failures are counted", || {
            proxy
                .prometheus()
                .contains("llm_d_epp_datalayer_poll_errors_total{")
        });
        let pods: HashSet<String> = serving_pods(proxy.port, 40).into_iter().collect();
        assert_eq!(pods.len(), 2, "{fault:?}");
    }
}

#[test]
fn a_huge_page_is_read() {
    let sim = Sim::start(2, &Settings::default()).unwrap();
    sim.pod(0).set_faults(Faults {
        metrics: Metrics::Huge,
        ..Faults::default()
    });
    sim.pod(1).pin(Pinned {
        waiting: Some(7),
        ..Pinned::default()
    });
    let proxy = start(&sim, &scorer("queue-scorer"));
    proxy.wait_until("the idle pod is preferred", || {
        serving_pods(proxy.port, 10)
            .iter()
            .all(|pod| pod == "pod-1")
    });
}

#[test]
fn an_unhealthy_member_is_not_a_candidate() {
    let sim = Sim::start(2, &Settings::default()).unwrap();
    sim.pod(1).pin(Pinned {
        waiting: Some(50),
        ..Pinned::default()
    });
    let mut setup = Setup::new(&sim.addresses(), &scorer("queue-scorer"));
    setup.cluster = json!({"health_checks": [{"timeout": "1s", "interval": "0.2s", "no_traffic_interval": "0.2s",
        "unhealthy_threshold": 1, "healthy_threshold": 1, "http_health_check": {"path": "/health"}}]});
    setup.route = json!({"retry_policy": {"num_retries": 0}});
    let proxy = setup.start();
    settles_on(proxy.port, "pod-1");
    sim.pod(0).set_faults(Faults {
        status: Some(500),
        ..Faults::default()
    });
    proxy.wait_until("it is left alone", || {
        (0..10).all(|_| complete(proxy.port, "m", "x").pod() == "pod-2")
    });
}

#[test]
fn a_member_that_envoy_ejected_is_not_a_candidate() {
    let sim = Sim::start(2, &Settings::default()).unwrap();
    sim.pod(1).pin(Pinned {
        waiting: Some(50),
        ..Pinned::default()
    });
    let mut setup = Setup::new(&sim.addresses(), &scorer("queue-scorer"));
    setup.cluster = json!({"outlier_detection": {"consecutive_5xx": 1, "base_ejection_time": "300s",
        "max_ejection_percent": 100}});
    setup.route = json!({"retry_policy": {"num_retries": 0}});
    setup.status_page = true;
    let proxy = setup.start();
    settles_on(proxy.port, "pod-1");
    sim.pod(0).set_faults(Faults {
        status: Some(500),
        ..Faults::default()
    });
    assert_eq!(complete(proxy.port, "m", "x").status, 500);
    sim.pod(0).set_faults(Faults::default());
    let ready = || proxy.counted("llm_d_epp_ready_endpoints");
    proxy.wait_until("the filter knows", || ready() == 1);
    let picks = || {
        let pod = sim.addresses()[0].to_string();
        proxy.counted_with("llm_d_epp_scheduler_attempts_total", &pod)
    };
    wait_for_statistics(&proxy);
    let before = picks();
    assert!(serving_pods(proxy.port, 10)
        .iter()
        .all(|pod| pod == "pod-2"));
    wait_for_statistics(&proxy);
    assert_eq!(
        picks(),
        before,
        "Envoy would pass it by, too; it is not even picked"
    );
}

#[test]
fn a_hung_pod_holds_only_what_was_sent_to_it() {
    let sim = Sim::start(3, &Settings::default()).unwrap();
    let mut setup = Setup::new(&sim.addresses(), &scorer("queue-scorer"));
    setup.route = json!({"retry_policy": {
        "retry_on": "connect-failure,reset,retriable-status-codes", "retriable_status_codes": [503, 504],
        "num_retries": 2, "per_try_timeout": "0.5s"}});
    let proxy = setup.start();
    sim.pod(0).set_faults(Faults {
        hang: true,
        ..Faults::default()
    });
    // Each gets its response before its client gives up.
    serving_pods(proxy.port, 20);
    let tried = proxy.stat("cluster.inference-pool.upstream_rq_per_try_timeout");
    // The hung pod holds a request for half a second, and at most once: its retry goes elsewhere.
    assert!((1..=20).contains(&tried), "{tried}");
}
