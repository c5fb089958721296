//! Endpoints and their pool, as the scheduling plugins see them.

use serde::{Deserialize, Serialize};

use std::cell::OnceCell;
use std::cmp::Ordering;
use std::sync::Arc;

use xxhash_rust::xxh64::xxh64;

use super::health::Health;
use super::role::RoleStages;

/// An endpoint's place in the pool. It stays the same while the endpoint is a member, so that
/// an endpoint's data (prefix blocks, requests in flight) can be kept in flat arrays.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash, Serialize, Deserialize,
)]
pub struct Slot(pub u32);

impl Slot {
    /// Returns the slot as an index of a flat array.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// The freshness of an endpoint's metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Freshness {
    /// Scraped within the staleness threshold.
    Fresh,
    /// Scraped once, but longer ago than the threshold.
    Stale,
    /// Never scraped.
    #[default]
    Unknown,
}

/// The data on which the decisions about a pool are based.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DecisionMode {
    /// The endpoints' metrics, for those that are fresh.
    #[default]
    Metrics,
    /// This Envoy's own prefix index and requests in flight, because too few endpoints have fresh metrics
    /// to compare the others with them.
    LocalOnly,
}

/// LoRA adapters of a model server (`vllm:lora_requests_info`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Lora {
    /// Adapters with running requests.
    pub active: Vec<String>,
    /// Adapters whose requests wait.
    pub waiting: Vec<String>,
    /// How many adapters the server keeps loaded at most.
    pub max: u32,
}

/// Bytes of a model's name that gets statistics of its own. A longer one is counted as "other".
pub const MAX_MODEL_BYTES: usize = 64;

/// The identity of a custom attribute, by its name: `attributeKey` of an engine's `customMetrics`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttributeId(u64);

impl AttributeId {
    /// Returns the identity of the attribute of this name. Names come from the document alone: no client can
    /// choose two that collide.
    pub fn of(name: &str) -> Self {
        Self(xxh64(name.as_bytes(), 0))
    }
}

/// Custom attributes of one engine. Every page is searched for each, and other workers are sent its value.
pub const MAX_ATTRIBUTES: usize = 16;

/// The last values read off an endpoint's metrics page. `None`: never seen there.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Metrics {
    /// The model that the server's series are about, if its name has at most [`MAX_MODEL_BYTES`].
    pub model: Option<String>,
    /// Whether the load is that of SGLang's `/v1/loads`, instead of the page's.
    pub from_loads: bool,
    /// Requests waiting in the server's queue.
    pub waiting: Option<f64>,
    /// Whether the page has several series of them, such as one for each engine.
    pub several_series: bool,
    /// Requests running.
    pub running: Option<f64>,
    /// KV-cache utilization, 0 to 1.
    pub kv_usage: Option<f64>,
    /// Tokens that the engine has generated, if it counts them with each step.
    pub generated: Option<f64>,
    /// LoRA adapters; the default (none, no room) for a server without the family.
    pub lora: Lora,
    /// Tokens per KV-cache block.
    pub block_size: Option<u32>,
    /// KV-cache blocks of the server.
    pub num_blocks: Option<u32>,
    /// Custom attributes, finite and each at most once; none if no plugin reads them.
    pub attributes: Vec<(AttributeId, f64)>,
}

impl Metrics {
    /// Returns whether the engine has worked since an earlier page. Requests that arrive at an engine that stands still
    /// change a page as well: they only add to its load. A value that one of the pages lacks says nothing, and neither does
    /// one of another source: SGLang updates its page and `/v1/loads` at different times.
    pub fn shows_work_since(&self, before: &Self) -> bool {
        let compare = |now: Option<f64>, before: Option<f64>| now?.partial_cmp(&before?);
        let changes = |now, before| compare(now, before).is_some_and(Ordering::is_ne);
        let shrinks = |now, before| compare(now, before).is_some_and(Ordering::is_lt);
        self.from_loads == before.from_loads
            && (changes(self.generated, before.generated)
                || changes(self.kv_usage, before.kv_usage)
                || shrinks(self.running, before.running)
                || shrinks(self.waiting, before.waiting))
    }

