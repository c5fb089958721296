//! The monitor of a pool's endpoints: discovery, metrics pages, freshness and ejections, with one owner.
//!
//! A picker by itself polls. If several share one proxy, one of them polls and the others adopt what it found
//! ([`Monitor::adopt_members`], [`EndpointStore::adopt_metrics`]); who polls is decided outside ([`Monitor::set_polling`]).

mod pages;
mod rest;
mod sources;

use std::time::Duration;

use rest::Rereads;
use sources::Sources;

use super::discovery::{DiscoveryState, Listing, Survey};
use super::fetch_error::FetchError;
use super::outlier::OutlierDetector;
use super::partial_page::{PageBody, PageReader};
use super::poller::{PageNews, Poller};
use super::scan::{Extraction, Page};
use super::store::{Changes, EndpointStore, Member};
use crate::config::Plan;
use crate::plugins::Discovery;
use crate::scheduling::{Endpoint, InFlight, Slot};
use crate::time::{Clock, Instant, Timestamp};

/// A slower page than this is given up. Shorter than the interval, a page never overlaps the next request for
/// it; longer than a second, a hung server would hold its place for too long.
const MAX_PAGE_TIMEOUT: Duration = Duration::from_secs(1);

/// Pages are waited for at least this long, whatever the interval.
const MIN_PAGE_TIMEOUT: Duration = Duration::from_millis(45);

/// Discovery may take its time: nothing waits for it.
const MEMBERS_TIMEOUT: Duration = Duration::from_secs(2);

/// Time after which a response of discovery counts as lost.
const MEMBERS_LOST_AFTER: Duration = Duration::from_secs(4);

/// Pages above this are not read: vLLM's are 50 KB, and a VM's memory is bounded.
const MAX_PAGE_BYTES: usize = 4 << 20;

/// The page to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// The members of the clusters.
    Members,
    /// What there is instead of the cluster of this number in the document, which is missing.
    Survey(usize),
    /// The metrics page of the endpoint in this slot, at this address.
    Metrics(Slot, String),
    /// SGLang's `/v1/loads` of that endpoint.
    Loads(Slot, String),
}

/// The result of a response to [`Query::Metrics`] or [`Query::Loads`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scrape {
    /// The endpoint's metrics are newer now.
    Fresh,
    /// They are as known: the endpoint is at rest.
    Known,
    /// It was not a page, for this reason.
    Failed(FetchError),
    /// The endpoint has left meanwhile, or another picker polls now, whose pages are newer.
    Departed,
}

/// Returns whether an endpoint's page is needed at each interval, given what is in flight there.
pub type Needed<'a> = &'a dyn Fn(Slot, &OutlierDetector, InFlight) -> bool;

/// Counters of the changes of polled data, by which a host that publishes it sees changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Revisions {
    /// Changes to the members.
    pub members: u64,
    /// Changes to the metrics.
    pub metrics: u64,
}

/// The endpoints of one pool and how they are observed.
#[derive(Debug)]
pub struct Monitor {
    /// Endpoints and their conditions.
    pub store: EndpointStore,
    /// The detector that ejects endpoints.
    pub outliers: OutlierDetector,
    /// Whether this picker polls.
    polling: bool,
    poller: Poller,
    rng: fastrand::Rng,
    /// Whether the members are known, even if there are none.
    members_known: bool,
    /// When the first tick was; until then nothing was known. `None` before.
    begun: Option<Instant>,
    revisions: Revisions,
    rereads: Rereads,
    /// When discovery is due; none: at once.
    members_due: Option<Instant>,
    /// When discovery was requested, until it responds.
    members_requested: Option<Instant>,
    /// When discovery last responded to this picker.
    pub members_received: Option<Instant>,
    discovery: Discovery,
    /// What discovery has found.
    pub found: DiscoveryState,
    extractions: Vec<Extraction>,
    /// Whether the plan needs no more of a page than what does not change while a server runs.
    needs_constants: bool,
    /// The readers of the endpoints' pages, by slot.
    pages: Vec<PageReader>,
    sources: Sources,
    /// Why the endpoints' last pages could not be read, by slot; `None` where the last one was.
    poll_errors: Vec<Option<FetchError>>,
    settings: Settings,
}

/// The plan as far as it concerns polling.
#[derive(Debug, Default)]
struct Settings {
    engine_label: String,
    default_engine: String,
    interval: Duration,
    staleness: Duration,
}

