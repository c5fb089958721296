//! One VM's view of the pool: it polls if it holds the lease, else it takes over what the poller
//! published.

use super::avoided::Avoided;
use super::lease::Lease;
use super::names::Names;
use super::share::Share;
use super::{report, snapshot, SharedData};
use crate::config::Plan;
use crate::endpoints::clusters;
use crate::endpoints::outlier::OutlierDetector;
use crate::endpoints::partial_page::{PageBody, PageReader};
use crate::endpoints::poller::Poller;
use crate::endpoints::scan::{Extraction, Page};
use crate::endpoints::store::{Changes, Member, Store};
use crate::plugins::source::core_metrics_extractor::FORMER_ENGINE_LABEL;
use crate::plugins::Discovery;
use crate::scheduling::{Endpoint, Slot};

/// A slower page than this is given up. Shorter than the interval, an answer never overlaps the
/// next question; longer than a second, a hung server would hold its place for too long.
const MAX_TIMEOUT_MS: u64 = 1_000;

/// The admin interface may take its time: nothing waits for it.
const ADMIN_TIMEOUT_MS: u64 = 2_000;

/// Pages above this are not read: vLLM's are 50 KB, and a VM's memory is bounded.
const MAX_PAGE: usize = 4 << 20;

/// What to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// The members of the clusters.
    Members,
    /// The metrics page of the endpoint in this slot, at this address.
    Metrics(Slot, String),
}

/// What an answer to [`Request::Metrics`] came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scrape {
    /// The endpoint's metrics are newer now.
    Fresh,
    /// It was no page.
    Failed,
    /// The endpoint has left meanwhile, or another VM polls now, whose pages are newer.
    Departed,
}

/// What a tick brought.
#[derive(Debug, Default)]
pub struct Events {
    /// Who came and who went.
    pub changes: Changes,
    /// Slots with a newer page.
    pub scraped: Vec<Slot>,
}

/// The view.
#[derive(Debug)]
pub struct Watch {
    /// Endpoints and their conditions.
    pub store: Store,
    /// Values under our keys that were foreign or torn.
    pub foreign: u64,
    /// What the workers tell each other.
    pub share: Share,
    /// Who is avoided for a while.
    pub avoided: Avoided,
    /// The models that have statistics of their own.
    pub names: Names,
    /// Where the workers tell each other whether bodies come.
    pub delivery_key: String,
    lease: Lease,
    poller: Poller,
    rng: fastrand::Rng,
    members_key: String,
    metrics_key: String,
    members_version: u32,
    metrics_version: u32,
    /// Whether anybody has told who the members are, be it that there are none.
    heard: bool,
    /// Whether this VM has something that the others have not read yet.
    unpublished: (bool, bool),
    members_due: u64,
    members_asked: Option<u64>,
    /// When discovery last answered this VM, in milliseconds since 1970; 0: never.
    pub members_heard: u64,
    discovery: Discovery,
    extractions: Vec<Extraction>,
    /// What is known of the endpoints' pages, by slot.
    pages: Vec<PageReader>,
    settings: Settings,
}

/// What the watch keeps of the plan.
#[derive(Debug, Default)]
struct Settings {
    engine_label: String,
    default_engine: String,
    interval: u64,
    staleness: u64,
}

impl Watch {
    /// The view of the plan's pool; `name` is the plugin's.
    pub fn new(name: &str, plan: &Plan, mut rng: fastrand::Rng) -> Self {
        let base = report::base(name, plan.cluster());
        let mut watch = Self {
            store: Store::default(),
            foreign: 0,
            share: Share::new(&base, rng.u64(..)),
            lease: Lease::new(format!("{base}/lease"), rng.u64(..)),
            avoided: Avoided::new(
                format!("{base}/avoided"),
                OutlierDetector::new(plan.proxy.outlier_settings(), rng.fork()),
            ),
            names: Names::new(format!("{base}/models")),
            poller: Poller::new(plan.source.interval_ms),
            rng,
            delivery_key: format!("{base}/delivery"),
            members_key: format!("{base}/members"),
            metrics_key: format!("{base}/metrics"),
            members_version: 0,
            metrics_version: 0,
            heard: false,
            unpublished: (false, false),
            members_due: 0,
            members_asked: None,
            members_heard: 0,
            discovery: plan.discovery.clone(),
            extractions: Vec::new(),
            pages: Vec::new(),
            settings: Settings::default(),
        };
        watch.install(plan);
        watch
    }

