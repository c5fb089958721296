//! Memory under attack: many simultaneous requests with the bodies that make the module keep most do not
//! affect other clients, and the memory is reused afterwards.

use std::time::{Duration, Instant};

use fake_model_server::{Settings, Sim};
use serde_json::json;

use crate::client::{complete, explain, post, raw};
use crate::proxy::{Proxy, Setup};
use crate::stream::{Connection, Http, Upload};
use crate::ticks::wait_for_statistics;

#[path = "../memory/bodies.rs"]
mod bodies;
use bodies::{hostile, Hostile};

/// Requests in flight at a time.
const REQUESTS: usize = 1_500;

/// Streams of one connection over HTTP/2.
const STREAMS: usize = 100;

/// The bound of a VM's memory that docs/architecture.md states: the index's 64 MiB and 192 MiB.
const MAX_VM_MEMORY: u64 = 256 << 20;

/// A plan of the llm-d dialect that reads all that it can.
const LLM_D: &str = "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{type: prefix-cache-scorer}, {type: queue-scorer},
  {type: approx-prefix-cache-producer, parameters: {autoTune: false}},
  {type: envoy-proxy, parameters: {explain: true}}]
schedulingProfiles: [{name: default, plugins: [{pluginRef: prefix-cache-scorer, weight: 3}, {pluginRef: queue-scorer}]}]
";

fn reloads(proxy: &Proxy) -> u64 {
    proxy.stat_so_far("wasm.epp0.vm_reload_success")
}

fn worker(proxy: &Proxy, metric: &str) -> u64 {
    proxy.counted_with(metric, "vm=\"worker\"")
}

/// Begins this many requests with this body, none of which ends.
struct Storm {
    uploads: Vec<Upload>,
    connections: Vec<Connection>,
}

impl Storm {
    fn begin(proxy: &Proxy, body: &Hostile, http: Http) -> Self {
        let bytes = body.bytes();
        let each = if http == Http::One { 1 } else { STREAMS };
        let mut storm = Self {
            uploads: Vec::new(),
            connections: Vec::new(),
        };
        // It is held as a whole: its length says that it fits, and is not reached.
        let length = (1 << 20).to_string();
        for _ in 0..REQUESTS / each {
            let mut connection = Connection::open(proxy.port, http);
            for _ in 0..each {
                let mut upload = connection.post(body.path, &[("content-length", &length)]);
                upload.send(&bytes);
                storm.uploads.push(upload);
            }
            storm.connections.push(connection);
        }
        storm
    }

    fn end(self) {
        drop(self.uploads);
        drop(self.connections);
    }
}

/// Requests a streamed response while a storm lasts, and returns its text as far as it came. It may be slow where
/// the machine is: what matters is that it is whole.
fn streaming(port: u16) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let body = json!({"model": "m", "stream": true, "max_tokens": 60,
            "messages": [{"role": "user", "content": "a long answer, please"}]})
        .to_string();
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: e2e\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let parts = [head.as_bytes(), body.as_bytes()];
        raw(port, &parts, Duration::ZERO, |text| text.contains("[DONE]"))
    })
}

/// A prompt that is sent a second time is known: read, looked up, and learnt.
fn knows_prefixes(proxy: &Proxy, name: &str) {
    let prompt = format!("{name}, {}", "that was not sent before ".repeat(40));
    let first = complete(proxy.port, "m", &prompt);
    assert_eq!(first.status, 200, "{name}");
    let again = explain(proxy.port, "m", &prompt);
    let text = again.header("x-epp-explain");
    assert!(text.contains("prefix-cache-scorer:1.0"), "{name}: {text}");
}

/// Plays a storm beside another client's streamed response. Returns the VM's memory while it lasts.
fn play(proxy: &Proxy, body: &Hostile, http: Http) -> u64 {
    let response = streaming(proxy.port);
    let since = Instant::now();
    let storm = Storm::begin(proxy, body, http);
    wait_for_statistics(proxy);
    let memory = worker(proxy, "epp_wasm_vm_memory_bytes");
    let kept = worker(proxy, "epp_wasm_prompt_bytes");
    storm.end();
    let text = response.join().unwrap();
    assert!(text.contains("[DONE]"), "{}", body.name);
    println!(
        "{} over {http:?}: {} MiB of memory, {} kept, {} forced so far, {:?}",
        body.name,
        memory >> 20,
        kept >> 20,
        proxy.counted_with("epp_wasm_forced_release_total", "memory"),
        since.elapsed(),
    );
    assert_eq!(reloads(proxy), 0, "{}", body.name);
    assert!(
        kept <= worker(proxy, "epp_wasm_prompt_limit_bytes"),
        "{}",
        body.name
    );
    assert!(
        memory <= MAX_VM_MEMORY,
        "{} over {http:?}: {memory}",
        body.name
    );
    memory
}

