//! The director's clock: polling, what the poller published, and requests held for too long.

use super::meter::Metric;
use super::record::Hold;
use super::{Director, Release, Seat};
use crate::datalayer::glimpse::Body;
use crate::plugins::proxy::envoy_proxy::ReadBody;
use crate::scheduling::{Freshness, Rung, Slot};
use crate::worker::{Events, Request, SharedData};

/// Endpoint gauges are set this often: scrapers of Envoy's own statistics come each few seconds.
const GAUGES_EACH_NS: u64 = 1_000_000_000;

/// A root context that stands in for one that has not ticked for this many of its own ticks.
const ROOT_PATIENCE: u32 = 20;

/// A body that comes in drops is waited for this many times as long as one that has stopped.
const LONGEST_HOLD: u64 = 6;

const MILLISECOND: u64 = 1_000_000;

/// A callout to make.
#[derive(Debug)]
pub struct Call {
    /// Through which cluster.
    pub cluster: String,
    /// `:path`.
    pub path: String,
    /// `:authority`, and where the call is to go.
    pub address: String,
    /// The header that says where it is to go; empty where the cluster has one member.
    pub destination_header: String,
    /// How long to wait.
    pub timeout_ms: u64,
    request: Request,
}

impl Call {
    /// The call's headers.
    pub fn headers(&self) -> Vec<(&str, &str)> {
        let mut headers = vec![
            (":method", "GET"),
            (":path", self.path.as_str()),
            (":authority", self.address.as_str()),
            ("user-agent", "epp-wasm"),
        ];
        if !self.destination_header.is_empty() {
            headers.push((&self.destination_header, &self.address));
            // What an ORIGINAL_DST cluster reads.
            headers.push(("x-envoy-original-dst-host", &self.address));
        }
        headers
    }
}

/// What to do after a tick.
#[derive(Debug, Default)]
pub struct Tick {
    /// Callouts to make.
    pub calls: Vec<Call>,
    /// Held requests that go on now.
    pub releases: Vec<(u32, Release)>,
    /// Held requests whose body has stopped coming and was not read as far as it came.
    pub stalled: Vec<u32>,
}

/// What the director keeps from tick to tick.
#[derive(Debug, Default)]
pub struct Timing {
    /// The root context in charge: the newest. Older ones of a hot-reloaded listener tick on until
    /// they are drained.
    pub root: u32,
    /// When it ticked last, in nanoseconds since 1970: time enough for what need not be exact.
    pub now: u64,
    idle_ticks: u32,
    gauges_at: u64,
    foreign: u64,
    /// Evictions told of so far.
    pub evictions: u64,
    /// Memory of the VM, in bytes.
    pub memory: u64,
    /// Callouts under way by token.
    calls: hashbrown::HashMap<u32, Request>,
}

impl Director {
    /// Memory of the VM, in bytes.
    pub fn note_memory(&mut self, bytes: u64) {
        self.timing.memory = bytes;
    }

    /// One tick of a root context.
    pub fn tick(&mut self, root: u32, host: &mut dyn SharedData) -> Tick {
        if root != self.timing.root {
            self.timing.idle_ticks += 1;
            if self.timing.idle_ticks < ROOT_PATIENCE {
                return Tick::default();
            }
            self.timing.root = root;
        }
        self.timing.idle_ticks = 0;
        let now = (self.clock)();
        self.timing.now = now;
        self.budget.tick();
        let (events, requests) = self.watch.tick(now / MILLISECOND, host);
        self.take_in(&events);
        self.view.tick(host);
        self.exchange(host);
        self.exchange_avoided(host);
        if self.plan.proxy.read_body == ReadBody::Auto {
            self.delivery.exchange(&self.watch.delivery_key, now, host);
        }
        self.report(now, host);
        let calls = requests.into_iter().map(|request| self.call(request));
        let calls = calls.collect();
        if now.abs_diff(self.timing.gauges_at) >= GAUGES_EACH_NS {
            self.timing.gauges_at = now;
            self.find_hung(now);
            self.set_gauges(now);
            self.metrics.flush();
        }
        let mut releases = self.release_overdue(now);
        self.relieve_memory(&mut releases);
        Tick {
            calls,
            releases,
            stalled: self.stalled(),
        }
    }

    /// Looks at what the other VMs know before the first tick: a VM may be asked to decide as soon
    /// as it is there, after a trap even for the very request that called it into being.
    pub fn look(&mut self, host: &mut dyn SharedData) {
        let now = (self.clock)();
        let events = self.watch.look(now / MILLISECOND, host);
        self.take_in(&events);
    }