    /// Returns whether a later page says the same of what changes while a server runs. `lora`: whether that page lists
    /// adapters; otherwise these are kept.
    pub fn has_measurements_of(&self, later: &Self, lora: bool) -> bool {
        let measured = |of: &Self| [of.waiting, of.running, of.kv_usage, of.generated];
        measured(self) == measured(later)
            && self.from_loads == later.from_loads
            && self.attributes == later.attributes
            && (!lora || self.lora == later.lora)
    }

    /// Returns whether a later page says the same of what does not change while a server runs.
    pub fn has_constants_of(&self, later: &Self) -> bool {
        let constants = |of: &Self| [of.block_size, of.num_blocks];
        constants(self) == constants(later)
            && self.model == later.model
            && self.several_series == later.several_series
    }

    /// Returns whether the page lists a model of this name.
    pub fn lists_model(&self, name: &str) -> bool {
        let adapters = self.lora.active.iter().chain(&self.lora.waiting);
        self.model.iter().chain(adapters).any(|known| known == name)
    }

    /// Returns the value of a custom attribute, if the page has it.
    pub fn attribute(&self, id: AttributeId) -> Option<f64> {
        let found = self.attributes.iter().find(|(known, _)| *known == id);
        found.map(|(_, value)| *value)
    }
}

/// A model server that can serve the pool's requests.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Endpoint {
    /// `namespace/name`, the identity under which it is known.
    pub name: String,
    /// `ip:port` (IPv6 in brackets), as the destination header names it. Every route to the endpoint refers to it.
    pub address: Arc<str>,
    /// Labels given by discovery.
    pub labels: Vec<(String, String)>,
    /// Its health, as discovery reports it.
    pub health: Health,
    /// Whether it is picked only if no other endpoint can be, because requests sent there failed.
    pub ejected: bool,
    /// The values of its last metrics page.
    pub metrics: Metrics,
    /// Whether [`Self::metrics`] can be trusted now.
    pub freshness: Freshness,
}

/// The requests and tokens that the pickers of this proxy have in flight at an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InFlight {
    /// Requests that were sent there and have not ended.
    pub requests: u32,
    /// Requests that were sent there since the endpoint's last scrape and have no response yet: the server's own
    /// waiting count cannot show them yet.
    pub unseen: u32,
    /// Tokens that these requests still cost the endpoint.
    pub tokens: u64,
    /// Requests that other pickers may have sent there since they last reported theirs. Only saturation counts them.
    pub unreported: u32,
}

impl InFlight {
    /// Returns the greater of each count.
    #[must_use]
    fn max(self, other: Self) -> Self {
        Self {
            requests: self.requests.max(other.requests),
            unseen: self.unseen.max(other.unseen),
            tokens: self.tokens.max(other.tokens),
            unreported: self.unreported.max(other.unreported),
        }
    }

    /// Returns both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_add(other.requests),
            unseen: self.unseen.saturating_add(other.unseen),
            tokens: self.tokens.saturating_add(other.tokens),
            unreported: self.unreported.saturating_add(other.unreported),
        }
    }
}

impl Endpoint {
    /// Returns whether it may be picked, as far as discovery knows.
    pub fn is_available(&self) -> bool {
        self.health.may_be_picked()
    }

    /// Returns the value of a label, if the endpoint has it.
    pub fn label(&self, name: &str) -> Option<&str> {
        let found = self.labels.iter().find(|(key, _)| key == name)?;
        Some(found.1.as_str())
    }

    /// Returns a number that differs from those of other endpoints in the same slot, before and after.
    pub fn tag(&self) -> u32 {
        let name = [self.name.as_bytes(), self.address.as_bytes()].join(&0);
        // The lower half of a hash is one.
        xxh64(&name, 0) as u32
    }

    /// Returns a metric, unless the page that it was read from is too old to be trusted.
    pub fn fresh<T>(&self, metric: Option<T>) -> Option<T> {
        if self.freshness == Freshness::Fresh {
            metric
        } else {
            None
        }
    }
}

/// The identity of a snapshot: two are equal where one is a copy of the other. No other snapshot takes the
/// same identity as long as a copy of it is kept.
#[derive(Debug, Clone, Default)]
pub struct SnapshotId(Arc<()>);

