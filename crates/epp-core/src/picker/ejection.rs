//! Ejections: probes of ejected endpoints, endpoints that hang, and what is counted of both.

use super::exchange::Exchange;
use super::Picker;
use crate::metrics::definitions::{EJECTED, EJECTIONS, SUPPRESSED_EJECTIONS};
use crate::metrics::labels::{Ejection, Suppression};
use crate::scheduling::{Freshness, Slot};

const MILLISECOND: u64 = 1_000_000;

impl Picker {
    /// A request was sent to this endpoint: it may be the one that tries it.
    pub(super) fn start_probe(&mut self, id: u32, slot: Slot) {
        let (now, monitor) = (self.timing.now / MILLISECOND, &mut self.monitor);
        if monitor.outliers.start_probe(slot, id, now) {
            monitor.outliers.flag_ejected(&mut monitor.store.pool, now);
        }
    }

    /// A request has ended: if it tried an endpoint and no answer came, nothing was learnt.
    pub(super) fn abandon_probe(&mut self, id: u32) {
        let pick = self
            .exchanges
            .get(&id)
            .and_then(|exchange| exchange.primary())
            .copied();
        if let Some(pick) = pick.filter(|pick| self.loads.stays(pick)) {
            let now = self.timing.now / MILLISECOND;
            self.monitor.outliers.abandon_probe(pick.slot, id, now);
        }
    }

    /// Probes endpoints whose ejection is over, and counts new ejections.
    pub(super) fn probe_ejected(&mut self) {
        let now = self.timing.now / MILLISECOND;
        let (outliers, pool) = (&mut self.monitor.outliers, &mut self.monitor.store.pool);
        if !self.sharing {
            // Otherwise the pickers that share agree on which of them probes.
            outliers.tick_alone(pool, now);
        }
        let begun = std::mem::take(&mut outliers.new_ejections);
        for (slot, reason) in begun {
            if let Some(endpoint) = pool.get(slot) {
                let endpoint = endpoint.address.as_str();
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
                "requests to more than half of the endpoints of {} fail: none is avoided for that, \
                 it is taken for the requests' fault",
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

    /// Finds endpoints of which neither a page nor an answer has come for longer than a page may be
    /// old, while a request waits there.
    pub(super) fn find_hung(&mut self, now: u64) {
        let patience = self.plan.source.staleness_ms * MILLISECOND;
        let silent = |slot: Slot| {
            let endpoint = self.monitor.store.pool.get(slot);
            let stale = endpoint.is_some_and(|endpoint| endpoint.freshness == Freshness::Stale);
            let last_response = self
                .records
                .get(slot.index())
                .map_or(now, |record| record.last_response);
            stale && now.saturating_sub(last_response) > patience
        };
        let slots = (0..self.records.len() as u32).map(Slot);
        let mut hung: Vec<Slot> = slots.filter(|slot| silent(*slot)).collect();
        if hung.is_empty() {
            return;
        }
        let waits = |exchange: &Exchange| {
            let pick = exchange.primary().filter(|pick| self.loads.stays(pick))?;
            // Until its body has ended it is the client that is waited for.
            let sent = exchange
                .response
                .body_sent_at
                .filter(|_| !exchange.response.begun)?;
            (now.saturating_sub(sent) > patience).then_some(pick.slot)
        };
        let mut waiting = vec![false; self.records.len()];
        for slot in self
            .exchanges
            .values()
            .filter_map(|exchange| waits(exchange))
        {
            if let Some(waiting) = waiting.get_mut(slot.index()) {
                *waiting = true;
            }
        }
        hung.retain(|slot| waiting.get(slot.index()) == Some(&true));
        for slot in hung {
            self.monitor.outliers.mark_hung(slot, now / MILLISECOND);
        }
    }

    /// Says who is avoided and why.
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
