//! Flow control of a picker: which requests wait in its queues, and when one goes on.
//!
//! Where the plan has flow control, a request that could be decided is sent at once if none waits and the pool has
//! headroom. Otherwise it is queued. The queues are tried with each event that may have given the pool headroom: a response
//! that has ended, a page, an endpoint that joined, counts of other pickers, a tick, and each request that comes itself.
//!
//! All pickers of a proxy are one gate. Each publishes what waits in it ([`Backlog`]). A band below the highest one
//! that waits anywhere is not sent, and what this picker sends counts for what the others may send at the same time,
//! until they have published what they did: see [`Flow::weight`].

use std::time::Duration;

use super::dispatcher::Dispatcher;
use super::exchange::Exchange;
use super::hold::Hold;
use super::pool_state::PoolState;
use super::reply::LocalReply;
use super::shares::{Backlog, Others};
use super::tick::MAX_RELEASES_PER_TICK;
use super::{Effect, Picker};
use crate::config::settings::FailureMode;
use crate::flow::{Arrival, Departure, Dropped, Evictions, FlowControl, Full, Meter, Queues};
use crate::metrics::labels::FlowOutcome;
use crate::prefix::key::{Key, Secret};
use crate::response::Usage;
use crate::scheduling::ScheduleError;
use crate::time::Instant;

/// Requests that wait in one picker at most, whatever the document allows: the host's streams and the exchanges of as
/// many take a quarter of a VM's memory.
const MAX_QUEUED: usize = 65_536;

/// In a pool with room, requests wait for those of the other pickers for so long: as long as what a picker that is gone has
/// published counts.
const MAX_YIELDING: Duration = Duration::from_secs(1);

/// The others are not obeyed for so long once they have not taken the room that there was. So a claim that requests wait
/// elsewhere which is not true, of a picker that is gone or of another writer of the same store, leaves a pool idle for a
/// small part of the time only, however often it is full in between.
const DISOBEYING: Duration = Duration::from_secs(10);

/// Requests that get a local reply in one tick because they have waited as long as they may. Clients choose when that
/// is; more wait for the next tick, at some 20 µs each with what the host does.
const MAX_EXPIRED_PER_TICK: usize = 512;

/// The flow control of one picker.
#[derive(Debug)]
pub struct Flow {
    /// The requests that wait here.
    pub queues: Queues,
    /// Measures how full the pool is.
    pub(super) meter: Meter,
    /// Whether one was queued for which no dispatch was tried.
    has_arrived: bool,
    /// What waits in the other pickers.
    pub others: Others,
    /// How many requests this picker may have in flight, while others wait in its band elsewhere as well.
    most_in_flight: Option<f64>,
    /// Since when requests have waited here for the others alone, in a pool with room.
    yields_since: Option<Instant>,
    /// From when on the others are obeyed, after they were not.
    obeys_from: Instant,
    /// The requests in flight that may be evicted, and those that are.
    pub(super) evictions: Evictions,
}

impl Flow {
    /// Returns the flow control of a picker in which nothing waits.
    pub fn new(secret: Secret, control: Option<&FlowControl>) -> Self {
        let mut flow = Self {
            queues: Queues::new(Key::Secret(secret)),
            meter: Meter::default(),
            has_arrived: false,
            others: Others::default(),
            most_in_flight: None,
            yields_since: None,
            obeys_from: Instant::default(),
            evictions: Evictions::default(),
        };
        if let Some(control) = control {
            flow.install(control);
        }
        flow
    }

    /// Installs the flow control of another plan.
    pub(super) fn install(&mut self, control: &FlowControl) {
        self.queues.reinstall(control);
        self.meter = Meter::new(&control.detector);
    }

    /// Returns whether a request waits, here or in another picker.
    pub(super) fn waits(&self) -> bool {
        !self.queues.is_empty() || self.others.priority().is_some()
    }

    /// Takes over what waits in the other pickers.
    pub fn set_others(&mut self, others: &mut dyn Iterator<Item = &Backlog>) {
        self.others.look(others, &mut self.queues);
    }

    /// Returns how many requests to count for one that is sent now: the places of all pickers divided by those of this
    /// one. If each picker sends its share of the headroom, all together send as much as there is.
    fn weight(&self, now: Instant) -> f64 {
        let parts = self.others.parts(&self.queues);
        let parts = parts.filter(|_| self.obeys(now));
        parts.map_or(1.0, |(own, others)| (own + others) / own)
    }

