//! Held requests: how the body of one is shown meanwhile, and for how long it is waited for.

use std::time::Duration;

use super::BodyDemand;
use crate::time::Instant;

/// The treatment of a part of a body that was not read because only the model is missing, which can be
/// read from the body's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// It may be left.
    Allowed,
    /// It was left, until the body ends or stops coming.
    Left,
    /// The body stopped coming, or its end did not contain the model: everything is read.
    Never,
}

/// A part that was left unread is read once nothing has come for this long: a tick and a half, since what
/// comes between two ticks may carry the time of the first.
const SHOW_UNREAD_AFTER: Duration = Duration::from_millis(75);

/// A request that the host holds.
#[derive(Debug, Clone, Copy)]
pub struct Hold {
    /// How its body is to be shown.
    pub demand: BodyDemand,
    /// When its headers came.
    since: Instant,
    /// When its last bytes came, read or not.
    last_arrival: Instant,
    /// Bytes of its body that have come, read or not.
    pub arrived: usize,
    /// Bytes of its body beyond which it is decided with what is known.
    pub max_bytes: usize,
    /// The treatment of bytes that need not be read yet.
    pub unread: Unread,
    /// Whether the body was read to its end.
    pub ended: bool,
    /// Whether the model was replaced in the body already.
    pub rewritten: bool,
}

/// Bytes per second that a body brings at least, from its headers on. Slower than any network that
/// carries HTTP (GPRS: 2 to 5 KB), far faster than a client that sends a byte now and then to be
/// waited for.
const MIN_BYTES_PER_SECOND: u64 = 1 << 10;

/// Upper bound on the time for which a body that trickles is held, in `bodyTimeout`s.
const MAX_HOLD_TIMEOUTS: u32 = 6;

impl Hold {
    /// Returns how a body is held from now on, and up to how many bytes.
    ///
    /// One whose declared length fits `limit`, as much as the host buffers, is held as a whole, to its end where
    /// need be. A longer one, or one without a declared length, is shown in passing and decided well below the
    /// limit: where the host stops reading nothing more would come.
    pub fn new(length: Option<usize>, limit: usize, now: Instant) -> Self {
        let fits = length.is_some_and(|length| length <= limit);
        let (demand, max_bytes) = if fits {
            (BodyDemand::Replayable, usize::MAX)
        } else {
            (BodyDemand::Streaming, limit / 4 * 3)
        };
        Self {
            demand,
            since: now,
            last_arrival: now,
            arrived: 0,
            max_bytes,
            unread: Unread::Allowed,
            ended: false,
            rewritten: false,
        }
    }

    /// Returns how the body of a request is read that the host does not keep back: as it passes, unchanged.
    pub fn in_passing(self) -> Self {
        Self {
            demand: BodyDemand::Streaming,
            rewritten: true,
            ..self
        }
    }

    /// Returns the time from which `timeout` counts: after it, the request is due; of all held requests, the one
    /// with the earliest base is released first. It is as long after the beginning as the body's bytes take at
    /// [`MIN_BYTES_PER_SECOND`], but no later than the arrival of the last of them, and bounded. It only grows,
    /// and never lies in the future: the newest request is never the first to be released.
    pub fn deadline_base(&self, timeout: Duration) -> Instant {
        let nanos = (self.arrived as u64).saturating_mul(1_000_000_000 / MIN_BYTES_PER_SECOND);
        let credit = Duration::from_nanos(nanos);
        let limit = timeout.saturating_mul(MAX_HOLD_TIMEOUTS - 1);
        let reached = self.since.after(credit.min(limit));
        reached.min(self.last_arrival)
    }

    /// Returns since when it is held.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Returns when the part that was left unread is to be read; none where no part is left.
    pub fn unread_due(&self) -> Option<Instant> {
        let left = self.unread == Unread::Left;
        left.then(|| self.last_arrival.after(SHOW_UNREAD_AFTER))
    }

    /// This many bytes of its body have come by `now`.
    pub fn record_arrival(&mut self, arrived: usize, now: Instant) {
        if arrived > self.arrived {
            self.arrived = arrived;
            self.last_arrival = self.last_arrival.max(now);
        }
    }
}
