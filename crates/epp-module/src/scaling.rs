//! What it costs workers that they share a pool: the CPU time of a request over a fake Envoy, of four workers of one pool
//! beside four pools of one worker each.
//!
//! `make scaling-module` runs it, on a machine that does nothing else. Both take turns in one process, so that the load of
//! others affects them alike.

use std::fmt::Write;
use std::fs;
use std::sync::atomic::Ordering;
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use cpu_time::ThreadTime;

use super::fake_envoy::{FakeConfig, FakeFilter, WORKER, WORKERS};

const THREADS: u32 = 4;
/// Turns, of which each measures both.
const TURNS: usize = 9;
const TURN: Duration = Duration::from_millis(600);
/// Prompts in rotation, as in the published run.
const PROMPTS: usize = 64;

/// The plan of the published run, with endpoints that are listed.
fn document() -> String {
    let plan = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/full.yaml");
    let plan = fs::read_to_string(plan).unwrap();
    let mut listed = String::new();
    for number in 0..100 {
        write!(
            listed,
            "{{name: p{number}, address: 10.0.0.{number}, port: 80}}, "
        )
        .unwrap();
    }
    let pods = format!(
        "\n- {{name: pods, type: static-discovery, parameters: {{endpoints: [{listed}]}}}}\n\
         dataLayer: {{discovery: {{pluginRef: pods}}}}\nschedulingProfiles:"
    );
    plan.replacen("\nschedulingProfiles:", &pods, 1)
}

fn bodies() -> Vec<String> {
    let text = "A prompt of many blocks, of which the beginning tells them apart. ".repeat(60);
    let body = |number| {
        let message = format!("{{\"role\": \"user\", \"content\": \"{number} {text}\"}}");
        format!("{{\"model\": \"m\", \"messages\": [{message}]}}")
    };
    (0..PROMPTS).map(body).collect()
}

/// Sends a request as this thread's worker.
fn send(config: &FakeConfig, body: &str) {
    let length = body.len().to_string();
    let headers = [
        (":path", "/v1/chat/completions"),
        (":method", "POST"),
        ("content-type", "application/json"),
        ("content-length", &length),
    ];
    let mut filter = FakeFilter::new(config, &headers);
    filter.headers(false);
    filter.body(body, true);
    assert!(filter.header("x-gateway-destination-endpoint").is_some());
    filter.respond("200");
}

/// Sends requests for a while. Returns how many, and their CPU time.
fn serve(config: &FakeConfig, worker: u32, bodies: &[String]) -> (u64, Duration) {
    WORKER.set(worker);
    let (begun, before, mut sent) = (Instant::now(), ThreadTime::now(), 0);
    for body in bodies.iter().cycle() {
        if begun.elapsed() > TURN {
            break;
        }
        send(config, body);
        sent += 1;
    }
    (sent, before.elapsed())
}

/// Returns the CPU time of a request, in µs, where thread `n` sends to the n-th of these, as the worker of its number.
fn cost(workers: &[(&FakeConfig, u32)], bodies: &[String]) -> f64 {
    let served = scope(|scope| {
        let start = |&(config, worker)| scope.spawn(move || serve(config, worker, bodies));
        let threads: Vec<_> = workers.iter().map(start).collect();
        let served = threads.into_iter().map(|thread| thread.join().unwrap());
        served.fold((0, Duration::ZERO), |(sent, time), (more, taken)| {
            (sent + more, time + taken)
        })
    });
    served.1.as_secs_f64() * 1e6 / served.0 as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
#[ignore = "a measurement of 12 s: make scaling-module"]
fn workers_of_one_pool_cost_what_workers_of_their_own_pools_cost() {
    let (document, bodies) = (document(), bodies());
    let make = |name: &str| FakeConfig::new(name, &document).unwrap();
    WORKERS.store(1, Ordering::SeqCst);
    let names: Vec<String> = (0..THREADS)
        .map(|number| format!("alone{number}"))
        .collect();
    let alone: Vec<_> = names.iter().map(|name| make(name)).collect();
    WORKERS.store(THREADS, Ordering::SeqCst);
    let one = make("together");
    // The pools learn of their endpoints.
    sleep(Duration::from_secs(1));
    // Each prompt is sent to one endpoint in every pool before workers send it at the same time, which would place it on one
    // endpoint each: a request costs more the more endpoints know its prompt, with one worker as well.
    for config in alone.iter().chain([&one]) {
        bodies.iter().for_each(|body| send(config, body));
    }
    sleep(Duration::from_millis(500));
    let alone: Vec<_> = alone.iter().map(|config| (&**config, 0)).collect();
    let together: Vec<_> = (0..THREADS).map(|worker| (&*one, worker)).collect();
    let (mut apart, mut shared, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let (before, after) = (cost(&alone, &bodies), cost(&together, &bodies));
        apart.push(before);
        shared.push(after);
        ratios.push(before / after);
    }
    let ratio = median(ratios);
    println!(
        "{THREADS} workers: {:.2} µs a request in pools of their own, {:.2} in one; median of the turns' ratios {ratio:.3}",
        median(apart),
        median(shared)
    );
    // docs/hosts.md has what was measured. Below this, workers of one pool do more for a request, or wait for each other.
    assert!(ratio > 0.9, "{ratio}");
}