impl Monitor {
    /// Returns the monitor of the plan's pool, which polls and knows no endpoint yet.
    pub fn new(plan: &Plan, mut rng: fastrand::Rng) -> Self {
        let mut monitor = Self {
            store: EndpointStore::default(),
            outliers: OutlierDetector::new(plan.settings.outlier_detection, rng.fork()),
            polling: true,
            poller: Poller::new(plan.source.cadence(false)),
            rng,
            members_known: false,
            begun: None,
            revisions: Revisions::default(),
            rereads: Rereads::default(),
            members_due: None,
            members_requested: None,
            members_received: None,
            discovery: plan.discovery.clone(),
            found: DiscoveryState::default(),
            extractions: Vec::new(),
            needs_constants: false,
            pages: Vec::new(),
            sources: Sources::default(),
            poll_errors: Vec::new(),
            settings: Settings::default(),
        };
        monitor.install(plan, Instant::default());
        monitor
    }

    /// Puts another plan in force. It may need what the pages that are known were not read for: all are fetched again.
    pub fn install(&mut self, plan: &Plan, now: Instant) {
        self.needs_constants = plan.needs.only_constants();
        let cadence = plan.source.cadence(self.needs_constants);
        self.poller.set_cadence(cadence);
        self.discovery = plan.discovery.clone();
        self.found = DiscoveryState::default();
        self.outliers.configure(plan.settings.outlier_detection);
        self.members_due = None;
        let engines = plan.extractor.engines.iter();
        let extraction = |engine| Extraction::new(engine, &plan.needs);
        self.extractions = engines.map(extraction).collect();
        self.pages.clear();
        self.sources.clear();
        self.sources.with_loads = plan.source.sglang_loads;
        self.settings = Settings {
            engine_label: plan.extractor.engine_label.clone(),
            default_engine: plan.extractor.default_engine.clone(),
            interval: cadence.interval,
            staleness: plan.source.staleness,
        };
        if self.polling {
            self.poller.restart(now, &mut self.rng);
            let width = self.store.pool.width() as u32;
            (0..width).for_each(|slot| self.end_rest(Slot(slot), now));
        }
    }

    /// Returns whether the plan needs no more of a page than what does not change while a server runs.
    pub fn needs_constants(&self) -> bool {
        self.needs_constants
    }

    /// Returns whether metrics pages are fetched: some plugin needs them.
    pub fn scrapes(&self) -> bool {
        !self.extractions.iter().all(Extraction::is_empty)
    }

    /// Returns whether this picker polls.
    pub fn polls(&self) -> bool {
        self.polling
    }

    /// Starts or stops polling.
    pub fn set_polling(&mut self, polling: bool) {
        if polling && !self.polling {
            self.begin_polling();
        }
        self.polling = polling;
    }

    /// Returns when the first tick was.
    pub fn begun(&self) -> Option<Instant> {
        self.begun
    }

    /// Returns how often what was polled has changed.
    pub fn revisions(&self) -> Revisions {
        self.revisions
    }

    /// Returns whether the members are known. Listed ones are not waited for: only those may be chosen.
    pub fn knows_members(&self) -> bool {
        self.members_known || matches!(self.discovery, Discovery::Static(_))
    }

    /// Returns whether members that are not known yet are still waited for. The wait is bounded: meanwhile the proxy
    /// balances requests by itself.
    pub fn awaits_members(&self, now: Instant) -> bool {
        let Discovery::EnvoyCluster(discovery) = &self.discovery else {
            return false;
        };
        let waits = |since| now.since(since) < discovery.timeout;
        !self.members_known && self.begun.is_none_or(waits)
    }

    /// Updates freshness and polls. `waiting`: requests wait for what any page says. Returns which endpoints came and went,
    /// and what to fetch.
    pub fn tick(
        &mut self,
        waiting: bool,
        clock: &Clock,
        needed: Needed<'_>,
    ) -> (Changes, Vec<Query>) {
        let (mut changes, mut queries) = (Changes::default(), Vec::new());
        self.begun.get_or_insert(clock.now());
        if self.polling {
            self.poller.set_waiting(waiting);
            self.poll(clock.now(), needed, &mut changes, &mut queries);
            self.note_rereads(clock.now());
        }
        self.refresh(clock);
        (changes, queries)
    }

