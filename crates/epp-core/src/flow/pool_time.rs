//! How long a pool has had endpoints, and how long it has had none.

use crate::time::Instant;

/// Two clocks of which one is always running: the first while the pool has endpoints, the second while it has none. A
/// request is charged for both apart, however often the pool changes from one to the other.
#[derive(Debug, Clone, Copy, Default)]
pub struct PoolTime {
    is_empty: bool,
    /// When the clocks were last read.
    read: Instant,
    with_endpoints: u64,
    without_endpoints: u64,
}

impl PoolTime {
    /// Returns the nanoseconds on both clocks: with endpoints, and without.
    pub fn at(self, now: Instant) -> (u64, u64) {
        let passed = now.as_nanos().saturating_sub(self.read.as_nanos());
        let (with, without) = (self.with_endpoints, self.without_endpoints);
        match self.is_empty {
            false => (with.saturating_add(passed), without),
            true => (with, without.saturating_add(passed)),
        }
    }

    /// Notes whether the pool is empty from now on.
    pub fn note(&mut self, is_empty: bool, now: Instant) {
        (self.with_endpoints, self.without_endpoints) = self.at(now);
        (self.is_empty, self.read) = (is_empty, now);
    }
}
