//! A priority band: its flows, and which of its requests goes next.

use std::time::Duration;

use super::flows::{Flows, UNNAMED};
use super::line::Line;
use super::settings::{BandSpec, Fairness, Ordering, Strategy};
use super::table::{Table, Waiting};
use crate::prefix::key::Key;
use crate::time::Instant;
use crate::ExchangeId;

/// A flow is forgotten when it has been idle for so long, unless its fairness policy says otherwise.
const IDLE_FLOW: Duration = Duration::from_secs(300);

/// A band of no setting of its own is forgotten when it has been idle for so long.
const IDLE_BAND: Duration = Duration::from_secs(600);

/// Requests without a deadline go after those with one, in the order in which they came.
const NO_DEADLINE: u64 = 1 << 63;

/// The requests of one priority.
#[derive(Debug)]
pub struct Band {
    /// Its settings.
    pub spec: BandSpec,
    /// Whether it is always there.
    pub fixed: bool,
    /// The requests that wait.
    pub requests: usize,
    /// The bytes of their bodies.
    pub bytes: u64,
    /// Their flows.
    pub flows: Flows,
    /// Its requests in the order in which they go, if their flows do not matter.
    line: Line,
    /// Its requests in the order in which they came.
    arrivals: Line,
    /// When a request last left it.
    last_used: Instant,
}

impl Band {
    /// Returns an empty band.
    pub fn new(spec: BandSpec, fixed: bool, now: Instant) -> Self {
        Self {
            spec,
            fixed,
            requests: 0,
            bytes: 0,
            flows: Flows::default(),
            line: Line::default(),
            arrivals: Line::default(),
            last_used: now,
        }
    }

    /// Returns whether a request with so many bytes has room.
    pub fn has_room(&self, bytes: u64) -> bool {
        fits(self.requests as u64, 1, self.spec.max_requests)
            && fits(self.bytes, bytes, self.spec.max_bytes)
    }

    /// Counts a request and puts it into line.
    pub fn push(&mut self, id: ExchangeId, request: &Waiting) {
        self.requests += 1;
        self.bytes = self.bytes.saturating_add(request.bytes);
        let key = self.key(request);
        let by_flow = self.spec.fairness != Fairness::GlobalStrict;
        if let Some(flow) = self.flows.get_mut(request.flow) {
            flow.waiting += 1;
            if by_flow {
                flow.line.push(key, request.turn, id);
            }
        }
        if !by_flow {
            self.line.push(key, request.turn, id);
        }
        self.arrivals
            .push(request.since.as_nanos(), request.turn, id);
    }

    /// Counts a request of a flow that goes without waiting; returns the label of its flow.
    pub fn pass(&mut self, flow: u32, now: Instant) -> u8 {
        self.last_used = now;
        if self.spec.fairness == Fairness::RoundRobin {
            self.flows.goes(flow);
        }
        let strategy = self.strategy();
        let Some(flow) = self.flows.get_mut(flow) else {
            return UNNAMED;
        };
        flow.left(now, true, strategy, now);
        flow.label
    }

    /// Returns what orders requests of the band.
    fn key(&self, request: &Waiting) -> u64 {
        let due = match self.spec.ordering {
            Ordering::Fcfs => return request.since.as_nanos(),
            Ordering::Edf => request.ttl.map(|ttl| request.since.after(ttl)),
            Ordering::SloDeadline => request.slo_ttft.map(|slo| request.received.after(slo)),
        };
        match due {
            Some(due) => due.as_nanos().min(NO_DEADLINE - 1),
            None => NO_DEADLINE.saturating_add(request.since.as_nanos()),
        }
    }

    /// Returns the request that goes next.
    pub fn next(&mut self, table: &Table, now: Instant) -> Option<ExchangeId> {
        let flow = match self.spec.fairness {
            Fairness::GlobalStrict => return self.line.first(table).map(|(_, id)| id),
            Fairness::RoundRobin => self.flows.next_in_turn()?,
            Fairness::ProgramAware(policy) => self.flows.best(&policy, table, now)?,
        };
        let (_, id) = self.flows.get_mut(flow)?.line.first(table)?;
        Some(id)
    }

    /// Counts a request out that has left the table; returns the label of its flow.
    pub fn remove(
        &mut self,
        request: &Waiting,
        dispatched: bool,
        table: &Table,
        now: Instant,
    ) -> u8 {
        self.requests = self.requests.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(request.bytes);
        self.last_used = now;
        self.line.sweep(self.requests, table);
        self.arrivals.sweep(self.requests, table);
        // So that `oldest` can be read.
        self.arrivals.first(table);
        if dispatched && self.spec.fairness == Fairness::RoundRobin {
            self.flows.goes(request.flow);
        }
        let strategy = self.strategy();
        let Some(flow) = self.flows.get_mut(request.flow) else {
            return UNNAMED;
        };
        flow.left(request.since, dispatched, strategy, now);
        flow.line.sweep(flow.waiting, table);
        flow.label
    }

    fn strategy(&self) -> Option<Strategy> {
        match self.spec.fairness {
            Fairness::ProgramAware(policy) => Some(policy.strategy),
            Fairness::GlobalStrict | Fairness::RoundRobin => None,
        }
    }

    /// Returns the request that came first, as of the last removal.
    pub fn oldest(&self) -> Option<ExchangeId> {
        self.arrivals.peek()
    }

    /// Returns the entries of its lines.
    #[cfg(test)]
    pub fn entries(&mut self) -> usize {
        let flows: usize = self.flows.iter_mut().map(|flow| flow.line.len()).sum();
        self.line.len() + self.arrivals.len() + flows
    }

    /// Returns the entries that its lines have room for.
    #[cfg(test)]
    pub fn capacity(&mut self) -> usize {
        let flows: usize = self.flows.iter_mut().map(|flow| flow.line.capacity()).sum();
        self.line.capacity() + self.arrivals.capacity() + flows
    }

    /// Counts tokens that a flow got, if that matters.
    pub fn served(&mut self, id: &str, key: &Key, tokens: (u64, u64), now: Instant) {
        let half_life = match self.strategy() {
            Some(Strategy::Las { half_life, .. }) => half_life,
            Some(Strategy::TurnPriority { .. }) => None,
            None => return,
        };
        if let Some(place) = self.flows.find(id, key) {
            self.flows.served(place, tokens, half_life, now);
        }
    }

    /// Installs other settings. The requests have to be put into line again.
    pub fn reinstall(&mut self, spec: BandSpec, fixed: bool) {
        (self.spec, self.fixed) = (spec, fixed);
        (self.requests, self.bytes) = (0, 0);
        self.line.clear();
        self.arrivals.clear();
        for flow in self.flows.iter_mut() {
            flow.waiting = 0;
            flow.line.clear();
        }
    }

    /// Forgets idle flows. Returns whether the band is still needed.
    pub fn sweep(&mut self, now: Instant) -> bool {
        let idle = match self.spec.fairness {
            Fairness::ProgramAware(policy) => policy.idle,
            Fairness::GlobalStrict | Fairness::RoundRobin => Some(IDLE_FLOW),
        };
        if let Some(idle) = idle {
            self.flows.sweep(idle, now);
        }
        let used = self.flows.len() > 0 || now.since(self.last_used) < IDLE_BAND;
        self.fixed || self.requests > 0 || used
    }
}

/// Returns whether some more fit within a limit.
pub fn fits(known: u64, more: u64, limit: Option<u64>) -> bool {
    limit.is_none_or(|limit| known.saturating_add(more) <= limit)
}