    /// Another plan is in force.
    pub fn install(&mut self, plan: &Plan) {
        self.poller.set_interval(plan.source.interval_ms);
        self.discovery = plan.discovery.clone();
        self.avoided
            .detector
            .configure(plan.proxy.outlier_settings());
        self.members_due = 0;
        self.share.switch(plan.proxy.share_state);
        self.avoided.shares = plan.proxy.share_state;
        let engines = plan.extractor.engines.iter();
        let extraction = |engine| Extraction::new(engine, &plan.needs);
        self.extractions = engines.map(extraction).collect();
        self.pages.clear();
        self.settings = Settings {
            engine_label: plan.extractor.engine_label.clone(),
            default_engine: plan.extractor.default_engine.clone(),
            interval: plan.source.interval_ms,
            staleness: plan.source.staleness_ms,
        };
    }

    /// This VM serves requests.
    pub fn serve(&mut self) {
        self.lease.serve();
    }

    /// Whether this VM serves requests.
    pub fn served(&self) -> bool {
        self.lease.serves()
    }

    /// Whether this VM polls.
    pub fn polls(&self) -> bool {
        self.lease.holds()
    }

    /// Whether it is known who the members are. Listed ones are not waited for: nobody but those
    /// may be chosen.
    pub fn knows_members(&self) -> bool {
        self.heard || matches!(self.discovery, Discovery::Static(_))
    }

    /// Takes over what a poller published: a new VM need not wait for its first tick.
    pub fn look(&mut self, now: u64, host: &mut dyn SharedData) -> Events {
        let mut events = Events::default();
        self.take_over(host, &mut events);
        self.refresh(now);
        events
    }

    /// One tick at `now` (milliseconds since 1970): what came in, and what to fetch.
    pub fn tick(&mut self, now: u64, host: &mut dyn SharedData) -> (Events, Vec<Request>) {
        let polled = self.lease.holds();
        let mut requests = Vec::new();
        let mut events = Events::default();
        if self.lease.tick(host) {
            if !polled {
                // Go on from where the last poller was.
                self.take_over(host, &mut events);
                self.begin_polling();
            }
            self.poll(now, &mut events, &mut requests);
            self.publish(host);
        } else {
            self.take_over(host, &mut events);
        }
        self.refresh(now);
        (events, requests)
    }

    fn refresh(&mut self, now: u64) {
        self.store.refresh(now, self.settings.staleness);
        if !self.extractions.iter().all(Extraction::is_empty) {
            self.store.choose_mode();
        }
    }

    /// How long to wait for an answer, in milliseconds.
    pub fn timeout(&self, request: &Request) -> u64 {
        match request {
            Request::Members => ADMIN_TIMEOUT_MS,
            // A tenth less than the interval, so that it ends before the next turn.
            Request::Metrics(..) => (self.settings.interval * 9 / 10).clamp(45, MAX_TIMEOUT_MS),
        }
    }

    /// An answer to [`Request::Members`] came; an empty body where there was none.
    pub fn on_members(&mut self, body: &[u8], now: u64) -> Changes {
        self.members_asked = None;
        let Discovery::EnvoyCluster(discovery) = &self.discovery else {
            return Changes::default();
        };
        // Where the answer is no good the old members stay.
        match clusters::members(body, &discovery.clusters) {
            Some(members) => {
                self.members_heard = now;
                self.set_members(&members)
            }
            None => Changes::default(),
        }
    }

    /// An answer to [`Request::Metrics`] came; `None` where it was no page.
    pub fn on_page(
        &mut self,
        slot: Slot,
        address: &str,
        page: Option<&mut dyn PageBody>,
        now: u64,
    ) -> Scrape {
        let asked = self.store.pool.get(slot);
        if asked.is_none_or(|endpoint| endpoint.address != address) || !self.lease.holds() {
            return Scrape::Departed;
        }
        let found = page
            .filter(|page| page.size() <= MAX_PAGE)
            .and_then(|page| self.read(slot, page));
        self.poller
            .answered(slot, found.is_some(), now, &mut self.rng);
        self.unpublished.1 = true;
        match found {
            Some(page) => {
                self.store
                    .set_metrics(slot, page.metrics, page.lora_seen, now);
                Scrape::Fresh
            }
            None => {
                self.store.note_failure(slot);
                Scrape::Failed
            }
        }
    }

    fn read(&mut self, slot: Slot, page: &mut dyn PageBody) -> Option<Page> {
        if self.pages.len() <= slot.index() {
            self.pages
                .resize_with(slot.index() + 1, PageReader::default);
        }
        // Taken out, since the extraction is borrowed meanwhile.
        let mut known = std::mem::take(self.pages.get_mut(slot.index())?);
        let endpoint = self.store.pool.get(slot)?;
        let found = known.read(self.extraction(endpoint)?, page);
        *self.pages.get_mut(slot.index())? = known;
        found
    }

