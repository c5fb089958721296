//! Flow control: requests that wait in Envoy while the model servers are full, and what becomes of them.

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use fake_model_server::{Faults, Settings, Sim};
use serde_json::json;

use crate::client::{agent, post, send_by, Response};
use crate::proxy::{Proxy, Setup};
use crate::ticks::wait_until_vms_share;

/// Requests that each model server runs at once, and is sent.
const CAPACITY: usize = 4;

/// The time that a model server takes for each.
const SERVICE: Duration = Duration::from_millis(100);

/// A document with flow control: `flow` is its section beside the detector.
fn document(flow: &str) -> String {
    format!(
        "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
featureGates: [flowControl]
plugins:
- {{type: active-request-scorer}}
- {{type: concurrency-detector, parameters: {{maxConcurrency: {CAPACITY}}}}}
- {{type: round-robin-fairness-policy}}
- {{type: sheddable-eviction-filter}}
- {{type: priority-then-time-eviction-order-policy}}
- type: static-objectives
  parameters: {{objectives: [{{name: high, priority: 10}}, {{name: batch, priority: -1}}]}}
schedulingProfiles: [{{name: default, plugins: [{{pluginRef: active-request-scorer}}]}}]
flowControl: {{saturationDetector: {{pluginRef: concurrency-detector}}, {flow}}}
"
    )
}

const FAIR: &str =
    "defaultRequestTTL: 30s, defaultPriorityBand: {fairnessPolicyRef: round-robin-fairness-policy}";

fn servers(count: usize) -> Sim {
    let settings = Settings {
        max_running: CAPACITY,
        base_latency: SERVICE,
        ..Settings::default()
    };
    Sim::start(count, &settings).unwrap()
}

fn setup(sim: &Sim, flow: &str) -> Setup {
    Setup::new(&sim.addresses(), &document(flow))
}

fn ask(port: u16, headers: &[(&str, &str)]) -> Response {
    let body = json!({"model": "demo", "prompt": "hello", "max_tokens": 1});
    post(port, "/v1/completions", &body, headers)
}

fn outcomes(proxy: &Proxy, outcome: &str) -> u64 {
    let label = format!("outcome=\"{outcome}\"");
    proxy.counted_with("llm_d_epp_flow_control_requests_total", &label)
}

fn waiting(proxy: &Proxy) -> u64 {
    proxy.counted("llm_d_epp_flow_control_queue_size")
}

/// Returns how many requests with this label waited for 100 ms at most, and all.
fn waits(proxy: &Proxy, label: &str) -> (f64, f64) {
    let page = proxy.prometheus();
    let bucket = |bound: &str| {
        let name = "llm_d_epp_flow_control_request_queue_duration_seconds_bucket";
        let bound = format!("le=\"{bound}\"");
        let samples = envoy_harness::statistics::samples(&page, name);
        let own = samples.filter(|(labels, _)| labels.contains(label) && labels.contains(&bound));
        own.map(|(_, value)| value).sum::<f64>()
    };
    (bucket("0.1"), bucket("+Inf"))
}

/// Returns the most requests that are at the model servers together within this time.
fn most_at(sim: &Sim, time: Duration) -> usize {
    let (begun, mut most) = (Instant::now(), 0);
    while begun.elapsed() < time {
        let shown = sim.pods().map(|pod| pod.shown());
        most = most.max(shown.map(|shown| shown.running + shown.waiting).sum());
        sleep(Duration::from_millis(2));
    }
    most
}

/// Fills the pool with requests that take this long, and acts while they run and `more` wait.
fn while_full<T>(
    sim: &Sim,
    proxy: &Proxy,
    more: usize,
    act: impl FnOnce() -> T,
) -> (T, Vec<Response>) {
    let count = sim.pods().count() * CAPACITY;
    for pod in sim.pods() {
        pod.set_faults(Faults {
            delay_ms: 4_000,
            ..Faults::default()
        });
    }
    scope(|scope| {
        let port = proxy.port;
        let running: Vec<_> = (0..count + more)
            .map(|_| {
                sleep(Duration::from_millis(10));
                scope.spawn(move || ask(port, &[]))
            })
            .collect();
        proxy.wait_until("the pool is full, and the others wait", || {
            let running: usize = sim.pods().map(|pod| pod.shown().running).sum();
            running == count && waiting(proxy) == more as u64
        });
        for pod in sim.pods() {
            pod.set_faults(Faults::default());
        }
        let done = act();
        let responses = running.into_iter().map(|one| one.join().unwrap());
        (done, responses.collect())
    })
}

fn all_succeed(responses: &[Response]) {
    for response in responses {
        assert_eq!(response.status, 200, "{}", response.body);
    }
}