    /// Updates which metrics can be trusted now, and what decisions are based on.
    pub fn refresh(&mut self, clock: &Clock) {
        self.store.refresh(clock, self.settings.staleness);
        if self.scrapes() {
            self.store.choose_mode();
        }
    }

    /// Returns how long to wait for a response.
    pub fn timeout(&self, query: &Query) -> Duration {
        match query {
            Query::Members | Query::Survey(_) => MEMBERS_TIMEOUT,
            Query::Metrics(..) | Query::Loads(..) => {
                // A tenth less than the interval, so that it ends before the next turn.
                let timeout = self.settings.interval.saturating_mul(9) / 10;
                timeout.clamp(MIN_PAGE_TIMEOUT, MAX_PAGE_TIMEOUT)
            }
        }
    }

    /// Returns how long after a query its response counts as lost, although the host ends all in time.
    pub fn lost_after(&self, query: &Query) -> Duration {
        match query {
            Query::Members | Query::Survey(_) => MEMBERS_LOST_AFTER,
            Query::Metrics(..) | Query::Loads(..) => self.poller.lost_after(),
        }
    }

    /// Handles a response to [`Query::Members`].
    pub fn on_members(&mut self, listing: Result<Listing, FetchError>, now: Instant) -> Changes {
        self.members_requested = None;
        if !self.polling {
            // The picker that polls meanwhile may have published a newer list.
            return Changes::default();
        }
        let missing = listing.as_ref().map(|listing| listing.missing);
        self.found.record(missing.map_err(|error| *error));
        match (listing, &self.discovery) {
            (Ok(Listing { members, .. }), Discovery::EnvoyCluster(_)) => {
                self.members_received = Some(now);
                self.set_members(&members)
            }
            // Unknown members stay, and listed ones are changed by nothing else.
            (Err(_), _) | (_, Discovery::Static(_)) => Changes::default(),
        }
    }

    /// Handles a response to [`Query::Survey`].
    pub fn on_survey(&mut self, survey: Option<Survey>) {
        self.found.record_survey(survey);
    }

    /// A response to [`Query::Metrics`] has come.
    pub fn on_page(
        &mut self,
        slot: Slot,
        address: &str,
        page: Result<&mut dyn PageBody, FetchError>,
        clock: &Clock,
    ) -> Scrape {
        if self.polled(slot, address).is_none() {
            return Scrape::Departed;
        }
        let found = page.and_then(|page| match page.size() {
            0..=MAX_PAGE_BYTES => self.read(slot, page).ok_or(FetchError::NotAPage),
            _ => Err(FetchError::TooLarge),
        });
        self.take_in_page(slot, found, clock)
    }

    /// Returns the endpoint in this slot, if this picker polls and the endpoint is still the one at this address.
    fn polled(&self, slot: Slot, address: &str) -> Option<&Endpoint> {
        let polled = self.store.pool.get(slot);
        polled.filter(|endpoint| *endpoint.address == *address && self.polling)
    }

    /// Takes in what was read of an endpoint, or that nothing was, and when its load was read.
    fn take_in(
        &mut self,
        slot: Slot,
        (found, at): (Result<Page, FetchError>, Timestamp),
        clock: &Clock,
    ) -> Scrape {
        let is_known = found.as_ref().is_ok_and(|page| self.is_known(slot, page));
        let news = match &found {
            // Of another source, all may differ by that alone.
            Ok(page) if is_known || self.is_of_other_source(slot, page) => PageNews::Same,
            Ok(_) => PageNews::Changed,
            Err(_) => PageNews::Unread,
        };
        self.poller
            .record_result(slot, news, clock.now(), &mut self.rng);
        self.set_poll_error(slot, found.as_ref().err().copied());
        if is_known && self.stays_at_rest(slot) {
            self.rereads.add(slot, at);
            return Scrape::Known;
        }
        self.rereads.forget(slot);
        self.revisions.metrics += 1;
        match found {
            Ok(page) => {
                self.store
                    .set_metrics(slot, page.metrics, page.lora_seen, at);
                self.store.set_rest(slot, self.poller.rest(slot));
                Scrape::Fresh
            }
            Err(error) => {
                self.store.record_failure(slot);
                self.end_rest(slot, clock.now());
                Scrape::Failed(error)
            }
        }
    }

