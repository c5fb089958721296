//! Simulated workers, their requests, and the time.

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
pub const OBJECTIVES: [(&str, i32); 3] = [("high", 10), ("usual", 0), ("low", -10)];

/// Requests that each endpoint takes.
pub const CAPACITY: usize = 8;

fn document(endpoints: usize, ttl: u64, flow_control: bool, fairness: &str) -> String {
    let members = (1..=endpoints).map(|n| format!("{{name: p{n}, address: 10.0.0.{n}, port: 80}}"));
    let members: Vec<String> = members.collect();
    let objectives =
        OBJECTIVES.map(|(name, priority)| format!("{{name: {name}, priority: {priority}}}"));
    format!(
        "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
featureGates: [flowControl={flow_control}]
plugins: [{{type: active-request-scorer}}, {{type: concurrency-detector, parameters: {{maxConcurrency: {CAPACITY}}}}},
  {{type: round-robin-fairness-policy}}, {{type: global-strict-fairness-policy}}, {{type: static-objectives, parameters: {{objectives: [{}]}}}},
  {{name: pods, type: static-discovery, parameters: {{endpoints: [{}]}}}}]
schedulingProfiles: [{{name: default, plugins: [{{pluginRef: active-request-scorer}}]}}]
flowControl: {{saturationDetector: {{pluginRef: concurrency-detector}}, defaultRequestTTL: {ttl}ms,
  defaultPriorityBand: {{fairnessPolicyRef: {fairness}}}}}
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
    tenant: usize,
    came: u64,
    priority: i32,
    /// When it was sent, and when it ends then.
    sent: Option<(u64, u64)>,
}

pub struct World {
    endpoints: usize,
    workers: Vec<Worker>,
    store: InProcess,
    rng: fastrand::Rng,
    now: u64,
    next: u32,
    started: u64,
    requests: BTreeMap<u32, Request>,
    flow_control: bool,
    fairness: &'static str,
    /// How long requests of the middle band waited that were sent, in all, and how many, by worker.
    waits: BTreeMap<usize, (u64, u64)>,
    /// How many requests of each tenant were sent.
    pub sent: BTreeMap<usize, u64>,
    /// Whether all workers know each other.
    pub checks: bool,
    pub done: Counts,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Counts {
    sent: usize,
    pub expired: usize,
    left: usize,
    pub crashed: usize,
}

impl World {
    pub fn new(endpoints: usize, workers: usize, fairness: &'static str, seed: u64) -> Self {
        let mut world = Self {
            endpoints,
            fairness,
            workers: Vec::new(),
            store: InProcess::default(),
            rng: fastrand::Rng::with_seed(seed),
            now: 0,
            next: 0,
            started: 0,
            requests: BTreeMap::new(),
            flow_control: true,
            waits: BTreeMap::new(),
            sent: BTreeMap::new(),
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
        let text = document(self.endpoints, TTL, self.flow_control, self.fairness);
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
    pub fn step(&mut self, rate: u64) {
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
        let objective = OBJECTIVES[self.rng.usize(0..3)];
        let tenant = self.rng.usize(0..3);
        self.arrive_of(worker, objective, tenant);
    }

    /// A request of a tenant comes to a worker.
    pub fn arrive_of(&mut self, worker: usize, (objective, priority): (&str, i32), tenant: usize) {
        let id = self.next;
        self.next += 1;
        let request = Request {
            worker,
            tenant,
            came: self.now,
            priority,
            sent: None,
        };
        self.requests.insert(id, request);
        let now = self.at();
        let picker = &mut self.workers[worker].picker;
        let tenant = format!("tenant-{tenant}");
        let headers = [
            (&b":path"[..], &b"/v1/models"[..]),
            (b":method", b"GET"),
            (b"x-llm-d-inference-objective", objective.as_bytes()),
            (b"x-llm-d-inference-fairness-id", tenant.as_bytes()),
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
                    *self.sent.entry(request.tenant).or_default() += 1;
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
    pub fn crash(&mut self) {
        let worker = self.rng.usize(0..self.workers.len());
        let before = self.requests.len();
        self.requests.retain(|_, request| request.worker != worker);
        self.done.crashed += before - self.requests.len();
        self.workers[worker] = self.start();
    }

    /// All workers get another plan.
    pub fn reload(&mut self, flow_control: bool) {
        self.flow_control = flow_control;
        let text = document(self.endpoints, TTL, flow_control, self.fairness);
        for worker in 0..self.workers.len() {
            let plan = config::load(&text).unwrap().plan;
            let Worker {
                picker, sharing, ..
            } = &mut self.workers[worker];
            picker.install(plan);
            sharing.plan_changed(picker);
        }
    }

    pub fn in_flight(&self) -> usize {
        self.requests
            .values()
            .filter(|request| request.sent.is_some())
            .count()
    }

    /// How many requests wait, by worker and tenant.
    pub fn waiting_by_tenant(&self) -> BTreeMap<(usize, usize), usize> {
        let mut counts = BTreeMap::new();
        for request in self
            .requests
            .values()
            .filter(|request| request.sent.is_none())
        {
            *counts.entry((request.worker, request.tenant)).or_default() += 1;
        }
        counts
    }

    pub fn waiting(&self) -> usize {
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
    pub fn check_waits(&self) {
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
    pub fn drain(&mut self) {
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
