//! The picker's clock: polling, what the poller published, and requests held for too long.

use super::delivery::{PROBES, PROBE_NS};
use super::exchange::{Unread, Withheld};
use super::meter::Metric;
use super::peers::SharingStatistics;
use super::{Effect, ExchangeId, Picker, Seat};
use crate::endpoints::monitor::{Request, Scrape};
use crate::endpoints::partial_page::PageBody;
use crate::endpoints::store::Changes;
use crate::plugins::proxy::envoy_proxy::ReadBody;
use crate::scheduling::{DecisionMode, Freshness, Slot};

/// Endpoint gauges are set this often: scrapers of Envoy's own statistics come each few seconds.
const GAUGES_EACH_NS: u64 = 1_000_000_000;

/// Overdue requests that are released in one tick. Clients choose when theirs become due; all at once
/// they would hold up the worker for a thousand decisions. At some 50 µs each with what Envoy does
/// for it, a tenth of a tick; the default `maxHeld` is through in eight ticks.
const RELEASES: usize = 128;

/// Bytes left unread that are read in one tick, and what the last request has beyond: at about a
/// millisecond per MiB, a tenth of a tick.
const UNREAD: usize = 4 << 20;

pub(super) const MILLISECOND: u64 = 1_000_000;

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
    /// Held requests of which Envoy has shown no byte: how many it has received is to be said to
    /// [`Picker::received`].
    pub silent: Vec<ExchangeId>,
}

/// What the picker keeps from tick to tick.
#[derive(Debug, Default)]
pub struct Timing {
    /// When it ticked last, in nanoseconds since 1970: time enough for what need not be exact.
    pub now: u64,
    /// Ticks so far.
    pub ticks: u64,
    /// Nanoseconds that passed between ticks, without the steps back of a clock that was set: what
    /// is held is ordered by it.
    pub elapsed: u64,
    gauges_at: u64,
    /// Counts of the sharing that were exported so far.
    pub exported: SharingStatistics,
    /// Evictions told of so far.
    pub evictions: u64,
    /// Memory of the VM, in bytes.
    pub memory: u64,
    /// Callouts under way by token.
    calls: hashbrown::HashMap<u32, Request>,
}

impl Picker {
    /// Memory of the VM, in bytes.
    pub fn note_memory(&mut self, bytes: u64) {
        self.timing.memory = bytes;
    }

    /// One tick.
    pub fn tick(&mut self) -> Tick {
        let now = (self.clock)();
        self.timing.elapsed = self.elapsed(now);
        self.timing.now = now;
        self.timing.ticks += 1;
        self.budget.tick();
        let (changes, requests) = self.watch.tick(now / MILLISECOND);
        self.take_in(&changes);
        self.release_due();
        self.relieve_memory();
        self.probe_ejected();
        let calls = requests.into_iter().map(|request| self.call(request));
        let calls = calls.collect();
        if now.abs_diff(self.timing.gauges_at) >= GAUGES_EACH_NS {
            self.timing.gauges_at = now;
            self.find_hung(now);
            self.set_gauges(now);
            self.metrics.flush();
        }
        self.show_unread();
        Tick {
            calls,
            silent: self.silent(),
        }
    }

    /// The picker's own clock at `now`, in nanoseconds since 1970.
    pub(super) fn elapsed(&self, now: u64) -> u64 {
        let since = now.saturating_sub(self.timing.now);
        self.timing.elapsed.saturating_add(since)
    }

