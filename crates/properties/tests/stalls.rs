//! Pools of simulated model servers behind several workers: no server is ejected that works, however slowly, and one
//! that stands still is ejected soon.
//!
//! `SEEDS` is the number of seeds of each pool. The time is simulated, in steps of 10 ms.

// A test fails loudly.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::ops::Range;
use std::time::Duration;

use epp_core::body::SliceBody;
use epp_core::config;
use epp_core::picker::{
    Effect, ExchangeId, Fetch, Fetched, Head, Picker, ResponseOrigin, Upstream,
};
use epp_core::scheduling::Slot;
use epp_core::time::Timestamp;
use epp_sync::{InProcess, Sharing};

use self::server::{Event, Job, Server};

#[path = "stalls/server.rs"]
mod server;

/// Milliseconds per step, and per tick of a worker.
const STEP: u64 = 10;
const TICK: u64 = 50;

/// Requests per second.
const RATE: u64 = 100;

const START: Timestamp = Timestamp::from_millis(1_000_000_000);

struct Worker {
    picker: Picker,
    sharing: Sharing,
}

/// What clients ask for.
#[derive(Clone, Copy)]
struct Load {
    /// Prompt tokens.
    prompt: u64,
    /// Every so many requests has a prompt of 300,000 tokens.
    huge: Option<u64>,
    /// Tokens of a response, and of every tenth.
    output: u64,
    long: u64,
    /// Of ten responses, how many stream.
    streams: u64,
}

const USUAL: Load = Load {
    prompt: 400,
    huge: None,
    output: 60,
    long: 200,
    streams: 5,
};

struct World {
    servers: Vec<Server>,
    workers: Vec<Worker>,
    store: InProcess,
    load: Load,
    rng: fastrand::Rng,
    now: u64,
    next: u32,
}

