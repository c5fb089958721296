//! The state of the pool: its endpoints with their metrics and ejections, and what this picker has in flight at each.

use std::time::Duration;

use super::deadlines::Deadlines;
use super::exchange::{Exchange, Exchanges, Target};
use super::load::{EndpointLoad, Loads};
use super::stalls::Silence;
use super::status::DecisionBasis;
use super::ExchangeId;
use crate::endpoints::load_report::LoadReport;
use crate::endpoints::monitor::{Monitor, Query};
use crate::endpoints::outlier::OutlierDetector;
use crate::endpoints::override_check::OverrideCheck;
use crate::endpoints::store::Changes;
use crate::scheduling::{ByRole, DecisionMode, Endpoint, Freshness, Pool, Slot};
use crate::time::{Clock, Instant, Timestamp};

use xxhash_rust::xxh64::xxh64;

/// A response of a healthy endpoint is examined this often: that costs two host calls. Of an endpoint at which a
/// request has failed each one is, and each that proves what the indexes have learnt.
const EXAMINE_INTERVAL: Duration = Duration::from_millis(100);

/// Pages of an endpoint are needed for this long after the last request that failed there: they show whether it can be
/// reached.
const DOUBT: Duration = Duration::from_secs(2);

/// The endpoints of a pool.
#[derive(Debug)]
pub struct PoolState {
    /// The members, their metrics and ejections.
    pub monitor: Monitor,
    /// The load of each.
    pub loads: Loads,
    /// When silences were last put aside as former ones.
    pub(super) silences_since: Instant,
    /// Their responses, by slot.
    pub(super) records: Vec<EndpointRecord>,
    /// Whether the proxy sends requests to the endpoints that they name.
    pub override_check: OverrideCheck,
    /// Whether pages came, or endpoints came or went, since the loads of the other pickers were last set.
    loads_outdated: bool,
    /// Until when the pool counts as empty, because the proxy has said that it has no endpoint.
    empty_until: Option<Instant>,
}

/// The responses of the endpoint in a slot.
#[derive(Debug, Default)]
pub(super) struct EndpointRecord {
    /// When one was last examined.
    last_examined: Option<Instant>,
    /// When one last came; when the endpoint joined, if none has.
    pub last_response: Instant,
    /// How long it has shown no work.
    pub silence: Silence,
    /// The requests that it has not responded to, by the time from which on it alone has been waited for.
    pub unanswered: Deadlines,
}

impl PoolState {
    /// Returns the state of a pool without endpoints.
    pub fn new(monitor: Monitor) -> Self {
        Self {
            monitor,
            loads: Loads::default(),
            silences_since: Instant::default(),
            records: Vec::new(),
            override_check: OverrideCheck::default(),
            loads_outdated: false,
            empty_until: None,
        }
    }

    /// Time has passed: polls what is due. `waiting`: requests wait for what pages say. Returns which endpoints came and
    /// went, and what to fetch.
    pub fn tick(&mut self, waiting: bool, clock: &Clock) -> (Changes, Vec<Query>) {
        let Self {
            monitor,
            loads,
            records,
            ..
        } = self;
        let uses_load = !monitor.needs_constants();
        monitor.tick(uses_load && waiting, clock, &|slot, outliers, in_flight| {
            uses_load && in_flight.requests > 0
                || needs_page(slot, records, outliers, clock)
                || loads.others_need_page(slot)
        })
    }

    /// Appends what this picker has in flight, to be published.
    pub fn append_loads(&self, loads: &mut Vec<EndpointLoad>, clock: &Clock) {
        let Monitor {
            store, outliers, ..
        } = &self.monitor;
        let needs_page = |slot| needs_page(slot, &self.records, outliers, clock);
        self.loads.append_own(store, needs_page, loads);
    }

    /// Returns the endpoints.
    pub fn pool(&self) -> &Pool {
        &self.monitor.store.pool
    }

    /// Returns whether no endpoint may be picked, or the proxy has said that it has none.
    pub fn is_empty(&self) -> bool {
        if self.empty_until.is_some() {
            return true;
        }
        let pool = self.pool();
        let none = pool.snapshot().candidates.is_empty();
        none && !pool.iter().any(|(_, endpoint)| endpoint.is_available())
    }

    /// The proxy has said that it has no endpoint. Discovery will have noticed by this time.
    pub fn count_as_empty(&mut self, until: Instant) {
        self.empty_until = Some(until);
    }

    /// Trusts discovery again once the time of [`Self::count_as_empty`] has passed.
    pub fn end_emptiness(&mut self, now: Instant) {
        self.empty_until = self.empty_until.filter(|until| now < *until);
    }

