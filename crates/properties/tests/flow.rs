//! Several simulated workers that are one gate: requests of random bands come and go, workers crash and get other plans.
//! No request is lost or sent twice, none waits beyond its time, the pool takes no more than one look's arrivals too many,
//! and no lower band goes on where a higher one has waited for longer than two looks.
//!
//! `SEEDS` is the number of seeds of each pool. The time is simulated, in steps of 10 ms.

// A test fails loudly.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::collections::BTreeMap;
use std::time::Duration;

use epp_core::config;
use epp_core::picker::{Effect, ExchangeId, Head, Picker};
use epp_core::time::Timestamp;
use epp_sync::{InProcess, Sharing};

/// Milliseconds per step, which is a look at the others, and per tick.
const STEP: u64 = 10;
const TICK: u64 = 50;

/// Milliseconds that a request may wait.
const TTL: u64 = 3_000;

const START: Timestamp = Timestamp::from_millis(1_000_000_000);

/// Priorities by the names of their objectives.
const OBJECTIVES: [(&str, i32); 3] = [("high", 10), ("usual", 0), ("low", -10)];

/// Requests that each endpoint takes.
const CAPACITY: usize = 8;

fn document(endpoints: usize, ttl: u64, flow_control: bool) -> String {
    let members = (1..=endpoints).map(|n| format!("{{name: p{n}, address: 10.0.0.{n}, port: 80}}"));
    let members: Vec<String> = members.collect();
    let objectives =
        OBJECTIVES.map(|(name, priority)| format!("{{name: {name}, priority: {priority}}}"));
    format!(
        "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
featureGates: [flowControl={flow_control}]
plugins: [{{type: active-request-scorer}}, {{type: concurrency-detector, parameters: {{maxConcurrency: {CAPACITY}}}}},
  {{type: round-robin-fairness-policy}}, {{type: static-objectives, parameters: {{objectives: [{}]}}}},
  {{name: pods, type: static-discovery, parameters: {{endpoints: [{}]}}}}]
schedulingProfiles: [{{name: default, plugins: [{{pluginRef: active-request-scorer}}]}}]
flowControl: {{saturationDetector: {{pluginRef: concurrency-detector}}, defaultRequestTTL: {ttl}ms}}
dataLayer: {{discovery: {{pluginRef: pods}}}}
",
        objectives.join(", "),
        members.join(", ")
    )
}

struct Worker {
    picker: Picker,
    sharing: Sharing,
    /// The step within a tick at which it ticks.
    phase: u64,
}

/// A request that has not ended.
struct Request {
    worker: usize,
    came: u64,
    priority: i32,
    /// When it was sent, and when it ends then.
    sent: Option<(u64, u64)>,
}

struct World {
    endpoints: usize,
    workers: Vec<Worker>,
    store: InProcess,
    rng: fastrand::Rng,
    now: u64,
    next: u32,
    started: u64,
    requests: BTreeMap<u32, Request>,
    flow_control: bool,
    /// How long requests of the middle band waited that were sent, in all, and how many, by worker.
    waits: BTreeMap<usize, (u64, u64)>,
    /// Whether all workers know each other.
    checks: bool,
    done: Counts,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    sent: usize,
    expired: usize,
    left: usize,
    crashed: usize,
}

impl World {
    fn new(endpoints: usize, workers: usize, seed: u64) -> Self {
        let mut world = Self {
            endpoints,
            workers: Vec::new(),
            store: InProcess::default(),
            rng: fastrand::Rng::with_seed(seed),
            now: 0,
            next: 0,
            started: 0,
            requests: BTreeMap::new(),
            flow_control: true,
            waits: BTreeMap::new(),
            checks: true,
            done: Counts::default(),
        };
        for _ in 0..workers {
            let worker = world.start();
            world.workers.push(worker);
        }
        // A worker looks at the others with each step once it has served a request.
        world.checks = false;
        (0..20).for_each(|_| world.step(0));
        (0..workers).for_each(|worker| world.arrive_at(worker));
        (0..100).for_each(|_| world.step(0));
        world.checks = true;
        world
    }

    fn at(&self) -> Timestamp {
        START.after(Duration::from_millis(self.now))
    }

    fn start(&mut self) -> Worker {
        self.started += 1;
        let text = document(self.endpoints, TTL, self.flow_control);
        let plan = config::load(&text).unwrap().plan;
        let mut sharing = Sharing::new("epp", plan.cluster(), self.started);
        let mut picker = Picker::new(plan, self.started);
        sharing.join(
            &mut picker,
            &mut self.store,
            START.after(Duration::from_millis(self.now)),
        );
        let phase = self.rng.u64(0..TICK / STEP) * STEP;
        Worker {
            picker,
            sharing,
            phase,
        }
    }

