//! What is due with time: polling, requests that are held for too long, and gauges.

use std::borrow::Cow;
use std::time::Duration;

use super::exchange::Exchange;
use super::hold::Unread;
use super::peers::SharingStatistics;
use super::status::DecisionBasis;
use super::{
    Effect, EndpointRecord, ExchangeId, Fetch, FetchError, FetchId, Fetched, HostState, Picker,
};
use crate::body::BodyView;
use crate::endpoints::monitor::{Query, Scrape};
use crate::endpoints::partial_page::PageBody;
use crate::endpoints::store::Changes;
use crate::metrics::definitions::{
    DECISION_MODE, EJECTED, ENDPOINT_GAUGES, FORCED_RELEASES, FRESHNESS, KV_CACHE_UTILIZATION,
    MEMBERS_AGE, PICKS, QUEUE_SIZE, READS_BODIES, READY_ENDPOINTS, RUNNING_REQUESTS, SCRAPE_AGE,
    SCRAPE_ERRORS,
};
use crate::metrics::labels::{Ejection, Endpoint, ForcedRelease, NoLabels, Picked, Vm};
use crate::scheduling::{DecisionMode, Freshness, Slot};
use crate::time::{whole_millis, Clock, Instant, Timestamp};

use xxhash_rust::xxh64::xxh64;

/// Endpoint gauges are set this often: scrapers of Envoy's own statistics come each few seconds.
const GAUGE_INTERVAL: Duration = Duration::from_secs(1);

/// Overdue requests that are released in one tick, as many for memory, and as many bodies that are shown again.
/// Clients choose when theirs become due; all at once they would hold up the worker for a thousand decisions. At
/// some 50 µs each with what Envoy does for it, a tenth of a tick; the default `maxHeld` is through in eight ticks.
/// Those beyond `maxHeld` are released all: they would keep places from newcomers.
pub(super) const MAX_RELEASES_PER_TICK: usize = 128;

/// Bytes left unread that are read in one tick, and what the last request has beyond: at about a
/// millisecond per MiB, a tenth of a tick.
const MAX_SHOWN_BYTES_PER_TICK: usize = 4 << 20;

/// What the picker keeps from tick to tick.
#[derive(Debug, Default)]
pub struct Timing {
    /// The time of the event at hand.
    pub clock: Clock,
    /// When the gauges were set last; none where they are to be set with the next tick.
    gauges_at: Option<Instant>,
    /// Counts of the sharing that were exported so far.
    pub exported: SharingStatistics,
    /// Evictions that were counted so far.
    pub evictions: u64,
    /// What the host reports of itself.
    pub host: HostState,
    /// Fetches under way, with when they began.
    fetches: hashbrown::HashMap<FetchId, (Query, Instant)>,
    /// Fetches so far.
    fetched: u32,
}

impl Picker {
    /// Sets what the host reports of itself, for the gauges and the status page.
    pub fn set_host_state(&mut self, state: HostState) {
        self.timing.host = state;
    }

    /// Time has passed. To be called every 50 ms or so.
    pub fn tick(&mut self, now: Timestamp) {
        self.begin_event(now);
        let now = self.timing.clock.now();
        self.budget.tick();
        let (changes, queries) = self.monitor.tick(&self.timing.clock);
        self.apply_changes(&changes);
        self.release_due();
        self.relieve_memory();
        self.probe_ejected();
        queries.into_iter().for_each(|query| self.fetch(query));
        let gauges_at = self.timing.gauges_at;
        if gauges_at.is_none_or(|at| now.since(at) >= GAUGE_INTERVAL) {
            self.timing.gauges_at = Some(now);
            self.drop_lost_fetches();
            self.find_hung();
            self.set_gauges();
            self.metrics.flush();
        }
        self.show_unread();
    }

    pub(super) fn apply_changes(&mut self, changes: &Changes) {
        self.remove_endpoints(&changes.left);
        self.add_endpoints(&changes.joined);
    }

    /// Asks the host to fetch something.
    fn fetch(&mut self, query: Query) {
        self.timing.fetched = self.timing.fetched.wrapping_add(1);
        let id = FetchId(self.timing.fetched);
        let timeout = self.monitor.timeout(&query);
        let fetch = match &query {
            Query::Members => Fetch::Members,
            Query::Metrics(_, address) => Fetch::Metrics {
                address: address.clone(),
            },
        };
        let now = self.timing.clock.now();
        self.timing.fetches.insert(id, (query, now));
        self.effects.push_back(Effect::Fetch { id, fetch, timeout });
    }

    /// Returns whether the result of a fetch is still waited for.
    pub fn awaits(&self, id: FetchId) -> bool {
        self.timing.fetches.contains_key(&id)
    }

