//! What answers tell of the endpoints that requests were sent to, and who is avoided for it.

use xxhash_rust::xxh64::xxh64;

use super::exchange::Exchange;
use super::meter::Metric;
use super::{Effect, ExchangeId, Picker};
use crate::endpoints::outlier::{Failure, Outcome, Reason};
use crate::scheduling::{Endpoint, Freshness, Slot};
use crate::time::Timestamp;

/// An answer of a healthy endpoint is looked at this often: that costs two host calls. Of an
/// endpoint at which a request has failed each one is, and each that proves what the indexes learnt.
const CHECK_EACH_NS: u64 = 100_000_000;

const MILLISECOND: u64 = 1_000_000;

/// Who gave a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ResponseOrigin {
    /// The endpoint.
    #[default]
    Endpoint,
    /// The proxy, which could not connect to the endpoint.
    Unreachable,
    /// The proxy, which did not ask the endpoint: it has too many connections or requests there.
    Overflow,
    /// The proxy, for another reason: the connection was closed, or a timeout was over.
    Proxy,
}

/// Where a response came from, as the host knows it.
#[derive(Debug, Clone, Default)]
pub struct Upstream {
    /// The address of the endpoint that was asked last; empty where none was.
    pub server: Vec<u8>,
    /// The response's status; 0 where the host does not know it.
    pub status: u16,
    /// Who gave the response.
    pub origin: ResponseOrigin,
}

impl Upstream {
    /// What it says of the endpoint that was asked last.
    fn failure(&self) -> Option<Failure> {
        let reason = match self.status {
            // Not implemented; not this version of HTTP: the request's fault.
            501 | 505 => return None,
            500.. if self.origin != ResponseOrigin::Endpoint => Reason::Unserved,
            503 => Reason::Overloaded,
            500.. => Reason::Errors,
            _ => return None,
        };
        let certain = self.origin == ResponseOrigin::Unreachable;
        Some(Failure { reason, certain })
    }

    /// What it says of the endpoint that the request was sent to, where this is another one's answer.
    fn elsewhere(&self, freshness: Freshness) -> Failure {
        Failure {
            reason: Reason::Unserved,
            // What another endpoint served was hardly the request's fault, unless the first is well but for
            // it: then the request may have taken long enough there for a retry to overtake it.
            certain: self.failure().is_none() && freshness != Freshness::Fresh,
        }
    }
}

impl Picker {
    /// Whether it is worth asking who answers this request.
    pub fn wants_upstream(&mut self, ExchangeId(id): ExchangeId) -> bool {
        let Some((exchange, pick)) = self
            .exchanges
            .get(&id)
            .and_then(|exchange| Some((exchange, *exchange.primary()?)))
        else {
            return false;
        };
        // After a retry it may be another endpoint, which then is the one that holds the prompt.
        let proves = self.awaits_proof(id);
        let Some(seat) = self.seats.get_mut(pick.slot.index()) else {
            return false;
        };
        let now = self.timing.now / MILLISECOND;
        let asks = proves
            || !exchange.candidate.is_empty()
            || self.watch.outliers.is_suspect(pick.slot, now)
            || self.timing.now.abs_diff(seat.checked) >= CHECK_EACH_NS;
        if asks {
            seat.checked = self.timing.now;
        }
        asks
    }

    /// The response's headers have come; `upstream` as [`Self::wants_upstream`] asked for it.
    pub fn response_headers(
        &mut self,
        now: Timestamp,
        ExchangeId(id): ExchangeId,
        upstream: Option<&Upstream>,
    ) {
        self.begin_event(now);
        // A status of 0: the host does not know.
        let is_success = |status| status == 0 || (200..300).contains(&status);
        if upstream.is_some_and(|upstream| !is_success(upstream.status)) {
            self.refute(id);
        }
        let Some(exchange) = self.exchanges.get_mut(&id) else {
            return;
        };
        exchange.answer.begun = true;
        let explanation = exchange.explanation.take();
        if let Some(pick) = exchange
            .primary()
            .copied()
            .filter(|pick| self.loads.stays(pick))
        {
            if let Some(seen) = upstream {
                self.judge(id, pick.slot, seen);
                if (200..300).contains(&seen.status) {
                    self.ask_for_model(id, pick.slot);
                }
            } else if let Some(seat) = self.seats.get_mut(pick.slot.index()) {
                seat.heard = self.timing.now;
            }
        }
        self.prove(id);
        self.seen(id);
        if let Some(explanation) = explanation {
            let text = explanation.text(&self.watch.store.pool);
            let id = ExchangeId(id);
            self.effects.push_back(Effect::Explain { id, text });
        }
    }

    /// Takes note of who answered a request that was sent to the endpoint in this slot.
    fn judge(&mut self, id: u32, slot: Slot, seen: &Upstream) {
        let address = self.watch.store.pool.get(slot);
        let address = address.map(|endpoint| endpoint.address.as_bytes());
        if seen.server.is_empty() || seen.status >= 500 && seen.origin == ResponseOrigin::Overflow {
            // Envoy answered before it asked an endpoint.
            return;
        }
        if address == Some(&seen.server) {
            self.note(id, slot, seen.failure());
            return;
        }
        self.metrics.add(Metric::ServedElsewhere, "", 1);
        self.refute(id);
        let endpoint = self.watch.store.pool.get(slot);
        let freshness = endpoint.map_or(Freshness::Unknown, |endpoint| endpoint.freshness);
        let elsewhere = seen.elsewhere(freshness);
        self.note(id, slot, Some(elsewhere));
        let by_address = |endpoint: &Endpoint| endpoint.address.as_bytes() == seen.server;
        if let Some(server) = self.watch.store.pool.find_by(by_address) {
            self.note(id, server, seen.failure());
        }
    }

