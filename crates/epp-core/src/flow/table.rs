//! The requests that wait, by their numbers.

use std::time::Duration;

use super::line::Turn;
use crate::number_hash::ById;
use crate::time::Instant;
use crate::ExchangeId;

/// A request that waits.
#[derive(Debug, Clone, Copy)]
pub struct Waiting {
    /// Under which number it waits.
    pub turn: Turn,
    /// Its band.
    pub priority: i32,
    /// The place of its flow in the band.
    pub flow: u32,
    /// The bytes of its body.
    pub bytes: u64,
    /// Since when it waits.
    pub since: Instant,
    /// When its headers came.
    pub received: Instant,
    /// How long it may wait for a pool with endpoints; `None`: no limit.
    pub ttl: Option<Duration>,
    /// When it has waited so long, by the clock of a pool with endpoints.
    pub due: Option<u64>,
    /// When it came, by the clock of a pool without endpoints.
    pub without_endpoints: u64,
    /// How soon after its headers its first token is due.
    pub slo_ttft: Option<Duration>,
}

/// The requests that wait.
#[derive(Debug, Default)]
pub struct Table {
    waiting: ById<Waiting>,
}

impl Table {
    /// Adds a request.
    pub fn insert(&mut self, id: ExchangeId, waiting: Waiting) {
        self.waiting.insert(id.0, waiting);
    }

    /// Returns a request.
    pub fn get(&self, id: ExchangeId) -> Option<&Waiting> {
        self.waiting.get(&id.0)
    }

    /// Removes a request.
    pub fn remove(&mut self, id: ExchangeId) -> Option<Waiting> {
        self.waiting.remove(&id.0)
    }

    /// Returns whether a request still waits under a number.
    pub fn waits(&self, id: ExchangeId, turn: Turn) -> bool {
        self.get(id).is_some_and(|waiting| waiting.turn == turn)
    }

    /// Returns how many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Returns all of them.
    pub fn iter(&self) -> impl Iterator<Item = (ExchangeId, &Waiting)> {
        self.waiting
            .iter()
            .map(|(id, waiting)| (ExchangeId(*id), waiting))
    }
}