impl PartialEq for SnapshotId {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// The data of a pool that every decision reads, in contiguous columns: a whole endpoint takes three cache lines,
/// and a decision reads all endpoints.
#[derive(Debug, Clone)]
pub struct PoolSnapshot {
    /// Distinguishes it from every other snapshot. Changes of what is in flight leave it as it is, although `queues` counts them.
    pub id: SnapshotId,
    /// The available endpoints that are not ejected, in slot order.
    pub candidates: Vec<Slot>,
    /// Requests that wait, by slot: what the endpoint's page says, and those that it cannot show yet. NaN where the page
    /// has no such number or cannot be trusted.
    pub queues: Vec<f64>,
    /// No endpoint has had more in flight since this was made, which is when a filter first asks for it.
    most_in_flight: OnceCell<InFlight>,
}

impl PoolSnapshot {
    fn of(pool: &Pool) -> Self {
        let wanted = |endpoint: &Endpoint| endpoint.is_available() && !endpoint.ejected;
        let candidates = pool.iter().filter(|(_, endpoint)| wanted(endpoint));
        let places = pool.slots.iter().zip(&pool.loads);
        Self {
            id: SnapshotId::default(),
            candidates: candidates.map(|(slot, _)| slot).collect(),
            queues: places
                .map(|(place, load)| queue(place.as_ref(), *load))
                .collect(),
            most_in_flight: OnceCell::new(),
        }
    }
}

fn queue(endpoint: Option<&Endpoint>, load: InFlight) -> f64 {
    let waiting = endpoint.and_then(|endpoint| endpoint.fresh(endpoint.metrics.waiting));
    waiting.unwrap_or(f64::NAN) + f64::from(load.unseen)
}

/// Changes of loads that a pool remembers: those of a few requests.
const MAX_CHANGED: usize = 32;

/// The endpoints of one pool, each in its slot.
#[derive(Debug, Clone, Default)]
pub struct Pool {
    /// The basis of decisions.
    pub mode: DecisionMode,
    slots: Vec<Option<Endpoint>>,
    /// The stages of a request that the endpoints do.
    stages: Vec<RoleStages>,
    /// Hashes of the endpoints' addresses, the same in every proxy.
    hashes: Vec<u64>,
    /// Requests in flight, separate from the endpoints, because they change with each request.
    loads: Vec<InFlight>,
    /// The slots whose loads were set last, and how often any was.
    changed: [Slot; MAX_CHANGED],
    changes: u64,
    /// Made when a decision needs it, and dropped once an endpoint may have changed.
    snapshot: OnceCell<PoolSnapshot>,
}

impl Pool {
    /// Puts an endpoint into a slot, replacing what was there.
    pub fn set(&mut self, slot: Slot, endpoint: Endpoint) {
        self.snapshot.take();
        if self.slots.len() <= slot.index() {
            self.slots.resize_with(slot.index() + 1, || None);
            self.loads.resize(slot.index() + 1, InFlight::default());
            self.stages.resize(slot.index() + 1, RoleStages::default());
            self.hashes.resize(slot.index() + 1, 0);
        }
        self.set_stages(slot, &endpoint.labels);
        if let Some(hash) = self.hashes.get_mut(slot.index()) {
            *hash = xxh64(endpoint.address.as_bytes(), 0);
        }
        if let Some(place) = self.slots.get_mut(slot.index()) {
            *place = Some(endpoint);
            self.set_load(slot, InFlight::default());
        }
    }

    /// Sets the labels of the endpoint in a slot.
    pub fn set_labels(&mut self, slot: Slot, labels: &[(String, String)]) {
        self.set_stages(slot, labels);
        self.note(slot, |endpoint| &mut endpoint.labels, labels.to_vec());
    }

    fn set_stages(&mut self, slot: Slot, labels: &[(String, String)]) {
        if let Some(place) = self.stages.get_mut(slot.index()) {
            *place = RoleStages::of(labels);
        }
    }

    /// Returns the stages of a request that the endpoint in a slot does, by its role.
    pub fn stages(&self, slot: Slot) -> RoleStages {
        self.stages.get(slot.index()).copied().unwrap_or_default()
    }

    /// Returns the hash of the address of the endpoint in a slot, the same in every proxy.
    pub fn address_hash(&self, slot: Slot) -> u64 {
        self.hashes.get(slot.index()).copied().unwrap_or_default()
    }

    /// Empties a slot and returns the endpoint that was in it.
    pub fn remove(&mut self, slot: Slot) -> Option<Endpoint> {
        self.snapshot.take();
        self.set_load(slot, InFlight::default());
        self.slots.get_mut(slot.index())?.take()
    }