    fn take_in(&mut self, events: &Events) {
        self.forget(&events.changes.left);
        self.seat(&events.changes.joined);
        events.scraped.iter().for_each(|slot| self.scraped(*slot));
    }

    /// A callout was made, under this token; or could not be made.
    pub fn called(&mut self, call: &Call, token: Option<u32>) {
        match token {
            Some(token) => {
                self.timing.calls.insert(token, call.request.clone());
            }
            None => self.answer(call.request.clone(), None),
        }
    }

    /// A callout was answered: its `:status` and body. Envoy's own answers are never 200.
    pub fn called_back(&mut self, token: u32, status: &[u8], body: &mut dyn Body) {
        if let Some(request) = self.timing.calls.remove(&token) {
            let good = status == b"200";
            self.answer(request, good.then_some(body));
        }
    }

    fn answer(&mut self, request: Request, body: Option<&mut dyn Body>) {
        let now = (self.clock)() / MILLISECOND;
        match request {
            Request::Members => {
                let list = body.map(|body| body.part(0, body.size()));
                let changes = self.watch.on_members(&list.unwrap_or_default(), now);
                if !(changes.left.is_empty() && changes.joined.is_empty()) {
                    // Told at the next tick.
                    self.timing.gauges_at = 0;
                }
                self.forget(&changes.left);
                self.seat(&changes.joined);
            }
            Request::Metrics(slot, address) => {
                if self.watch.on_page(slot, &address, body, now) {
                    self.scraped(slot);
                } else {
                    let label = format!("endpoint_name={address}");
                    self.metrics.add(Metric::ScrapeErrors, &label, 1);
                }
            }
        }
    }

    fn call(&self, request: Request) -> Call {
        let timeout_ms = self.watch.timeout(&request);
        match &request {
            Request::Members => Call {
                cluster: self.plan.admin_cluster().to_owned(),
                path: self.plan.members_path(),
                address: "admin".to_owned(),
                destination_header: String::new(),
                timeout_ms,
                request,
            },
            Request::Metrics(_, address) => Call {
                cluster: self.plan.metrics_cluster().to_owned(),
                path: self.plan.source.path.clone(),
                address: self.plan.metrics_address(address),
                destination_header: self.plan.proxy.destination_header.clone(),
                timeout_ms,
                request,
            },
        }
    }

    /// New members get their places.
    fn seat(&mut self, joined: &[Slot]) {
        self.seats
            .resize_with(self.watch.store.pool.width(), Seat::default);
        if !joined.is_empty() {
            // The gauges tell of them with the next tick.
            self.timing.gauges_at = 0;
        }
        for slot in joined {
            self.know(*slot);
            let endpoint = self.watch.store.pool.get(*slot);
            let place = self.seats.get_mut(slot.index());
            if let (Some(endpoint), Some(seat)) = (endpoint, place) {
                seat.label = format!("endpoint_name={}", endpoint.address);
                seat.heard = self.timing.now;
                seat.checked = 0;
                let label = format!("status=success;{}", seat.label);
                seat.picks = Some(self.metrics.handle(Metric::Picks, &label));
            }
            self.loads.seat(*slot, &mut self.watch.store);
        }
    }

    /// Former members are forgotten everywhere.
    fn forget(&mut self, left: &[Slot]) {
        for slot in left {
            self.watch.avoided.avoider.leave(*slot);
            self.view.forget(*slot);
            self.indexes
                .iter_mut()
                .for_each(|index| index.remove(slot.0));
            if let Some(seat) = self.seats.get_mut(slot.index()) {
                if self.watch.polls() && !seat.label.is_empty() {
                    self.metrics.set(Metric::InflightRequests, &seat.label, 0);
                }
                if let Some(reason) = seat.avoided.take() {
                    let label = format!("{};reason={}", seat.label, reason.name());
                    self.metrics.set(Metric::Avoided, &label, 0);
                }
                seat.label.clear();
                seat.picks = None;
                seat.models.clear();
            }
            self.loads.forget(*slot);
        }
    }

    /// A newer page shows what was sent before it.
    fn scraped(&mut self, slot: Slot) {
        self.loads.scraped(slot, &mut self.watch.store);
        self.stirred = true;
    }

