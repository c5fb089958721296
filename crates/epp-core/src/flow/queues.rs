//! The requests that wait in one picker.

use std::time::Duration;

use super::band::{fits, Band};
use super::ceilings::Turns;
use super::flows::UNNAMED;
use super::line::{Line, Turn};
use super::pool_time::PoolTime;
use super::table::{Table, Waiting};
use super::{BandSpec, Dropped, Fairness, FlowControl, UsageLimit};
use crate::prefix::key::Key;
use crate::time::{nanos, Instant};
use crate::ExchangeId;

/// Bands of one picker. Requests of further priorities wait in that of priority 0. Priorities are the document's, so
/// that only a document with so many reaches it.
pub const MAX_BANDS: usize = 256;

/// Fairness ids that metrics name.
const MAX_LABELS: usize = 100;

/// What metrics call all other flows.
const OTHER: &str = "other";

/// Idle flows and bands are looked for this often.
const SWEEP: Duration = Duration::from_secs(60);

/// A request that is to be queued.
#[derive(Debug, Clone, Copy)]
pub struct Arrival<'a> {
    /// The exchange.
    pub id: ExchangeId,
    /// Its priority.
    pub priority: i32,
    /// Its fairness id, as the client gave it.
    pub fairness_id: &'a str,
    /// The bytes of its body.
    pub bytes: u64,
    /// When its headers came.
    pub received: Instant,
    /// How soon after that its first token is due.
    pub slo_ttft: Option<Duration>,
    /// How long its client lets it wait, which can only shorten the band's limit.
    pub ttl: Option<Duration>,
}

/// A request was not queued, because a capacity would be exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// That of its band.
    Band,
    /// That of all bands together.
    Pool,
}

/// A request that does not wait any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Departure {
    /// The exchange.
    pub id: ExchangeId,
    /// Its band.
    pub priority: i32,
    /// How long it waited.
    pub waited: Duration,
    /// The bytes of its body.
    pub bytes: u64,
    /// The name under which metrics count its flow: see [`Queues::label`].
    pub label: u8,
}

/// What waits in a band.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BandStatus {
    /// Its priority.
    pub priority: i32,
    /// The requests that wait.
    pub requests: u64,
    /// The bytes of their bodies.
    pub bytes: u64,
    /// Since when the first of them has waited.
    pub oldest: Option<Instant>,
    /// The saturation at which it stops, as of the last attempt to dispatch.
    pub ceiling: f64,
}

/// A band whose requests have to wait.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Blocked {
    /// Its priority.
    pub priority: i32,
    /// The saturation at which it stops.
    pub ceiling: f64,
}

/// The requests that wait in one picker.
///
/// Which goes next is decided at each dispatch: bands by strict priority, of a band's flows one by its fairness
/// policy, of a flow's requests the first by its ordering policy. Queueing, dispatching and removing a request take time
/// proportional to the logarithm of how many wait, and to the number of bands. Dispatching with program-aware fairness, or
/// in turns while flows wait in other pickers as well, also takes time proportional to the number of the band's flows, which
/// is bounded.
#[derive(Debug, Default)]
pub struct Queues {
    table: Table,
    /// The highest priority first.
    bands: Vec<Band>,
    bytes: u64,
    /// Requests by when they have waited for a pool with endpoints as long as they may, by its clock.
    deadlines: Line,
    /// Requests by when they came, by the clock of the pool without endpoints.
    arrivals: Line,
    pool_time: PoolTime,
    turn: Turn,
    turns: Turns,
    usage_limit: Option<UsageLimit>,
    saturation: f64,
    /// The fairness ids that metrics name.
    labels: Vec<Box<str>>,
    swept: Instant,
    key: Key,
}

impl Queues {
    /// Returns empty queues. The key hashes fairness ids that are long or many.
    pub fn new(key: Key) -> Self {
        Self {
            key,
            ..Self::default()
        }
    }

