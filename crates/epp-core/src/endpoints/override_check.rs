//! Whether the proxy sends requests where the destination header says.
//!
//! A cluster without the `override_host` policy ignores the header, and its own load balancing chooses. That shows in
//! first attempts that another endpoint than the named one serves. A single one proves nothing: the named endpoint may
//! just have left the cluster, which discovery shows a little later. So a whole period has to show it, and another one
//! after it, and for several of the named endpoints.

use std::time::Duration;

use crate::scheduling::Slot;
use crate::time::Instant;

/// First attempts of a period at least. Where the header is ignored, at least half of them go elsewhere; that it is
/// fewer than a quarter of 20 happens by chance once in 170 periods.
const MIN_ATTEMPTS: u32 = 20;

/// Periods last at least this long.
const MIN_PERIOD: Duration = Duration::from_secs(1);

/// Intervals of discovery in a period: after one of them, endpoints that have left are known to have. Even where all
/// were replaced at once, no two periods in a row show more than a quarter of attempts that went elsewhere.
const INTERVALS: u32 = 3;

/// What the first attempts of a period show, and of those before it.
#[derive(Debug, Default)]
pub struct OverrideCheck {
    /// When the period began; `None` before its first attempt.
    begun: Option<Instant>,
    attempts: u32,
    /// Those that went elsewhere.
    elsewhere: u32,
    /// The endpoint that the first of these named.
    named: Option<Slot>,
    /// Whether others named another one.
    several: bool,
    /// Whether the last period showed that the header is ignored.
    suspected: bool,
    /// Whether the one before did, too.
    ignored: bool,
}

impl OverrideCheck {
    /// Returns whether the proxy ignores the header.
    pub fn is_ignored(&self) -> bool {
        self.ignored
    }

    /// A request was served by the endpoint in this slot, which it names; or with its first attempt `elsewhere`.
    pub fn record(&mut self, slot: Slot, elsewhere: bool, now: Instant) {
        self.begun.get_or_insert(now);
        self.attempts = self.attempts.saturating_add(1);
        if elsewhere {
            self.elsewhere = self.elsewhere.saturating_add(1);
            self.several |= *self.named.get_or_insert(slot) != slot;
        }
    }

    /// Ends the period if it has shown enough. `interval` is that of discovery.
    pub fn end_period(&mut self, interval: Duration, now: Instant) {
        let period = MIN_PERIOD.max(interval.saturating_mul(INTERVALS));
        let lasted = self.begun.is_some_and(|begun| now.since(begun) >= period);
        if !lasted || self.attempts < MIN_ATTEMPTS {
            return;
        }
        let ignored = self.several && self.elsewhere >= self.attempts / 4;
        *self = Self {
            suspected: ignored,
            ignored: ignored && (self.suspected || self.ignored),
            ..Self::default()
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(1);

    /// Plays periods of 4 s with 100 attempts each, of which so many go elsewhere, naming so many endpoints in turn.
    fn verdicts(periods: &[(u32, u32)]) -> Vec<bool> {
        let (mut override_check, mut now) = (OverrideCheck::default(), Instant::default());
        let period = |(elsewhere, named): &(u32, u32)| {
            for number in 0..100 {
                override_check.record(Slot(number % named), number < *elsewhere, now);
                now = now.after(Duration::from_millis(40));
                override_check.end_period(INTERVAL, now);
            }
            override_check.is_ignored()
        };
        periods.iter().map(period).collect()
    }

    #[test]
    fn a_cluster_that_ignores_the_header_is_found_and_one_that_follows_it_again() {
        let found = verdicts(&[(50, 4), (50, 4), (90, 4), (0, 4), (0, 4)]);
        assert_eq!(found, [false, true, true, false, false]);
    }

    #[test]
    fn endpoints_that_leave_are_no_proof() {
        // All at once, until discovery shows it.
        assert!(!verdicts(&[(25, 8), (0, 8), (25, 8), (0, 8)]).contains(&true));
        // One of them stays listed without being a member.
        assert!(!verdicts(&[(100, 1), (100, 1), (100, 1)]).contains(&true));
    }

    #[test]
    fn few_attempts_decide_nothing_however_long_they_take() {
        let (mut override_check, mut now) = (OverrideCheck::default(), Instant::default());
        for number in 0..MIN_ATTEMPTS * 2 - 1 {
            override_check.record(Slot(number % 2), true, now);
            now = now.after(Duration::from_secs(3600));
            override_check.end_period(INTERVAL, now);
            assert!(!override_check.is_ignored());
        }
        override_check.record(Slot(0), true, now);
        override_check.end_period(INTERVAL, now.after(Duration::from_secs(10)));
        assert!(override_check.is_ignored());
    }
}
