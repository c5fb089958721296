//! How an ejected endpoint comes back: one worker probes it with one request.
//!
//! Chance decides which request becomes the probe, so the probe may come from a client that wants the
//! endpoint to stay ejected. A request that fails through its own fault, that its client cancels, or that
//! takes long therefore leaves the probe to the next request.

use super::{Ejection, OutlierDetector, Reason};
use crate::scheduling::{Freshness, Pool, Slot};

/// A worker that has claimed a probe and publishes nothing for this long loses the claim. A probe that has no
/// response after this long does not keep other requests from probing: its client may never end its upload.
pub(super) const PROBE_TIMEOUT_MS: u64 = 3_000;

/// A worker that had no request to probe with leaves the endpoint to other workers for this long.
const PROBE_BACKOFF_MS: u64 = 200;

impl OutlierDetector {
    /// Records that a request was sent to an endpoint. Returns whether the request became the probe.
    pub fn start_probe(&mut self, slot: Slot, request: u32, now: u64) -> bool {
        if !self.has_claims {
            return false;
        }
        let state = self.endpoints.get_mut(slot.index());
        let Some(state) = state.filter(|state| state.probe_allowed) else {
            return false;
        };
        state.probe_allowed = false;
        state.probe = Some(request);
        state.probed_at = now;
        self.flags_stale = true;
        true
    }

    /// Records that a request ended without a response. If it was the probe, the probe proved nothing. If
    /// the client gave up soon, perhaps on purpose, the next request becomes the probe.
    pub fn abandon_probe(&mut self, slot: Slot, request: u32, now: u64) {
        if !self.has_claims {
            return;
        }
        let state = self.endpoints.get_mut(slot.index());
        if let Some(state) = state.filter(|state| state.probe == Some(request)) {
            state.probe = None;
            self.flags_stale = true;
            if now.abs_diff(state.probed_at) < PROBE_TIMEOUT_MS {
                state.probe_allowed = true;
                return;
            }
            state.ejection.prober = 0;
            state.ejection.until = now + self.settings.first_ms;
            state.touch(now);
            self.unpublished = true;
        }
    }

    /// Returns the endpoints that are due for a probe that no worker has claimed. An endpoint that refused or
    /// hung is not due before its metrics page comes again, unless that takes longer than the longest ejection.
    pub fn due_probes(&self, pool: &Pool, now: u64) -> Vec<Slot> {
        let states = self.endpoints.iter().enumerate();
        let due = states.filter(|(index, state)| {
            let ejection = &state.ejection;
            // A clock that was set back must not prolong an ejection beyond the longest.
            let waits = ejection.until > now && ejection.until - now <= 2 * self.settings.max_ms;
            if !state.is_ejected() || waits {
                return false;
            }
            let claimed =
                ejection.prober != 0 && now.abs_diff(ejection.changed) <= PROBE_TIMEOUT_MS;
            let endpoint = pool.get(Slot(*index as u32));
            let silent = matches!(ejection.reason, Reason::Unserved | Reason::Hung)
                && endpoint.is_some_and(|endpoint| endpoint.freshness == Freshness::Stale)
                && now.saturating_sub(ejection.until) < self.settings.max_ms;
            let backs_off = state
                .probe_backoff_since
                .is_some_and(|since| now.abs_diff(since) < PROBE_BACKOFF_MS);
            endpoint.is_some() && !claimed && !silent && !backs_off
        });
        due.map(|(index, _)| Slot(index as u32)).collect()
    }

    /// Returns the record with which this worker claims the probe of an endpoint. The claim holds once the
    /// record is published, see [`Self::accept_claim`].
    pub fn claim(&self, slot: Slot, now: u64) -> Option<Ejection> {
        let ejection = self.endpoints.get(slot.index())?.ejection;
        Some(Ejection {
            prober: self.worker,
            changed: now.max(ejection.changed + 1),
            ..ejection
        })
    }

    /// Records that this worker's claim was published: its next request to the endpoint is the probe.
    pub fn accept_claim(&mut self, slot: Slot, claim: Ejection) {
        if let Some(state) = self.endpoints.get_mut(slot.index()) {
            state.ejection = claim;
            state.probe_allowed = true;
            state.probe = None;
            self.has_claims = true;
            self.flags_stale = true;
        }
    }

    /// One tick of a picker that shares with no other: it probes what is due itself.
    pub fn tick_alone(&mut self, pool: &mut Pool, now: u64) {
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
    pub fn renew_claims(&mut self, now: u64) {
        if !self.has_claims {
            return;
        }
        self.has_claims = false;
        for state in &mut self.endpoints {
            let is_own = state.ejection.prober == self.worker
                && (state.probe_allowed || state.probe.is_some());
            self.has_claims |= is_own;
            if is_own && now.abs_diff(state.ejection.changed) > PROBE_TIMEOUT_MS / 3 {
                if state.probe_allowed {
                    // This worker sends too few requests: another one may have more.
                    state.probe_allowed = false;
                    state.ejection.prober = 0;
                    state.probe_backoff_since = Some(now);
                } else if now.abs_diff(state.probed_at) >= PROBE_TIMEOUT_MS {
                    state.probe_allowed = true;
                }
                state.touch(now);
                self.unpublished = true;
                self.flags_stale = true;
            }
        }
    }
}