    /// Queues a request.
    pub fn enqueue(
        &mut self,
        control: &FlowControl,
        arrival: &Arrival<'_>,
        now: Instant,
    ) -> Result<(), Full> {
        if self.usage_limit.is_none() {
            self.reinstall(control);
        }
        // A host that reuses a number too early loses count of the earlier request, and of nothing else.
        self.remove(arrival.id, now);
        let waiting = self.table.len() as u64;
        if !fits(waiting, 1, control.max_requests)
            || !fits(self.bytes, arrival.bytes, control.max_bytes)
        {
            return Err(Full::Pool);
        }
        let is_known = self.bands.len() < MAX_BANDS || self.find(arrival.priority).is_ok();
        let priority = if is_known { arrival.priority } else { 0 };
        let place = self.find_or_add(control, priority, now);
        let band = self.bands.get_mut(place).ok_or(Full::Band)?;
        if !band.has_room(arrival.bytes) {
            return Err(Full::Band);
        }
        let limit = band.spec.ttl.unwrap_or(control.ttl);
        let own = arrival.ttl.filter(|ttl| !ttl.is_zero());
        let ttl = limit.map_or(own, |limit| Some(own.map_or(limit, |own| own.min(limit))));
        let (with_endpoints, without_endpoints) = self.pool_time.at(now);
        self.turn = self.turn.wrapping_add(1);
        let request = Waiting {
            turn: self.turn,
            priority: band.spec.priority,
            flow: band.flows.find_or_add(arrival.fairness_id, &self.key, now),
            bytes: arrival.bytes,
            since: now,
            received: arrival.received,
            ttl,
            due: ttl.map(|ttl| with_endpoints.saturating_add(nanos(ttl))),
            without_endpoints,
            slo_ttft: arrival.slo_ttft,
        };
        self.push(place, arrival.id, request);
        Ok(())
    }

    fn push(&mut self, band: usize, id: ExchangeId, request: Waiting) {
        if let Some(band) = self.bands.get_mut(band) {
            band.push(id, &request);
            self.bytes = self.bytes.saturating_add(request.bytes);
            if let Some(due) = request.due {
                self.deadlines.push(due, request.turn, id);
            }
            self.arrivals
                .push(request.without_endpoints, request.turn, id);
            self.table.insert(id, request);
        }
    }

    /// Returns the position of the band of a priority, which is there from then on.
    fn find_or_add(&mut self, control: &FlowControl, priority: i32, now: Instant) -> usize {
        let found = self.find(priority);
        let (Ok(at) | Err(at)) = found;
        if found.is_err() {
            let template = match priority < 0 {
                true => control.negative_band,
                false => control.default_band,
            };
            let spec = BandSpec {
                priority,
                ..template
            };
            self.bands.insert(at, Band::new(spec, false, now));
        }
        at
    }

    fn find(&self, priority: i32) -> Result<usize, usize> {
        self.bands
            .binary_search_by(|band| priority.cmp(&band.spec.priority))
    }

    /// Removes and returns the request that goes next at this saturation; `None` where the gate is shut for the
    /// highest band in which a request waits, and where nothing waits.
    pub fn dispatch(
        &mut self,
        control: &FlowControl,
        saturation: f64,
        now: Instant,
    ) -> Option<Departure> {
        let turn = match control.usage_limit {
            UsageLimit::SoftReflective => self.turns.attempt(saturation, now),
            UsageLimit::Static(_) | UsageLimit::Holdback { .. } => false,
        };
        let goes = self.is_open(control, saturation) || turn;
        goes.then(|| self.release(now)).flatten()
    }

    /// Returns whether the gate is open at this saturation for the highest band in which a request waits.
    pub fn is_open(&mut self, control: &FlowControl, saturation: f64) -> bool {
        self.saturation = saturation;
        let highest = self.highest_waiting();
        highest.is_some_and(|highest| saturation < self.ceiling(control.usage_limit, highest))
    }

    /// Returns the saturation at which the band of a priority stops. It never falls with the priority.
    fn ceiling(&self, limit: UsageLimit, priority: i32) -> f64 {
        let (Ok(rank) | Err(rank)) = self.find(priority);
        let highest = self.bands.first().map_or(0, |band| band.spec.priority);
        let lowest = self.bands.last().map_or(0, |band| band.spec.priority);
        let bands = self.bands.len();
        limit.ceiling(self.saturation, (priority, rank), bands, (highest, lowest))
    }

