//! Gauges: the metrics that are set every second or so.

use std::time::Duration;

use super::peers::SharingStatistics;
use super::status::DecisionBasis;
use super::Picker;
use crate::findings::Finding;
use crate::metrics::definitions::{
    DECISION_MODE, FINDINGS, FRESHNESS, HELD_REQUESTS, INFLIGHT_REQUESTS, INFLIGHT_TOKENS,
    KV_CACHE_UTILIZATION, MEMBERS_AGE, PREFIX_INDEX_BYTES, PREFIX_INDEX_EVICTIONS,
    PREFIX_INDEX_LIMIT, PREFIX_INDEX_SIZE, PROMPT_BYTES, PROMPT_LIMIT, QUEUE_SIZE, READS_BODIES,
    READY_ENDPOINTS, RUNNING_REQUESTS, SCRAPE_AGE, SHARED_READ, SHARED_WRITTEN, SHARING_VMS,
    UNRECOGNIZED_VALUES, VM_MEMORY,
};
use crate::metrics::labels::{Endpoint, Found, NoLabels, Vm};
use crate::scheduling::Freshness;
use crate::time::{whole_millis, Instant};

/// Gauges are set this often: the host's statistics are scraped every few seconds.
const INTERVAL: Duration = Duration::from_secs(1);

/// The values that were exported so far.
#[derive(Debug, Default)]
pub struct Gauges {
    /// When the gauges were set last; none where they are to be set with the next tick.
    set_at: Option<Instant>,
    /// Counts of the sharing that were exported so far.
    exported: SharingStatistics,
    /// Evictions that were counted so far.
    evictions: u64,
}

impl Gauges {
    /// The gauges are to be set with the next tick.
    pub fn expire(&mut self) {
        self.set_at = None;
    }

    /// Returns whether the gauges are to be set now; true only once per period.
    pub fn take_due(&mut self, now: Instant) -> bool {
        let due = self.set_at.is_none_or(|at| now.since(at) >= INTERVAL);
        if due {
            self.set_at = Some(now);
        }
        due
    }
}

impl Picker {
    pub(super) fn set_gauges(&mut self) {
        self.set_own_gauges();
        self.set_sharing_gauges();
        if !self.dispatcher.endpoints.monitor.polls() {
            return;
        }
        self.set_load_gauges();
        self.set_flow_gauges();
        let dispatcher = &mut self.dispatcher;
        let outliers = &dispatcher.endpoints.monitor.outliers;
        dispatcher
            .statistics
            .set_ejections(|slot| outliers.ejected(slot));
        self.set_pool_gauges();
    }

    /// This picker polls from now on, instead of another one, or the other way round: the one that polls sets the gauges
    /// of the results. The other one leaves none behind that says that an endpoint is ejected, or that requests wait.
    pub(super) fn hand_over_gauges(&mut self) {
        self.dispatcher.statistics.set_ejections(|_| None);
        self.dispatcher.statistics.reset_flow();
        self.gauges.expire();
    }

    /// The pool is given up. The picker that polls leaves no gauge behind that says how it is; another one that takes
    /// over sets its own values.
    pub fn retire(&mut self) {
        if !self.dispatcher.endpoints.monitor.polls() {
            return;
        }
        self.hand_over_gauges();
        let metrics = &mut self.dispatcher.statistics.registry;
        for finding in Finding::all() {
            metrics.reset(&FINDINGS, Found(finding));
        }
        for gauge in [DECISION_MODE, READY_ENDPOINTS, MEMBERS_AGE, SHARING_VMS] {
            metrics.set(gauge, NoLabels, 0);
        }
    }

    /// Sets the gauges of this VM.
    fn set_own_gauges(&mut self) {
        let metrics = &mut self.dispatcher.statistics.registry;
        let reads = u64::from(self.host.shows_bodies);
        metrics.set(READS_BODIES, NoLabels, reads);
        let vm = if self.serves { Vm::Worker } else { Vm::Main };
        metrics.set(VM_MEMORY, vm, self.host.memory_bytes);
        let (used, bound) = self.dispatcher.readers.memory.use_and_bound();
        metrics.set(PROMPT_BYTES, vm, used);
        metrics.set(PROMPT_LIMIT, vm, bound);
    }