    /// Lets a step pass, in which this many requests come on average for a hundred steps.
    fn step(&mut self, rate: u64) {
        self.now += STEP;
        let ended: Vec<u32> = self
            .requests
            .iter()
            .filter(|(_, request)| request.sent.is_some_and(|(_, end)| end <= self.now))
            .map(|(id, _)| *id)
            .collect();
        for id in ended {
            self.end(id);
        }
        for worker in 0..self.workers.len() {
            self.look(worker);
        }
        let mut left = rate / 100 + u64::from(self.rng.u64(0..100) < rate % 100);
        while left > 0 {
            left -= 1;
            self.arrive();
        }
        if self.rng.u8(..) == 0 {
            self.client_leaves();
        }
        self.check();
    }

    fn look(&mut self, worker: usize) {
        let now = self.at();
        let ticks = self.now % TICK == self.workers[worker].phase;
        let Worker {
            picker, sharing, ..
        } = &mut self.workers[worker];
        if ticks {
            sharing.before_tick(picker, &mut self.store);
            picker.tick(now);
            sharing.after_tick(picker, &mut self.store, now);
        } else {
            sharing.exchange_in_flight(picker, &mut self.store);
        }
        self.carry_out(worker);
    }

    fn arrive(&mut self) {
        let worker = self.rng.usize(0..self.workers.len());
        // One worker gets most.
        let worker = if self.rng.bool() { 0 } else { worker };
        self.arrive_at(worker);
    }

    fn arrive_at(&mut self, worker: usize) {
        let id = self.next;
        self.next += 1;
        let (objective, priority) = OBJECTIVES[self.rng.usize(0..3)];
        let request = Request {
            worker,
            came: self.now,
            priority,
            sent: None,
        };
        self.requests.insert(id, request);
        let now = self.at();
        let picker = &mut self.workers[worker].picker;
        let tenant = [&b"a"[..], b"b", b"c"][self.rng.usize(0..3)];
        let headers = [
            (&b":path"[..], &b"/v1/models"[..]),
            (b":method", b"GET"),
            (b"x-llm-d-inference-objective", objective.as_bytes()),
            (b"x-llm-d-inference-fairness-id", tenant),
        ];
        let (plan, mut values) = (picker.plan().clone(), Vec::new());
        let head = Head::read(&plan, headers.into_iter(), true, &mut values);
        picker.request_headers(now, ExchangeId(id), &head);
        self.carry_out(worker);
    }

    fn carry_out(&mut self, worker: usize) {
        while let Some(effect) = self.workers[worker].picker.poll_effect() {
            match effect {
                Effect::Forward { id, .. } => {
                    let request = self
                        .requests
                        .get_mut(&id.0)
                        .expect("a request that is there");
                    assert_eq!(request.sent, None, "{} was sent twice", id.0);
                    assert_eq!(request.worker, worker);
                    let end = self.now + self.rng.u64(2..60) * STEP;
                    request.sent = Some((self.now, end));
                    let waited = self.now - request.came;
                    assert!(waited <= TTL + TICK, "{waited}");
                    let priority = request.priority;
                    if priority == 0 {
                        let waits = self.waits.entry(worker).or_default();
                        *waits = (waits.0 + waited, waits.1 + 1);
                    }
                    if self.checks {
                        self.check_order(worker, priority);
                        self.check_room(worker);
                    }
                    self.done.sent += 1;
                }
                Effect::Reply { id, reply } => {
                    assert_eq!(reply.status, 429, "{}", reply.body);
                    let waited = self.now - self.requests[&id.0].came;
                    // Without flow control, requests below priority 0 are refused while the pool is full.
                    let shed = !self.checks && reply.reason == Some("rejected-saturated");
                    assert!(shed || waited >= TTL, "{waited}: {}", reply.body);
                    self.done.expired += 1;
                    self.end(id.0);
                }
                Effect::Bypass { id, .. } => panic!("{} was left to the host", id.0),
                _ => {}
            }
        }
    }

    /// A lower band goes on only where no higher one has waited for two looks at least: what a worker publishes with one
    /// look the others read with the next.
    fn check_order(&self, worker: usize, priority: i32) {
        let mut waiting = self
            .requests
            .iter()
            .filter(|(_, request)| request.sent.is_none());
        let passed = waiting.find(|(_, request)| {
            let known = match request.worker == worker {
                true => request.came < self.now,
                false => request.came + 3 * STEP < self.now,
            };
            request.priority > priority && known
        });
        if let Some((id, request)) = passed {
            panic!(
                "one of {priority} passed {id} of {}, which has waited {} ms in {} (here {worker})",
                request.priority,
                self.now - request.came,
                request.worker
            );
        }
    }

    fn end(&mut self, id: u32) {
        let Some(request) = self.requests.remove(&id) else {
            return;
        };
        let now = self.at();
        self.workers[request.worker]
            .picker
            .closed(now, ExchangeId(id));
        self.carry_out(request.worker);
    }

