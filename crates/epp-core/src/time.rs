//! Time, which a host tells with each event.

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
}