    /// Removes and returns the request that goes next, however full the pool is; `None` where nothing waits.
    pub fn release(&mut self, now: Instant) -> Option<Departure> {
        let mut bands = self.bands.iter_mut();
        let band = bands.find(|band| band.requests > 0)?;
        let id = band.next(&self.table, now)?;
        self.take(id, true, now)
    }

    /// Removes a request, wherever it waits.
    pub fn remove(&mut self, id: ExchangeId, now: Instant) -> Option<Departure> {
        self.take(id, false, now)
    }

    fn take(&mut self, id: ExchangeId, dispatched: bool, now: Instant) -> Option<Departure> {
        let request = self.table.remove(id)?;
        self.bytes = self.bytes.saturating_sub(request.bytes);
        self.deadlines.sweep(self.table.len(), &self.table);
        self.arrivals.sweep(self.table.len(), &self.table);
        let place = self.find(request.priority).ok()?;
        let band = self.bands.get_mut(place)?;
        let mut label = band.remove(&request, dispatched, &self.table, now);
        if label == UNNAMED && dispatched {
            label = self.name_flow(place, request.flow);
        }
        Some(Departure {
            id,
            priority: request.priority,
            waited: now.since(request.since),
            bytes: request.bytes,
            label,
        })
    }

    /// Gives a flow its name in metrics, while there are any left.
    fn name_flow(&mut self, band: usize, flow: u32) -> u8 {
        let band = self.bands.get_mut(band);
        let Some(flow) = band.and_then(|band| band.flows.get_mut(flow)) else {
            return UNNAMED;
        };
        // Flows of a hash have no name.
        if !flow.id.starts_with('\0') {
            let known = self.labels.iter().position(|known| *known == flow.id);
            let label = known.unwrap_or(self.labels.len());
            if label < MAX_LABELS {
                flow.label = label as u8;
            }
            if known.is_none() && label < MAX_LABELS {
                self.labels.push(flow.id.clone());
            }
        }
        flow.label
    }

    /// Returns the name under which metrics count a flow: its fairness id, or `other`.
    pub fn label(&self, label: u8) -> &str {
        let named = self.labels.get(usize::from(label));
        named.map_or(OTHER, |name| name)
    }

    /// Removes and returns a request that has waited as long as it may, and why it is dropped; `None` where there is none.
    ///
    /// The time in which the pool has endpoints and that in which it has none count apart, each with a limit of its own.
    /// So no request waits for longer than both limits together, however often the pool becomes empty.
    pub fn expired(
        &mut self,
        control: &FlowControl,
        pool_is_empty: bool,
        now: Instant,
    ) -> Option<(Departure, Dropped)> {
        self.pool_time.note(pool_is_empty, now);
        let (with_endpoints, without_endpoints) = self.pool_time.at(now);
        let due = self.deadlines.first(&self.table);
        let due = due.filter(|(due, _)| *due <= with_endpoints);
        let (id, dropped) = match (due, control.empty_pool_ttl) {
            (Some((_, id)), _) => (id, Dropped::Expired),
            (None, limit) => {
                let (came, id) = self.arrivals.first(&self.table)?;
                let waited = without_endpoints.saturating_sub(came);
                (waited >= nanos(limit?)).then_some((id, Dropped::ExpiredWithoutEndpoints))?
            }
        };
        Some((self.take(id, false, now)?, dropped))
    }

    /// Returns whether a request waits.
    pub fn contains(&self, id: ExchangeId) -> bool {
        self.table.get(id).is_some()
    }

    /// Returns how many requests wait.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Returns whether none waits.
    pub fn is_empty(&self) -> bool {
        self.table.len() == 0
    }

    /// Returns the highest priority of those that wait.
    pub fn highest_waiting(&self) -> Option<i32> {
        let mut bands = self.bands.iter();
        let band = bands.find(|band| band.requests > 0)?;
        Some(band.spec.priority)
    }