    /// Sets the gauges of the index's size, and counts what the pickers share.
    fn set_sharing_gauges(&mut self) {
        let dispatcher = &mut self.dispatcher;
        let fill = dispatcher.prefixes.fill();
        let before = std::mem::replace(&mut self.gauges.evictions, fill.evictions);
        let evictions = fill.evictions.saturating_sub(before);
        let metrics = &mut dispatcher.statistics.registry;
        // All VMs that serve have the same index, so that any one's values are right.
        if self.serves {
            metrics.set(PREFIX_INDEX_SIZE, NoLabels, fill.entries);
            metrics.set(PREFIX_INDEX_BYTES, NoLabels, fill.bytes);
            metrics.set(PREFIX_INDEX_LIMIT, NoLabels, fill.bound);
            metrics.add(PREFIX_INDEX_EVICTIONS, NoLabels, evictions);
        }
        let counted = self.sharing.statistics;
        let before = std::mem::replace(&mut self.gauges.exported, counted);
        let written = counted.written_bytes.saturating_sub(before.written_bytes);
        metrics.add(SHARED_WRITTEN, NoLabels, written);
        let read = counted.read_bytes.saturating_sub(before.read_bytes);
        metrics.add(SHARED_READ, NoLabels, read);
        let unrecognised = counted.unrecognised.saturating_sub(before.unrecognised);
        if unrecognised > 0 {
            metrics.add(UNRECOGNIZED_VALUES, NoLabels, unrecognised);
        }
    }

    /// Sets the gauges of requests in flight and held, over all pickers that share.
    fn set_load_gauges(&mut self) {
        let dispatcher = &mut self.dispatcher;
        let metrics = &mut dispatcher.statistics.registry;
        let counted = self.sharing.statistics;
        metrics.set(SHARING_VMS, NoLabels, counted.sharers);
        let held = self.exchanges.held() as u64 + counted.held_by_others;
        metrics.set(HELD_REQUESTS, NoLabels, held);
        let pool = dispatcher.endpoints.pool();
        for (slot, endpoint) in pool.iter() {
            let (load, labels) = (pool.load(slot), Endpoint(&endpoint.address));
            metrics.set(INFLIGHT_REQUESTS, labels, load.requests.into());
            if dispatcher.plan.needs.tokens {
                metrics.set(INFLIGHT_TOKENS, labels, load.tokens);
            }
        }
    }

    /// Sets the gauges of what the picker that polls finds for all.
    fn set_pool_gauges(&mut self) {
        let dispatcher = &mut self.dispatcher;
        let now = dispatcher.clock.now();
        let metrics = &mut dispatcher.statistics.registry;
        let mode = match dispatcher.endpoints.decision_basis() {
            DecisionBasis::Nothing => 0,
            DecisionBasis::OwnCounts => 1,
            DecisionBasis::Metrics => 2,
        };
        metrics.set(DECISION_MODE, NoLabels, mode);
        let monitor = &dispatcher.endpoints.monitor;
        if let Some(received) = monitor.members_received {
            let age = whole_millis(now.since(received));
            metrics.set(MEMBERS_AGE, NoLabels, age);
        }
        let mut ready = 0;
        for (slot, endpoint) in dispatcher.endpoints.pool().iter() {
            ready += u64::from(endpoint.is_available());
            let labels = Endpoint(&endpoint.address);
            let state = match endpoint.freshness {
                Freshness::Unknown => 0,
                Freshness::Stale => 1,
                Freshness::Fresh => 2,
            };
            metrics.set(FRESHNESS, labels, state);
            if let Some(age) = monitor.store.page_age(slot, now) {
                metrics.set(SCRAPE_AGE, labels, whole_millis(age));
            }
            let page = &endpoint.metrics;
            for (gauge, value, unit) in [
                (QUEUE_SIZE, page.waiting, 1.0),
                (RUNNING_REQUESTS, page.running, 1.0),
                (KV_CACHE_UTILIZATION, page.kv_usage, 1e6),
            ] {
                if let Some(value) = value {
                    metrics.set(gauge, labels, (value * unit).round() as u64);
                }
            }
        }
        metrics.set(READY_ENDPOINTS, NoLabels, ready);
    }
}
