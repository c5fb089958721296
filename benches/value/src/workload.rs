//! Conversations of some turns each, through a real Envoy over simulated pods.

use std::io::Read;
use std::sync::Mutex;
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use envoytest::proxy::{Proxy, Setup};
use modelsim::{Settings, Sim};
use serde_json::{json, Value};

use crate::Trouble;

/// Pods in the pool.
const PODS: usize = 8;

/// Turns of a conversation.
const TURNS: usize = 6;

/// Prompts that conversations begin with; many of them share each.
const SYSTEMS: u64 = 4;

/// Tokens of a system prompt, of a question, and of an answer.
const SYSTEM_TOKENS: usize = 1_500;
const QUESTION_TOKENS: usize = 250;
const ANSWER_TOKENS: usize = 40;

/// How requests are balanced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Balance {
    /// By the filter.
    Shared,
    /// By the filter, each worker for itself.
    Alone,
    /// By Envoy, in turns.
    RoundRobin,
    /// By Envoy, by a header that names the conversation.
    RingHash,
}

/// A pod that computes 8,000 prompt tokens a second, runs eight requests at a time, and holds some
/// twenty conversations in its cache.
fn pod() -> Settings {
    Settings {
        max_running: 8,
        cache_blocks: 3_500,
        base_latency: Duration::from_millis(20),
        prefill_rate: Some(8_000.0),
        token_time: Duration::from_millis(12),
        ..Settings::default()
    }
}

/// What the Endpoint Picker decides by where it is given no configuration, and what is in flight:
/// a waiting queue shows only once a pod is full.
fn config(share: bool) -> String {
    format!(
        "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: queue-scorer
- type: kv-cache-utilization-scorer
- type: prefix-cache-scorer
- type: active-request-scorer
- {{type: envoy-proxy, parameters: {{shareState: {share}}}}}
schedulingProfiles:
- name: default
  plugins:
  - {{pluginRef: queue-scorer, weight: 2}}
  - {{pluginRef: kv-cache-utilization-scorer, weight: 2}}
  - {{pluginRef: prefix-cache-scorer, weight: 3}}
  - {{pluginRef: active-request-scorer, weight: 2}}
"
    )
}

fn start(balance: Balance, sim: &Sim, workers: usize) -> Proxy {
    let mut setup = Setup::new(&sim.addresses(), &config(balance == Balance::Shared));
    setup.workers = workers;
    let policy = |name: &str, kind: &str| {
        let config = json!({"@type": format!("type.googleapis.com/envoy.extensions.load_balancing_policies.{name}.v3.{kind}")});
        json!({"load_balancing_policy": {"policies": [{"typed_extension_config": {
            "name": format!("envoy.load_balancing_policies.{name}"), "typed_config": config}}]}})
    };
    match balance {
        Balance::Shared | Balance::Alone => {}
        Balance::RoundRobin => {
            setup.configs.clear();
            setup.cluster = policy("round_robin", "RoundRobin");
        }
        Balance::RingHash => {
            setup.configs.clear();
            setup.cluster = policy("ring_hash", "RingHash");
            setup.route = json!({"hash_policy": [{"header": {"header_name": "x-session"}}]});
        }
    }
    setup.start()
}

/// One answer.
struct Taken {
    first_token: Duration,
    prompt: u64,
    cached: u64,
}