    fn extraction(&self, endpoint: &Endpoint) -> Option<&Extraction> {
        let label = endpoint.label(&self.settings.engine_label);
        let label = label.or_else(|| endpoint.label(FORMER_ENGINE_LABEL));
        let find = |name: &str| self.extractions.iter().find(|engine| engine.engine == name);
        label
            .and_then(find)
            .or_else(|| find(&self.settings.default_engine))
    }

    fn begin_polling(&mut self) {
        self.members_due = 0;
        self.members_asked = None;
        // Whoever polled meanwhile may have given slots to others.
        self.pages.clear();
        let slots = self.store.pool.iter().map(|(slot, _)| slot);
        slots.for_each(|slot| self.poller.join(slot));
    }

    fn forget_page(&mut self, slot: Slot) {
        if let Some(page) = self.pages.get_mut(slot.index()) {
            *page = PageReader::default();
        }
    }

    fn poll(&mut self, now: u64, events: &mut Events, requests: &mut Vec<Request>) {
        // Once: what is listed does not change, and may be long.
        let listed = match &self.discovery {
            Discovery::Static(discovery) if self.members_due == 0 => {
                Some(discovery.members.clone())
            }
            Discovery::Static(_) => None,
            Discovery::EnvoyCluster(discovery) => {
                let lost = |asked: u64| now.abs_diff(asked) > 2 * ADMIN_TIMEOUT_MS;
                let free = self.members_asked.is_none_or(lost);
                let late =
                    now >= self.members_due || self.members_due - now > discovery.interval_ms;
                if free && late {
                    self.members_asked = Some(now);
                    self.members_due = now + discovery.interval_ms;
                    requests.push(Request::Members);
                }
                None
            }
        };
        if let Some(members) = listed {
            self.members_due = now.max(1);
            merge(&mut events.changes, self.set_members(&members));
        }
        if self.extractions.iter().all(Extraction::is_empty) {
            return;
        }
        for (slot, endpoint) in self.store.pool.iter() {
            if self.poller.take(slot, now, &mut self.rng) {
                requests.push(Request::Metrics(slot, endpoint.address.clone()));
            }
        }
    }

    fn set_members(&mut self, members: &[Member]) -> Changes {
        self.heard = true;
        let changes = self.store.set_members(members);
        for slot in &changes.joined {
            self.poller.join(*slot);
            self.forget_page(*slot);
        }
        changes
            .left
            .iter()
            .for_each(|slot| self.poller.leave(*slot));
        self.unpublished = (true, true);
        changes
    }

    fn publish(&mut self, host: &mut dyn SharedData) {
        if std::mem::take(&mut self.unpublished.0) {
            self.members_version = self.members_version.wrapping_add(1);
            let value = snapshot::pack_members(&self.store, self.members_version);
            host.set(&self.members_key, &value, None);
        }
        if std::mem::take(&mut self.unpublished.1) {
            self.metrics_version = self.metrics_version.wrapping_add(1);
            let value = snapshot::pack_metrics(&self.store, self.metrics_version);
            host.set(&self.metrics_key, &value, None);
        }
    }

    fn take_over(&mut self, host: &mut dyn SharedData, events: &mut Events) {
        if let Some((value, _)) = host.get(&self.members_key) {
            let version = snapshot::version(&value);
            if version != Some(self.members_version) || self.members_version == 0 {
                match snapshot::unpack_members(&value) {
                    Some(members) => {
                        self.members_version = version.unwrap_or(0);
                        self.adopt(members, &mut events.changes);
                    }
                    None => self.foreign += 1,
                }
            }
        }
        if let Some((value, _)) = host.get(&self.metrics_key) {
            let version = snapshot::version(&value);
            if version != Some(self.metrics_version) || self.metrics_version == 0 {
                let scraped = |slot| events.scraped.push(slot);
                match snapshot::apply_metrics(&value, &mut self.store, scraped) {
                    Some(()) => self.metrics_version = version.unwrap_or(0),
                    None => self.foreign += 1,
                }
            }
        }
    }

    /// Takes over the poller's members in the poller's slots.
    fn adopt(&mut self, members: Vec<(Slot, Member)>, changes: &mut Changes) {
        self.heard = true;
        for index in 0..self.store.pool.width() {
            let slot = Slot(index as u32);
            let stays = members.iter().any(|(place, _)| *place == slot);
            if !stays && self.store.pool.get(slot).is_some() {
                self.store.remove(slot);
                changes.left.push(slot);
            }
        }
        for (slot, member) in members {
            let known = self.store.pool.get(slot);
            let same = known
                .is_some_and(|known| known.name == member.name && known.address == member.address);
            if !same {
                if known.is_some() {
                    changes.left.push(slot);
                }
                changes.joined.push(slot);
            }
            self.store.set_member(slot, &member);
        }
    }
}

fn merge(into: &mut Changes, more: Changes) {
    into.joined.extend(more.joined);
    into.left.extend(more.left);
}