#[test]
fn at_twice_the_capacity_the_high_band_hardly_waits_and_tenants_share_the_rest() {
    let sim = servers(2);
    let mut setup = setup(&sim, FAIR);
    setup.workers = 2;
    setup.status_page = true;
    let proxy = setup.start();
    wait_until_vms_share(&proxy, 3);
    let tenants = [AtomicUsize::new(0), AtomicUsize::new(0)];
    let (over, mut most) = (AtomicBool::new(false), 0);
    scope(|scope| {
        let (port, over) = (proxy.port, &over);
        for (tenant, count) in ["a", "b"].into_iter().zip(&tenants) {
            // One tenant asks for more than the other, and both always have requests waiting in each worker.
            for _ in 0..if tenant == "a" { 36 } else { 24 } {
                scope.spawn(move || {
                    let headers = [("x-llm-d-inference-fairness-id", tenant)];
                    while !over.load(Ordering::SeqCst) {
                        let response = ask(port, &headers);
                        assert_eq!(response.status, 200, "{}", response.body);
                        let counts = !over.load(Ordering::SeqCst);
                        count.fetch_add(usize::from(counts), Ordering::SeqCst);
                    }
                });
            }
        }
        scope.spawn(move || {
            let headers = [("x-llm-d-inference-objective", "high")];
            while !over.load(Ordering::SeqCst) {
                assert_eq!(ask(port, &headers).status, 200);
                sleep(Duration::from_millis(50));
            }
        });
        // Until they have first looked at each other, both workers take the pool for idle.
        sleep(Duration::from_secs(1));
        most = most_at(&sim, Duration::from_secs(10));
        over.store(true, Ordering::SeqCst);
    });
    let [a, b] = tenants.map(|count| count.into_inner() as f64);
    // One has half as many again under way. On a machine with other load, waits of clients show in what each gets.
    assert!((a / b - 1.0).abs() < 0.2, "{a} and {b}");
    let capacity = 2 * CAPACITY;
    let served = (a + b) / (11.0 * capacity as f64 / SERVICE.as_secs_f64());
    // The rest is the high band's, and what passes between two requests.
    assert!(served > 0.5, "{served}");
    assert!(most <= capacity + 4, "{most} at the servers");
    let (quick, all) = waits(&proxy, "priority=\"10\"");
    assert!(
        all > 20.0 && quick >= 0.9 * all,
        "{quick} of {all} within 100 ms"
    );
    let (quick, all) = waits(&proxy, "priority=\"0\"");
    assert!(
        quick < 0.5 * all,
        "{quick} of {all} of the low band within 100 ms"
    );
    proxy.wait_until("nothing waits", || waiting(&proxy) == 0);
    assert_eq!(
        outcomes(&proxy, "EvictedTTL") + outcomes(&proxy, "RejectedCapacity"),
        0
    );
}

#[test]
fn requests_wait_for_an_empty_pool_to_come_back_until_their_time_is_over() {
    let sim = servers(1);
    let mut proxy = setup(&sim, "noEndpointRequestTTL: 3s").start();
    proxy.set_pods(&[]);
    proxy.wait_until("the filter knows", || {
        proxy.counted("llm_d_epp_ready_endpoints") == 0
    });
    sleep(Duration::from_millis(200));
    let begun = Instant::now();
    let response = ask(proxy.port, &[]);
    assert_eq!(response.status, 503, "{}", response.body);
    assert_eq!(
        response.header("x-llm-d-request-dropped-reason"),
        "rejected-no-endpoints"
    );
    // Not the minute that requests may wait otherwise: the client does not wait that long.
    let waited = begun.elapsed();
    assert!(waited >= Duration::from_millis(2_900), "{waited:?}");
    proxy.wait_until("it is counted", || {
        outcomes(&proxy, "EvictedNoEndpoints") == 1
    });
    let port = proxy.port;
    scope(|scope| {
        let response = scope.spawn(move || ask(port, &[]));
        proxy.wait_until("it waits", || waiting(&proxy) == 1);
        proxy.set_pods(&sim.addresses());
        all_succeed(&[response.join().unwrap()]);
    });
}

#[test]
fn a_request_waits_as_long_as_it_may_and_gets_a_429() {
    let sim = servers(1);
    let proxy = setup(&sim, "defaultRequestTTL: 1s").start();
    let (response, others) = while_full(&sim, &proxy, 0, || ask(proxy.port, &[]));
    assert_eq!(response.status, 429, "{}", response.body);
    assert_eq!(
        response.header("x-llm-d-request-dropped-reason"),
        "rejected-ttl-expired"
    );
    all_succeed(&others);
    proxy.wait_until("it is counted", || outcomes(&proxy, "EvictedTTL") == 1);
}

