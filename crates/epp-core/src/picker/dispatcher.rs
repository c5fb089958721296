//! The dispatcher: all of a picker but the table of its exchanges.

use std::collections::VecDeque;

use super::effect::Effect;
use super::exchange::Exchange;
use super::flow::Flow;
use super::memory::Account;
use super::pool_state::PoolState;
use super::prefixes::Prefixes;
use super::response::ReadingBudget;
use super::statistics::Statistics;
use super::view::View;
use crate::config::Plan;
use crate::endpoints::monitor::Monitor;
use crate::endpoints::store::Changes;
use crate::findings::EventLog;
use crate::prefix::key::Secret;
use crate::request::TextBuffer;
use crate::scheduling::{Scratch, States};
use crate::time::{Clock, Instant, Timestamp};

/// Decides requests and follows what becomes of them. It does not own the exchanges, so that its methods take one
/// from their table by reference.
pub struct Dispatcher {
    /// The plan in force.
    pub plan: Plan,
    /// The time of the current event.
    pub clock: Clock,
    /// The endpoints.
    pub endpoints: PoolState,
    /// The prefix indexes.
    pub prefixes: Prefixes,
    /// The state that plugins keep from request to request.
    pub states: States,
    /// The statistics of requests and models.
    pub statistics: Statistics,
    /// The state that all readers of bodies share.
    pub readers: Readers,
    /// The scheduler's buffers and randomness.
    pub scratch: Scratch,
    /// The decisions that a status page shows.
    pub view: View,
    /// What bounds the lines that are logged.
    pub log: EventLog,
    /// The requests that wait under flow control.
    pub flow: Flow,
    /// Effects that the host has not fetched yet.
    pub effects: VecDeque<Effect>,
}

/// The state that all readers of bodies share.
#[derive(Debug, Default)]
pub struct Readers {
    /// A buffer for the text that is being read.
    pub text: TextBuffer,
    /// The number of responses that are being read.
    pub responses: ReadingBudget,
    /// The memory that the readers of requests keep.
    pub memory: Account,
}

impl Dispatcher {
    /// Returns a dispatcher without endpoints.
    pub fn new(plan: Plan, secret: Secret) -> Self {
        let mut rng = fastrand::Rng::with_seed(secret.number("randomness"));
        Self {
            clock: Clock::default(),
            endpoints: PoolState::new(Monitor::new(&plan, rng.fork())),
            states: States::new(&plan.states, &secret),
            flow: Flow::new(secret.clone(), plan.flow.as_ref()),
            prefixes: Prefixes::new(&plan, secret),
            statistics: Statistics::new(plan.cluster()),
            readers: Readers::default(),
            scratch: Scratch::new(rng),
            view: View::default(),
            log: EventLog::default(),
            effects: VecDeque::new(),
            plan,
        }
    }

    /// An event comes at this time, which never steps back but where the host's clock is set.
    pub fn begin_event(&mut self, now: Timestamp) {
        self.clock.advance(now);
        self.statistics.begin_event();
    }

    /// Applies which endpoints came and went. Returns whether any did.
    pub fn apply_changes(&mut self, changes: &Changes) -> bool {
        for slot in &changes.left {
            self.endpoints.remove_endpoint(*slot);
            self.prefixes.remove_endpoint(*slot);
            self.states.remove_endpoint(*slot);
            self.view.forget(*slot);
            // The picker that polls has set the gauges, and no other one is to.
            let polls = self.endpoints.monitor.polls();
            self.statistics.remove_endpoint(*slot, polls);
        }
        for slot in &changes.joined {
            self.endpoints.add_endpoint(*slot, self.clock.now());
            let address = self.endpoints.address(*slot);
            self.statistics.add_endpoint(*slot, address);
        }
        let changed = !(changes.left.is_empty() && changes.joined.is_empty());
        if changed {
            self.endpoints.end_emptiness(Instant::MAX);
        }
        changed
    }

    /// Returns random bits for a request, if the plan needs any.
    pub fn draw(&mut self) -> u64 {
        match self.plan.needs.random {
            true => self.scratch.rng().u64(..),
            false => 0,
        }
    }

    /// Subtracts an exchange that has left the table from the requests in flight, the responses being read, and the
    /// memory of readers.
    pub fn release_counts(&mut self, exchange: &mut Exchange) {
        self.leave_queue(exchange);
        self.endpoints
            .end_targets(exchange.finish().into_iter().flatten());
        exchange
            .response
            .end_usage_reading(&mut self.readers.responses);
        self.readers.memory.close(exchange);
    }
}