    /// Returns whether requests of the highest band wait here because of the other pickers: one of a higher band waits
    /// there, or this one has its share of the places. If nothing but this has held them back for a while, the others
    /// do not take the room that there is, and whatever claims that they wait is not obeyed for a longer while.
    pub(super) fn yields(&mut self, in_flight: f64, is_open: bool, now: Instant) -> bool {
        let below = self.others.priority() > self.queues.highest_waiting();
        let yields = (below || self.has_its_share(in_flight)) && self.obeys(now);
        if !yields || !is_open {
            self.yields_since = None;
            return yields;
        }
        let since = *self.yields_since.get_or_insert(now);
        if now.since(since) >= MAX_YIELDING {
            self.obeys_from = now.after(DISOBEYING);
        }
        self.obeys(now)
    }

    /// Counts a request that goes at once, because none waits in any picker and there is headroom; `None` where it has to
    /// be queued.
    fn pass(
        &mut self,
        control: &FlowControl,
        arrival: &Arrival<'_>,
        endpoints: &PoolState,
        now: Instant,
    ) -> Option<Departure> {
        if self.waits() {
            return None;
        }
        let saturation = self.meter.measure(endpoints.pool()).effective;
        let departure = self.queues.pass(control, arrival, saturation, now)?;
        self.yields_since = None;
        Some(departure)
    }

    /// Returns whether this picker has as many requests in flight as it may, while others wait elsewhere.
    pub(super) fn has_its_share(&self, in_flight: f64) -> bool {
        self.most_in_flight.is_some_and(|most| in_flight >= most)
    }

    fn obeys(&self, now: Instant) -> bool {
        now >= self.obeys_from
    }
}

impl Dispatcher {
    /// Queues a request that could be decided, or sends it at once. Returns whether the caller is done with it: it waits,
    /// was sent, or got a local reply.
    pub(super) fn enqueue(&mut self, exchange: &mut Exchange) -> bool {
        if exchange.is_queued() {
            return true;
        }
        let Some(control) = &self.plan.flow else {
            return false;
        };
        let now = self.clock.now();
        let pool_is_empty = self.endpoints.is_empty();
        if pool_is_empty && self.endpoints.monitor.awaits_members(now) {
            // Before discovery has first responded an empty pool means nothing.
            return false;
        }
        let hold = exchange.hold().copied();
        let hold = hold.unwrap_or_else(|| self.hold_in_queue(exchange));
        let bytes = self.bytes_to_keep(exchange, &hold);
        let ticket = &mut exchange.ticket;
        let standing = self.plan.admission.read(&exchange.headers);
        ticket.priority = standing.priority;
        ticket.fairness_id.clear();
        ticket.fairness_id.push_str(standing.fairness_id);
        ticket.behind = self.flow.queues.len();
        let arrival = Arrival {
            id: exchange.id,
            priority: standing.priority,
            fairness_id: &ticket.fairness_id,
            bytes,
            received: exchange.response.received_at(),
            slo_ttft: standing.slo_ttft,
            ttl: standing.ttl,
        };
        if !exchange.is_dry_run && !pool_is_empty {
            if let Some(departure) = self.flow.pass(control, &arrival, &self.endpoints, now) {
                self.depart(exchange, &departure, 1.0);
                return true;
            }
        }
        let queued = match self.flow.queues.len() < MAX_QUEUED {
            true => self.flow.queues.enqueue(control, &arrival, now),
            false => Err(Full::Pool),
        };
        if exchange.is_dry_run {
            self.try_to_queue(exchange, queued);
            return false;
        }
        if queued.is_err() {
            self.drop_for_capacity(exchange, pool_is_empty);
            return true;
        }
        if !exchange.is_held() {
            let (id, body) = (exchange.id, hold.demand);
            self.effects.push_back(Effect::Hold { id, body });
        }
        exchange.queue(hold);
        self.flow.has_arrived = true;
        true
    }

