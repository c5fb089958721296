//! Outlier detection: ejects endpoints for a while because requests sent there fail.
//!
//! Each endpoint has a moving average of its failures, in which the newest outcome weighs a fifth. An
//! endpoint whose average is far above its peers' is ejected: after four consecutive failures if its
//! peers have none, and never if its peers fail alike, because then the endpoint is not at fault. An
//! endpoint that shows no sign of life is ejected too. Each ejection lasts twice as long as the one
//! before, plus or minus a fifth; then one worker probes the endpoint with one request, which ends or
//! prolongs the ejection (`probe.rs`). Old failures are forgotten. At least half of the available
//! endpoints always stay.
//!
//! Most failures can be caused by the request itself, and the client that sends it chooses how many there
//! are and, by how its prompts begin, where they go. Such failures therefore need more evidence. They count
//! once per prompt (`failing_prompts.rs`). The endpoint must also have stopped serving what its peers serve:
//! a client can add failures but cannot take away other clients' successes. Each worker checks this against
//! its own requests, and does not accept another worker's ejection that contradicts them. If more than half
//! of the endpoints would be ejected for such failures, all stay, because then the requests are at fault.

mod failing_prompts;
mod failure;
mod probe;
mod state;

use self::failing_prompts::FailingPrompts;
pub use self::failure::{Failure, Outcome, Reason};
pub use self::state::{Ejection, OutlierSettings};
use self::state::{EndpointState, FORGET_MS};
use crate::scheduling::{Freshness, Pool, Slot};

/// A failure share is far above the peers' if it exceeds three times theirs by this much.
const OUTLIER_MARGIN: f64 = 0.55;

/// A failure share below this counts as zero.
const MIN_SHARE: f64 = 0.01;

/// An endpoint whose metrics page still comes is alive, and overloaded rather than broken: its ejection
/// is limited to this.
const MAX_ALIVE_MS: u64 = 5_000;

/// For this long after a failure every response is examined, whichever endpoint sent it: what the peers
/// serve shows whether the endpoint or the request is at fault.
const ALERT_MS: u64 = 2_000;

/// An endpoint has stopped serving if the pool has served this many requests per endpoint since the
/// endpoint last served one. With evenly spread requests, a working endpoint is passed over for that long by
/// chance after one in 300 of its responses in a pool of four, and after one in 150 in a pool of a hundred;
/// the resulting ejection lasts `avoidFirst`. A smaller number would eject a broken pod sooner, which
/// fails about six requests now.
const SERVED_MEANWHILE: u64 = 5;

/// An endpoint has also stopped serving if it has served nothing for this long, whatever its peers serve.
const SILENT_MS: u64 = 1_000;

/// One worker's outlier detection.
#[derive(Debug)]
pub struct OutlierDetector {
    settings: OutlierSettings,
    /// This worker's random identity, never 0.
    worker: u64,
    rng: fastrand::Rng,
    /// The endpoints by slot.
    endpoints: Vec<EndpointState>,
    /// Occupied slots.
    members: u64,
    /// Requests with a body that this worker has seen served.
    served: u64,
    /// When a request last failed; `None`: never.
    failed_at: Option<u64>,
    prompts: FailingPrompts,
    /// Whether all endpoints stay because more than half would be ejected for what requests can cause.
    majority: bool,
    /// Times that `majority` became true, to be counted.
    majorities: u64,
    /// Whether this worker may have claimed the probe of any endpoint.
    has_claims: bool,
    /// Whether the pool's `ejected` flags may be out of date.
    flags_stale: bool,
    /// Whether an ejection has changed that other workers have not received.
    pub unpublished: bool,
    /// Ejections that this worker has decided, to be counted.
    pub new_ejections: Vec<(Slot, Reason)>,
}

/// How often requests, and not endpoints, were found to be at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RequestFaults {
    /// Prompts that failed at two endpoints and were served by none.
    pub prompts: u64,
    /// Times that more than half of the endpoints would have been ejected.
    pub majorities: u64,
}

impl OutlierDetector {
    /// Creates a detector without endpoints.
    pub fn new(settings: OutlierSettings, mut rng: fastrand::Rng) -> Self {
        Self {
            settings,
            worker: rng.u64(1..),
            prompts: FailingPrompts::new(rng.u64(..)),
            rng,
            endpoints: Vec::new(),
            members: 0,
            served: 0,
            failed_at: None,
            majority: false,
            majorities: 0,
            has_claims: false,
            flags_stale: false,
            unpublished: false,
            new_ejections: Vec::new(),
        }
    }

