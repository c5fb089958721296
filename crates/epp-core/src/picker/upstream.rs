//! What responses say of the endpoints that requests were sent to.

use std::time::Duration;

use super::{Effect, ExchangeId, Picker};
use crate::endpoints::outlier::{Failure, Outcome, Reason};
use crate::metrics::definitions::SERVED_ELSEWHERE;
use crate::metrics::labels::NoLabels;
use crate::scheduling::{Endpoint, Freshness, Slot};
use crate::time::Timestamp;

/// A response of a healthy endpoint is examined this often: that costs two host calls. Of an endpoint at which a
/// request has failed each one is, and each that proves what the indexes have learnt.
const EXAMINE_INTERVAL: Duration = Duration::from_millis(100);

/// What has sent a response.
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
    /// The address of the endpoint that was asked last, if one was.
    pub server: Option<Vec<u8>>,
    /// The response's status, if the host knows it.
    pub status: Option<u16>,
    /// What has sent it.
    pub origin: ResponseOrigin,
}

impl Upstream {
    fn is_success(&self) -> bool {
        self.status
            .is_some_and(|status| (200..300).contains(&status))
    }

    /// Returns the failure of the endpoint that was asked last, if the response is one.
    fn failure(&self) -> Option<Failure> {
        let reason = match self.status? {
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

    /// Returns the failure of the endpoint that the request was sent to, where the response is another one's.
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
    /// Returns whether the host is to look up where the response to this request comes from.
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
        let Some(record) = self.records.get_mut(pick.slot.index()) else {
            return false;
        };
        let (now, wall) = (self.timing.clock.now(), self.timing.clock.wall());
        let last_examined = record.last_examined;
        let examines = proves
            || !exchange.candidate.is_empty()
            || self.monitor.outliers.is_suspect(pick.slot, wall)
            || last_examined.is_none_or(|at| now.since(at) >= EXAMINE_INTERVAL);
        if examines {
            record.last_examined = Some(now);
        }
        examines
    }

    /// The response's headers have come; `upstream` as [`Self::wants_upstream`] asked for it.
    pub fn response_headers(
        &mut self,
        now: Timestamp,
        ExchangeId(id): ExchangeId,
        upstream: Option<&Upstream>,
    ) {
        self.begin_event(now);
        if upstream.is_some_and(|upstream| upstream.status.is_some() && !upstream.is_success()) {
            self.refute(id);
        }
        let Some(exchange) = self.exchanges.get_mut(&id) else {
            return;
        };
        exchange.response.begun = true;
        let explanation = exchange.explanation.take();
        if let Some(pick) = exchange
            .primary()
            .copied()
            .filter(|pick| self.loads.stays(pick))
        {
            if let Some(seen) = upstream {
                self.record_response(id, pick.slot, seen);
                if seen.is_success() {
                    self.ask_for_model(id, pick.slot);
                }
            } else if let Some(record) = self.records.get_mut(pick.slot.index()) {
                record.last_response = self.timing.clock.now();
            }
        }
        self.prove(id);
        self.mark_answered(id);
        if let Some(explanation) = explanation {
            let text = explanation.text(&self.monitor.store.pool);
            let id = ExchangeId(id);
            self.effects.push_back(Effect::Explain { id, text });
        }
    }

    /// Records the response to a request that was sent to the endpoint in this slot.
    fn record_response(&mut self, id: u32, slot: Slot, seen: &Upstream) {
        let refused = seen.status.is_some_and(|status| status >= 500)
            && seen.origin == ResponseOrigin::Overflow;
        let Some(server) = seen.server.as_deref().filter(|_| !refused) else {
            // The proxy responded before it asked an endpoint.
            return;
        };
        let endpoint = self.monitor.store.pool.get(slot);
        if endpoint.is_some_and(|endpoint| endpoint.address.as_bytes() == server) {
            self.record_outcome(id, slot, seen.failure());
            return;
        }
        self.metrics.add(SERVED_ELSEWHERE, NoLabels, 1);
        self.refute(id);
        let endpoint = self.monitor.store.pool.get(slot);
        let freshness = endpoint.map_or(Freshness::Unknown, |endpoint| endpoint.freshness);
        let elsewhere = seen.elsewhere(freshness);
        self.record_outcome(id, slot, Some(elsewhere));
        let by_address = |endpoint: &Endpoint| endpoint.address.as_bytes() == server;
        if let Some(server) = self.monitor.store.pool.find_by(by_address) {
            self.record_outcome(id, server, seen.failure());
        }
    }

    fn record_outcome(&mut self, id: u32, slot: Slot, failure: Option<Failure>) {
        let record = self.records.get_mut(slot.index());
        let unserved = failure.is_some_and(|failure| failure.reason == Reason::Unserved);
        if let Some(record) = record.filter(|_| !unserved) {
            record.last_response = self.timing.clock.now();
        }
        let response = self.exchanges.get(&id).map(|exchange| exchange.response);
        let response = response.unwrap_or_default();
        let outcome = Outcome {
            request: id,
            prompt: response.prompt,
            bodied: response.bodied,
            failure,
        };
        let (now, monitor) = (self.timing.clock.wall(), &mut self.monitor);
        let endpoint = monitor.store.pool.get(slot);
        let freshness = endpoint.map_or(Freshness::Unknown, |endpoint| endpoint.freshness);
        monitor
            .outliers
            .record_outcome(slot, &outcome, freshness, now);
        if monitor.outliers.flags_stale() {
            // Not with the next tick: the next request is to go elsewhere, or to come back.
            monitor.outliers.flag_ejected(&mut monitor.store.pool, now);
        }
    }
}

#[cfg(test)]
#[path = "upstream_tests.rs"]
mod tests;
