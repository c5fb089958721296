//! The picker: it holds requests, releases them to endpoints, and learns from their responses.
//!
//! A [`Picker`] is a state machine without IO. The host hands it events, each with the time: request headers,
//! bodies as they come, responses, what it fetched, ticks. After each event it carries out the effects that
//! [`Picker::poll_effect`] returns. They may be about any exchange, not only the one of the event.
//!
//! One picker serves one pool. It owns the plan in force, the endpoints as they are known, and the prefix
//! indexes. Several pickers of one proxy exchange what they know through [`Picker::peers`] and the crate
//! `epp-sync`.
//!
//! Each piece of state has one owner: `Exchanges` the requests under way, and in the `Dispatcher` `PoolState` the
//! endpoints, `Prefixes` the indexes, `Statistics` what is counted.

mod admission;
mod bindings;
mod causes;
mod costs;
mod deadlines;
mod decide;
mod dispatcher;
mod dry_run;
mod effect;
mod ejection;
mod eviction;
mod exchange;
mod explain;
mod feed;
mod fetches;
mod fixture;
mod flow;
mod flow_metrics;
#[cfg(test)]
mod flow_testing;
mod gate;
mod gauges;
mod head;
mod history;
mod hold;
mod learnt;
mod left_alone;
mod load;
mod load_reports;
mod memory;
mod models;
mod naming;
pub mod peers;
mod pool_state;
mod prefixes;
mod recovery;
mod reply;
mod response;
mod shares;
mod stalls;
mod statistics;
pub mod status;
#[cfg(test)]
mod testing;
mod tick;
mod upstream;
mod verdict;
mod view;

use std::time::Duration;

pub use self::effect::{BodyDemand, Effect, ExchangeId, Fetch, FetchId, Fetched, Rewrite, Route};
pub use self::explain::{shown, Explanation, Scores};
pub use self::fixture::Fixture;
pub use self::head::Head;
pub use self::memory::{Account, Memory};
pub use self::recovery::{FailedTicks, Recovery, MAX_FAILED_TICKS, MAX_LOST_EFFECTS};
pub use self::reply::LocalReply;
pub use self::upstream::{ResponseOrigin, Upstream};
pub use self::verdict::HIGH_MEMORY;

use self::dispatcher::Dispatcher;
use self::exchange::Exchanges;
use self::fetches::Fetches;
use self::gauges::Gauges;
use self::history::History;
use self::peers::Sharing;
use self::verdict::Verdict;
use crate::body::BodyView;
use crate::config::Plan;
pub use crate::endpoints::fetch_error::FetchError;
use crate::metrics::labels::ForcedRelease;
use crate::metrics::MetricUpdate;
pub use crate::number_hash::ById;
use crate::prefix::key::Secret;
use crate::scheduling::Pool;
use crate::time::Timestamp;

/// The multiple of `maxHeld` that may be held between two ticks. A tick decides which of them are released,
/// because a callback cannot easily release another request than its own. With the default of 1,024, twice as
/// many are reached if a worker gets 20,000 requests per second that it must hold; beyond that, new requests
/// are decided at their headers.
const MAX_HELD_OVERSHOOT: usize = 2;

/// A host's report on itself, for the gauges and the status page.
#[derive(Debug, Clone, Copy)]
pub struct HostState {
    /// Memory that this picker shares with everything else in its VM or process.
    pub memory_bytes: u64,
    /// Whether the proxy shows bodies before requests are forwarded, as far as that is known.
    pub shows_bodies: bool,
    /// The host's version, if the module was not tested with it.
    pub untested_version: Option<(u8, u8, u8)>,
}

impl Default for HostState {
    fn default() -> Self {
        Self {
            memory_bytes: 0,
            shows_bodies: true,
            untested_version: None,
        }
    }
}

/// The picker of one pool in one VM.
pub struct Picker {
    exchanges: Exchanges,
    dispatcher: Dispatcher,
    fetches: Fetches,
    gauges: Gauges,
    sharing: Sharing,
    verdict: Verdict,
    history: History,
    /// The host's report on itself.
    host: HostState,
    /// Whether this picker has served a request.
    serves: bool,
}

// A host with threads may move a picker from one to the other.
const _: () = {
    const fn is_send<T: Send>() {}
    is_send::<Picker>();
};

impl Picker {
    /// Returns a picker without endpoints: discovery adds them. `secret` seeds its randomness and keys what clients
    /// could aim at; tests and tools pass a number.
    pub fn new(plan: Plan, secret: impl Into<Secret>) -> Self {
        Self {
            exchanges: Exchanges::default(),
            dispatcher: Dispatcher::new(plan, secret.into()),
            fetches: Fetches::default(),
            gauges: Gauges::default(),
            sharing: Sharing::default(),
            verdict: Verdict::default(),
            history: History::default(),
            host: HostState::default(),
            serves: false,
        }
    }