    /// Changes the settings. Switching outlier detection off ends all ejections.
    pub fn configure(&mut self, settings: OutlierSettings) {
        self.settings = settings;
        if !self.is_enabled() {
            for state in &mut self.endpoints {
                let endpoint = state.ejection.endpoint;
                *state = EndpointState::default();
                state.ejection.endpoint = endpoint;
            }
            self.has_claims = false;
            self.flags_stale = true;
        }
    }

    /// Returns whether any endpoint may ever be ejected.
    pub fn is_enabled(&self) -> bool {
        self.settings.first_ms > 0
    }

    /// Adds an endpoint in a slot. `endpoint` distinguishes it from others in the same slot.
    pub fn add_endpoint(&mut self, slot: Slot, endpoint: u64) {
        if self.endpoints.len() <= slot.index() {
            self.endpoints
                .resize_with(slot.index() + 1, EndpointState::default);
        }
        self.remove_endpoint(slot);
        if let Some(state) = self.endpoints.get_mut(slot.index()) {
            state.ejection.endpoint = endpoint;
            state.served_by_all = self.served;
            self.members += 1;
        }
    }

    /// Removes the endpoint in a slot.
    pub fn remove_endpoint(&mut self, slot: Slot) {
        if let Some(state) = self.endpoints.get_mut(slot.index()) {
            self.members -= u64::from(state.is_occupied()).min(self.members);
            *state = EndpointState::default();
            self.prompts.remove_endpoint(slot);
        }
    }

    /// Returns whether each response of this endpoint must be examined, and not just a sample of them.
    pub fn is_suspect(&self, slot: Slot, now: u64) -> bool {
        if self
            .failed_at
            .is_some_and(|at| now.abs_diff(at) <= ALERT_MS)
        {
            return true;
        }
        let state = self.endpoints.get(slot.index());
        state.is_some_and(|state| {
            state.failure_share(false, now) > MIN_SHARE || state.probe.is_some()
        })
    }

    /// Returns why an endpoint is ejected, or `None` if it is not.
    pub fn reason(&self, slot: Slot) -> Option<Reason> {
        let state = self.endpoints.get(slot.index())?;
        state.is_ejected().then_some(state.ejection.reason)
    }

    /// Records how a request ended at an endpoint. `freshness` is that of the endpoint's metrics page.
    pub fn record_outcome(
        &mut self,
        slot: Slot,
        outcome: &Outcome,
        freshness: Freshness,
        now: u64,
    ) {
        if !self.is_enabled() || self.endpoints.len() <= slot.index() {
            return;
        }
        let counts = self.counts(slot, outcome, now);
        let Some(state) = self.endpoints.get_mut(slot.index()) else {
            return;
        };
        let probed = state.probe == Some(outcome.request);
        if probed {
            state.probe = None;
        }
        if counts {
            let certain = outcome.failure.is_some_and(|failure| failure.certain);
            state.add_outcome(outcome.failure.is_some(), certain, now);
        }
        match outcome.failure {
            None => self.record_served(slot, outcome.bodied, probed, now),
            Some(failure) => {
                self.failed_at = Some(now);
                if counts {
                    self.record_failure(slot, failure, freshness, probed, now);
                } else if probed {
                    // The prompt is at fault, so the probe proved nothing: the next request probes.
                    state.probe_allowed = true;
                    self.flags_stale = true;
                }
            }
        }
    }

    /// Records the outcome's prompt. Returns whether the outcome counts for or against the endpoint.
    fn counts(&mut self, slot: Slot, outcome: &Outcome, now: u64) -> bool {
        match (outcome.failure, outcome.prompt) {
            (Some(failure), Some(prompt)) if !failure.certain => {
                self.prompts.record_failure(prompt, slot, now)
            }
            (None, Some(prompt)) => {
                self.prompts.record_served(prompt, slot);
                true
            }
            _ => true,
        }
    }

    fn record_served(&mut self, slot: Slot, bodied: bool, probed: bool, now: u64) {
        let credible = self.is_credible(slot, now);
        let Some(state) = self.endpoints.get_mut(slot.index()) else {
            return;
        };
        if bodied {
            self.served += 1;
            state.served_at = Some(now);
            state.served_by_all = self.served;
        }
        // A hung endpoint that responds no longer hangs, and an endpoint that goes on serving this
        // worker's requests does not fail.
        let was_hung = state.is_ejected() && state.ejection.reason == Reason::Hung;
        let serves = state.is_ejected() && bodied && !credible;
        if probed || was_hung || serves {
            self.recover(slot, now);
        }
    }