#[test]
fn many_requests_that_need_much_memory_cost_others_nothing() {
    let settings = Settings {
        token_time: Duration::from_millis(20),
        ..Settings::default()
    };
    let sim = Sim::start(2, &settings).unwrap();
    let mut setup = Setup::new(&sim.addresses(), LLM_D);
    setup.status_page = true;
    let proxy = setup.start();
    // The review's, and those that keep most for a byte sent.
    let worst = [
        "tools: an object that ends",
        "tools: escapes",
        "a list of prompts",
        "tools: many members",
        "an image",
    ];
    let mut bodies = hostile();
    bodies.retain(|body| worst.contains(&body.name));
    assert_eq!(bodies.len(), worst.len());
    for body in &mut bodies {
        // Before there was a budget, 1,500 of this size were more than a VM has as well.
        body.size = body.size.min(300_000);
    }
    let round = |number: u32| {
        let mut most = 0;
        for body in &bodies {
            let http = match body.name {
                "tools: an object that ends" | "an image" => Http::One,
                _ => Http::Two,
            };
            most = most.max(play(&proxy, body, http));
            // Until then they take up the pool's connections, of which Envoy allows 1,024.
            proxy.wait_until("its requests have ended", || {
                proxy.stat("http.e2e.downstream_rq_active") == 0
            });
            proxy.wait_until("what was kept is given back", || {
                worker(&proxy, "epp_wasm_prompt_bytes") < 8 << 20
            });
            knows_prefixes(&proxy, &format!("round {number}: {}", body.name));
        }
        most
    };
    let (first, second) = (round(1), round(2));
    // What was freed is used again. How much is kept at its height depends on the machine's speed.
    assert!(second <= first + first / 8, "{first}, then {second}");
    assert!(proxy.counted_with("epp_wasm_forced_release_total", "memory") > 0);
}

/// Starts two pods that take this many milliseconds for a token, behind the module with faults.
fn faulty(token_ms: u64) -> (Sim, Proxy) {
    let settings = Settings {
        token_time: Duration::from_millis(token_ms),
        ..Settings::default()
    };
    let sim = Sim::start(2, &settings).unwrap();
    let mut setup = Setup::new(&sim.addresses(), LLM_D);
    setup.module = setup.host.faulty_file();
    let proxy = setup.start();
    (sim, proxy)
}

#[test]
fn an_allocation_that_fails_costs_its_own_request() {
    let (sim, proxy) = faulty(20);
    let response = streaming(proxy.port);
    proxy.wait_until("a pod computes", || {
        sim.pods().any(|pod| pod.shown().running > 0)
    });
    let body = json!({"model": "m", "prompt": "hello", "max_tokens": 1});
    for (place, status) in [
        ("request_headers", 500),
        ("request_body", 500),
        ("response_body", 200),
    ] {
        let fault = format!("memory@{place}");
        let own = post(
            proxy.port,
            "/v1/completions",
            &body,
            &[("x-epp-fault", &fault)],
        );
        assert_eq!(own.status, status, "{place}");
        assert_eq!(complete(proxy.port, "m", "hello").status, 200, "{place}");
    }
    assert!(response.join().unwrap().contains("[DONE]"));
    assert_eq!(reloads(&proxy), 0);
    proxy.wait_until("the panics are counted", || {
        proxy.counted("epp_wasm_caught_panics_total") == 3
    });
    assert!(
        proxy.logged().contains("no memory left"),
        "{}",
        proxy.logged()
    );
}

#[test]
fn without_any_memory_requests_are_handled_by_the_failure_mode() {
    let (sim, proxy) = faulty(40);
    let response = streaming(proxy.port);
    proxy.wait_until("a pod computes", || {
        sim.pods().any(|pod| pod.shown().running > 0)
    });
    let body = json!({"model": "m", "prompt": "hello", "max_tokens": 1});
    let hoard = [("x-epp-fault", "hoard@response_body")];
    assert_eq!(
        post(proxy.port, "/v1/completions", &body, &hoard).status,
        200
    );
    let status = || {
        let status = complete(proxy.port, "m", "hello").status;
        assert!(matches!(status, 200 | 500), "{status}");
        status
    };
    proxy.wait_until("a request meets a VM without memory", || status() == 500);
    let since = Instant::now();
    while since.elapsed() < Duration::from_millis(800) {
        status();
    }
    proxy.wait_until("there is memory again", || {
        complete(proxy.port, "m", "hello").status == 200
    });
    knows_prefixes(&proxy, "afterwards");
    assert!(response.join().unwrap().contains("[DONE]"));
    assert_eq!(reloads(&proxy), 0, "{}", proxy.logged());
}