    /// Drops the fetches that the monitor takes for lost: a host that drops results would let them grow.
    fn drop_lost_fetches(&mut self) {
        let (now, monitor) = (self.timing.clock.now(), &self.monitor);
        let fetches = &mut self.timing.fetches;
        fetches.retain(|_, (query, begun)| now.since(*begun) <= monitor.lost_after(query));
    }

    /// A fetch has ended. Late or repeated results are ignored; one of another kind is a failure.
    pub fn fetched(
        &mut self,
        now: Timestamp,
        id: FetchId,
        result: Result<Fetched<'_>, FetchError>,
    ) {
        self.begin_event(now);
        let Some((query, _)) = self.timing.fetches.remove(&id) else {
            return;
        };
        match query {
            Query::Members => {
                let members = match &result {
                    Ok(Fetched::Members(members)) => Some(members.as_slice()),
                    _ => None,
                };
                let changes = self.monitor.on_members(members, self.timing.clock.now());
                if !(changes.left.is_empty() && changes.joined.is_empty()) {
                    // In the gauges with the next tick.
                    self.timing.gauges_at = None;
                }
                self.apply_changes(&changes);
            }
            Query::Metrics(slot, address) => {
                let mut page = match result {
                    Ok(Fetched::Page(page)) => Some(FetchedPage(page)),
                    _ => None,
                };
                let body = page.as_mut().map(|page| page as &mut dyn PageBody);
                let clock = &self.timing.clock;
                match self.monitor.on_page(slot, &address, body, clock) {
                    Scrape::Fresh => self.scraped(slot),
                    Scrape::Failed => {
                        self.metrics.add(SCRAPE_ERRORS, Endpoint(&address), 1);
                    }
                    // Its end is not an error, and a label of its own would stay.
                    Scrape::Departed => (),
                }
            }
        }
    }

    /// Adds new members' records, loads and outlier detection.
    fn add_endpoints(&mut self, joined: &[Slot]) {
        self.records
            .resize_with(self.monitor.store.pool.width(), EndpointRecord::default);
        if !joined.is_empty() {
            // The gauges include them with the next tick.
            self.timing.gauges_at = None;
        }
        for slot in joined {
            let endpoint = self.monitor.store.pool.get(*slot);
            let place = self.records.get_mut(slot.index());
            if let (Some(endpoint), Some(record)) = (endpoint, place) {
                let number = xxh64(endpoint.address.as_bytes(), 0).max(1);
                self.monitor.outliers.add_endpoint(*slot, number);
                record.address = endpoint.address.to_string();
                record.last_response = self.timing.clock.now();
                record.last_examined = None;
                record.unanswered.clear();
                record.picks = Some(self.metrics.counter(PICKS, Picked(&record.address)));
            }
            self.loads.add(*slot, &mut self.monitor.store);
        }
    }

    /// Removes former members everywhere.
    fn remove_endpoints(&mut self, left: &[Slot]) {
        for slot in left {
            self.monitor.outliers.remove_endpoint(*slot);
            self.view.forget(*slot);
            self.indexes
                .iter_mut()
                .for_each(|index| index.remove(slot.0));
            if let Some(record) = self.records.get_mut(slot.index()) {
                let endpoint = record.address.as_str();
                // The picker that polls has set them, and no other one is to.
                if self.monitor.polls() && !endpoint.is_empty() {
                    for gauge in &ENDPOINT_GAUGES {
                        self.metrics.reset(gauge, Endpoint(endpoint));
                    }
                }
                if let Some(reason) = record.reported_ejection.take() {
                    self.metrics.set(EJECTED, Ejection { endpoint, reason }, 0);
                }
                record.address.clear();
                record.picks = None;
                record.models = Vec::new();
                record.unanswered.clear();
            }
            self.loads.remove(*slot);
        }
    }

    /// A newer page shows what was sent before it.
    pub(super) fn scraped(&mut self, slot: Slot) {
        self.loads.scraped(slot, &mut self.monitor.store);
        self.loads_outdated = true;
    }

    /// Decides with what is known those that are held beyond `maxHeld`, and those whose body does not come as it
    /// should.
    fn release_due(&mut self) {
        let timeout = self.plan.settings.body_timeout;
        let overdue = self.timing.clock.now().before(timeout);
        let max_held = self.plan.settings.max_held;
        let excess = self.exchanges.held().saturating_sub(max_held);
        for _ in 0..excess.max(MAX_RELEASES_PER_TICK) {
            let (bound, reason) = match self.exchanges.held() > max_held {
                true => (Instant::MAX, ForcedRelease::Held),
                false => (overdue, ForcedRelease::Timeout),
            };
            let exchanges = &self.exchanges;
            let base = |id| Some(exchanges.get(&id)?.hold()?.deadline_base(timeout));
            let Some(id) = self.held.first_due(bound, base) else {
                break;
            };
            self.metrics.add(FORCED_RELEASES, reason, 1);
            self.decide(id);
            self.count_memory(id);
        }
        let exchanges = &self.exchanges;
        let is_held = |id| exchanges.get(&id).is_some_and(Exchange::is_held);
        self.held.sweep(exchanges.held(), is_held);
        self.unread.sweep(exchanges.held(), is_held);
    }