    /// Returns the end of the time in which an engine is known to have been silent, if a page shows work now. It ends with
    /// the page before, read at `read_before`, if that is more than two intervals old: the engine may have worked at any time
    /// since.
    pub fn silent_until(&self, read_before: Option<Instant>, now: Instant) -> Instant {
        let bound = now.before(self.settings.interval.saturating_mul(2));
        read_before.filter(|at| *at < bound).unwrap_or(now)
    }

    fn begin_polling(&mut self) {
        self.members_due = None;
        self.members_requested = None;
        self.found = DiscoveryState::default();
        // The picker that polled meanwhile may have given slots to other endpoints.
        self.pages.clear();
        self.sources.clear();
        self.poll_errors.clear();
        self.rereads.clear();
        self.poller.clear();
        let slots = self.store.pool.iter().map(|(slot, _)| slot);
        slots.for_each(|slot| self.poller.join(slot));
    }

    fn forget_page(&mut self, slot: Slot) {
        if let Some(page) = self.pages.get_mut(slot.index()) {
            *page = PageReader::default();
        }
        self.sources.forget(slot);
        self.rereads.forget(slot);
        self.set_poll_error(slot, None);
    }

    fn poll(
        &mut self,
        now: Instant,
        needed: Needed<'_>,
        changes: &mut Changes,
        queries: &mut Vec<Query>,
    ) {
        // Once: the list does not change, and may be long.
        let listed = match &self.discovery {
            Discovery::Static(discovery) if self.members_due.is_none() => {
                Some(discovery.members.clone())
            }
            Discovery::Static(_) => None,
            Discovery::EnvoyCluster(discovery) => {
                let interval = discovery.interval;
                let lost = |requested| now.since(requested) > MEMBERS_LOST_AFTER;
                let free = self.members_requested.is_none_or(lost);
                let is_due = |due: Instant| now >= due;
                if free && self.members_due.is_none_or(is_due) {
                    self.members_requested = Some(now);
                    self.members_due = Some(now.after(interval));
                    queries.push(Query::Members);
                }
                queries.extend(self.found.take_survey_due(now).map(Query::Survey));
                None
            }
        };
        if let Some(members) = listed {
            self.members_due = Some(now);
            merge(changes, self.set_members(&members));
        }
        if self.scrapes() {
            self.poll_pages(now, needed, queries);
        }
    }

    fn poll_pages(&mut self, now: Instant, needed: Needed<'_>, queries: &mut Vec<Query>) {
        self.poller.hasten_all(now, &mut self.rng);
        let mut needed_again = Vec::new();
        let first = self.poller.first();
        let pool = &self.store.pool;
        let later = pool.iter().filter(|(slot, _)| *slot >= first);
        let earlier = pool.iter().filter(|(slot, _)| *slot < first);
        for (slot, endpoint) in later.chain(earlier) {
            // Of those that may not be picked, pages show whether they are back.
            let is_out = !endpoint.is_available() || self.outliers.reason(slot).is_some();
            let load = self.store.pool.load(slot);
            let is_needed = is_out || needed(slot, &self.outliers, load);
            if self.poller.need(slot, is_needed) {
                needed_again.push(slot);
            }
            if load.unseen > 0 {
                self.poller.hasten(slot);
            }
            if self.poller.take(slot, now, &mut self.rng) {
                let is_loads = self.may_serve_loads(endpoint) && self.sources.take(slot, now);
                let address = endpoint.address.to_string();
                queries.push(match is_loads {
                    true => Query::Loads(slot, address),
                    false => Query::Metrics(slot, address),
                });
            }
        }
        for slot in needed_again {
            self.end_rest(slot, now);
        }
    }

    fn set_members(&mut self, members: &[Member]) -> Changes {
        self.members_known = true;
        let changes = self.store.set_members(members);
        for slot in &changes.joined {
            self.poller.join(*slot);
            self.forget_page(*slot);
        }
        changes
            .left
            .iter()
            .for_each(|slot| self.poller.leave(*slot));
        self.revisions.members += 1;
        self.revisions.metrics += u64::from(changes != Changes::default());
        changes
    }

    /// Takes over the members that another picker found, in its slots.
    pub fn adopt_members(&mut self, members: Vec<(Slot, Member)>) -> Changes {
        self.members_known = true;
        self.store.adopt_members(members)
    }
}

fn merge(into: &mut Changes, more: Changes) {
    into.joined.extend(more.joined);
    into.left.extend(more.left);
}

#[cfg(test)]
#[path = "monitor_tests.rs"]
mod tests;