    /// Returns how many requests of this picker are in flight, and of all.
    pub fn in_flight(&self) -> (f64, f64) {
        let slots = (0..self.pool().width()).map(|index| Slot(index as u32));
        let all = slots.map(|slot| f64::from(self.pool().load(slot).requests));
        (self.loads.all_in_flight() as f64, all.sum())
    }

    /// Returns the endpoint in a slot.
    pub fn endpoint(&self, slot: Slot) -> Option<&Endpoint> {
        self.pool().get(slot)
    }

    /// Returns the address of the endpoint in a slot; empty where there is none.
    pub fn address(&self, slot: Slot) -> &str {
        let endpoint = self.endpoint(slot);
        endpoint.map_or("", |endpoint| &*endpoint.address)
    }

    /// Returns how fresh the metrics of the endpoint in a slot are.
    pub fn freshness(&self, slot: Slot) -> Freshness {
        let endpoint = self.endpoint(slot);
        endpoint.map_or(Freshness::Unknown, |endpoint| endpoint.freshness)
    }

    /// Returns what decisions are based on.
    pub fn decision_basis(&self) -> DecisionBasis {
        match self.pool().mode {
            _ if !self.monitor.knows_members() => DecisionBasis::Nothing,
            DecisionMode::LocalOnly => DecisionBasis::OwnCounts,
            DecisionMode::Metrics => DecisionBasis::Metrics,
        }
    }

    /// An endpoint has joined in this slot.
    pub fn add_endpoint(&mut self, slot: Slot, now: Instant) {
        let number = xxh64(self.address(slot).as_bytes(), 0).max(1);
        self.monitor.outliers.add_endpoint(slot, number);
        if self.records.len() <= slot.index() {
            self.records
                .resize_with(slot.index() + 1, EndpointRecord::default);
        }
        if let Some(record) = self.records.get_mut(slot.index()) {
            *record = EndpointRecord {
                last_response: now,
                silence: Silence::new(now),
                ..EndpointRecord::default()
            };
        }
        self.loads.add(slot, &mut self.monitor.store);
        self.loads_outdated = true;
    }

    /// The endpoint in this slot has left.
    pub fn remove_endpoint(&mut self, slot: Slot) {
        self.monitor.outliers.remove_endpoint(slot);
        if let Some(record) = self.records.get_mut(slot.index()) {
            record.unanswered.clear();
        }
        self.loads.remove(slot);
        self.loads_outdated = true;
    }

    /// A newer page shows what was sent before it.
    pub fn mark_scraped(&mut self, slot: Slot) {
        self.loads.scraped(slot, &mut self.monitor.store);
        self.loads_outdated = true;
    }

    /// A response of the endpoint in this slot says what its load is. Returns whether that takes the place of what its page
    /// says.
    pub fn take_report(&mut self, slot: Slot, report: LoadReport, now: Timestamp) -> bool {
        let store = &mut self.monitor.store;
        let (waiting, kv_usage) = store.set_report(slot, report, now);
        if waiting.is_some() {
            self.loads.reported(slot, store);
        }
        waiting.or(kv_usage).is_some()
    }

    /// Returns whether the loads of the other workers have to be set again; true only once per change.
    pub fn take_loads_outdated(&mut self) -> bool {
        std::mem::take(&mut self.loads_outdated)
    }
}

/// Requests under way.
impl PoolState {
    /// Returns the endpoint that a request was sent to, if it is still there.
    pub fn present_target(&self, exchange: &Exchange) -> Option<Target> {
        let target = exchange.primary().copied();
        target.filter(|target| self.loads.stays(target))
    }

    /// A request is sent to an endpoint.
    pub fn begin_target(&mut self, slot: Slot, unseen: bool, tokens: u64) -> Target {
        let store = &mut self.monitor.store;
        self.loads.send(slot, unseen, tokens, store)
    }

    /// Other pickers may have sent this many requests to the endpoints that this one has sent a request to.
    pub fn add_unreported(&mut self, targets: &ByRole<Target>, requests: f64) {
        let store = &mut self.monitor.store;
        for target in [Some(&targets.primary), targets.prefill.as_ref()]
            .into_iter()
            .flatten()
        {
            self.loads.add_unreported(target.slot, requests, store);
        }
    }

    /// The other pickers have reported what they sent.
    pub fn forget_unreported(&mut self) {
        self.loads.forget_unreported(&mut self.monitor.store);
    }

    /// Endpoints have done their parts of a request, or it has ended.
    pub fn end_targets(&mut self, targets: impl IntoIterator<Item = Target>) {
        for target in targets {
            self.loads.end(target, &mut self.monitor.store);
        }
    }

    /// A request turns out to cost its endpoint this many tokens; `None` where it costs no more.
    pub fn set_tokens(&mut self, target: &mut Target, tokens: Option<u64>) {
        self.loads
            .set_tokens(target, tokens, &mut self.monitor.store);
    }