    /// Puts another plan in force. The prefix indexes stay where prompts are cut as before, and everything
    /// where nothing has changed.
    pub fn install(&mut self, plan: Plan) {
        let dispatcher = &mut self.dispatcher;
        if dispatcher.plan.is_identical(&plan) {
            return;
        }
        let before = std::mem::replace(&mut dispatcher.plan, plan);
        let plan = &dispatcher.plan;
        let now = dispatcher.clock.now();
        dispatcher.endpoints.monitor.install(plan, now);
        dispatcher.view.forget_all();
        let unchanged = |name: &str| before.instance(name) == plan.instance(name);
        let states_before = dispatcher.states.fingerprint();
        dispatcher.states.install(&plan.states, unchanged);
        if dispatcher.states.fingerprint() != states_before {
            // What was bound since the last tick is under the former states' numbers.
            dispatcher.prefixes.learnt.clear();
        }
        if before.headers != plan.headers {
            // What is held is decided under the new plan.
            let (before, now) = (&before.headers, &plan.headers);
            self.exchanges
                .for_each_mut(|exchange| exchange.headers.reorder(before, now));
        }
        if before.hashing_equal(plan) {
            dispatcher.prefixes.set_bound(plan.settings.max_index_bytes);
        } else {
            dispatcher.prefixes.begin(plan);
            self.stop_reading_all();
        }
        if let Some(control) = &self.dispatcher.plan.flow {
            self.dispatcher.flow.install(control);
        }
        self.log_changes(&before);
    }

    /// Reads no request further, since the prefix indexes were replaced. Those that are held are decided when more of
    /// their bodies comes, each in an event of its own: all at once they would hold up the worker.
    fn stop_reading_all(&mut self) {
        let memory = &mut self.dispatcher.readers.memory;
        self.exchanges.for_each_mut(|exchange| {
            exchange.abandon_prompt();
            memory.count(exchange);
        });
    }

    /// Returns the plan in force.
    pub fn plan(&self) -> &Plan {
        &self.dispatcher.plan
    }

    /// Returns the endpoints.
    pub fn pool(&self) -> &Pool {
        self.dispatcher.endpoints.pool()
    }

    /// Sets what the host reports of itself, for the gauges and the status page.
    pub fn set_host_state(&mut self, state: HostState) {
        self.host = state;
    }

    /// Returns the next effect for the host to carry out. To be called after each event until there is none.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.dispatcher.effects.pop_front()
    }

    /// Returns the next update of the host's metrics. To be called after each tick until there is none
    /// more; a host without metrics need not.
    pub fn poll_metric(&mut self) -> Option<MetricUpdate> {
        self.dispatcher.statistics.registry.poll()
    }

    /// Returns whether the host is to measure how long the next event takes, and to pass it to
    /// [`Self::observe_event`]: one decision and one look-up in seventeen is timed.
    pub fn wants_timing(&self) -> bool {
        let looks_up = !self.dispatcher.prefixes.is_empty();
        self.dispatcher.statistics.wants_timing(looks_up)
    }

    /// The last event took this long.
    pub fn observe_event(&mut self, taken: Duration) {
        self.dispatcher.statistics.observe_event(taken);
    }
}

/// Events of an exchange.
impl Picker {
    /// A request's headers have come.
    pub fn request_headers(&mut self, now: Timestamp, id: ExchangeId, head: &Head<'_>) {
        self.serves = true;
        let dispatcher = &mut self.dispatcher;
        dispatcher.begin_event(now);
        let mut exchange = self.exchanges.take_spare();
        let (plan, now) = (&dispatcher.plan, dispatcher.clock.now());
        let state = (dispatcher.prefixes.key(), dispatcher.endpoints.pool());
        exchange.open(id, head, plan, state, now);
        dispatcher.choose_model(&mut exchange);
        exchange.draw = dispatcher.draw();
        let plan = &dispatcher.plan;
        let max_held = plan.settings.max_held.saturating_mul(MAX_HELD_OVERSHOOT);
        if exchange.is_held() && self.exchanges.held() >= max_held {
            // The next tick releases the excess, the newest last.
            let reason = ForcedRelease::Held;
            dispatcher.statistics.count_forced_release(reason);
            exchange.skip_body();
        }
        if let Some(mut former) = self.exchanges.insert(exchange) {
            dispatcher.release_counts(&mut former);
        }
        let Some(mut exchange) = self.exchanges.get_mut(id) else {
            return;
        };
        if let Some(hold) = exchange.hold() {
            let body = hold.demand;
            if !exchange.is_dry_run {
                dispatcher.effects.push_back(Effect::Hold { id, body });
            }
            dispatcher.bound_memory(&mut exchange);
        } else {
            dispatcher.decide(&mut exchange);
            dispatcher.readers.memory.count(&mut exchange);
        }
        drop(exchange);
        self.dispatch_arrived();
    }

    /// More of a request's body has come, or its end; trailers are an end.
    pub fn request_body(&mut self, now: Timestamp, id: ExchangeId, body: &mut dyn BodyView) {
        self.dispatcher.begin_event(now);
        if let Some(mut exchange) = self.exchanges.get_mut(id) {
            self.dispatcher.read_body(&mut exchange, body);
        }
        self.dispatch_arrived();
    }

