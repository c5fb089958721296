//! What happens to a request: whether it is held, when it is released, where to, and what is learnt from it.
//!
//! A [`Picker`] is a state machine without IO. The host hands it events, each with the time: request headers,
//! bodies as they come, responses, what it fetched, ticks. After each event it carries out the effects that
//! [`Picker::poll_effect`] returns. They may be about any exchange, not only the one of the event.
//!
//! One picker serves one pool. It owns the plan in force, the endpoints as they are known, and the prefix
//! indexes. Several pickers of one proxy exchange what they know through [`Picker::peers`] and the crate
//! `epp-sync`.

mod answer;
mod costs;
mod deadlines;
mod decide;
mod effect;
mod ejection;
mod exchange;
mod explain;
mod feed;
mod fixture;
mod head;
mod hold;
mod ids;
mod learn;
mod learnt;
mod load;
mod memory;
mod models;
mod naming;
mod outcome;
pub mod peers;
mod recovery;
pub mod status;
#[cfg(test)]
mod testing;
mod tick;
mod upstream;
mod view;

use std::collections::VecDeque;
use std::time::Duration;

pub use self::answer::LocalReply;
pub use self::effect::{
    BodyDemand, Effect, ExchangeId, Fetch, FetchError, FetchId, Fetched, Rewrite, Route,
};
pub use self::explain::{Explanation, Scores};
pub use self::fixture::Fixture;
pub use self::head::Head;
pub use self::ids::ById;
pub use self::memory::{Account, Memory};
pub use self::outcome::ModelWish;
pub use self::recovery::Recovery;
pub use self::upstream::{ResponseOrigin, Upstream};

use self::deadlines::Deadlines;
use self::exchange::{Exchanges, Phase};
use self::learnt::LearntLog;
use self::models::ModelNames;
use self::peers::SharingStatistics;
use crate::config::Plan;
use crate::endpoints::monitor::Monitor;
use crate::endpoints::outlier::Reason;
use crate::metrics::definitions::{
    DECISION_TIME, EARLY_RELEASES, FORCED_RELEASES, LOOKUP_TIME, PREFIX_HIT_RATIO, UNREAD_RESPONSES,
};
use crate::metrics::labels::{self, ForcedRelease, NoLabels};
use crate::metrics::{CounterHandle, HistogramHandle, MetricUpdate, Registry};
use crate::prefix::index::Index;
use crate::prefix::key::{Key, Secret};
use crate::request::TextBuffer;
use crate::scheduling::Scratch;
use crate::time::{Instant, Timestamp};

/// How many times `maxHeld` may be held from one tick to the next. Which of them go, a tick decides:
/// another request than the one whose callback runs can be released nowhere else without care. With
/// the default 1,024, twice as many are reached where a worker gets 20,000 requests a second that it
/// has to hold; beyond, the newcomers are decided at their headers.
const MAX_HELD_OVERSHOOT: usize = 2;

/// One decision or look-up in so many is timed: reading a clock costs the host a call. An odd number, so that
/// of requests that are looked up in two parts not always the same one is.
const EVENTS_PER_TIMING: u64 = 17;

/// What has followed from one event.
#[derive(Debug, Clone, Copy, Default)]
struct Event {
    /// A request was decided whose decision is to be timed.
    decided: bool,
    /// Blocks were looked up, which is to be timed.
    looked_up: bool,
}

/// What a host reports of itself, for the gauges and the status page.
#[derive(Debug, Clone, Copy)]
pub struct HostState {
    /// Memory that this picker shares with everything else in its VM or process.
    pub memory_bytes: u64,
    /// Whether the proxy shows bodies before requests are forwarded, as far as that is known.
    pub shows_bodies: bool,
}

impl Default for HostState {
    fn default() -> Self {
        Self {
            memory_bytes: 0,
            shows_bodies: true,
        }
    }
}

/// What the picker records of the endpoint in a slot, beside its metrics.
#[derive(Debug, Default)]
struct EndpointRecord {
    /// Its address; empty while the slot is free.
    address: String,
    /// Counts its picks; none while the slot is free.
    picks: Option<CounterHandle>,
    /// When a response from it was last examined.
    last_examined: Option<Instant>,
    /// When a response from it last came; when it joined, if none has.
    last_response: Instant,
    /// The requests to which it has not responded, by the time from which on it alone has been waited for.
    unanswered: Deadlines,
    /// Why it is ejected, as the gauges have it.
    reported_ejection: Option<Reason>,
    /// The statistics of its models.
    models: Vec<(String, outcome::Model)>,
}

