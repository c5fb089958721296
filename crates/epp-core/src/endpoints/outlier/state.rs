//! The state of one endpoint in outlier detection: the part that workers share, and one worker's own.

use serde::{Deserialize, Serialize};

use super::Reason;

/// After this long without a new failure, the next failure is treated as the first.
pub(super) const FORGET_MS: u64 = 60_000;

/// Outlier detection's settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutlierSettings {
    /// Duration of an endpoint's first ejection, in milliseconds; 0 switches outlier detection off.
    pub first_ms: u64,
    /// Maximum duration of an ejection, in milliseconds.
    pub max_ms: u64,
}

/// The part of an endpoint's state that all workers share. Times are in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ejection {
    /// Identifies the endpoint, since slots are reused; 0: the slot is empty.
    pub endpoint: u64,
    /// Why the endpoint is, or was last, ejected.
    pub reason: Reason,
    /// Whether the endpoint is surely at fault (see [`super::Failure::certain`]).
    pub certain: bool,
    /// Consecutive ejections.
    pub level: u32,
    /// When the ejection ends; 0: the endpoint is not ejected.
    pub until: u64,
    /// The worker that probes the endpoint; 0: none does.
    pub prober: u64,
    /// When this record was written: of two records, the later one wins.
    pub changed: u64,
}

/// One worker's state of one endpoint.
#[derive(Debug, Default)]
pub(super) struct EndpointState {
    pub ejection: Ejection,
    /// Moving average of all failures.
    failures: f64,
    /// Moving average of the failures that are surely the endpoint's fault.
    certain_failures: f64,
    /// When the averages last changed.
    averaged_at: u64,
    /// When the endpoint last served a request with a body; `None`: never.
    pub served_at: Option<u64>,
    /// How many requests all endpoints together had served by then, as far as this worker saw.
    pub served_by_all: u64,
    /// Whether this worker may send the endpoint a probe now.
    pub probe_allowed: bool,
    /// The request that probes the endpoint.
    pub probe: Option<u32>,
    /// When the last probe was sent.
    pub probed_at: u64,
    /// When this worker last gave up a claim because it had no request to probe with; `None`: never.
    pub probe_backoff_since: Option<u64>,
}

impl EndpointState {
    /// Weight of the newest outcome in the moving averages.
    const NEWEST_WEIGHT: f64 = 0.2;

    pub fn is_ejected(&self) -> bool {
        self.ejection.until > 0
    }

    pub fn is_occupied(&self) -> bool {
        self.ejection.endpoint != 0
    }

    /// Adds an outcome to the moving averages. Averages that are too old start again from zero.
    pub fn add_outcome(&mut self, failed: bool, certain: bool, now: u64) {
        if now.abs_diff(self.averaged_at) > FORGET_MS {
            self.reset_failures();
        }
        self.averaged_at = now;
        let share = |failed| f64::from(u8::from(failed));
        self.failures += (share(failed) - self.failures) * Self::NEWEST_WEIGHT;
        self.certain_failures += (share(certain) - self.certain_failures) * Self::NEWEST_WEIGHT;
    }

    pub fn reset_failures(&mut self) {
        (self.failures, self.certain_failures) = (0.0, 0.0);
    }

    /// Returns the moving average of all failures, or of those that are surely the endpoint's fault.
    pub fn failure_share(&self, certain: bool, now: u64) -> f64 {
        match now.abs_diff(self.averaged_at) {
            FORGET_MS.. => 0.0,
            _ if certain => self.certain_failures,
            _ => self.failures,
        }
    }

    /// Marks the shared record as changed. The time always grows, whatever the clock does, so that
    /// other workers accept the record.
    pub fn touch(&mut self, now: u64) {
        self.ejection.changed = now.max(self.ejection.changed + 1);
    }
}
