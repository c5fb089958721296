//! Which requests in flight are evicted for queued ones of a higher priority, and when.

use std::cmp::Reverse;
use std::time::Duration;

use super::Blocked;
use crate::number_hash::ById;
use crate::time::Instant;
use crate::ExchangeId;

/// Requests that are evicted at once. What a single one frees is only estimated.
const MAX_AT_ONCE: usize = 2;

/// An evicted request that has not ended after this time is taken to have ended.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where none could be evicted, all are looked at again after this time.
const RETRY: Duration = Duration::from_millis(50);

/// The requests in flight that may be evicted: those of priorities below 0.
///
/// The next are evicted only once all that were evicted before have ended, and the pool's saturation shows it.
#[derive(Debug, Default)]
pub struct Evictions {
    /// Their priorities, and when they were sent.
    sheddable: ById<(i32, Instant)>,
    /// Those that were evicted and have not ended, by when.
    evicted: ById<Instant>,
    /// The saturation does not yet show what has ended before.
    quiet_until: Instant,
}

impl Evictions {
    /// Notes a request that was sent.
    pub fn sent(&mut self, id: ExchangeId, priority: i32, now: Instant) {
        if priority < 0 {
            self.sheddable.insert(id.0, (priority, now));
        }
    }

    /// Notes that a request has ended; the saturation shows it after `grace`.
    pub fn ended(&mut self, id: ExchangeId, grace: Duration, now: Instant) {
        self.sheddable.remove(&id.0);
        if self.evicted.remove(&id.0).is_some() {
            self.quiet_until = now.after(grace);
        }
    }

    /// Returns the requests that are to be evicted for those that wait in a band: the lowest priority first, and of one
    /// priority the request that was sent last. They are below the band's priority.
    pub fn choose(
        &mut self,
        blocked: Blocked,
        (saturation, in_flight): (f64, usize),
        grace: Duration,
        now: Instant,
    ) -> Vec<ExchangeId> {
        let known = self.evicted.len();
        self.evicted.retain(|_, since| now.since(*since) < TIMEOUT);
        if self.evicted.len() < known {
            self.quiet_until = now.after(grace);
        }
        // No eviction opens a band that never dispatches, and one that has room waits for something else.
        let helps = blocked.ceiling > 0.0 && saturation >= blocked.ceiling;
        if !helps || !self.evicted.is_empty() || now < self.quiet_until {
            return Vec::new();
        }
        let most = needed(saturation, blocked.ceiling, in_flight);
        let below = self.sheddable.iter();
        let below = below.filter(|(_, (priority, _))| *priority < blocked.priority);
        let mut victims: Vec<(i32, Reverse<Instant>, u32)> = below
            .map(|(id, (priority, sent))| (*priority, Reverse(*sent), *id))
            .collect();
        victims.sort_unstable();
        victims.truncate(most);
        if victims.is_empty() {
            self.quiet_until = now.after(RETRY);
        }
        let victims = victims.into_iter().map(|(_, _, id)| {
            self.sheddable.remove(&id);
            self.evicted.insert(id, now);
            ExchangeId(id)
        });
        victims.collect()
    }
}

/// Returns how many requests have to end before the saturation is below a ceiling, if each adds as much to it.
fn needed(saturation: f64, ceiling: f64, in_flight: usize) -> usize {
    let each = saturation / in_flight.max(1) as f64;
    let needed = ((saturation - ceiling) / each).ceil();
    (needed as usize).clamp(1, MAX_AT_ONCE)
}

#[cfg(test)]
#[path = "eviction_tests.rs"]
mod tests;