/// Statistics of every request.
#[derive(Debug)]
struct Hot {
    early: CounterHandle,
    decision: HistogramHandle,
    hit: HistogramHandle,
    unread: CounterHandle,
    /// Of models that have no statistics of their own.
    other: outcome::Model,
    look_up: HistogramHandle,
    /// Decisions and look-ups so far, one in seventeen of which is timed.
    decisions: u64,
    look_ups: u64,
}

/// The picker of one pool in one VM.
pub struct Picker {
    plan: Plan,
    cluster: String,
    monitor: Monitor,
    /// Whether this picker has served a request.
    serves: bool,
    /// Requests left to the host before the endpoints were discovered.
    undiscovered: i64,
    /// Whether others learn from this picker, and probe in turns with it.
    sharing: bool,
    sharing_statistics: SharingStatistics,
    /// What the indexes have learnt that has not been published to the others.
    learnt: LearntLog,
    /// Whether the indexes expect blocks without those before them.
    gaps_allowed: bool,
    /// The models that have statistics of their own.
    models: ModelNames,
    indexes: Vec<Index>,
    records: Vec<EndpointRecord>,
    loads: load::Loads,
    /// Whether pages came or endpoints left since the loads of the other workers were last set.
    loads_outdated: bool,
    /// Identifies how prompts are cut and keyed.
    fingerprint: u64,
    /// Keys digests and indexes: this VM's own, or what those of its Envoy agreed on.
    secret: Secret,
    key: Key,
    exchanges: Exchanges,
    /// What the host has not been asked to do yet.
    effects: VecDeque<Effect>,
    /// The held requests, by their deadlines' base ([`hold::Hold::deadline_base`]).
    held: Deadlines,
    /// The held requests of whose body a part was left unread, by when it is to be read.
    unread: Deadlines,
    scratch: Scratch,
    /// Shared by the readers of all bodies.
    text_buffer: TextBuffer,
    metrics: Registry,
    hot: Hot,
    budget: outcome::Budget,
    account: Account,
    /// What has followed from the event at hand.
    event: Event,
    timing: tick::Timing,
    view: view::View,
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
        let cluster = plan.cluster().to_owned();
        let secret = secret.into();
        let mut rng = fastrand::Rng::with_seed(secret.number("randomness"));
        let monitor = Monitor::new(&plan, rng.fork());
        let mut metrics = Registry::new(&cluster);
        let other = labels::Model {
            endpoint: None,
            name: "other",
        };
        let hot = Hot {
            early: metrics.counter(EARLY_RELEASES, NoLabels),
            decision: metrics.histogram(DECISION_TIME, NoLabels),
            hit: metrics.histogram(PREFIX_HIT_RATIO, NoLabels),
            unread: metrics.counter(UNREAD_RESPONSES, NoLabels),
            other: outcome::Model::new(&mut metrics, other),
            look_up: metrics.histogram(LOOKUP_TIME, NoLabels),
            decisions: 0,
            look_ups: 0,
        };
        let mut picker = Self {
            metrics,
            hot,
            budget: outcome::Budget::default(),
            account: Account::default(),
            cluster,
            monitor,
            serves: false,
            undiscovered: 0,
            sharing: false,
            sharing_statistics: SharingStatistics::default(),
            learnt: LearntLog::default(),
            gaps_allowed: false,
            models: ModelNames::default(),
            indexes: Vec::new(),
            records: Vec::new(),
            loads: load::Loads::default(),
            loads_outdated: false,
            fingerprint: 0,
            key: Key::Secret(secret.clone()),
            secret,
            exchanges: Exchanges::default(),
            effects: VecDeque::new(),
            held: Deadlines::default(),
            unread: Deadlines::default(),
            scratch: Scratch::new(rng),
            text_buffer: TextBuffer::default(),
            event: Event::default(),
            timing: tick::Timing::default(),
            view: view::View::default(),
            plan,
        };
        picker.lay_out_indexes();
        picker
    }

    /// Puts another plan in force. The prefix indexes stay where prompts are cut as before, and everything
    /// where nothing has changed.
    pub fn install(&mut self, plan: Plan) {
        if self.plan.is_identical(&plan) {
            return;
        }
        let same_hashing = self.plan.hashing_equal(&plan);
        self.monitor.install(&plan);
        if self.plan.headers != plan.headers {
            // What is held is decided under the new plan.
            let before = &self.plan.headers;
            self.exchanges.reorder_headers(before, &plan.headers);
        }
        self.plan = plan;
        self.view.forget_all();
        if same_hashing {
            self.bound_indexes();
        } else {
            self.begin_indexes();
        }
    }

    /// Returns the plan in force.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Returns what the host is to do next. To be asked after each event until there is nothing more.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Returns what the host is to do to its metrics next. To be asked after each tick until there is nothing
    /// more; a host without metrics need not.
    pub fn poll_metric(&mut self) -> Option<MetricUpdate> {
        self.metrics.poll()
    }

    /// An event comes at this time, which never steps back but where the host's clock is set.
    fn begin_event(&mut self, now: Timestamp) {
        self.timing.clock.advance(now);
        self.event = Event::default();
    }

    /// A request's headers have come.
    pub fn request_headers(&mut self, now: Timestamp, ExchangeId(id): ExchangeId, head: &Head<'_>) {
        self.begin_event(now);
        self.serves = true;
        let mut exchange = self.exchanges.take_spare();
        let now = self.timing.clock.now();
        let pool = &self.monitor.store.pool;
        exchange.open(head, &self.plan, &self.key, pool, now);
        let reads = exchange.is_held();
        if let Some(mut former) = self.exchanges.insert(id, exchange) {
            // The host has not closed it.
            self.release_counts(&mut former);
        }
        self.choose_model(id);
        let max_held = self
            .plan
            .settings
            .max_held
            .saturating_mul(MAX_HELD_OVERSHOOT);
        if reads && self.exchanges.held() > max_held {
            // The next tick lets those go that are too many, the newcomers last.
            self.metrics.add(FORCED_RELEASES, ForcedRelease::Held, 1);
            self.skip_body(id);
        } else if reads {
            self.held.add(id, now);
        }
        let exchange = self.exchanges.get(&id);
        match exchange.and_then(|exchange| exchange.hold()) {
            Some(hold) => {
                let (id, body) = (ExchangeId(id), hold.demand);
                self.effects.push_back(Effect::Hold { id, body });
                self.bound_memory(id.0);
            }
            None => {
                self.decide(id);
                self.count_memory(id);
            }
        }
    }

    /// The host cannot show the body of a held request. It is decided without, and nothing of it will be
    /// read.
    pub fn body_unavailable(&mut self, now: Timestamp, ExchangeId(id): ExchangeId) {
        self.begin_event(now);
        let exchange = self.exchanges.get(&id);
        if exchange.is_some_and(|exchange| exchange.is_held()) {
            self.skip_body(id);
            self.decide(id);
            self.count_memory(id);
        }
    }

    /// The host does not show the body of a held request before it is forwarded. It is decided with what is
    /// known; the body is read as it passes.
    pub fn body_withheld(&mut self, now: Timestamp, ExchangeId(id): ExchangeId) {
        self.begin_event(now);
        let exchange = self.exchanges.get(&id);
        if exchange.is_some_and(|exchange| exchange.is_held()) {
            self.metrics.add(FORCED_RELEASES, ForcedRelease::Timeout, 1);
            self.decide(id);
            self.count_memory(id);
        }
    }

    /// A request's body is not waited for, nor read.
    fn skip_body(&mut self, id: u32) {
        self.exchanges.set_phase(id, Phase::New);
        if let Some(exchange) = self.exchanges.get_mut(&id) {
            exchange.reader.finish();
        }
    }

    /// Returns whether the host is to measure how long the next event takes, and to tell
    /// [`Self::observe_event`]: one decision and one look-up in seventeen is timed.
    pub fn wants_timing(&self) -> bool {
        let looks_up = !self.indexes.is_empty();
        self.hot.decisions % EVENTS_PER_TIMING == 0
            || looks_up && self.hot.look_ups % EVENTS_PER_TIMING == 0
    }

    /// The last event took this long.
    pub fn observe_event(&mut self, taken: Duration) {
        let histogram = match self.event {
            Event { decided: true, .. } => self.hot.decision,
            Event {
                looked_up: true, ..
            } => self.hot.look_up,
            Event { .. } => return,
        };
        self.metrics.observe(histogram, taken.as_secs_f64());
    }

    /// Returns whether a request is held.
    pub fn holds(&self, ExchangeId(id): ExchangeId) -> bool {
        let exchange = self.exchanges.get(&id);
        exchange.is_some_and(|exchange| exchange.is_held())
    }

    /// A request has ended, however.
    pub fn closed(&mut self, now: Timestamp, ExchangeId(id): ExchangeId) {
        self.begin_event(now);
        self.abandon_probe(id);
        self.refute_unproven(id);
        self.finish_response(id);
        if let Some(mut exchange) = self.exchanges.remove(&id) {
            self.release_counts(&mut exchange);
            exchange.stop_reading();
            exchange.explanation = None;
            if exchange.allocated() > memory::MAX_SPARE_BYTES {
                exchange.give_back();
            }
            self.exchanges.recycle(exchange);
        }
    }
}

#[cfg(test)]
#[path = "picker_tests.rs"]
mod tests;