    pub(super) fn take_in(&mut self, changes: &Changes) {
        self.forget(&changes.left);
        self.seat(&changes.joined);
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
    pub fn called_back(&mut self, token: u32, status: &[u8], body: &mut dyn PageBody) {
        if let Some(request) = self.timing.calls.remove(&token) {
            let good = status == b"200";
            self.answer(request, good.then_some(body));
        }
    }

    fn answer(&mut self, request: Request, body: Option<&mut dyn PageBody>) {
        let now = (self.clock)() / MILLISECOND;
        match request {
            Request::Members => {
                let list = body.map(|body| body.part(0, body.size()));
                let changes = self.watch.on_members(&list.unwrap_or_default(), now);
                if !(changes.left.is_empty() && changes.joined.is_empty()) {
                    // Told at the next tick.
                    self.timing.gauges_at = 0;
                }
                self.take_in(&changes);
            }
            Request::Metrics(slot, address) => {
                match self.watch.on_page(slot, &address, body, now) {
                    Scrape::Fresh => self.scraped(slot),
                    Scrape::Failed => {
                        let label = format!("endpoint_name={address}");
                        self.metrics.add(Metric::ScrapeErrors, &label, 1);
                    }
                    // Its end is not an error, and a label of its own would stay.
                    Scrape::Departed => (),
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
            self.watch.outliers.remove_endpoint(*slot);
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
                seat.models = Vec::new();
            }
            self.loads.forget(*slot);
        }
    }

    /// A newer page shows what was sent before it.
    pub(super) fn scraped(&mut self, slot: Slot) {
        self.loads.scraped(slot, &mut self.watch.store);
        self.stirred = true;
    }

    /// Those that are held beyond `maxHeld`, and those whose body does not come as it should, go on
    /// with what is known.
    fn release_due(&mut self) {
        let timeout = self.plan.proxy.body_timeout_ms * MILLISECOND;
        let overdue = self.timing.elapsed.saturating_sub(timeout);
        let mut released = 0;
        loop {
            let crowded = self.holding > self.plan.proxy.max_held;
            let (bound, reason) = match crowded {
                true => (u64::MAX, "reason=held"),
                false if released < RELEASES => (overdue, "reason=timeout"),
                false => break,
            };
            let exchanges = &self.exchanges;
            let paid = |id| Some(exchanges.get(&id)?.hold()?.paid(timeout));
            match self.holds.take(bound, paid) {
                Some(id) => {
                    self.metrics.add(Metric::ForcedReleases, reason, 1);
                    released += 1;
                    self.decide(id);
                    self.count_memory(id);
                }
                // None is held: the count was wrong, as after a panic.
                None if crowded => self.holding = 0,
                None => break,
            }
        }
        let exchanges = &self.exchanges;
        let held = |id| {
            exchanges
                .get(&id)
                .is_some_and(|exchange| exchange.is_held())
        };
        self.holds.sweep(self.holding, held);
    }

    /// Held requests of which nothing came for a whole tick while a part was left unread: that part
    /// may hold the model.
    fn show_unread(&mut self) {
        let mut read = 0;
        let (exchanges, effects) = (&mut self.exchanges, &mut self.effects);
        self.holds.retain_unread(|id| {
            let Some(exchange) = exchanges.get_mut(&id) else {
                return false;
            };
            let position = exchange.position;
            let Some((hold, ticks)) = exchange.hold_mut().and_then(|hold| match hold.unread {
                Unread::Left(ticks) => Some((hold, ticks)),
                Unread::Allowed | Unread::Never => None,
            }) else {
                return false;
            };
            if ticks < 2 || read >= UNREAD {
                hold.unread = Unread::Left(ticks.saturating_add(1));
                return true;
            }
            read += hold.arrived.saturating_sub(position);
            hold.unread = Unread::Never;
            let id = ExchangeId(id);
            effects.push_back(Effect::ShowBody { id });
            false
        });
    }

    /// Held requests that have waited for their first byte.
    fn silent(&mut self) -> Vec<ExchangeId> {
        let now = self.timing.elapsed;
        let exchanges = &self.exchanges;
        let silent = |id| {
            let hold = exchanges.get(&id).and_then(|exchange| exchange.hold());
            hold.is_some_and(|hold| hold.arrived == 0)
        };
        let most = match self.plan.proxy.read_body {
            ReadBody::Auto => PROBES,
            ReadBody::Always | ReadBody::Never => 0,
        };
        let when = (now.saturating_sub(PROBE_NS), now);
        let silent = self.holds.take_silent(when, most, silent);
        silent.into_iter().map(ExchangeId).collect()
    }

    /// Envoy has received so many bytes of the body of a request of [`Tick::silent`]. One of which it
    /// has shown none of them goes on: it will not show any before.
    pub fn received(&mut self, ExchangeId(id): ExchangeId, bytes: u64) {
        let tick = self.timing.ticks;
        let Some(exchange) = self.exchanges.get_mut(&id) else {
            return;
        };
        if bytes == 0 || exchange.hold().is_none_or(|hold| hold.arrived > 0) {
            return;
        }
        exchange.withheld = Some(Withheld { bytes, tick });
        let reason = "reason=timeout";
        self.metrics.add(Metric::ForcedReleases, reason, 1);
        self.decide(id);
        self.count_memory(id);
    }

    /// Returns what was found about the delivery of bodies, if the plan asks for it: whether they are
    /// delivered, if that is known.
    pub fn delivery_finding(&self) -> Option<Option<bool>> {
        let asked = self.plan.proxy.read_body == ReadBody::Auto;
        asked.then(|| self.delivery.finding())
    }

    /// Takes over what another worker has found about the delivery of bodies.
    pub fn adopt_delivery(&mut self, found: bool) {
        self.delivery.adopt(found, self.timing.now);
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
        match self.watch.store.pool.mode {
            _ if !self.watch.knows_members() => 0,
            DecisionMode::LocalOnly => 1,
            DecisionMode::Metrics => 2,
        }
    }

    fn set_gauges(&mut self, now: u64) {
        let held = self.exchanges.values();
        self.holding = held.filter(|exchange| exchange.is_held()).count();
        let reads = u64::from(self.reads_bodies());
        self.metrics.set(Metric::BodyMode, "", reads);
        self.set_sharing_gauges();
        let vm = if self.serves { "vm=worker" } else { "vm=main" };
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