    fn record_failure(
        &mut self,
        slot: Slot,
        failure: Failure,
        freshness: Freshness,
        probed: bool,
        now: u64,
    ) {
        let Some(state) = self.endpoints.get(slot.index()) else {
            return;
        };
        let ejected = state.is_ejected();
        let own = state.failure_share(failure.certain, now);
        let is_outlier = |own: f64| {
            own > OUTLIER_MARGIN + 3.0 * self.failure_share_of_peers(slot, failure.certain, now)
        };
        if probed && !failure.certain && !is_outlier(1.0) {
            // The peers fail as well now: the endpoint is not at fault.
            self.recover(slot, now);
        } else if probed
            || (!ejected && is_outlier(own) && self.has_evidence(slot, failure.certain, now))
        {
            self.eject(slot, failure, freshness, probed, now);
        }
    }

    /// Ejects an endpoint that shows no sign of life.
    pub fn mark_hung(&mut self, slot: Slot, now: u64) {
        let state = self.endpoints.get(slot.index());
        if self.is_enabled() && state.is_some_and(|state| !state.is_ejected()) {
            let failure = Failure {
                reason: Reason::Hung,
                certain: true,
            };
            self.eject(slot, failure, Freshness::Stale, false, now);
        }
    }

    /// Returns the median failure share of an endpoint's peers. Ejected peers count with their last share,
    /// because prompts that fail everywhere make one endpoint after the other fail.
    fn failure_share_of_peers(&self, slot: Slot, certain: bool, now: u64) -> f64 {
        let others = self.endpoints.iter().enumerate();
        let others = others
            .filter(|(index, state)| *index != slot.index() && state.is_occupied())
            .map(|(_, state)| state.failure_share(certain, now));
        let mut peers: Vec<f64> = others.collect();
        let middle = peers.len().saturating_sub(1) / 2;
        peers.sort_by(f64::total_cmp);
        peers.get(middle).copied().unwrap_or(0.0)
    }

    /// Returns whether this worker's own requests allow the conclusion that the endpoint is at fault: the
    /// failures are certain, or the endpoint has stopped serving.
    fn has_evidence(&self, slot: Slot, certain: bool, now: u64) -> bool {
        let Some(state) = self.endpoints.get(slot.index()).filter(|_| !certain) else {
            return true;
        };
        let meanwhile = self.served.saturating_sub(state.served_by_all);
        meanwhile >= SERVED_MEANWHILE * self.members
            || state
                .served_at
                .is_none_or(|at| now.abs_diff(at) >= SILENT_MS)
    }

    /// Returns whether this worker's own requests do not contradict an ejection, its own or another
    /// worker's. An ejection caused by a few clients must not decide for all.
    fn is_credible(&self, slot: Slot, now: u64) -> bool {
        let state = self.endpoints.get(slot.index());
        state.is_none_or(|state| self.has_evidence(slot, state.ejection.certain, now))
    }

    fn eject(
        &mut self,
        slot: Slot,
        failure: Failure,
        freshness: Freshness,
        probed: bool,
        now: u64,
    ) {
        let OutlierSettings { first_ms, max_ms } = self.settings;
        let Some(state) = self.endpoints.get_mut(slot.index()) else {
            return;
        };
        let ejection = &mut state.ejection;
        let forgotten = ejection.until == 0 && now.abs_diff(ejection.changed) > FORGET_MS;
        // A failure that requests can cause repeats the last ejection only if the endpoint served nothing
        // in between, which a failed probe shows.
        let is_first = forgotten || !failure.certain && !probed;
        let before = if is_first { 0 } else { ejection.level };
        ejection.level = before.saturating_add(1);
        ejection.reason = failure.reason;
        ejection.certain = failure.certain;
        ejection.prober = 0;
        // A failure that requests can cause ejects for longer only if metrics pages have stopped coming.
        let alive = match failure.certain {
            true => freshness == Freshness::Fresh,
            false => freshness != Freshness::Stale || failure.reason == Reason::Overloaded,
        };
        let max_ms = if alive {
            max_ms.min(MAX_ALIVE_MS)
        } else {
            max_ms
        };
        let doubled = first_ms
            .saturating_mul(1 << before.min(20))
            .min(max_ms.max(first_ms));
        let duration = doubled - doubled / 5 + self.rng.u64(0..=doubled * 2 / 5);
        ejection.until = now + duration.max(1);
        state.touch(now);
        state.probe_allowed = false;
        self.unpublished = true;
        self.flags_stale = true;
        self.new_ejections.push((slot, failure.reason));
    }