    fn client_leaves(&mut self) {
        let ids: Vec<u32> = self.requests.keys().copied().collect();
        if !ids.is_empty() {
            let id = ids[self.rng.usize(0..ids.len())];
            self.done.left += 1;
            self.end(id);
        }
    }

    /// A worker's VM traps: its requests are gone, and another one takes its place.
    fn crash(&mut self) {
        let worker = self.rng.usize(0..self.workers.len());
        let before = self.requests.len();
        self.requests.retain(|_, request| request.worker != worker);
        self.done.crashed += before - self.requests.len();
        self.workers[worker] = self.start();
    }

    /// All workers get another plan.
    fn reload(&mut self, flow_control: bool) {
        self.flow_control = flow_control;
        let text = document(self.endpoints, TTL, flow_control);
        for worker in 0..self.workers.len() {
            let plan = config::load(&text).unwrap().plan;
            let Worker {
                picker, sharing, ..
            } = &mut self.workers[worker];
            picker.install(plan);
            sharing.plan_changed(picker);
        }
    }

    fn in_flight(&self) -> usize {
        self.requests
            .values()
            .filter(|request| request.sent.is_some())
            .count()
    }

    fn waiting(&self) -> usize {
        self.requests.len() - self.in_flight()
    }

    /// A request was sent while the pool had room, but for what other workers have sent since this one knew of it: what
    /// one publishes with its look is read with the next.
    fn check_room(&self, worker: usize) {
        let others = self.requests.values().filter(|request| {
            let sent = request.sent.is_some_and(|(at, _)| at + 3 * STEP > self.now);
            sent && request.worker != worker
        });
        let most = CAPACITY * self.endpoints + others.count();
        let found = self.in_flight();
        assert!(found <= most, "{found} of {most} in flight at {}", self.now);
    }

    fn check(&self) {
        for request in self
            .requests
            .values()
            .filter(|request| request.sent.is_none())
        {
            let waited = self.now - request.came;
            assert!(waited <= TTL + TICK, "{waited} ms");
        }
    }

    /// Requests wait about as long at one worker as at another.
    fn check_waits(&self) {
        let mean = |waits: &(u64, u64)| waits.0 as f64 / waits.1.max(1) as f64;
        let busy = self.waits.values().filter(|(_, count)| *count > 30);
        let means: Vec<f64> = busy.map(mean).collect();
        let (least, most) = (
            means.iter().copied().fold(f64::MAX, f64::min),
            means.iter().copied().fold(0.0, f64::max),
        );
        assert!(most < 2.0 * least + 100.0, "{:?}", self.waits);
    }

    /// Lets all end. Returns whether nothing is left.
    fn drain(&mut self) {
        for _ in 0..(TTL + 2_000) / STEP {
            self.step(0);
        }
        assert_eq!(self.requests.len(), 0);
        for worker in &mut self.workers {
            let pool = worker.picker.pool();
            let loads = pool.iter().map(|(slot, _)| pool.load(slot));
            for load in loads {
                assert_eq!((load.requests, load.tokens, load.unreported), (0, 0, 0));
            }
        }
    }
}

fn seeds() -> std::ops::Range<u64> {
    let seeds = std::env::var("SEEDS").ok();
    0..seeds.map_or(2, |seeds| seeds.parse().unwrap())
}

#[test]
fn workers_are_one_gate() {
    for seed in seeds() {
        for (workers, endpoints) in [(1, 2), (2, 2), (4, 3), (16, 8)] {
            let mut world = World::new(endpoints, workers, seed);
            // At 300 ms each, the pool serves 27 in a hundred steps for each place.
            let capacity = (endpoints * CAPACITY * 100 / 31) as u64;
            let mut full = 0;
            for _ in 0..1_000 {
                world.step(capacity * 2);
                full += usize::from(world.in_flight() >= CAPACITY * endpoints * 3 / 4);
            }
            assert!(
                world.waiting() > 0 && world.done.expired > 0,
                "{:?}",
                world.done
            );
            assert!(full > 900, "{workers} workers keep the pool busy: {full}");
            world.check_waits();
            world.drain();
        }
    }
}

#[test]
fn crashes_and_reloads_lose_no_other_request() {
    for seed in seeds() {
        let mut world = World::new(3, 4, seed);
        world.checks = false;
        for step in 0..3_000 {
            // Of a worker that has crashed, the others forget after a second what was in flight and waited there.
            match step % 300 {
                100 => world.crash(),
                200 => world.reload(step % 600 == 200),
                _ => {}
            }
            world.step(200);
        }
        world.reload(true);
        world.drain();
        assert!(world.done.crashed > 0, "{:?}", world.done);
    }
}
