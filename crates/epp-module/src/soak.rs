//! A load over a fake Envoy, with reloads, panics, clients that leave and callouts that fail, on the threads that Envoy has.
//!
//! `make soak-module` runs it for ten minutes under the address sanitizer, which ends it at a wrong access to memory, and
//! lists what was not freed. In `make test` it runs for a second.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use super::fake_envoy::{FakeConfig, FakeFilter, LOG};
use super::fault::HEADER;

/// A document with flow control for eight requests at a time, of which one kind may be evicted.
const DOCUMENT: &str = "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
featureGates: [flowControl]
plugins:
- name: pods
  type: static-discovery
  parameters: {endpoints: [{name: a, address: 10.0.0.1, port: 80}, {name: b, address: 10.0.0.2, port: 80}]}
- type: queue-scorer
- type: prefix-cache-scorer
- {type: concurrency-detector, parameters: {maxConcurrency: 4}}
- {type: static-objectives, parameters: {objectives: [{name: high, priority: 10}, {name: batch, priority: -1}]}}
- {type: envoy-proxy, parameters: {bodyTimeout: 100ms, rewriteHeader: true}}
flowControl:
  saturationDetector: {pluginRef: concurrency-detector}
  defaultRequestTTL: 300ms
  enableEviction: true
schedulingProfiles:
- name: default
  plugins: [{pluginRef: queue-scorer, weight: 2}, {pluginRef: prefix-cache-scorer, weight: 3}]
dataLayer: {discovery: {pluginRef: pods}}
";

/// Streams that are open at a time: more than the pool takes.
const OPEN: usize = 24;

/// A configuration, at the address that the module knows.
type Config = Arc<Box<FakeConfig>>;

/// A stream and the configuration that it was made with, which Envoy keeps as long.
struct Open {
    filter: Box<FakeFilter>,
    _config: Config,
}

fn configuration(reloads: u64) -> Config {
    // Every other one has another weight.
    let weight = format!("weight: {}", 2 + reloads % 2);
    let document = DOCUMENT.replacen("weight: 2", &weight, 1);
    Arc::new(FakeConfig::new("soak", &document).unwrap())
}

/// Sends a request, or a part of one.
fn send(config: &Config, rng: &mut fastrand::Rng) -> Open {
    const PLACES: [&str; 5] = [
        "request_headers",
        "request_body",
        "response_headers",
        "response_body",
        "delete",
    ];
    // A panic of a tick waits for one, and of ticks there are twenty in a second.
    let fault = match rng.u64(0..5_000) {
        place @ 0..50 => format!("panic@{}", PLACES[place as usize % PLACES.len()]),
        50 => "panic@tick".to_owned(),
        _ => "none@nowhere".to_owned(),
    };
    let objective = ["high", "batch", "others"][rng.u64(0..3) as usize];
    let mut headers = vec![
        (":path", "/v1/completions"),
        (":method", "POST"),
        ("content-type", "application/json"),
        ("x-llm-d-inference-objective", objective),
        (HEADER, &fault),
    ];
    if rng.u64(0..8) == 0 {
        headers.push(("x-llm-d-model-name-rewrite", "another-model"));
    }
    let mut filter = FakeFilter::new(config, &headers);
    filter.headers(false);
    let prompt = "A prompt of many blocks. ".repeat(rng.u64(0..80) as usize);
    let body = format!(
        "{{\"model\": \"m\", \"prompt\": \"{} {prompt}\"}}",
        rng.u64(0..30)
    );
    let cut = rng.u64(0..body.len() as u64) as usize;
    filter.body(&body[..cut], false);
    // Some end later than they are waited for, or never.
    if rng.u64(0..10) > 0 {
        filter.body(&body[cut..], true);
    }
    Open {
        filter,
        _config: Arc::clone(config),
    }
}

/// Has the stream do what it was woken for.
fn wake(open: &mut Open) {
    if open.filter.woken.swap(0, Ordering::SeqCst) > 0 {
        open.filter.schedule();
    }
}

/// A response comes, or the client leaves without one.
fn end(mut open: Open, rng: &mut fastrand::Rng) {
    wake(&mut open);
    if rng.u64(0..4) > 0 {
        let status = ["200", "200", "503"][rng.u64(0..3) as usize];
        open.filter.respond(status);
        open.filter
            .response_body("{\"usage\": {\"prompt_tokens\": 9}}");
    }
}

/// The worker: opens and ends streams.
fn serve(current: &Mutex<Config>, over: &AtomicBool) -> usize {
    let (mut rng, mut streams) = (fastrand::Rng::with_seed(1), VecDeque::new());
    let mut sent = 0;
    while !over.load(Ordering::Relaxed) {
        let config = Arc::clone(&current.lock().unwrap());
        streams.push_back(send(&config, &mut rng));
        sent += 1;
        streams.iter_mut().for_each(wake);
        if streams.len() > OPEN {
            let chosen = rng.u64(0..streams.len() as u64) as usize;
            end(streams.remove(chosen).unwrap(), &mut rng);
        }
        if sent % 64 == 0 {
            sleep(Duration::from_millis(1));
        }
    }
    sent
}

/// The main thread: callouts and reloads.
fn lead(current: &Mutex<Config>, time: Duration) -> u64 {
    const PAGE: &str = "vllm:num_requests_waiting{model_name=\"m\"} 3\n";
    let (begun, mut reloads, mut answered) = (Instant::now(), 0, 0);
    while begun.elapsed() < time {
        let config = Arc::clone(&current.lock().unwrap());
        config.schedule();
        let made = config.callouts.lock().unwrap().len() as u64;
        while answered < made {
            let page = (answered % 3 > 0).then_some(("200", PAGE));
            config.call_back(answered, page);
            answered += 1;
        }
        if begun.elapsed() > Duration::from_millis(200) * (reloads as u32 + 1) {
            reloads += 1;
            answered = 0;
            *current.lock().unwrap() = configuration(reloads);
            if reloads % 5 == 0 {
                assert!(FakeConfig::new("soak", "kind: Pod").is_none());
            }
            LOG.lock().unwrap().clear();
        }
        sleep(Duration::from_millis(5));
    }
    reloads
}

/// Memory of this process, in MiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.unwrap().parse::<u64>().unwrap() >> 10
}

#[test]
fn a_load_with_reloads_and_panics_leaves_nothing_behind() {
    let seconds = std::env::var("SOAK_SECONDS");
    let seconds: u64 = seconds.map_or(1, |seconds| seconds.parse().unwrap());
    let current = Mutex::new(configuration(0));
    let over = AtomicBool::new(false);
    let (sent, reloads, early) = scope(|scope| {
        let worker = scope.spawn(|| serve(&current, &over));
        let sixth = Duration::from_secs(seconds) / 6;
        let mut reloads = lead(&current, sixth);
        let early = resident();
        reloads += lead(&current, sixth * 5);
        over.store(true, Ordering::Relaxed);
        (worker.join().unwrap(), reloads, early)
    });
    let late = resident();
    println!("{sent} requests, {reloads} reloads, {early} MiB after a sixth, {late} at the end");
    assert!(sent > 50 && reloads > 0);
    // Indexes and what the sanitizer keeps of what was freed grow at first.
    assert!(seconds < 300 || late <= early + 64);
}