    fn note(&mut self, id: u32, slot: Slot, failure: Option<Failure>) {
        let seat = self.seats.get_mut(slot.index());
        let unserved = failure.is_some_and(|failure| failure.reason == Reason::Unserved);
        if let Some(seat) = seat.filter(|_| !unserved) {
            seat.heard = self.timing.now;
        }
        let answer = self.exchanges.get(&id).map(|exchange| exchange.answer);
        let answer = answer.unwrap_or_default();
        let outcome = Outcome {
            request: id,
            prompt: answer.prompt,
            bodied: answer.bodied,
            failure,
        };
        let (now, watch) = (self.timing.now / MILLISECOND, &mut self.watch);
        let endpoint = watch.store.pool.get(slot);
        let freshness = endpoint.map_or(Freshness::Unknown, |endpoint| endpoint.freshness);
        watch
            .outliers
            .record_outcome(slot, &outcome, freshness, now);
        if watch.outliers.flags_stale() {
            // Not with the next tick: the next request is to go elsewhere, or to come back.
            watch.outliers.flag_ejected(&mut watch.store.pool, now);
        }
    }

    /// A request was sent to this endpoint: it may be the one that tries it.
    pub(super) fn tries(&mut self, id: u32, slot: Slot) {
        let (now, watch) = (self.timing.now / MILLISECOND, &mut self.watch);
        if watch.outliers.start_probe(slot, id, now) {
            watch.outliers.flag_ejected(&mut watch.store.pool, now);
        }
    }

    /// A request has ended: if it tried an endpoint and no answer came, nothing was learnt.
    pub(super) fn tried(&mut self, id: u32) {
        let pick = self
            .exchanges
            .get(&id)
            .and_then(|exchange| exchange.primary())
            .copied();
        if let Some(pick) = pick.filter(|pick| self.loads.stays(pick)) {
            let now = self.timing.now / MILLISECOND;
            self.watch.outliers.abandon_probe(pick.slot, id, now);
        }
    }

    /// Probes endpoints whose ejection is over, and counts new ejections.
    pub(super) fn probe_ejected(&mut self) {
        let now = self.timing.now / MILLISECOND;
        let (outliers, pool) = (&mut self.watch.outliers, &mut self.watch.store.pool);
        if !self.sharing {
            // Otherwise the pickers that share agree on which of them probes.
            outliers.tick_alone(pool, now);
        }
        let begun = std::mem::take(&mut outliers.new_ejections);
        for (slot, reason) in begun {
            let label = self.seats.get(slot.index());
            let label = label.map_or("", |seat| seat.label.as_str());
            let label = format!("{label};reason={}", reason.name());
            self.metrics.add(Metric::Avoidances, &label, 1);
        }
        self.count_blamed();
    }

    /// Counts how often requests and not endpoints were found to be the cause of failures.
    fn count_blamed(&mut self) {
        let blamed = self.watch.outliers.take_request_faults();
        if blamed.majorities > 0 {
            log::warn!(
                "requests to more than half of the endpoints of {} fail: none is avoided for that, \
                 it is taken for the requests' fault",
                self.cluster
            );
        }
        for (reason, count) in [("prompt", blamed.prompts), ("majority", blamed.majorities)] {
            if count > 0 {
                let label = format!("reason={reason}");
                self.metrics
                    .add(Metric::BlamedRequests, &label, count as i64);
            }
        }
    }

    /// Finds endpoints of which neither a page nor an answer has come for longer than a page may be
    /// old, while a request waits there.
    pub(super) fn find_hung(&mut self, now: u64) {
        let patience = self.plan.source.staleness_ms * MILLISECOND;
        let silent = |slot: Slot| {
            let endpoint = self.watch.store.pool.get(slot);
            let stale = endpoint.is_some_and(|endpoint| endpoint.freshness == Freshness::Stale);
            let heard = self.seats.get(slot.index()).map_or(now, |seat| seat.heard);
            stale && now.saturating_sub(heard) > patience
        };
        let slots = (0..self.seats.len() as u32).map(Slot);
        let mut hung: Vec<Slot> = slots.filter(|slot| silent(*slot)).collect();
        if hung.is_empty() {
            return;
        }
        let waits = |exchange: &Exchange| {
            let pick = exchange.primary().filter(|pick| self.loads.stays(pick))?;
            // Until its body has ended it is the client that is waited for.
            let sent = exchange.answer.sent.filter(|_| !exchange.answer.begun)?;
            (now.saturating_sub(sent) > patience).then_some(pick.slot)
        };
        let mut waiting = vec![false; self.seats.len()];
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
            self.watch.outliers.mark_hung(slot, now / MILLISECOND);
        }
    }

    /// Says who is avoided and why.
    pub(super) fn set_avoided_gauges(&mut self) {
        for index in 0..self.seats.len() {
            let reason = self.watch.outliers.reason(Slot(index as u32));
            let Some(seat) = self.seats.get_mut(index) else {
                continue;
            };
            let before = std::mem::replace(&mut seat.avoided, reason);
            if before == reason {
                continue;
            }
            for (told, value) in [(before, 0), (reason, 1)] {
                if let Some(told) = told {
                    let label = format!("{};reason={}", seat.label, told.name());
                    self.metrics.set(Metric::Avoided, &label, value);
                }
            }
        }
    }

    /// A new endpoint sits in this slot.
    pub(super) fn know(&mut self, slot: Slot) {
        if let Some(endpoint) = self.watch.store.pool.get(slot) {
            let number = xxh64(endpoint.address.as_bytes(), 0).max(1);
            self.watch.outliers.add_endpoint(slot, number);
        }
    }
}

#[cfg(test)]
#[path = "avoid_tests.rs"]
mod tests;
