//! Ejections: probes of ejected endpoints, endpoints that hang, and what is counted of both.

use super::exchange::Exchanges;
use super::load::Loads;
use super::Picker;
use crate::endpoints::outlier::Reason;
use crate::metrics::definitions::{EJECTED, EJECTIONS, SUPPRESSED_EJECTIONS};
use crate::metrics::labels::{Ejection, Suppression};
use crate::scheduling::{Freshness, Slot};
use crate::time::Instant;

impl Picker {
    /// A request was sent to the endpoint in this slot: where a probe of that endpoint is due, this is the probe.
    pub(super) fn start_probe(&mut self, id: u32, slot: Slot) {
        let (now, monitor) = (self.timing.clock.wall(), &mut self.monitor);
        if monitor.outliers.start_probe(slot, id, now) {
            monitor.outliers.flag_ejected(&mut monitor.store.pool, now);
        }
    }

    /// A request has ended. If it was the probe of an endpoint that has not responded, the next one probes.
    pub(super) fn abandon_probe(&mut self, id: u32) {
        let pick = self
            .exchanges
            .get(&id)
            .and_then(|exchange| exchange.primary())
            .copied();
        if let Some(pick) = pick.filter(|pick| self.loads.stays(pick)) {
            let now = self.timing.clock.wall();
            self.monitor.outliers.abandon_probe(pick.slot, id, now);
        }
    }

    /// Probes endpoints whose ejection is over, and counts new ejections.
    pub(super) fn probe_ejected(&mut self) {
        let now = self.timing.clock.wall();
        let (outliers, pool) = (&mut self.monitor.outliers, &mut self.monitor.store.pool);
        if !self.sharing {
            // Otherwise the pickers that share agree on which of them probes.
            outliers.tick_alone(pool, now);
        }
        let begun = std::mem::take(&mut outliers.new_ejections);
        for (slot, reason) in begun {
            if let Some(endpoint) = pool.get(slot) {
                let endpoint = &*endpoint.address;
                self.metrics
                    .add(EJECTIONS, Ejection { endpoint, reason }, 1);
            }
        }
        self.count_blamed();
    }

    /// Counts how often requests and not endpoints were found to be the cause of failures.
    fn count_blamed(&mut self) {
        let blamed = self.monitor.outliers.take_request_faults();
        if blamed.majorities > 0 {
            log::warn!(
                "requests to more than half of the endpoints of {} fail: none is ejected for that, \
                 since the requests must be at fault",
                self.cluster
            );
        }
        for (reason, count) in [
            (Suppression::Prompt, blamed.prompts),
            (Suppression::Majority, blamed.majorities),
        ] {
            if count > 0 {
                self.metrics.add(SUPPRESSED_EJECTIONS, reason, count);
            }
        }
    }

    /// The endpoint alone is waited for from now on, if a request was sent to it to its body's end.
    pub(super) fn await_response(&mut self, id: u32) {
        let now = self.timing.clock.now();
        let Some(exchange) = self.exchanges.get_mut(&id) else {
            return;
        };
        let target = exchange.primary().copied();
        let response = &mut exchange.response;
        let begins = response.body_sent && response.awaited_since.is_none() && !response.begun;
        let Some(target) = target.filter(|target| begins && self.loads.stays(target)) else {
            return;
        };
        response.awaited_since = Some(now);
        if let Some(record) = self.records.get_mut(target.slot.index()) {
            record.unanswered.add(id, now);
            let (exchanges, loads) = (&self.exchanges, &self.loads);
            let waits = |id| awaited_since(exchanges, loads, target.slot, id).is_some();
            let in_flight = loads.in_flight(target.slot);
            record.unanswered.sweep(in_flight, waits);
        }
    }

    /// Finds endpoints of which neither a page nor a response has come for longer than a page may be
    /// old, while a request waits there.
    pub(super) fn find_hung(&mut self) {
        let now = self.timing.clock.now();
        let patience = self.plan.source.staleness;
        let mut hung = Vec::new();
        for (index, record) in self.records.iter_mut().enumerate() {
            let slot = Slot(index as u32);
            let endpoint = self.monitor.store.pool.get(slot);
            let stale = endpoint.is_some_and(|endpoint| endpoint.freshness == Freshness::Stale);
            if !stale || now.since(record.last_response) <= patience {
                continue;
            }
            let (exchanges, loads) = (&self.exchanges, &self.loads);
            let since = |id| awaited_since(exchanges, loads, slot, id);
            let overdue = now.before(patience);
            if record.unanswered.first_due(overdue, since).is_some() {
                hung.push(slot);
            }
        }
        let now = self.timing.clock.wall();
        for slot in hung {
            self.monitor.outliers.mark_hung(slot, now);
        }
    }

    /// Resets the gauges of ejections, which another picker has set until now: it may have trapped, and ejections
    /// have ended since that it had reported. Those that last are set with the other gauges.
    pub(super) fn reset_ejection_gauges(&mut self) {
        for record in &mut self.records {
            record.reported_ejection = None;
            let endpoint = record.address.as_str();
            if !endpoint.is_empty() {
                for reason in Reason::ALL {
                    self.metrics.set(EJECTED, Ejection { endpoint, reason }, 0);
                }
            }
        }
    }

    /// Sets the gauges of endpoints that are ejected, by reason.
    pub(super) fn set_ejection_gauges(&mut self) {
        for index in 0..self.records.len() {
            let reason = self.monitor.outliers.reason(Slot(index as u32));
            let Some(record) = self.records.get_mut(index) else {
                continue;
            };
            let before = std::mem::replace(&mut record.reported_ejection, reason);
            if before == reason {
                continue;
            }
            let endpoint = record.address.as_str();
            for (reason, value) in [(before, 0), (reason, 1)] {
                if let Some(reason) = reason {
                    self.metrics
                        .set(EJECTED, Ejection { endpoint, reason }, value);
                }
            }
        }
    }
}

/// Returns since when a request waits for the response of the endpoint in this slot, if it does.
fn awaited_since(exchanges: &Exchanges, loads: &Loads, slot: Slot, id: u32) -> Option<Instant> {
    let exchange = exchanges.get(&id)?;
    let target = exchange.primary()?;
    let waits = target.slot == slot && loads.stays(target) && !exchange.response.begun;
    exchange.response.awaited_since.filter(|_| waits)
}

#[cfg(test)]
#[path = "ejection_tests.rs"]
mod tests;