impl World {
    fn new(servers: Vec<Server>, workers: usize, load: Load, seed: u64) -> Self {
        let listed =
            (1..=servers.len()).map(|n| format!("{{name: p{n}, address: 10.0.0.{n}, port: 80}}"));
        let listed: Vec<String> = listed.collect();
        let engine = if servers[0].sglang { "sglang" } else { "vllm" };
        // Half of the seeds by load, half at random.
        let weight = seed % 2 * 2;
        let text = format!(
            "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{{type: weighted-random-picker}}, {{type: queue-scorer}}, {{type: kv-cache-utilization-scorer}},
  {{type: metrics-data-source}}, {{type: core-metrics-extractor, parameters: {{defaultEngine: {engine}}}}},
  {{name: pods, type: static-discovery, parameters: {{endpoints: [{}]}}}}]
schedulingProfiles: [{{name: default, plugins: [{{pluginRef: queue-scorer, weight: {weight}}},
  {{pluginRef: kv-cache-utilization-scorer, weight: 1}}, {{pluginRef: weighted-random-picker}}]}}]
dataLayer: {{discovery: {{pluginRef: pods}}, sources: [{{pluginRef: metrics-data-source, extractors: [{{pluginRef: core-metrics-extractor}}]}}]}}
",
            listed.join(", ")
        );
        let mut store = InProcess::default();
        let start = |number: usize| {
            let plan = config::load(&text).unwrap().plan;
            let mut sharing = Sharing::new("epp", plan.cluster(), number as u64 + 1);
            let mut picker = Picker::new(plan, number as u64 + seed);
            sharing.join(&mut picker, &mut store, START);
            Worker { picker, sharing }
        };
        let workers = (0..workers).map(start).collect();
        let mut world = Self {
            servers,
            workers,
            store,
            load,
            rng: fastrand::Rng::with_seed(seed),
            now: 0,
            next: 0,
        };
        world.servers.iter_mut().for_each(Server::write);
        world
    }

    fn at(&self) -> Timestamp {
        START.after(Duration::from_millis(self.now))
    }

    /// Lets a step pass. Returns the server that got a request, if one was sent.
    fn step(&mut self) -> Option<usize> {
        self.now += STEP;
        let mut events = Vec::new();
        for server in &mut self.servers {
            server.advance(self.now, &mut self.rng, &mut events);
        }
        for event in events {
            self.respond(&event);
        }
        if self.now % TICK == 0 {
            (0..self.workers.len()).for_each(|worker| self.tick(worker));
        }
        let due = self.now > 1_000 && self.rng.u64(0..1_000) < RATE * STEP;
        due.then(|| self.send()).flatten()
    }

    fn respond(&mut self, event: &Event) {
        let now = self.at();
        match *event {
            Event::Begun(id, worker, streams) => {
                if !streams {
                    self.send_headers(id, worker);
                }
                let mut body = SliceBody::whole(b"{}");
                let picker = &mut self.workers[worker].picker;
                picker.response_body(now, ExchangeId(id >> 4), &mut body);
            }
            Event::Ended(id, worker) => {
                self.workers[worker].picker.closed(now, ExchangeId(id >> 4));
            }
        }
    }

    fn send_headers(&mut self, id: u32, worker: usize) {
        let now = self.at();
        let picker = &mut self.workers[worker].picker;
        let (id, server) = (ExchangeId(id >> 4), id & 15);
        let wanted = picker.wants_upstream(id);
        let upstream = Upstream {
            server: Some(format!("10.0.0.{}:80", server + 1).into_bytes()),
            status: Some(200),
            origin: ResponseOrigin::Endpoint,
            attempts: Some(1),
            ..Upstream::default()
        };
        picker.response_headers(now, id, wanted.then_some(&upstream));
    }

    fn tick(&mut self, worker: usize) {
        let now = self.at();
        let Worker { picker, sharing } = &mut self.workers[worker];
        sharing.before_tick(picker, &mut self.store);
        picker.tick(now);
        while let Some(effect) = picker.poll_effect() {
            let Effect::Fetch { id, fetch, .. } = effect else {
                continue;
            };
            if let Fetch::Metrics { address } = fetch {
                let page = &self.servers[server_of(&address)].page;
                let mut page = SliceBody::whole(page.as_bytes());
                picker.fetched(now, id, Ok(Fetched::Page(&mut page)));
            }
        }
        sharing.after_tick(picker, &mut self.store, now);
    }

    fn send(&mut self) -> Option<usize> {
        let (number, now) = (self.next, self.at());
        self.next += 1;
        let worker = self.rng.usize(0..self.workers.len());
        let picker = &mut self.workers[worker].picker;
        let head = Head::post_json("/v1/completions", None);
        let body = format!(r#"{{"model":"m","prompt":"{number}"}}"#);
        picker.request_headers(now, ExchangeId(number), &head);
        picker.request_body(
            now,
            ExchangeId(number),
            &mut SliceBody::whole(body.as_bytes()),
        );
        let mut server = None;
        while let Some(effect) = picker.poll_effect() {
            if let Effect::Forward { route, .. } = effect {
                server = route.endpoints().next().map(server_of);
            }
        }
        let server = server?;
        let (load, rng) = (self.load, &mut self.rng);
        let huge = load.huge.is_some_and(|each| rng.u64(0..each) == 0);
        let prompt = if huge {
            300_000
        } else {
            rng.u64(1..2 * load.prompt)
        };
        let output = match rng.u64(0..10) {
            0 => load.long,
            _ => rng.u64(1..2 * load.output),
        };
        let id = number << 4 | server as u32;
        let streams = rng.u64(0..10) < load.streams;
        if streams {
            // FastAPI responds with the headers of a stream before it asks the engine.
            self.send_headers(id, worker);
        }
        self.servers[server].queue.push_back(Job {
            id,
            worker,
            prompt: prompt as f64,
            output: output as f64,
            streams,
            begun: false,
        });
        Some(server)
    }

    /// Returns in which workers' view each server is ejected.
    fn ejected(&self, server: usize) -> usize {
        let slot = Slot(server as u32);
        let ejected = self.workers.iter().filter(|worker| {
            let endpoint = worker.picker.pool().get(slot);
            endpoint.is_some_and(|endpoint| endpoint.ejected)
        });
        ejected.count()
    }

    /// Lets seconds pass, in which only these servers may be ejected. Returns how many requests each server got.
    fn run(&mut self, seconds: u64, may_be_ejected: &[usize]) -> Vec<usize> {
        let mut sent = vec![0; self.servers.len()];
        for _ in 0..seconds * 1_000 / STEP {
            if let Some(server) = self.step() {
                sent[server] += 1;
            }
            for server in 0..self.servers.len() {
                let fine = self.ejected(server) == 0 || may_be_ejected.contains(&server);
                assert!(fine, "server {server} is ejected after {} ms", self.now);
            }
        }
        sent
    }
}

fn server_of(address: &str) -> usize {
    let number = address.strip_prefix("10.0.0.").unwrap();
    let number: usize = number.strip_suffix(":80").unwrap().parse().unwrap();
    number - 1
}

fn seeds() -> Range<u64> {
    let seeds = std::env::var("SEEDS").ok();
    0..seeds.map_or(2, |seeds| seeds.parse().unwrap())
}

