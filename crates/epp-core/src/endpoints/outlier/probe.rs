//! Probes of ejected endpoints: one worker probes with one request, which ends or prolongs the ejection.
//!
//! Chance decides which request becomes the probe, so the probe may come from a client that prefers the
//! endpoint to stay ejected. A request that fails through its own fault, that its client cancels, or that
//! takes long therefore leaves the probe to the next request.

use std::time::Duration;

use super::state::Probe;
use super::{Ejection, EjectionRecord, OutlierDetector, Reason};
use crate::scheduling::{Freshness, Pool, Slot};
use crate::time::Timestamp;

/// A worker that has claimed a probe and publishes nothing for this long loses the claim. A probe that has no
/// response after this long does not keep other requests from probing: its client may never end its upload.
pub(super) const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// A worker that had no request to probe with leaves the endpoint to other workers for this long.
const PROBE_BACKOFF: Duration = Duration::from_millis(200);

/// A worker renews its claims when they are this old, or gives them up.
const RENEW_AFTER: Duration = Duration::from_secs(1);

impl OutlierDetector {
    /// Records that a request was sent to an endpoint. Returns whether the request became the probe.
    pub fn start_probe(&mut self, slot: Slot, request: u32, now: Timestamp) -> bool {
        if !self.has_claims {
            return false;
        }
        let state = self.state_mut(slot);
        let Some(state) = state.filter(|state| state.probe.is_allowed()) else {
            return false;
        };
        state.probe = Probe::Sent {
            request,
            at: now,
            overdue: false,
        };
        self.flags_stale = true;
        true
    }

    /// Records that a request ended without a response. If it was the probe, the probe proved nothing. If
    /// the client gave up soon, perhaps on purpose, the next request becomes the probe.
    pub fn abandon_probe(&mut self, slot: Slot, request: u32, now: Timestamp) {
        if !self.has_claims {
            return;
        }
        let Some(settings) = self.settings else {
            return;
        };
        let Some(state) = self.state_mut(slot) else {
            return;
        };
        let Probe::Sent { at, .. } = state.probe else {
            return;
        };
        if !state.probe.is_request(request) {
            return;
        }
        if now.abs_diff(at) < PROBE_TIMEOUT {
            state.probe = Probe::Allowed;
        } else {
            state.probe = Probe::None;
            if let Some(ejection) = &mut state.record.ejection {
                ejection.prober = None;
                ejection.until = now.floor_millis().after(settings.first);
            }
            state.record.touch(now);
            self.unpublished = true;
        }
        self.flags_stale = true;
    }

    /// A probe proved nothing: the next request probes.
    pub(super) fn probe_again(&mut self, slot: Slot) {
        if let Some(state) = self.state_mut(slot) {
            state.probe = Probe::Allowed;
            self.flags_stale = true;
        }
    }

    /// Returns the endpoints that are due for a probe that no worker has claimed. An endpoint that refused or
    /// hung is not due before its metrics page comes again, or shows work if it came all the time, unless that takes
    /// longer than the longest ejection.
    pub fn due_probes(&self, pool: &Pool, now: Timestamp) -> Vec<Slot> {
        let Some(settings) = self.settings else {
            return Vec::new();
        };
        let due = self.states().filter_map(|(slot, state)| {
            let ejection = state.record.ejection?;
            let endpoint = pool.get(slot)?;
            // A clock that was set back must not prolong an ejection beyond the longest.
            let longest = settings.max.saturating_mul(2);
            let waits = ejection.until > now && ejection.until.is_near(now, longest);
            let claimed = ejection.prober.is_some() && state.record.is_recent(now, PROBE_TIMEOUT);
            let silent = (state.stalled && ejection.reason == Reason::Hung
                || matches!(ejection.reason, Reason::Unserved | Reason::Hung)
                    && endpoint.freshness == Freshness::Stale)
                && now.since(ejection.until) < settings.max;
            let backs_off = state
                .probe_backoff_since
                .is_some_and(|since| now.abs_diff(since) < PROBE_BACKOFF);
            let is_due = !waits && !claimed && !silent && !backs_off;
            is_due.then_some(slot)
        });
        due.collect()
    }

    /// Returns the record with which this worker claims the probe of an endpoint. The claim holds once the
    /// record is published, see [`Self::accept_claim`].
    pub fn claim(&self, slot: Slot, now: Timestamp) -> Option<EjectionRecord> {
        let mut record = self.state(slot)?.record;
        record.ejection = Some(Ejection {
            prober: Some(self.worker),
            ..record.ejection?
        });
        record.touch(now);
        Some(record)
    }

    /// Records that this worker's claim was published: its next request to the endpoint is the probe.
    pub fn accept_claim(&mut self, slot: Slot, claim: EjectionRecord) {
        if let Some(state) = self.state_mut(slot) {
            state.record = claim;
            state.probe = Probe::Allowed;
            self.has_claims = true;
            self.flags_stale = true;
        }
    }

    /// One tick of a picker that shares with no other: it sends due probes itself.
    pub fn tick_alone(&mut self, pool: &mut Pool, now: Timestamp) {
        if self.is_enabled() {
            self.renew_claims(now);
            for slot in self.due_probes(pool, now) {
                if let Some(claim) = self.claim(slot, now) {
                    self.accept_claim(slot, claim);
                }
            }
            self.unpublished = false;
        }
        self.flag_ejected(pool, now);
    }

    /// Renews this worker's claims, or gives up those for which no request has come.
    pub fn renew_claims(&mut self, now: Timestamp) {
        if !self.has_claims {
            return;
        }
        self.has_claims = false;
        for state in self.endpoints.iter_mut().flatten() {
            let Some(ejection) = &mut state.record.ejection else {
                continue;
            };
            if ejection.prober != Some(self.worker) || state.probe == Probe::None {
                continue;
            }
            self.has_claims = true;
            if state
                .record
                .changed
                .is_some_and(|changed| now.is_near(changed, RENEW_AFTER))
            {
                continue;
            }
            let allowed = state.probe.is_allowed();
            if allowed {
                // This worker sends too few requests: another one may have more.
                ejection.prober = None;
                state.probe_backoff_since = Some(now);
            }
            state.probe = match state.probe {
                Probe::Sent { request, at, .. } => Probe::Sent {
                    request,
                    at,
                    overdue: !allowed && now.abs_diff(at) >= PROBE_TIMEOUT,
                },
                Probe::None | Probe::Allowed => Probe::None,
            };
            state.record.touch(now);
            self.unpublished = true;
            self.flags_stale = true;
        }
    }
}
