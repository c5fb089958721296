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

use std::num::NonZeroU64;
use std::time::Duration;

mod failing_prompts;
mod failure;
mod hung;
mod probe;
mod state;

use self::failing_prompts::FailingPrompts;
pub use self::failure::{Failure, Outcome, Reason, RequestFaults};
use self::state::{jittered, EndpointState, Probe, FORGET_AFTER};
pub use self::state::{Ejection, EjectionRecord, OutlierSettings};
use crate::scheduling::{Endpoint, Freshness, Pool, Slot};
use crate::time::Timestamp;

/// A record may be dated this far ahead of the clock, which all workers share: each change is dated a millisecond
/// after the one before, and a clock may be set back a little. A record from later than that is corrupt, or was
/// written before the clock was set back by more; it would win over every later one.
const MAX_AHEAD: Duration = Duration::from_secs(5);

/// A failure share is far above the peers' if it exceeds three times theirs by this much.
const OUTLIER_MARGIN: f64 = 0.55;

/// A failure share below this counts as zero.
const MIN_SHARE: f64 = 0.01;

/// An endpoint whose metrics page still comes is alive, and overloaded rather than broken: its ejection
/// is limited to this.
const MAX_ALIVE: Duration = Duration::from_secs(5);

/// The time after a failure in which every response is examined, whichever endpoint sent it: the peers'
/// responses show whether the endpoint or the request is at fault.
const ALERT: Duration = Duration::from_secs(2);

/// An endpoint has stopped serving if the pool has served this many requests per endpoint since the
/// endpoint last served one. With evenly spread requests, a working endpoint is passed over for that long by
/// chance after one in 300 of its responses in a pool of four, and after one in 150 in a pool of a hundred;
/// the resulting ejection lasts `avoidFirst`. A smaller number would eject a broken pod sooner, which
/// fails about six requests now.
const SERVED_MEANWHILE: u64 = 5;

/// An endpoint has also stopped serving if it has served nothing for this long, whatever its peers serve.
const SILENT_AFTER: Duration = Duration::from_secs(1);