    /// Drops a request that has no room in the queues.
    #[cold]
    fn drop_for_capacity(&mut self, exchange: &mut Exchange, pool_is_empty: bool) {
        let (outcome, dropped) = match pool_is_empty {
            true => (
                FlowOutcome::RejectedNoEndpoints,
                Dropped::QueueFullWithoutEndpoints,
            ),
            false => (FlowOutcome::RejectedCapacity, Dropped::QueueFull),
        };
        self.statistics
            .count_flow(outcome, exchange.ticket.priority);
        self.drop_request(exchange, dropped);
    }

    /// Returns how a request is held in a queue that was not held before.
    fn hold_in_queue(&self, exchange: &Exchange) -> Hold {
        let limit = self.plan.settings.decide_after_bytes;
        Hold::new(exchange.ticket.length, limit, self.clock.now())
    }

    /// Returns how many bytes of a body the host may have to keep while its request waits: never more than it buffers,
    /// so that a length that a client only declares takes no room from others.
    fn bytes_to_keep(&self, exchange: &Exchange, hold: &Hold) -> u64 {
        if hold.ended || !exchange.response.has_body() {
            return hold.arrived as u64;
        }
        let limit = self.plan.settings.decide_after_bytes;
        exchange.ticket.length.unwrap_or(limit).min(limit) as u64
    }

    /// Counts what flow control would do with a request of a dry run, which does not wait.
    #[cold]
    fn try_to_queue(&mut self, exchange: &Exchange, queued: Result<(), Full>) {
        let now = self.clock.now();
        let priority = exchange.ticket.priority;
        let outcome = match queued {
            Err(_) => FlowOutcome::RejectedCapacity,
            // Those that wait from before the dry run go first, and not for its sake.
            Ok(()) if self.flow.queues.len() > 1 => FlowOutcome::WouldWait,
            Ok(()) => match self.next_departure() {
                Some(_) => FlowOutcome::Dispatched,
                None => FlowOutcome::WouldWait,
            },
        };
        self.flow.queues.remove(exchange.id, now);
        self.statistics.count_flow(outcome, priority);
    }

    /// Takes this picker's share of the places in the pool, where others wait elsewhere in its highest band. Otherwise each
    /// picker would fill the places again that its own requests leave, and the places would stay as they were once
    /// distributed.
    pub(super) fn take_share(&mut self) {
        self.flow.most_in_flight = self.share_of_places();
    }

    fn share_of_places(&mut self) -> Option<f64> {
        self.plan.flow.as_ref()?;
        let in_flight = self.endpoints.in_flight();
        let share = self.flow.others.share(&self.flow.queues, in_flight)?;
        let saturation = self.flow.meter.measure(self.endpoints.pool());
        // As many as are in flight fill this much of the pool.
        let places = in_flight.1 / saturation.effective;
        let most = (share * places).ceil();
        (most >= 1.0).then_some(most)
    }

    /// Removes and returns the request that goes next, if one does now.
    fn next_departure(&mut self) -> Option<Departure> {
        let now = self.clock.now();
        let flow = &mut self.flow;
        let Some(control) = &self.plan.flow else {
            // Those that wait under a former plan do no longer.
            return flow.queues.release(now);
        };
        if flow.queues.is_empty() || self.endpoints.is_empty() {
            return None;
        }
        let saturation = flow.meter.measure(self.endpoints.pool()).effective;
        let in_flight = self.endpoints.loads.all_in_flight() as f64;
        let is_open = flow.queues.is_open(control, saturation);
        if flow.yields(in_flight, is_open, now) {
            return None;
        }
        flow.queues.dispatch(control, saturation, now)
    }

    /// Decides a request that has left the queues, and counts it `weight` times.
    fn depart(&mut self, exchange: &mut Exchange, departure: &Departure, weight: f64) {
        self.count_departure(FlowOutcome::Dispatched, departure);
        if !departure.waited.is_zero() && exchange.updates_indexes {
            // The indexes may have learnt of its prompt since.
            exchange.walk_again();
            self.walk(exchange);
        }
        exchange.ticket.waited = Some(departure.waited);
        self.decide_now(exchange);
        self.readers.memory.count(exchange);
        let Some(targets) = exchange.targets() else {
            return;
        };
        let (id, now) = (exchange.id, self.clock.now());
        self.flow.evictions.sent(id, departure.priority, now);
        if weight > 1.0 {
            self.endpoints.add_unreported(targets, weight - 1.0);
        }
    }