/// Plays the workload, and prints a row.
pub fn run(balance: Balance, seconds: u64, users: usize, workers: usize) -> Result<(), Trouble> {
    let sim = Sim::start(PODS, &pod())?;
    let proxy = start(balance, &sim, workers);
    let until = Instant::now() + Duration::from_secs(seconds);
    let (taken, failed) = (Mutex::new(Vec::new()), Mutex::new(0_u64));
    scope(|scope| {
        for user in 0..users as u64 {
            let (taken, failed, port) = (&taken, &failed, proxy.port);
            scope.spawn(move || {
                let mut rng = fastrand::Rng::with_seed(user);
                while Instant::now() < until {
                    converse(port, &mut rng, until, |answer| match answer {
                        Some(answer) => {
                            if let Ok(mut taken) = taken.lock() {
                                taken.push(answer);
                            }
                        }
                        None => {
                            if let Ok(mut failed) = failed.lock() {
                                *failed += 1;
                            }
                        }
                    });
                }
            });
        }
    });
    let mut taken = taken.into_inner()?;
    taken.sort_by_key(|answer| answer.first_token);
    let at = |share: f64| {
        let place = (taken.len().saturating_sub(1)) as f64 * share;
        let answer = taken.get(place as usize);
        answer.map_or(0, |answer| answer.first_token.as_millis())
    };
    let sum = |of: fn(&Taken) -> u64| taken.iter().map(of).sum::<u64>() as f64;
    let cached = sum(|answer| answer.cached) / sum(|answer| answer.prompt).max(1.0);
    let name = balance.to_possible_value();
    let name = name.as_ref().map_or("", |name| name.get_name());
    println!("| balance | requests | failed | tokens cached | TTFT p50 ms | p90 | p99 |");
    println!("|---|---|---|---|---|---|---|");
    println!(
        "| {name} | {} | {} | {:.1} % | {} | {} | {} |",
        taken.len(),
        failed.into_inner()?,
        cached * 100.0,
        at(0.5),
        at(0.9),
        at(0.99)
    );
    Ok(())
}

/// Words of about so many tokens of four bytes, the same for the same seed.
fn words(seed: u64, tokens: usize) -> String {
    let mut rng = fastrand::Rng::with_seed(seed);
    let word = |_| {
        let letters = (0..3).map(|_| rng.lowercase());
        letters.chain([' ']).collect::<String>()
    };
    (0..tokens).map(word).collect()
}

/// One conversation: each turn's prompt is the whole of it so far.
fn converse(port: u16, rng: &mut fastrand::Rng, until: Instant, tell: impl Fn(Option<Taken>)) {
    let session = rng.u64(..).to_string();
    let system = words(rng.u64(0..SYSTEMS), SYSTEM_TOKENS);
    let mut messages = vec![json!({"role": "system", "content": system})];
    for _ in 0..TURNS {
        // Who reads the answer takes a while to ask on.
        sleep(Duration::from_millis(rng.u64(300..1_500)));
        if Instant::now() >= until {
            return;
        }
        let question = words(rng.u64(..), QUESTION_TOKENS);
        messages.push(json!({"role": "user", "content": question}));
        tell(ask(port, &session, &messages));
        let answer = words(rng.u64(..), ANSWER_TOKENS);
        messages.push(json!({"role": "assistant", "content": answer}));
    }
}

/// One request over a connection of its own, and so to any worker.
fn ask(port: u16, session: &str, messages: &[Value]) -> Option<Taken> {
    let body = json!({"model": "demo", "messages": messages, "stream": true,
        "stream_options": {"include_usage": true}, "max_tokens": ANSWER_TOKENS});
    let asked = Instant::now();
    let request = ureq::post(format!("http://127.0.0.1:{port}/v1/chat/completions"));
    let answer = request.header("x-session", session).send_json(&body).ok()?;
    let mut body = answer.into_body();
    let mut reader = body.as_reader();
    let (mut text, mut part) = (Vec::new(), [0; 4096]);
    let mut first_token = None;
    loop {
        let size = reader.read(&mut part).ok()?;
        if size == 0 {
            break;
        }
        first_token.get_or_insert_with(|| asked.elapsed());
        text.extend_from_slice(part.get(..size)?);
    }
    let text = String::from_utf8_lossy(&text);
    let events = text.lines().filter_map(|line| line.strip_prefix("data: "));
    let events = events.filter_map(|event| serde_json::from_str::<Value>(event).ok());
    let usage = events
        .filter_map(|event| {
            event
                .get("usage")
                .filter(|usage| usage.is_object())
                .cloned()
        })
        .next_back()?;
    let number = |path: &str| usage.pointer(path).and_then(Value::as_u64);
    Some(Taken {
        first_token: first_token?,
        prompt: number("/prompt_tokens")?,
        cached: number("/prompt_tokens_details/cached_tokens").unwrap_or(0),
    })
}