    /// The host cannot show the body of a held request. It is decided without, and nothing of it will be
    /// read.
    pub fn body_unavailable(&mut self, now: Timestamp, id: ExchangeId) {
        self.dispatcher.begin_event(now);
        let exchange = self.exchanges.get_mut(id);
        if let Some(mut exchange) = exchange.filter(|exchange| exchange.is_held()) {
            exchange.naming.rely_on_header();
            exchange.skip_body();
            self.dispatcher.decide(&mut exchange);
            self.dispatcher.readers.memory.count(&mut exchange);
        }
        self.dispatch_arrived();
    }

    /// The host does not show the body of a held request before it is forwarded. It is decided with what is
    /// known; the body is read as it passes.
    pub fn body_withheld(&mut self, now: Timestamp, id: ExchangeId) {
        self.dispatcher.begin_event(now);
        let exchange = self.exchanges.get_mut(id);
        if let Some(mut exchange) = exchange.filter(|exchange| exchange.is_held()) {
            let reason = ForcedRelease::Timeout;
            self.dispatcher.release(&mut exchange, reason);
            self.dispatcher.readers.memory.count(&mut exchange);
        }
        self.dispatch_arrived();
    }

    /// Counts a body that was forwarded with a model that should have been replaced: the host could not carry out a
    /// [`Rewrite`].
    pub fn missed_rewrite(&mut self) {
        self.dispatcher.count_missed_rewrite();
    }

    /// Returns whether a request is held: for its body, or in a queue.
    pub fn holds(&self, id: ExchangeId) -> bool {
        let exchange = self.exchanges.get(id);
        exchange.is_some_and(|exchange| {
            // After a panic, one may have left the queue without being decided.
            exchange.is_held() || exchange.is_queued() && self.dispatcher.flow.queues.contains(id)
        })
    }

    /// Returns whether a request is held for its body.
    pub fn awaits_body(&self, id: ExchangeId) -> bool {
        let exchange = self.exchanges.get(id);
        exchange.is_some_and(|exchange| exchange.is_held())
    }

    /// Returns whether the host is to look up where the response to this request comes from.
    pub fn wants_upstream(&mut self, id: ExchangeId) -> bool {
        let exchange = self.exchanges.get(id);
        exchange.is_some_and(|exchange| self.dispatcher.wants_upstream(exchange))
    }

    /// Handles the response's headers; `upstream` is given if [`Self::wants_upstream`] requested it.
    pub fn response_headers(
        &mut self,
        now: Timestamp,
        id: ExchangeId,
        upstream: Option<&Upstream>,
    ) {
        self.dispatcher.begin_event(now);
        // The response to one that was evicted is this picker's own.
        let exchange = self.exchanges.get_mut(id);
        if let Some(mut exchange) = exchange.filter(|exchange| !exchange.ticket.evicted) {
            self.dispatcher.begin_response(&mut exchange, upstream);
        }
    }

    /// A part of a response's body has come. It is read only if its bytes are wanted.
    pub fn response_body(&mut self, now: Timestamp, id: ExchangeId, part: &mut dyn BodyView) {
        self.dispatcher.begin_event(now);
        let exchange = self.exchanges.get_mut(id);
        let exchange = exchange.filter(|exchange| !exchange.ticket.evicted);
        let begins = exchange.is_some_and(|mut exchange| {
            let begins = !exchange.response.is_flowing();
            self.dispatcher.read_response(&mut exchange, part);
            begins
        });
        if begins {
            // The prompt costs its endpoint no more, and the one that computed it for that is done.
            self.dispatch();
        }
    }

    /// A request has ended, however.
    pub fn closed(&mut self, now: Timestamp, id: ExchangeId) {
        let dispatcher = &mut self.dispatcher;
        dispatcher.begin_event(now);
        if let Some(mut exchange) = self.exchanges.get_mut(id) {
            let endpoints = &mut dispatcher.endpoints;
            endpoints.abandon_probe(&exchange, dispatcher.clock.wall());
            dispatcher
                .prefixes
                .refute_unproven(&mut exchange, endpoints);
            dispatcher.finish_response(&mut exchange);
        }
        if let Some(mut exchange) = self.exchanges.remove(id) {
            dispatcher.release_counts(&mut exchange);
            exchange.abandon_prompt();
            exchange.explanation = None;
            if exchange.allocated() > memory::MAX_SPARE_BYTES {
                exchange.give_back();
            }
            self.exchanges.recycle(exchange);
        }
        self.dispatch();
    }

    /// Returns the scores of a request whose client requested them, until its response arrives.
    pub fn explanation(&self, id: ExchangeId) -> Option<&Explanation> {
        self.exchanges.get(id)?.explanation.as_ref()
    }
}

#[cfg(test)]
mod dropped_tests;

#[cfg(test)]
#[path = "early_tests.rs"]
mod early_tests;

#[cfg(test)]
mod gateways_tests;

#[cfg(test)]
#[path = "picker_tests.rs"]
mod tests;