    /// Has those bodies shown of which nothing came for a while and a part was left unread: that part may hold the
    /// model.
    fn show_unread(&mut self) {
        let now = self.timing.clock.now();
        let mut read = 0;
        for _ in 0..MAX_RELEASES_PER_TICK {
            if read >= MAX_SHOWN_BYTES_PER_TICK {
                break;
            }
            let exchanges = &self.exchanges;
            let due = |id| exchanges.get(&id)?.hold()?.unread_due();
            let Some(id) = self.unread.first_due(now, due) else {
                break;
            };
            let Some(exchange) = self.exchanges.get_mut(&id) else {
                break;
            };
            let position = exchange.position;
            if let Some(hold) = exchange.hold_mut() {
                read += hold.arrived.saturating_sub(position);
                hold.unread = Unread::Never;
            }
            let id = ExchangeId(id);
            self.effects.push_back(Effect::ShowBody { id });
        }
    }

    /// Returns what decisions are based on.
    pub(super) fn decision_basis(&self) -> DecisionBasis {
        match self.monitor.store.pool.mode {
            _ if !self.monitor.knows_members() => DecisionBasis::Nothing,
            DecisionMode::LocalOnly => DecisionBasis::OwnCounts,
            DecisionMode::Metrics => DecisionBasis::Metrics,
        }
    }

    fn set_gauges(&mut self) {
        let reads = u64::from(self.timing.host.shows_bodies);
        self.metrics.set(READS_BODIES, NoLabels, reads);
        self.set_sharing_gauges();
        let vm = if self.serves { Vm::Worker } else { Vm::Main };
        self.set_memory_gauges(vm);
        if !self.monitor.polls() {
            return;
        }
        self.set_ejection_gauges();
        self.set_pool_gauges();
    }

    /// This picker polls from now on, instead of another one: the gauges of what is found by that are its own.
    pub(super) fn take_over_gauges(&mut self) {
        self.reset_ejection_gauges();
        self.timing.gauges_at = None;
    }

    /// Sets the gauges of what the picker that polls finds for all.
    fn set_pool_gauges(&mut self) {
        let now = self.timing.clock.now();
        let mode = match self.decision_basis() {
            DecisionBasis::Nothing => 0,
            DecisionBasis::OwnCounts => 1,
            DecisionBasis::Metrics => 2,
        };
        self.metrics.set(DECISION_MODE, NoLabels, mode);
        if let Some(received) = self.monitor.members_received {
            let age = whole_millis(now.since(received));
            self.metrics.set(MEMBERS_AGE, NoLabels, age);
        }
        let mut ready = 0;
        for (slot, endpoint) in self.monitor.store.pool.iter() {
            ready += u64::from(endpoint.available);
            let labels = Endpoint(&endpoint.address);
            let state = match endpoint.freshness {
                Freshness::Unknown => 0,
                Freshness::Stale => 1,
                Freshness::Fresh => 2,
            };
            self.metrics.set(FRESHNESS, labels, state);
            if let Some(age) = self.monitor.store.page_age(slot, now) {
                self.metrics.set(SCRAPE_AGE, labels, whole_millis(age));
            }
            let metrics = &endpoint.metrics;
            for (gauge, value, unit) in [
                (QUEUE_SIZE, metrics.waiting, 1.0),
                (RUNNING_REQUESTS, metrics.running, 1.0),
                (KV_CACHE_UTILIZATION, metrics.kv_usage, 1e6),
            ] {
                if let Some(value) = value {
                    self.metrics
                        .set(gauge, labels, (value * unit).round() as u64);
                }
            }
        }
        self.metrics.set(READY_ENDPOINTS, NoLabels, ready);
    }
}

/// What was fetched, as the reader of pages takes it.
struct FetchedPage<'a>(&'a mut dyn BodyView);

impl PageBody for FetchedPage<'_> {
    fn size(&self) -> usize {
        self.0.available().len()
    }

    fn part(&mut self, start: usize, length: usize) -> Vec<u8> {
        let end = start.saturating_add(length).min(self.size());
        let part = self.0.read(start..end.max(start));
        part.map_or_else(|_| Vec::new(), Cow::into_owned)
    }
}

#[cfg(test)]
#[path = "tick_tests.rs"]
mod tests;
