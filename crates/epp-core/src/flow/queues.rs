//! The requests that wait in one picker.

use std::time::Duration;

use super::FlowControl;
use crate::time::Instant;
use crate::ExchangeId;

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
    /// Its priority.
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
    /// The saturation at which it stops, when a dispatch was last tried.
    pub ceiling: f64,
}

/// The requests that wait in one picker.
#[derive(Debug, Default)]
pub struct Queues {
    waiting: Vec<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    id: ExchangeId,
    priority: i32,
    bytes: u64,
    since: Instant,
    until: Option<Instant>,
}

impl Waiting {
    fn depart(&self, now: Instant) -> Departure {
        Departure {
            id: self.id,
            priority: self.priority,
            waited: now.since(self.since),
            bytes: self.bytes,
            label: 0,
        }
    }
}

impl Queues {
    /// Queues a request.
    pub fn enqueue(
        &mut self,
        control: &FlowControl,
        arrival: &Arrival<'_>,
        now: Instant,
    ) -> Result<(), Full> {
        let most = control.max_requests.unwrap_or(u64::MAX);
        if self.waiting.len() as u64 >= most {
            return Err(Full::Pool);
        }
        let ttl = match (control.ttl, arrival.ttl) {
            (Some(ttl), Some(own)) => Some(ttl.min(own)),
            (ttl, own) => ttl.or(own),
        };
        self.waiting.push(Waiting {
            id: arrival.id,
            priority: arrival.priority,
            bytes: arrival.bytes,
            since: now,
            until: ttl.map(|ttl| now.after(ttl)),
        });
        Ok(())
    }

    /// Removes and returns the request that goes next at this saturation; `None` where the gate is shut for the
    /// highest band in which a request waits, where that is below `floor`, and where nothing waits.
    pub fn dispatch(
        &mut self,
        _control: &FlowControl,
        saturation: f64,
        floor: Option<i32>,
        now: Instant,
    ) -> Option<Departure> {
        let highest = self.highest_waiting()?;
        if saturation >= 1.0 || floor.is_some_and(|floor| highest < floor) {
            return None;
        }
        let place = self
            .waiting
            .iter()
            .position(|one| one.priority == highest)?;
        Some(self.waiting.remove(place).depart(now))
    }

    /// Removes and returns the request that goes next, however full the pool is; `None` where nothing waits.
    pub fn release(&mut self, now: Instant) -> Option<Departure> {
        let first = self.waiting.first()?.id;
        self.remove(first, now)
    }

    /// Removes a request, wherever it waits.
    pub fn remove(&mut self, id: ExchangeId, now: Instant) -> Option<Departure> {
        let place = self.waiting.iter().position(|one| one.id == id)?;
        Some(self.waiting.remove(place).depart(now))
    }

    /// Removes and returns a request that has waited as long as it may; `None` where there is none.
    pub fn expired(
        &mut self,
        _control: &FlowControl,
        _pool_is_empty: bool,
        now: Instant,
    ) -> Option<Departure> {
        let due = |one: &&Waiting| one.until.is_some_and(|until| until <= now);
        let id = self.waiting.iter().find(due)?.id;
        self.remove(id, now)
    }

    /// Returns whether a request waits.
    pub fn contains(&self, id: ExchangeId) -> bool {
        self.waiting.iter().any(|one| one.id == id)
    }

    /// Returns how many requests wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Returns whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Returns the highest priority of those that wait.
    pub fn highest_waiting(&self) -> Option<i32> {
        self.waiting.iter().map(|one| one.priority).max()
    }

    /// Returns what waits in each band, the highest first, the empty ones included.
    pub fn bands(&self) -> impl Iterator<Item = BandStatus> + '_ {
        self.highest_waiting()
            .into_iter()
            .map(|priority| BandStatus {
                priority,
                requests: self.waiting.len() as u64,
                bytes: self.waiting.iter().map(|one| one.bytes).sum(),
                oldest: self.waiting.first().map(|one| one.since),
                ceiling: 1.0,
            })
    }

    /// Returns the name under which metrics count a flow: its fairness id, or `other`.
    pub fn label(&self, _label: u8) -> &str {
        "other"
    }

    /// Installs the settings of another plan. What waits goes on waiting since when it did, even beyond capacity.
    pub fn reinstall(&mut self, _control: &FlowControl) {}

    /// Counts tokens that a flow got, for program-aware fairness.
    pub fn served(
        &mut self,
        _priority: i32,
        _fairness_id: &str,
        _input: u64,
        _output: u64,
        _now: Instant,
    ) {
    }

    /// Forgets flows and bands that have been idle for long. Call it from ticks.
    pub fn sweep(&mut self, _now: Instant) {}
}
