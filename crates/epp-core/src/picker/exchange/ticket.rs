//! What flow control has on record of a request.

use std::time::Duration;

use crate::picker::explain::Queued;

/// What flow control has on record of a request.
#[derive(Debug, Default)]
pub struct Ticket {
    /// The length of its body, if its client says it.
    pub length: Option<usize>,
    /// Its priority.
    pub priority: i32,
    /// Its fairness id.
    pub fairness_id: String,
    /// How many requests waited when it was queued.
    pub behind: usize,
    /// How long it waited, once it does no longer.
    pub waited: Option<Duration>,
    /// Whether it was evicted.
    pub evicted: bool,
}

impl Ticket {
    /// Begins the record of a request with a body of this length, if its client says it.
    pub fn open(&mut self, length: Option<usize>) {
        self.length = length;
        self.priority = 0;
        self.waited = None;
        self.evicted = false;
    }

    /// Returns how it waited in a queue, if it did.
    pub fn queued(&self) -> Option<Queued> {
        Some(Queued {
            priority: self.priority,
            behind: self.behind,
            waited: self.waited?,
        })
    }
}