    fn recover(&mut self, slot: Slot, now: u64) {
        let Some(state) = self.endpoints.get_mut(slot.index()) else {
            return;
        };
        state.ejection.until = 0;
        state.ejection.prober = 0;
        state.touch(now);
        state.reset_failures();
        state.probe_allowed = false;
        self.unpublished = true;
        self.flags_stale = true;
    }

    /// Returns the ejections to publish, past ones included.
    pub fn ejections(&self) -> impl Iterator<Item = (Slot, Ejection)> + '_ {
        let states = self.endpoints.iter().enumerate();
        let changed = states.filter(|(_, state)| state.ejection.changed > 0 && state.is_occupied());
        changed.map(|(index, state)| (Slot(index as u32), state.ejection))
    }

    /// Takes over another worker's ejection unless ours is newer. Returns false in that case: then the
    /// other worker has not received ours.
    pub fn merge(&mut self, slot: Slot, ejection: Ejection, now: u64) -> bool {
        let Some(state) = self.endpoints.get_mut(slot.index()) else {
            return true;
        };
        if state.ejection.endpoint != ejection.endpoint {
            return true;
        }
        if ejection.changed < state.ejection.changed {
            return false;
        }
        if state.ejection != ejection {
            if ejection.until == 0 && state.is_ejected() {
                // Another worker has seen the endpoint serve a request.
                state.reset_failures();
                state.served_at = Some(now);
                state.served_by_all = self.served;
            }
            state.ejection = ejection;
            if ejection.prober != self.worker {
                state.probe_allowed = false;
                state.probe = None;
            }
            self.flags_stale = true;
        }
        true
    }

    /// Returns whether [`Self::flag_ejected`] may change the pool.
    pub fn flags_stale(&self) -> bool {
        self.flags_stale
    }

    /// Returns and resets the counts of request faults.
    pub fn take_request_faults(&mut self) -> RequestFaults {
        RequestFaults {
            prompts: self.prompts.take_blamed(),
            majorities: std::mem::take(&mut self.majorities),
        }
    }

    /// Sets the pool's `ejected` flags. At most half of the available endpoints are ejected; if more than half
    /// would be ejected for what requests can cause, none is ejected for that.
    pub fn flag_ejected(&mut self, pool: &mut Pool, now: u64) {
        let stale = std::mem::take(&mut self.flags_stale);
        if !stale && !self.endpoints.iter().any(EndpointState::is_ejected) {
            return;
        }
        let max_ejected = pool.iter().filter(|(_, it)| it.available).count() / 2;
        let available = |slot| pool.get(slot).is_some_and(|endpoint| endpoint.available);
        let states = (0..).map(Slot).zip(&self.endpoints);
        let candidates = states.filter(|(slot, state)| state.is_ejected() && available(*slot));
        let mut candidates: Vec<(Slot, &EndpointState)> = candidates.collect();
        let uncertain = candidates.iter().filter(|(_, it)| !it.ejection.certain);
        let majority = uncertain.count() > max_ejected;
        candidates.retain(|(slot, state)| {
            state.ejection.certain || !majority && self.is_credible(*slot, now)
        });
        // Every worker must choose the same half; certain faults come first.
        candidates.sort_by_key(|(slot, state)| {
            let Ejection { certain, level, .. } = state.ejection;
            (!certain, u32::MAX - level, slot.0)
        });
        candidates.truncate(max_ejected);
        let ejected = candidates.iter().filter(|(_, state)| !state.probe_allowed);
        let mut ejected: Vec<u32> = ejected.map(|(slot, _)| slot.0).collect();
        ejected.sort_unstable();
        for index in 0..pool.width() as u32 {
            let is_ejected = ejected.binary_search(&index).is_ok();
            pool.note(Slot(index), |endpoint| &mut endpoint.ejected, is_ejected);
        }
        self.majorities += u64::from(majority && !self.majority);
        self.majority = majority;
    }
}

#[cfg(test)]
mod attack_tests;
#[cfg(test)]
mod tests;