/// One worker's outlier detection.
#[derive(Debug)]
pub struct OutlierDetector {
    /// `None`: switched off.
    settings: Option<OutlierSettings>,
    /// This worker's random identity.
    worker: NonZeroU64,
    rng: fastrand::Rng,
    /// The endpoints by slot.
    endpoints: Vec<Option<EndpointState>>,
    /// Occupied slots.
    members: u64,
    /// Requests with a body that this worker has seen served.
    served: u64,
    /// When a request last failed; `None`: never.
    failed_at: Option<Timestamp>,
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

impl OutlierDetector {
    /// Creates a detector without endpoints; without settings it is switched off.
    pub fn new(settings: Option<OutlierSettings>, mut rng: fastrand::Rng) -> Self {
        Self {
            settings,
            worker: NonZeroU64::new(rng.u64(1..)).unwrap_or(NonZeroU64::MIN),
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
    pub fn configure(&mut self, settings: Option<OutlierSettings>) {
        self.settings = settings;
        if !self.is_enabled() {
            for state in self.endpoints.iter_mut().flatten() {
                *state = EndpointState::new(state.record.endpoint, 0);
            }
            self.has_claims = false;
            self.flags_stale = true;
        }
    }

    /// Returns whether any endpoint may ever be ejected.
    pub fn is_enabled(&self) -> bool {
        self.settings.is_some()
    }

    /// Adds an endpoint in a slot. `endpoint` distinguishes it from others in the same slot.
    pub fn add_endpoint(&mut self, slot: Slot, endpoint: u64) {
        if self.endpoints.len() <= slot.index() {
            self.endpoints.resize_with(slot.index() + 1, || None);
        }
        self.remove_endpoint(slot);
        if let Some(state) = self.endpoints.get_mut(slot.index()) {
            *state = Some(EndpointState::new(endpoint, self.served));
            self.members += 1;
        }
    }

    /// Removes the endpoint in a slot.
    pub fn remove_endpoint(&mut self, slot: Slot) {
        let state = self.endpoints.get_mut(slot.index());
        if state.and_then(Option::take).is_some() {
            self.members = self.members.saturating_sub(1);
            self.prompts.remove_endpoint(slot);
        }
    }

    fn state(&self, slot: Slot) -> Option<&EndpointState> {
        self.endpoints.get(slot.index())?.as_ref()
    }

    fn state_mut(&mut self, slot: Slot) -> Option<&mut EndpointState> {
        self.endpoints.get_mut(slot.index())?.as_mut()
    }

    /// Returns the endpoints' states by slot.
    fn states(&self) -> impl Iterator<Item = (Slot, &EndpointState)> {
        let slots = (0..).map(Slot).zip(&self.endpoints);
        slots.filter_map(|(slot, state)| Some((slot, state.as_ref()?)))
    }

    /// Returns whether each response of this endpoint must be examined, and not just a sample of them.
    pub fn is_suspect(&self, slot: Slot, now: Timestamp) -> bool {
        if self.failed_at.is_some_and(|at| now.is_near(at, ALERT)) {
            return true;
        }
        self.state(slot).is_some_and(|state| {
            state.failure_share(false, now) > MIN_SHARE || matches!(state.probe, Probe::Sent { .. })
        })
    }

    /// Returns whether requests are sent to an endpoint other than to probe it. That is the case also if it should be
    /// ejected, but too many should.
    pub fn is_in_use(&self, slot: Slot) -> bool {
        self.state(slot).is_some_and(|state| state.in_use)
    }

    /// Returns why an endpoint is ejected, or `None` if it is in use.
    pub fn ejected(&self, slot: Slot) -> Option<Reason> {
        self.reason(slot).filter(|_| !self.is_in_use(slot))
    }

    /// Returns why an endpoint should be ejected, or `None` if it should not.
    pub fn reason(&self, slot: Slot) -> Option<Reason> {
        let ejection = self.state(slot)?.record.ejection?;
        Some(ejection.reason)
    }

    /// Records how a request ended at an endpoint. `freshness` is that of the endpoint's metrics page.
    pub fn record_outcome(
        &mut self,
        slot: Slot,
        outcome: &Outcome,
        freshness: Freshness,
        now: Timestamp,
    ) {
        if !self.is_enabled() || self.state(slot).is_none() {
            return;
        }
        let counts = self.counts(slot, outcome, now);
        let state = self.endpoints.get_mut(slot.index());
        let Some(state) = state.and_then(Option::as_mut) else {
            return;
        };
        let probed = state.probe.is_request(outcome.request);
        if probed {
            state.probe = Probe::None;
        }
        if counts {
            let certain = outcome.failure.is_some_and(|failure| failure.certain);
            state.add_outcome(outcome.failure.is_some(), certain, now);
        }
        match outcome.failure {
            None => self.record_served(slot, outcome.served, probed, now),
            Some(failure) => {
                self.failed_at = Some(now);
                if counts {
                    self.record_failure(slot, failure, freshness, probed, now);
                } else if probed {
                    // The prompt is at fault.
                    self.probe_again(slot);
                }
            }
        }
    }

    /// Records the outcome's prompt. Returns whether the outcome counts for or against the endpoint.
    fn counts(&mut self, slot: Slot, outcome: &Outcome, now: Timestamp) -> bool {
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

    fn record_served(&mut self, slot: Slot, served: bool, probed: bool, now: Timestamp) {
        let Some(state) = self.state(slot) else {
            return;
        };
        let ejection = state.record.ejection;
        // A hung endpoint that responds no longer hangs, and an endpoint that continues to serve this
        // worker's requests does not fail.
        let hung = ejection.filter(|ejection| ejection.reason == Reason::Hung);
        // Where only the engine stands still, its server may still list its models and reject requests.
        let proves = served || hung.is_none_or(|ejection| ejection.certain);
        let refutes = |ejection: Ejection| !self.has_evidence(state, ejection.certain, now);
        let serves = served && ejection.is_some_and(refutes);
        if served {
            self.served += 1;
            let by_all = self.served;
            if let Some(state) = self.state_mut(slot) {
                state.served_at = Some(now);
                state.served_by_all = by_all;
            }
        }
        if proves && (probed || hung.is_some() || serves) {
            self.recover(slot, now);
        } else if probed {
            self.probe_again(slot);
        }
    }

    fn record_failure(
        &mut self,
        slot: Slot,
        failure: Failure,
        freshness: Freshness,
        probed: bool,
        now: Timestamp,
    ) {
        let Some(state) = self.state(slot) else {
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
            || (!ejected && is_outlier(own) && self.has_evidence(state, failure.certain, now))
        {
            self.eject(slot, failure, freshness, probed, now);
        }
    }

    /// Returns the median failure share of an endpoint's peers. Ejected peers count with their last share,
    /// because prompts that fail everywhere make one endpoint after the other fail.
    fn failure_share_of_peers(&self, slot: Slot, certain: bool, now: Timestamp) -> f64 {
        let others = self.states().filter(|(other, _)| *other != slot);
        let shares = others.map(|(_, state)| state.failure_share(certain, now));
        let mut peers: Vec<f64> = shares.collect();
        let middle = peers.len().saturating_sub(1) / 2;
        peers.sort_by(f64::total_cmp);
        peers.get(middle).copied().unwrap_or(0.0)
    }

    /// Returns whether this worker's own requests allow the conclusion that the endpoint is at fault: the
    /// failures are certain, or the endpoint has stopped serving. An ejection by another worker, caused by a few
    /// clients, must not decide for all.
    fn has_evidence(&self, state: &EndpointState, certain: bool, now: Timestamp) -> bool {
        let meanwhile = self.served.saturating_sub(state.served_by_all);
        certain
            || meanwhile >= SERVED_MEANWHILE * self.members
            || state
                .served_at
                .is_none_or(|at| now.abs_diff(at) >= SILENT_AFTER)
    }

    fn eject(
        &mut self,
        slot: Slot,
        failure: Failure,
        freshness: Freshness,
        probed: bool,
        now: Timestamp,
    ) {
        let (Some(settings), Some(state)) = (
            self.settings,
            self.endpoints
                .get_mut(slot.index())
                .and_then(Option::as_mut),
        ) else {
            return;
        };
        let record = &mut state.record;
        let forgotten = record.ejection.is_none() && !record.is_recent(now, FORGET_AFTER);
        // A failure that requests can cause repeats the last ejection only if the endpoint served nothing
        // in between, which a failed probe shows.
        let is_first = forgotten || !failure.certain && !probed;
        let before = if is_first { 0 } else { record.level };
        record.level = before.saturating_add(1);
        // A failure that requests can cause ejects for longer only if metrics pages have stopped coming.
        let alive = match failure.certain {
            true => freshness == Freshness::Fresh,
            false => freshness != Freshness::Stale || failure.reason == Reason::Overloaded,
        };
        let max = if alive {
            settings.max.min(MAX_ALIVE)
        } else {
            settings.max
        };
        let doubled = settings.first.saturating_mul(1 << before.min(20));
        let length = jittered(doubled.min(max.max(settings.first)), &mut self.rng);
        record.ejection = Some(Ejection {
            reason: failure.reason,
            certain: failure.certain,
            until: now.floor_millis().after(length),
            prober: None,
        });
        record.touch(now);
        state.probe = Probe::None;
        self.unpublished = true;
        self.flags_stale = true;
        self.new_ejections.push((slot, failure.reason));
    }

    fn recover(&mut self, slot: Slot, now: Timestamp) {
        let Some(state) = self.state_mut(slot) else {
            return;
        };
        state.record.ejection = None;
        state.record.touch(now);
        state.reset_failures();
        state.probe = Probe::None;
        self.unpublished = true;
        self.flags_stale = true;
    }

    /// Returns the ejections to publish, past ones included.
    pub fn records(&self) -> impl Iterator<Item = (Slot, EjectionRecord)> + '_ {
        let records = self.states().map(|(slot, state)| (slot, state.record));
        records.filter(|(_, record)| record.changed.is_some())
    }

    /// Dates this worker's records again if the clock was set back since they were written. Without this they would
    /// win over all that any worker finds until the clock has caught up with them.
    pub fn correct_dates(&mut self, now: Timestamp) {
        let latest = Some(now.after(MAX_AHEAD));
        for state in self.endpoints.iter_mut().flatten() {
            if state.record.changed > latest {
                state.record.changed = Some(now.floor_millis());
                self.unpublished = true;
            }
        }
    }

    /// Takes over another worker's record unless ours is newer, or the record's date cannot be right. Returns
    /// false if ours must be published again: the other worker has not received it.
    pub fn merge(&mut self, slot: Slot, record: EjectionRecord, now: Timestamp) -> bool {
        let (served, worker) = (self.served, self.worker);
        let latest = Some(now.after(MAX_AHEAD));
        let Some(state) = self.state_mut(slot) else {
            return true;
        };
        if state.record.endpoint != record.endpoint {
            return true;
        }
        if record.changed > latest || record.changed < state.record.changed {
            // Ours replaces it, if there is one.
            return state.record.changed.is_none();
        }
        if state.record != record {
            let stalls = |it: Ejection| it.reason == Reason::Hung && !it.certain;
            if record.ejection.is_some_and(stalls)
                && (!state.is_ejected() || record.level != state.record.level)
            {
                state.stalled = true;
            }
            if record.ejection.is_none() && state.is_ejected() {
                // Another worker has seen the endpoint serve a request.
                state.reset_failures();
                state.served_at = Some(now);
                state.served_by_all = served;
            }
            state.record = record;
            let prober = record.ejection.and_then(|ejection| ejection.prober);
            if prober != Some(worker) {
                state.probe = Probe::None;
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
    pub fn flag_ejected(&mut self, pool: &mut Pool, now: Timestamp) {
        let stale = std::mem::take(&mut self.flags_stale);
        if !stale && !self.states().any(|(_, state)| state.is_ejected()) {
            return;
        }
        let max_ejected = pool.iter().filter(|(_, it)| it.is_available()).count() / 2;
        let available = |slot| pool.get(slot).is_some_and(Endpoint::is_available);
        let ejected = self.states().filter(|(slot, _)| available(*slot));
        let ejected =
            ejected.filter_map(|(slot, state)| Some((slot, state, state.record.ejection?)));
        let mut candidates: Vec<(Slot, &EndpointState, Ejection)> = ejected.collect();
        let uncertain = candidates.iter().filter(|(_, _, it)| !it.certain);
        let majority = uncertain.count() > max_ejected;
        candidates.retain(|(_, state, ejection)| {
            ejection.certain || !majority && self.has_evidence(state, ejection.certain, now)
        });
        // Every worker must choose the same half; certain faults come first.
        candidates.sort_by_key(|(slot, state, ejection)| {
            (!ejection.certain, u32::MAX - state.record.level, slot.0)
        });
        candidates.truncate(max_ejected);
        let mut ejected: Vec<u32> = candidates.iter().map(|(slot, ..)| slot.0).collect();
        ejected.sort_unstable();
        for slot in (0..pool.width() as u32).map(Slot) {
            let chosen = ejected.binary_search(&slot.0).is_ok();
            let available = pool.get(slot).is_some_and(Endpoint::is_available);
            let mut probes = false;
            if let Some(state) = self.state_mut(slot) {
                state.in_use = available && !chosen;
                probes = state.probe.is_allowed();
            }
            pool.note(slot, |endpoint| &mut endpoint.ejected, chosen && !probes);
        }
        self.majorities += u64::from(majority && !self.majority);
        self.majority = majority;
    }
}

#[cfg(test)]
mod attack_tests;
#[cfg(test)]
mod tests;