    /// The response to a request has begun: the next pages of its endpoints show the request.
    pub fn mark_seen(&mut self, targets: &mut ByRole<Target>) {
        for target in targets.iter_mut() {
            self.loads.mark_seen(target, &mut self.monitor.store);
        }
    }

    /// Returns whether the next response of the endpoint in this slot is to be examined; `needed`: it is to be
    /// because of its request.
    pub fn examines(&mut self, slot: Slot, needed: bool, clock: &Clock) -> bool {
        let Some(record) = self.records.get_mut(slot.index()) else {
            return false;
        };
        let (now, wall) = (clock.now(), clock.wall());
        let examines = needed
            || record.silence.doubted
            || self.monitor.outliers.is_suspect(slot, wall)
            || record
                .last_examined
                .is_none_or(|at| now.since(at) >= EXAMINE_INTERVAL);
        if examines {
            record.last_examined = Some(now);
        }
        examines
    }

    /// A response of the endpoint in this slot has come.
    pub fn mark_responsive(&mut self, slot: Slot, now: Instant) {
        if let Some(record) = self.records.get_mut(slot.index()) {
            record.last_response = now;
        }
    }

    /// Returns whether the endpoint in this slot can be reached, although requests fail there: its page has been read
    /// since, and not missed.
    pub fn is_reachable(&self, slot: Slot) -> bool {
        let condition = self.monitor.store.condition(slot);
        let failing = self.monitor.outliers.failing_since(slot);
        condition.failures == 0 && failing.is_some_and(|since| condition.scraped > Some(since))
    }

    /// The endpoint in this slot has served a request with a body, which had waited since then.
    pub fn mark_served(&mut self, slot: Slot, waiting_since: Option<Instant>, now: Instant) {
        let read = self.monitor.store.read_at(slot);
        let until = self.monitor.silent_until(read, now);
        if let Some(record) = self.records.get_mut(slot.index()) {
            record.silence.serve(waiting_since, until, now);
        }
    }

    /// The endpoint alone is waited for from now on, if the request was sent to it to its end.
    pub fn await_response(&mut self, exchange: &mut Exchange, now: Instant) {
        let Some(target) = self.present_target(exchange) else {
            return;
        };
        let record = self.records.get_mut(target.slot.index());
        if let Some(record) = record.filter(|_| exchange.response.begin_waiting(now)) {
            record.unanswered.add(exchange.id.0, now);
        }
    }

    /// Forgets the deadlines of requests that were responded to, once these may be most of an endpoint's.
    pub fn sweep(&mut self, exchanges: &Exchanges) {
        let (loads, slots) = (&self.loads, (0..).map(Slot));
        for (slot, record) in slots.zip(&mut self.records) {
            let waits = |id| awaited_since(exchanges, loads, slot, id).is_some();
            record.unanswered.sweep(loads.in_flight(slot), waits);
        }
    }

    /// Finds endpoints that hang: neither a page nor a response has come from them for longer than a page may be old,
    /// while a request waits there.
    pub fn find_hung(&mut self, exchanges: &Exchanges, patience: Duration, clock: &Clock) {
        let now = clock.now();
        for index in 0..self.records.len() {
            let slot = Slot(index as u32);
            let stale = self.freshness(slot) == Freshness::Stale;
            let Some(record) = self.records.get_mut(index).filter(|_| stale) else {
                continue;
            };
            if now.since(record.last_response) <= patience {
                continue;
            }
            let since = |id| awaited_since(exchanges, &self.loads, slot, id);
            let overdue = now.before(patience);
            if record.unanswered.first_due(overdue, since).is_some() {
                let outliers = &mut self.monitor.outliers;
                outliers.mark_hung(slot, clock.wall());
            }
        }
    }
}

/// Returns whether the page of the endpoint in this slot is needed soon: requests there fail, or have waited unusually
/// long.
fn needs_page(
    slot: Slot,
    records: &[EndpointRecord],
    outliers: &OutlierDetector,
    clock: &Clock,
) -> bool {
    let record = records.get(slot.index());
    let failed = outliers.failed_at(slot);
    record.is_some_and(|record| record.silence.doubted && !record.unanswered.is_empty())
        || failed.is_some_and(|at| clock.wall().is_near(at, DOUBT))
}

/// Returns since when a request waits for the response of the endpoint in this slot, if it does.
pub(super) fn awaited_since(
    exchanges: &Exchanges,
    loads: &Loads,
    slot: Slot,
    id: u32,
) -> Option<Instant> {
    let exchange = exchanges.get(ExchangeId(id))?;
    let target = exchange.primary()?;
    let waits = target.slot == slot && loads.stays(target);
    exchange.response.awaited_since().filter(|_| waits)
}

#[cfg(test)]
#[path = "polling_tests.rs"]
mod tests;