    /// Gives a request the local reply that flow control has for it. Its failure mode is not asked: the host would send
    /// the request to the same endpoints.
    pub(super) fn drop_request(&mut self, exchange: &mut Exchange, dropped: Dropped) {
        let reply = LocalReply::new(&ScheduleError::Dropped(dropped), self.plan.dialect);
        // A full pool says nothing about its endpoints.
        let full = reply.status != 503;
        self.statistics
            .count_failure(FailureMode::FailClose, reply.code, full);
        self.leave(exchange);
        self.readers.memory.count(exchange);
        let id = exchange.id;
        self.effects.push_back(Effect::Reply { id, reply });
    }

    /// A request has left the queues.
    pub(super) fn count_departure(&mut self, outcome: FlowOutcome, departure: &Departure) {
        self.statistics.count_flow(outcome, departure.priority);
        let label = (departure.label, self.flow.queues.label(departure.label));
        let waited = departure.waited;
        self.statistics
            .observe_wait(outcome, departure.priority, label, waited);
    }

    /// A response has ended: its flow got these tokens.
    pub(super) fn count_served(&mut self, exchange: &Exchange, usage: &Usage) {
        let (input, output) = (usage.prompt, usage.completion);
        let (input, output) = (input.unwrap_or(0), output.unwrap_or(0));
        let (ticket, now) = (&exchange.ticket, self.clock.now());
        let flow = &mut self.flow.queues;
        flow.served(ticket.priority, &ticket.fairness_id, input, output, now);
    }

    /// A request leaves the table: it waits no longer, and may not be evicted any more.
    pub(super) fn leave_queue(&mut self, exchange: &Exchange) {
        let now = self.clock.now();
        if exchange.ticket.priority < 0 {
            let control = self.plan.flow.as_ref();
            let grace = control.map(|control| control.eviction_grace);
            let grace = grace.unwrap_or_default();
            self.flow.evictions.ended(exchange.id, grace, now);
        }
        if exchange.is_queued() {
            if let Some(departure) = self.flow.queues.remove(exchange.id, now) {
                self.count_departure(FlowOutcome::EvictedContextCancelled, &departure);
            }
        }
    }
}

impl Picker {
    /// Sends requests that wait, as long as there is headroom, but a bounded number in one event.
    pub(super) fn dispatch(&mut self) {
        if !self.dispatcher.flow.queues.is_empty() {
            self.dispatch_queued();
        }
    }

    /// Sends requests if one was queued in this event.
    pub(super) fn dispatch_arrived(&mut self) {
        if self.dispatcher.flow.has_arrived {
            self.dispatch_queued();
        }
    }

    fn dispatch_queued(&mut self) {
        self.dispatcher.flow.has_arrived = false;
        let now = self.dispatcher.clock.now();
        for _ in 0..MAX_RELEASES_PER_TICK {
            let weight = self.dispatcher.flow.weight(now);
            let Some(departure) = self.dispatcher.next_departure() else {
                break;
            };
            if let Some(mut exchange) = self.exchanges.get_mut(departure.id) {
                self.dispatcher.depart(&mut exchange, &departure, weight);
            }
        }
    }

    /// Gives those a local reply that have waited as long as they may, and forgets flows that are idle.
    pub(super) fn expire_queued(&mut self) {
        let dispatcher = &mut self.dispatcher;
        let now = dispatcher.clock.now();
        let pool_is_empty = dispatcher.endpoints.is_empty();
        dispatcher.flow.queues.sweep(now);
        for _ in 0..MAX_EXPIRED_PER_TICK {
            let Some(control) = &dispatcher.plan.flow else {
                return;
            };
            let expired = dispatcher.flow.queues.expired(control, pool_is_empty, now);
            let Some((departure, dropped)) = expired else {
                return;
            };
            let outcome = match dropped {
                Dropped::ExpiredWithoutEndpoints => FlowOutcome::EvictedNoEndpoints,
                _ => FlowOutcome::EvictedTtl,
            };
            dispatcher.count_departure(outcome, &departure);
            if let Some(mut exchange) = self.exchanges.get_mut(departure.id) {
                dispatcher.drop_request(&mut exchange, dropped);
            }
        }
    }
}

#[cfg(test)]
#[path = "flow_hostile_tests.rs"]
mod hostile_tests;
#[cfg(test)]
#[path = "flow_tests.rs"]
mod tests;
