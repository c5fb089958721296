//! Ejections, probes of ejected endpoints, and the metrics of both.

use super::exchange::Exchange;
use super::pool_state::PoolState;
use super::Picker;
use crate::endpoints::outlier::{Failure, Outcome};
use crate::metrics::definitions::{EJECTIONS, SUPPRESSED_EJECTIONS};
use crate::metrics::labels::{Ejection, Suppression};
use crate::scheduling::Slot;
use crate::time::Timestamp;

impl PoolState {
    /// A request was sent to the endpoint in this slot: where a probe of that endpoint is due, this is the probe.
    pub fn start_probe(&mut self, exchange: &Exchange, slot: Slot, now: Timestamp) {
        let monitor = &mut self.monitor;
        if monitor.outliers.start_probe(slot, exchange.id.0, now) {
            monitor.outliers.flag_ejected(&mut monitor.store.pool, now);
        }
    }

    /// A request has ended. If it was the probe of an endpoint that has not responded, the next one probes.
    pub fn abandon_probe(&mut self, exchange: &Exchange, now: Timestamp) {
        if let Some(target) = self.present_target(exchange) {
            let outliers = &mut self.monitor.outliers;
            outliers.abandon_probe(target.slot, exchange.id.0, now);
        }
    }

    /// A request has succeeded or failed at the endpoint in this slot; `succeeded`: with a response of success.
    pub fn record_outcome(
        &mut self,
        exchange: &Exchange,
        slot: Slot,
        (failure, succeeded): (Option<Failure>, bool),
        now: Timestamp,
    ) {
        let outcome = Outcome {
            request: exchange.id.0,
            prompt: exchange.response.prompt,
            served: succeeded && exchange.response.takes_engine(),
            failure,
        };
        let freshness = self.freshness(slot);
        let monitor = &mut self.monitor;
        let outliers = &mut monitor.outliers;
        outliers.record_outcome(slot, &outcome, freshness, now);
        if outliers.flags_stale() {
            // Not with the next tick: the next request is to go elsewhere, or to come back.
            outliers.flag_ejected(&mut monitor.store.pool, now);
        }
    }
}

impl Picker {
    /// Probes endpoints whose ejection is over, and counts new ejections.
    pub(super) fn probe_ejected(&mut self) {
        let dispatcher = &mut self.dispatcher;
        let now = dispatcher.clock.wall();
        let monitor = &mut dispatcher.endpoints.monitor;
        let (outliers, pool) = (&mut monitor.outliers, &mut monitor.store.pool);
        if !self.sharing.enabled {
            // Otherwise the pickers that share agree on which of them probes.
            outliers.tick_alone(pool, now);
        }
        let metrics = &mut dispatcher.statistics.registry;
        for (slot, reason) in std::mem::take(&mut outliers.new_ejections) {
            if let Some(endpoint) = pool.get(slot) {
                let endpoint = &*endpoint.address;
                metrics.add(EJECTIONS, Ejection { endpoint, reason }, 1);
            }
        }
        // How often requests and not endpoints were found to be the cause of failures.
        let blamed = outliers.take_request_faults();
        for (reason, count) in [
            (Suppression::Prompt, blamed.prompts),
            (Suppression::Majority, blamed.majorities),
        ] {
            if count > 0 {
                metrics.add(SUPPRESSED_EJECTIONS, reason, count);
            }
        }
    }
}

#[cfg(test)]
#[path = "ejection_tests.rs"]
mod tests;