    /// Requests whose body stopped coming go on with what is known.
    fn release_overdue(&mut self, now: u64) -> Vec<(u32, Release)> {
        let timeout = self.plan.proxy.body_timeout_ms * MILLISECOND;
        let probes = !self.always_reads();
        let delivery = &self.delivery;
        let overdue = |hold: &Hold| {
            let bodiless = probes && hold.bytes == 0 && delivery.overdue(hold.heard, now);
            let trickles = now.abs_diff(hold.since) >= timeout.saturating_mul(LONGEST_HOLD);
            bodiless || trickles || now.abs_diff(hold.heard) >= timeout
        };
        let held = self
            .records
            .iter()
            .filter_map(|(id, record)| Some((*id, record.held?)));
        let held: Vec<(u32, Hold)> = held.filter(|(_, hold)| overdue(hold)).collect();
        let mut releases = Vec::new();
        for (id, hold) in held {
            if hold.bytes == 0 && probes && self.delivery.overdue(hold.heard, now) {
                self.delivery.missed(now);
            }
            self.metrics
                .add(Metric::ForcedReleases, "reason=timeout", 1);
            releases.push((id, self.decide(id)));
        }
        releases
    }

    /// Held requests of which nothing came for a whole tick while a part was left unread: that part
    /// may hold the model.
    fn stalled(&mut self) -> Vec<u32> {
        let mut stalled = Vec::new();
        for (id, record) in &mut self.records {
            if record.held.is_some() && record.unread_ticks > 0 {
                record.unread_ticks += 1;
                if record.unread_ticks > 2 {
                    record.unread_ticks = 0;
                    record.lazy = false;
                    stalled.push(*id);
                }
            }
        }
        stalled
    }

    /// Whether bodies are read.
    pub(super) fn reads_bodies(&self) -> bool {
        match self.plan.proxy.read_body {
            ReadBody::Auto => self.delivery.reads(),
            ReadBody::Always => true,
            ReadBody::Never => false,
        }
    }

    /// What decisions rest on, as the gauge has it.
    pub(super) fn rung(&self) -> u64 {
        match self.watch.store.pool.rung {
            _ if !self.watch.knows_members() => 0,
            Rung::Own => 1,
            Rung::Full => 2,
        }
    }

    fn set_gauges(&mut self, now: u64) {
        let held = self.records.values();
        self.holding = held.filter(|record| record.held.is_some()).count();
        let reads = u64::from(self.reads_bodies());
        self.metrics.set(Metric::BodyMode, "", reads);
        if self.watch.foreign > self.timing.foreign {
            let more = self.watch.foreign - self.timing.foreign;
            self.metrics.add(Metric::ForeignValues, "", more as i64);
            self.timing.foreign = self.watch.foreign;
        }
        self.set_sharing_gauges();
        let vm = if self.watch.served() {
            "vm=worker"
        } else {
            "vm=main"
        };
        self.set_memory_gauges(vm);
        if !self.watch.polls() {
            return;
        }
        self.set_avoided_gauges();
        self.set_pool_gauges(now);
    }

    /// What the poller knows, and so tells for all.
    fn set_pool_gauges(&mut self, now: u64) {
        let rung = self.rung();
        self.metrics.set(Metric::Rung, "", rung);
        if self.watch.members_heard > 0 {
            let age = (now / MILLISECOND).saturating_sub(self.watch.members_heard);
            self.metrics.set(Metric::MembersAge, "", age);
        }
        let mut ready = 0;
        for (slot, endpoint) in self.watch.store.pool.iter() {
            ready += u64::from(endpoint.available);
            let label = format!("endpoint_name={}", endpoint.address);
            let state = match endpoint.freshness {
                Freshness::Unknown => 0,
                Freshness::Stale => 1,
                Freshness::Fresh => 2,
            };
            self.metrics.set(Metric::Freshness, &label, state);
            let scraped = self.watch.store.condition(slot).scraped;
            if scraped > 0 {
                let age = (now / MILLISECOND).saturating_sub(scraped);
                self.metrics.set(Metric::ScrapeAge, &label, age);
            }
            let metrics = &endpoint.metrics;
            for (metric, value, unit) in [
                (Metric::QueueSize, metrics.waiting, 1.0),
                (Metric::RunningRequests, metrics.running, 1.0),
                (Metric::KvUsage, metrics.kv_usage, 1e6),
            ] {
                if let Some(value) = value {
                    self.metrics
                        .set(metric, &label, (value * unit).round() as u64);
                }
            }
        }
        self.metrics.set(Metric::ReadyEndpoints, "", ready);
    }
}
