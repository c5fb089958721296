//! The state of one endpoint in outlier detection: the part that workers share, and one worker's own.

use std::num::NonZeroU64;
use std::time::Duration;

use super::probe::PROBE_TIMEOUT;
use super::Reason;
use crate::time::{whole_millis, Timestamp};

/// After this long without a new failure, the next failure is treated as the first.
pub(super) const FORGET_AFTER: Duration = Duration::from_secs(60);

/// Outlier detection's settings, where it is switched on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutlierSettings {
    /// Duration of an endpoint's first ejection.
    pub first: Duration,
    /// Maximum duration of an ejection.
    pub max: Duration,
}

/// The part of an endpoint's state that all workers share. Its times are whole milliseconds, as they are stored:
/// a record that was read is equal to the one that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EjectionRecord {
    /// Identifies the endpoint, since slots are reused.
    pub endpoint: u64,
    /// Consecutive ejections so far.
    pub level: u32,
    /// The ejection in force, if the endpoint is ejected.
    pub ejection: Option<Ejection>,
    /// When this record was written: of two records, the later one wins. `None` before the first ejection.
    pub changed: Option<Timestamp>,
}

/// An ejection in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ejection {
    /// Why the endpoint is ejected.
    pub reason: Reason,
    /// Whether the endpoint is surely at fault (see [`super::Failure::certain`]).
    pub certain: bool,
    /// When the ejection ends: then a probe is due.
    pub until: Timestamp,
    /// The worker that probes the endpoint, if one does.
    pub prober: Option<NonZeroU64>,
}

impl EjectionRecord {
    /// Returns the record of an endpoint that was never ejected.
    pub fn new(endpoint: u64) -> Self {
        Self {
            endpoint,
            level: 0,
            ejection: None,
            changed: None,
        }
    }

    /// Marks the record as changed. The time always grows, whatever the clock does, so that other workers accept
    /// the record.
    pub(super) fn touch(&mut self, now: Timestamp) {
        let later = |changed: Timestamp| changed.after(Duration::from_millis(1));
        let next = self.changed.map_or(Timestamp::default(), later);
        self.changed = Some(now.floor_millis().max(next));
    }

    /// Returns whether the record was changed within this time of `now`.
    pub(super) fn is_recent(&self, now: Timestamp, within: Duration) -> bool {
        self.changed
            .is_some_and(|changed| now.is_near(changed, within))
    }
}

/// This worker's part in probing an ejected endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Probe {
    /// Another worker probes the endpoint, or none does.
    #[default]
    None,
    /// The next request to the endpoint is the probe.
    Allowed,
    /// A request was sent as the probe.
    Sent {
        /// The request's number.
        request: u32,
        /// When it was sent.
        at: Timestamp,
        /// Whether the response has taken so long that the next request probes, too.
        overdue: bool,
    },
}

impl Probe {
    /// Returns whether the next request to the endpoint is a probe.
    pub fn is_allowed(self) -> bool {
        matches!(self, Self::Allowed | Self::Sent { overdue: true, .. })
    }

    /// Returns whether a probe was sent so long ago that its endpoint should have responded.
    pub fn is_overdue(self, now: Timestamp) -> bool {
        matches!(self, Self::Sent { at, .. } if now.abs_diff(at) >= PROBE_TIMEOUT)
    }

    /// Returns whether this request is the probe.
    pub fn is_request(self, number: u32) -> bool {
        matches!(self, Self::Sent { request, .. } if request == number)
    }
}

/// Moving averages of an endpoint's failures.
#[derive(Debug, Clone, Copy, Default)]
struct FailureShares {
    all: f64,
    /// Only failures that are surely the endpoint's fault.
    certain: f64,
    /// When the averages last changed.
    at: Timestamp,
    /// When the first of the latest failures in a row came.
    since: Option<Timestamp>,
}

/// One worker's state of one endpoint.
#[derive(Debug)]
pub(super) struct EndpointState {
    pub record: EjectionRecord,
    /// `None` while no failure is remembered.
    failures: Option<FailureShares>,
    /// When the endpoint last served a request with a body; `None`: never.
    pub served_at: Option<Timestamp>,
    /// How many requests all endpoints together had served by then, as far as this worker saw.
    pub served_by_all: u64,
    pub probe: Probe,
    /// Whether the engine stands still, as far as the endpoint's pages show.
    pub stalled: bool,
    /// Whether it may be picked, as [`super::OutlierDetector::flag_ejected`] has decided last.
    pub in_use: bool,
    /// When this worker last gave up a claim because it had no request to probe with; `None`: never.
    pub probe_backoff_since: Option<Timestamp>,
}

impl EndpointState {
    /// Weight of the newest outcome in the moving averages.
    const NEWEST_WEIGHT: f64 = 0.2;

    /// Returns the state of an endpoint that has just been added, when all together had served this many requests.
    pub fn new(endpoint: u64, served_by_all: u64) -> Self {
        Self {
            record: EjectionRecord::new(endpoint),
            failures: None,
            served_at: None,
            served_by_all,
            probe: Probe::None,
            stalled: false,
            in_use: true,
            probe_backoff_since: None,
        }
    }

    pub fn is_ejected(&self) -> bool {
        self.record.ejection.is_some()
    }

    /// Adds an outcome to the moving averages. Averages that are too old start again from zero.
    pub fn add_outcome(&mut self, failed: bool, certain: bool, now: Timestamp) {
        let recent = self.failures.filter(|it| now.is_near(it.at, FORGET_AFTER));
        if recent.is_none() && !failed {
            self.failures = None;
            return;
        }
        let shares = self.failures.insert(recent.unwrap_or_default());
        shares.at = now;
        shares.since = failed.then(|| shares.since.unwrap_or(now));
        let share = |failed| f64::from(u8::from(failed));
        shares.all += (share(failed) - shares.all) * Self::NEWEST_WEIGHT;
        shares.certain += (share(certain) - shares.certain) * Self::NEWEST_WEIGHT;
    }

    /// Returns when the first of the latest failures in a row came; `None` if the latest outcome is not a failure.
    pub fn failing_since(&self) -> Option<Timestamp> {
        self.failures?.since
    }

    /// Returns when the latest outcome came, if it is a failure.
    pub fn failed_at(&self) -> Option<Timestamp> {
        let failing = self.failures.filter(|it| it.since.is_some());
        Some(failing?.at)
    }

    pub fn reset_failures(&mut self) {
        self.failures = None;
    }

    /// Returns the moving average of all failures, or of those that are surely the endpoint's fault.
    pub fn failure_share(&self, certain: bool, now: Timestamp) -> f64 {
        match self.failures {
            Some(shares) if now.is_near(shares.at, FORGET_AFTER) => {
                if certain {
                    shares.certain
                } else {
                    shares.all
                }
            }
            _ => 0.0,
        }
    }
}

/// Returns a duration that differs from this one by up to a fifth, in whole milliseconds. Endpoints that were
/// ejected at once are not all probed at once.
pub(super) fn jittered(duration: Duration, rng: &mut fastrand::Rng) -> Duration {
    let millis = whole_millis(duration);
    let shortest = millis - millis / 5;
    let length = shortest.saturating_add(rng.u64(0..=millis.saturating_mul(2) / 5));
    Duration::from_millis(length.max(1))
}