    /// Returns the requests and tokens in flight at the endpoint in a slot.
    pub fn load(&self, slot: Slot) -> InFlight {
        self.loads.get(slot.index()).copied().unwrap_or_default()
    }

    /// Sets the requests and tokens in flight at the endpoint in a slot.
    pub fn set_load(&mut self, slot: Slot, load: InFlight) {
        if let Some(place) = self.loads.get_mut(slot.index()) {
            *place = load;
        }
        if let Some(snapshot) = self.snapshot.get_mut() {
            if let Some(most) = snapshot.most_in_flight.get_mut() {
                *most = most.max(load);
            }
            if let Some(place) = snapshot.queues.get_mut(slot.index()) {
                let endpoint = self.slots.get(slot.index()).and_then(Option::as_ref);
                *place = queue(endpoint, load);
            }
        }
        if let Some(place) = self.changed.get_mut(self.changes as usize % MAX_CHANGED) {
            *place = slot;
        }
        self.changes = self.changes.wrapping_add(1);
    }

    /// Returns counts that no endpoint exceeds: what any of them has had in flight at most, since the snapshot was made or
    /// after.
    pub fn most_in_flight(&self) -> InFlight {
        let loads = self.loads.iter().copied();
        let most = &self.snapshot().most_in_flight;
        *most.get_or_init(|| loads.fold(InFlight::default(), InFlight::max))
    }

    /// Returns how often a load was set.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Returns the slots whose loads were set since so many changes; `None` if these are too many to be known.
    pub fn changed_since(&self, changes: u64) -> Option<impl Iterator<Item = Slot> + '_> {
        let new = self.changes.wrapping_sub(changes);
        let place = |change: u64| self.changed.get(change as usize % MAX_CHANGED).copied();
        let known = (0..new).map(move |more| changes.wrapping_add(more));
        (new <= MAX_CHANGED as u64).then(|| known.filter_map(place))
    }

    /// Returns what every decision reads, side by side.
    pub fn snapshot(&self) -> &PoolSnapshot {
        self.snapshot.get_or_init(|| PoolSnapshot::of(self))
    }

    /// Returns the endpoint in a slot.
    pub fn get(&self, slot: Slot) -> Option<&Endpoint> {
        self.slots.get(slot.index())?.as_ref()
    }

    /// Sets a field of the endpoint in a slot. The snapshot is dropped only if the value changes, which
    /// most of what a tick sets does not.
    pub fn note<T: PartialEq>(
        &mut self,
        slot: Slot,
        field: impl Fn(&mut Endpoint) -> &mut T,
        value: T,
    ) {
        let endpoint = self.slots.get_mut(slot.index()).and_then(Option::as_mut);
        if let Some(place) = endpoint.map(field).filter(|place| **place != value) {
            *place = value;
            self.snapshot.take();
        }
    }

    /// Returns the endpoint in a slot, mutably.
    pub fn get_mut(&mut self, slot: Slot) -> Option<&mut Endpoint> {
        self.snapshot.take();
        self.slots.get_mut(slot.index())?.as_mut()
    }

    /// Returns all endpoints with their slots, in slot order.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, &Endpoint)> {
        let slots = self.slots.iter().enumerate();
        slots.filter_map(|(index, place)| Some((Slot(index as u32), place.as_ref()?)))
    }

    /// Returns how many endpoints there are.
    pub fn len(&self) -> usize {
        self.slots.iter().flatten().count()
    }

    /// Returns whether there are no endpoints.
    pub fn is_empty(&self) -> bool {
        self.slots.iter().all(Option::is_none)
    }

    /// Returns one more than the highest slot in use: the length of a flat array over the pool.
    pub fn width(&self) -> usize {
        self.slots.len()
    }

    /// Returns the lowest slot that is free.
    pub fn vacant(&self) -> Slot {
        let taken = self.slots.iter().take_while(|place| place.is_some());
        Slot(taken.count() as u32)
    }

    /// Returns the slot of the endpoint of this name.
    pub fn find(&self, name: &str) -> Option<Slot> {
        self.find_by(|endpoint| endpoint.name == name)
    }

    /// The slot of the first endpoint that is meant.
    pub fn find_by(&self, meant: impl Fn(&Endpoint) -> bool) -> Option<Slot> {
        let mut endpoints = self.iter();
        endpoints.find_map(|(slot, endpoint)| meant(endpoint).then_some(slot))
    }
}
