//! Time: the host passes it with each event, by its wall clock; a picker derives its own clock from that.

use std::time::Duration;

/// A moment by the host's wall clock. It may step back where that clock is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Timestamp {
    nanos: u64,
}

impl Timestamp {
    /// Returns the moment this many nanoseconds after the start of 1970.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self { nanos }
    }

    /// Returns the moment this many milliseconds after the start of 1970.
    pub const fn from_millis(millis: u64) -> Self {
        Self {
            nanos: millis.saturating_mul(1_000_000),
        }
    }

    /// Returns the nanoseconds since the start of 1970.
    pub const fn as_nanos(self) -> u64 {
        self.nanos
    }

    /// Returns the milliseconds since the start of 1970.
    pub const fn as_millis(self) -> u64 {
        self.nanos / 1_000_000
    }

    /// Returns the time since an earlier moment; none if the clock was set back in between.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.nanos.saturating_sub(earlier.nanos))
    }

    /// Returns the time between two moments, whichever is the earlier one.
    pub const fn abs_diff(self, other: Self) -> Duration {
        Duration::from_nanos(self.nanos.abs_diff(other.nanos))
    }

    /// Returns whether two moments are at most this far apart, whichever is the earlier one. Cheaper than
    /// [`Self::abs_diff`], whose result takes a division.
    #[inline]
    pub const fn is_near(self, other: Self, within: Duration) -> bool {
        self.nanos.abs_diff(other.nanos) <= nanos(within)
    }

    /// Returns this moment without its fraction of a millisecond.
    #[must_use]
    pub const fn floor_millis(self) -> Self {
        Self::from_millis(self.as_millis())
    }

    /// Returns the moment that is later by this.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self {
            nanos: self.nanos.saturating_add(nanos(duration)),
        }
    }
}

/// A moment by a picker's own clock, which never steps back. It compares with others of the same picker only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Instant {
    nanos: u64,
}

impl Instant {
    /// No moment is later.
    pub const MAX: Self = Self { nanos: u64::MAX };

    /// Returns the moment that is later by this.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self {
            nanos: self.nanos.saturating_add(nanos(duration)),
        }
    }

    /// Returns the moment that is later by this many milliseconds.
    #[must_use]
    pub const fn after_millis(self, millis: u64) -> Self {
        Self {
            nanos: self.nanos.saturating_add(millis.saturating_mul(1_000_000)),
        }
    }

    /// Returns the moment that is earlier by this, as far as the clock goes back.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        Self {
            nanos: self.nanos.saturating_sub(nanos(duration)),
        }
    }

    /// Returns the time since another moment; none if that is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.nanos.saturating_sub(earlier.nanos))
    }

    /// Returns a number that grows with time, by one each nanosecond.
    pub const fn as_nanos(self) -> u64 {
        self.nanos
    }
}

/// Returns a duration in nanoseconds, at most those of 584 years. `Duration::as_nanos` has 128 bits, which wasm
/// computes in parts.
#[inline]
pub(crate) const fn nanos(duration: Duration) -> u64 {
    let seconds = duration.as_secs().saturating_mul(1_000_000_000);
    seconds.saturating_add(duration.subsec_nanos() as u64)
}

/// Returns a duration in whole milliseconds, without the 128 bits of `Duration::as_millis`.
pub const fn whole_millis(duration: Duration) -> u64 {
    let seconds = duration.as_secs().saturating_mul(1_000);
    seconds.saturating_add(duration.subsec_millis() as u64)
}

/// The own clock goes on by this much at most from one event to the next. Ticks come every 50 ms, so that a longer
/// step is one of the wall clock, which was set, or stood while the machine did: no request has waited for it.
const MAX_STEP: Duration = Duration::from_secs(1);

/// A picker's clock: what the host's wall clock says, and the time that has passed without that clock's steps.
#[derive(Debug, Clone, Copy, Default)]
pub struct Clock {
    /// None before the first event.
    wall: Option<Timestamp>,
    own: Instant,
}

impl Clock {
    /// Returns a clock that begins at this time.
    pub const fn starting_at(now: Timestamp) -> Self {
        Self {
            wall: Some(now),
            // As far as the wall clock, so that what began before the picker is not cut off at its beginning.
            own: Instant { nanos: now.nanos },
        }
    }

    /// Moves to the time of the next event.
    pub fn advance(&mut self, now: Timestamp) {
        match self.wall.replace(now) {
            // In nanoseconds throughout: a `Duration` takes a division, for each event.
            Some(before) => {
                let passed = now.nanos.saturating_sub(before.nanos);
                let step = passed.min(nanos(MAX_STEP));
                self.own.nanos = self.own.nanos.saturating_add(step);
            }
            None => *self = Self::starting_at(now),
        }
    }

    /// Returns the time of the event at hand by the host's wall clock.
    pub fn wall(&self) -> Timestamp {
        self.wall.unwrap_or_default()
    }

    /// Returns the time of the event at hand by the picker's own clock.
    pub const fn now(&self) -> Instant {
        self.own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_clock_never_steps_back() {
        let mut clock = Clock::default();
        clock.advance(Timestamp::from_nanos(1_000));
        let first = clock.now();
        clock.advance(Timestamp::from_nanos(400));
        assert_eq!(clock.now(), first);
        clock.advance(Timestamp::from_nanos(700));
        assert_eq!(clock.now().since(first), Duration::from_nanos(300));
        assert_eq!(clock.wall(), Timestamp::from_nanos(700));
    }

    #[test]
    fn the_own_clock_takes_no_leap() {
        let start = Timestamp::from_millis(1_000);
        let mut clock = Clock::starting_at(start);
        let first = clock.now();
        clock.advance(start.after(MAX_STEP));
        assert_eq!(clock.now().since(first), MAX_STEP);
        let hours = Duration::from_secs(10_000);
        clock.advance(start.after(hours));
        assert_eq!(clock.now().since(first), 2 * MAX_STEP);
        assert_eq!(clock.wall(), start.after(hours));
    }

    #[test]
    fn moments_end_where_the_clock_does() {
        let second = Duration::from_secs(1);
        assert_eq!(Instant::MAX.after(second), Instant::MAX);
        assert_eq!(Instant::default().before(second), Instant::default());
        assert_eq!(Instant::default().after(Duration::MAX), Instant::MAX);
        let later = Instant::default().after(second);
        assert_eq!(later.since(Instant::default()), second);
        assert_eq!(Instant::default().since(later), Duration::ZERO);
    }
}