#[test]
fn a_client_that_leaves_the_queue_leaves_nothing_behind() {
    let sim = servers(1);
    let proxy = setup(&sim, "").start();
    let ((), responses) = while_full(&sim, &proxy, 2, || {
        let mut stream = TcpStream::connect(("127.0.0.1", proxy.port)).unwrap();
        let body = r#"{"model": "demo", "prompt": "hello"}"#;
        let head = format!(
            "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        proxy.wait_until("it waits", || waiting(&proxy) == 3);
        drop(stream);
        proxy.wait_until("it does no longer", || waiting(&proxy) == 2);
        proxy.wait_until("it is counted", || {
            outcomes(&proxy, "EvictedContextCancelled") == 1
        });
    });
    all_succeed(&responses);
    proxy.wait_until("nothing waits", || waiting(&proxy) == 0);
}

#[test]
fn a_body_that_is_longer_than_the_buffers_waits_and_arrives_whole() {
    let sim = servers(1);
    let proxy = setup(&sim, "").start();
    let prompt = "and so on, at length. ".repeat(150_000);
    let body = json!({"model": "demo", "prompt": prompt, "max_tokens": 1}).to_string();
    let expected = fake_model_server::body_hash(body.as_bytes());
    let (response, others) = while_full(&sim, &proxy, 0, || {
        let headers = [("content-type", "application/json")];
        send_by(
            &agent(),
            proxy.port,
            "POST",
            "/v1/completions",
            &headers,
            body.as_bytes(),
        )
        .unwrap()
    });
    assert_eq!(response.status, 200, "{}", response.body);
    all_succeed(&others);
    let seen = sim.pod(0).seen();
    assert!(seen.iter().any(|request| request.body_xxh64 == expected));
}

#[test]
fn requests_that_wait_go_on_when_flow_control_is_switched_off() {
    let sim = servers(1);
    let mut setup = setup(&sim, "");
    setup.drain_seconds = 20;
    let mut proxy = setup.start();
    let port = proxy.port;
    for pod in sim.pods() {
        pod.set_faults(Faults {
            delay_ms: 3_000,
            ..Faults::default()
        });
    }
    scope(|scope| {
        let running: Vec<_> = (0..2 * CAPACITY)
            .map(|_| {
                sleep(Duration::from_millis(10));
                scope.spawn(move || ask(port, &[]))
            })
            .collect();
        proxy.wait_until("half of them wait", || waiting(&proxy) == CAPACITY as u64);
        let off = document("").replace("featureGates: [flowControl]", "featureGates: []");
        proxy.set_config(&off);
        proxy.wait_until("all are at the server", || {
            let shown = sim.pod(0).shown();
            shown.running + shown.waiting == 2 * CAPACITY
        });
        let responses = running.into_iter().map(|one| one.join().unwrap());
        all_succeed(&responses.collect::<Vec<_>>());
    });
    proxy.wait_until("nothing waits", || waiting(&proxy) == 0);
}

/// Envoy tells the streams of a VM that is lost nothing: those that wait there hang, as those do that are held for their
/// bodies, until their client or a timeout of Envoy's ends them.
#[test]
fn what_waited_in_a_worker_that_traps_counts_no_more_and_the_next_requests_are_served() {
    let sim = servers(1);
    let mut setup = setup(&sim, "defaultRequestTTL: 20s");
    setup.module = setup.host.faulty_file();
    let proxy = setup.start();
    let body = json!({"model": "demo", "prompt": "hello", "max_tokens": 1}).to_string();
    let post = |headers: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", proxy.port)).unwrap();
        let head = format!(
            "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream
    };
    let ((), _) = while_full(&sim, &proxy, 0, || {
        let waits = post("");
        proxy.wait_until("it waits", || waiting(&proxy) == 1);
        let traps = post("x-epp-fault: trap@tick\r\n");
        // A tick later the VM is lost; the next request brings another one.
        sleep(Duration::from_millis(500));
        proxy.wait_until("requests are served", || {
            ask(proxy.port, &[]).status == 200
                && proxy.stat_so_far("wasm.epp0.vm_reload_success") > 0
        });
        proxy.wait_until("nothing waits", || waiting(&proxy) == 0);
        drop((waits, traps));
    });
}

#[test]
fn a_sheddable_request_in_flight_gives_way_to_one_of_a_higher_priority() {
    let sim = servers(1);
    let proxy = setup(&sim, "enableEviction: true").start();
    for pod in sim.pods() {
        pod.set_faults(Faults {
            delay_ms: 8_000,
            ..Faults::default()
        });
    }
    let port = proxy.port;
    scope(|scope| {
        let batch = [("x-llm-d-inference-objective", "batch")];
        let running: Vec<_> = (0..CAPACITY)
            .map(|_| scope.spawn(move || ask(port, &batch)))
            .collect();
        proxy.wait_until("the pool is full", || {
            sim.pod(0).shown().running == CAPACITY
        });
        sim.pod(0).set_faults(Faults::default());
        let high = ask(port, &[("x-llm-d-inference-objective", "high")]);
        assert_eq!(high.status, 200, "{}", high.body);
        // Had it waited for one of the others to end, none would have been evicted.
        let responses: Vec<Response> = running.into_iter().map(|one| one.join().unwrap()).collect();
        let evicted: Vec<&Response> = responses.iter().filter(|one| one.status == 429).collect();
        assert!((1..=2).contains(&evicted.len()), "{responses:?}");
        assert_eq!(
            evicted[0].header("x-llm-d-request-dropped-reason"),
            "evicted"
        );
        assert_eq!(evicted[0].body, "request evicted by flow control");
    });
    assert!(proxy.counted("epp_wasm_flow_control_evictions_total") >= 1);
}