/// Pools in which every server works: their names, servers and load.
fn working() -> Vec<(&'static str, Vec<Server>, Load)> {
    let usual = Server::new;
    let slow = || Server {
        prefill: 1.6,
        step: 250.0,
        ..usual()
    };
    let pausing = || Server {
        pauses: Some((3_000, 0..1_000)),
        ..usual()
    };
    let cold = |cold| Server { cold, ..usual() };
    let mut working = vec![
        ("usual", vec![usual(); 4], USUAL),
        ("one slow", vec![slow(), usual(), usual(), usual()], USUAL),
        ("half slow", vec![slow(), slow(), usual(), usual()], USUAL),
        (
            "overloaded",
            vec![usual(); 4],
            Load {
                prompt: 3_000,
                output: 400,
                ..USUAL
            },
        ),
        (
            "huge prompts",
            vec![usual(); 4],
            Load {
                huge: Some(150),
                ..USUAL
            },
        ),
        (
            "whole responses of a minute",
            vec![usual(); 4],
            Load {
                output: 1_000,
                long: 2_400,
                streams: 0,
                ..USUAL
            },
        ),
        ("pauses", vec![pausing(); 4], USUAL),
        (
            "one cold",
            vec![cold(12_000), usual(), usual(), usual()],
            USUAL,
        ),
        (
            "all cold",
            vec![cold(3_000), cold(6_000), cold(9_000), cold(12_000)],
            USUAL,
        ),
    ];
    working.extend(working_sglang());
    working
}

/// Pools of SGLang, whose pages count no generated tokens.
fn working_sglang() -> Vec<(&'static str, Vec<Server>, Load)> {
    let sglang = |step| Server {
        sglang: true,
        step,
        ..Server::new()
    };
    vec![
        ("SGLang", vec![sglang(25.0); 4], USUAL),
        (
            "SGLang, slow",
            vec![sglang(200.0), sglang(25.0), sglang(25.0)],
            Load {
                streams: 0,
                ..USUAL
            },
        ),
    ]
}

#[test]
fn no_server_that_works_is_ejected() {
    for seed in seeds() {
        for (name, servers, load) in working() {
            for workers in [1, 3] {
                eprintln!("{name}, {workers} workers, seed {seed}");
                World::new(servers.clone(), workers, load, seed).run(30, &[]);
            }
        }
    }
}

/// Steps of several seconds, in a pool where none took a tenth of a second before: the first ones cannot be told from an
/// engine that has stopped. Thrice the longest of them covers all others.
#[test]
fn steps_of_seconds_are_learned_and_cost_an_ejection_or_two_until_the_server_works() {
    for seed in seeds() {
        for workers in [1, 3] {
            let mut world = World::new(vec![Server::new(); 4], workers, USUAL, seed);
            world.run(10, &[]);
            for server in &mut world.servers {
                server.pauses = Some((15_000, 2_000..10_000));
            }
            let (mut ejections, mut was_ejected) = ([0; 4], [false; 4]);
            for _ in 0..120_000 / STEP {
                world.step();
                for server in 0..4 {
                    let is_ejected = world.ejected(server) > 0;
                    let worked_for = world.now.saturating_sub(world.servers[server].paused_until);
                    let text = format!(
                        "server {server}, {} ms, {workers} workers, seed {seed}",
                        world.now
                    );
                    assert!(!is_ejected || worked_for < 7_000, "still ejected: {text}");
                    ejections[server] += usize::from(is_ejected && !was_ejected[server]);
                    was_ejected[server] = is_ejected;
                }
            }
            eprintln!("{workers} workers, seed {seed}: {ejections:?}");
            assert!(
                ejections.iter().all(|it| *it <= 2),
                "{ejections:?}, seed {seed}"
            );
        }
    }
}

#[test]
fn a_server_that_stands_still_gets_no_more_requests_after_three_seconds() {
    for seed in seeds() {
        for workers in [1, 2, 4] {
            let mut world = World::new(vec![Server::new(); 4], workers, USUAL, seed);
            world.run(10, &[]);
            world.servers[0].hung = true;
            world.run(3, &[0]);
            assert_eq!(world.ejected(0), workers, "{workers} workers, seed {seed}");
            assert_eq!(world.run(20, &[0])[0], 0, "{workers} workers, seed {seed}");
            world.servers[0].hung = false;
            world.run(3, &[0]);
            assert!(world.run(10, &[])[0] > 100, "it is back");
        }
    }
}

#[test]
fn no_more_than_half_of_the_servers_are_ejected() {
    for seed in seeds() {
        let mut world = World::new(vec![Server::new(); 4], 2, USUAL, seed);
        world.run(10, &[]);
        (0..3).for_each(|server| world.servers[server].hung = true);
        for _ in 0..20 {
            world.run(1, &[0, 1, 2]);
            let ejected = (0..4).filter(|server| world.ejected(*server) > 0);
            assert!(ejected.count() <= 2, "seed {seed}");
        }
    }
}