    /// Returns the bands in which requests wait, the highest first: the priority, how many wait, and the bytes of their
    /// bodies.
    pub fn waiting(&self) -> impl Iterator<Item = (i32, usize, u64)> + '_ {
        let waiting = self.bands.iter().filter(|band| band.requests > 0);
        waiting.map(|band| (band.spec.priority, band.requests, band.bytes))
    }

    /// Returns how many flows of the highest band have requests that wait, and the smallest of their hashes; none where
    /// its fairness policy ignores flows.
    pub fn sample_flows(&self, most: usize) -> (usize, Vec<u32>) {
        let mut waiting = self.bands.iter().filter(|band| band.requests > 0);
        let band = waiting.next();
        let band = band.filter(|band| band.spec.fairness != Fairness::GlobalStrict);
        band.map_or((0, Vec::new()), |band| band.flows.sample(most))
    }

    /// Says in how many pickers requests of each flow of the highest band wait, by its hash. All other flows, or all flows
    /// where `pickers` is not given, are this picker's alone.
    pub fn share_flows(&mut self, pickers: Option<&dyn Fn(u32) -> u32>) {
        let highest = self.highest_waiting();
        for band in &mut self.bands {
            match pickers.filter(|_| highest == Some(band.spec.priority)) {
                Some(pickers) => band.flows.share(pickers),
                None => band.flows.end_sharing(),
            }
        }
    }

    /// Replaces the key of hashes. Flows that there are keep theirs.
    pub fn set_key(&mut self, key: Key) {
        self.key = key;
    }

    /// Returns the highest band whose requests have to wait at the saturation of the last attempt to dispatch.
    pub fn blocked(&self, control: &FlowControl) -> Option<Blocked> {
        let mut waiting = self.bands.iter().filter(|band| band.requests > 0);
        waiting.find_map(|band| {
            let priority = band.spec.priority;
            let ceiling = self.ceiling(control.usage_limit, priority);
            (self.saturation >= ceiling).then_some(Blocked { priority, ceiling })
        })
    }

    /// Returns what waits in each band, the highest first, the empty ones included.
    pub fn bands(&self) -> impl Iterator<Item = BandStatus> + '_ {
        self.bands.iter().map(|band| {
            let priority = band.spec.priority;
            let limit = self.usage_limit;
            BandStatus {
                priority,
                requests: band.requests as u64,
                bytes: band.bytes,
                oldest: band.oldest().and_then(|id| Some(self.table.get(id)?.since)),
                ceiling: limit.map_or(1.0, |limit| self.ceiling(limit, priority)),
            }
        })
    }

    /// Installs the settings of another plan. What waits goes on waiting since when it did, for as long as it may
    /// have, even beyond capacity.
    pub fn reinstall(&mut self, control: &FlowControl) {
        self.usage_limit = Some(control.usage_limit);
        let old = std::mem::take(&mut self.bands);
        let fixed = control.bands.iter();
        let fixed = fixed.map(|spec| Band::new(*spec, true, Instant::default()));
        self.bands = fixed.collect();
        for mut band in old {
            let priority = band.spec.priority;
            if band.requests == 0 && self.find(priority).is_err() {
                continue;
            }
            let place = self.find_or_add(control, priority, Instant::default());
            if let Some(new) = self.bands.get_mut(place) {
                band.reinstall(new.spec, new.fixed);
                *new = band;
            }
        }
        self.deadlines.clear();
        self.arrivals.clear();
        self.bytes = 0;
        let waiting = std::mem::take(&mut self.table);
        let mut waiting: Vec<(ExchangeId, Waiting)> =
            waiting.iter().map(|(id, request)| (id, *request)).collect();
        waiting.sort_unstable_by_key(|(_, request)| (request.since, request.turn));
        for (id, request) in waiting {
            let place = self.find_or_add(control, request.priority, Instant::default());
            self.push(place, id, request);
        }
    }

    /// Counts tokens that a flow got, for program-aware fairness.
    pub fn served(
        &mut self,
        priority: i32,
        fairness_id: &str,
        input: u64,
        output: u64,
        now: Instant,
    ) {
        let band = self.find(priority).ok();
        if let Some(band) = band.and_then(|place| self.bands.get_mut(place)) {
            band.served(fairness_id, &self.key, (input, output), now);
        }
    }

    /// Forgets flows and bands that have been idle for long. Call it from ticks.
    pub fn sweep(&mut self, now: Instant) {
        if now.since(self.swept) >= SWEEP {
            self.swept = now;
            self.bands.retain_mut(|band| band.sweep(now));
        }
    }
}

#[cfg(test)]
mod order_tests;
mod pass;
#[cfg(test)]
#[path = "queues_tests.rs"]
mod tests;
#[cfg(test)]
mod worst_tests;
