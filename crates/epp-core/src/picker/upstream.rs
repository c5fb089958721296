//! Upstreams: where responses come from, and what they say of the endpoints that requests were sent to.

use std::time::Duration;

use super::decide::with_port;
use super::dispatcher::Dispatcher;
use super::exchange::Exchange;
use super::pool_state::PoolState;
use super::{Effect, ExchangeId, Picker};
use crate::endpoints::outlier::{Failure, Reason};
use crate::metrics::definitions::SERVED_ELSEWHERE;
use crate::metrics::labels::NoLabels;
use crate::protocol::EXPLAIN_HEADER;
use crate::scheduling::{Endpoint, Freshness, Slot};
use crate::time::Instant;

/// What the first endpoint responded before another one responded to a retry is not known. If it took less than
/// this, no timeout was over: the first one has given the request away with a 503, or could not be reached.
const MAX_GIVEN_AWAY: Duration = Duration::from_secs(1);

/// Time within which all pickers have adopted what one of them has found.
const MAX_ADOPTION: Duration = Duration::from_millis(250);

/// The sender of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ResponseOrigin {
    /// The endpoint.
    #[default]
    Endpoint,
    /// The proxy, which could not connect to the endpoint.
    Unreachable,
    /// The proxy, which did not ask the endpoint: it has too many connections or requests there.
    Overflow,
    /// The proxy, which has no endpoint at all.
    NoEndpoint,
    /// The proxy, for another reason: the connection was closed, or a timeout was over.
    Proxy,
}

/// The origin of a response, as the host reports it.
#[derive(Debug, Clone, Default)]
pub struct Upstream {
    /// The address of the endpoint to which the request was sent last, if it was sent to one.
    pub server: Option<Vec<u8>>,
    /// The response's status, if the host knows it.
    pub status: Option<u16>,
    /// Its sender.
    pub origin: ResponseOrigin,
    /// How often the request was sent to an endpoint, if the host knows it. It is asked only where
    /// [`Picker::is_served_elsewhere`] holds.
    pub attempts: Option<u64>,
    /// The value of the header [`LOAD_HEADER`](crate::protocol::LOAD_HEADER), if the response has one. It is looked for only where
    /// [`Picker::wants_load_report`] holds.
    pub load_report: Option<Vec<u8>>,
    /// The cluster to which the request's route leads, if the host knows it. It is asked only there, and where the proxy
    /// has no endpoint.
    pub cluster: Option<Vec<u8>>,
}

impl Upstream {
    fn is_success(&self) -> bool {
        self.status
            .is_some_and(|status| (200..300).contains(&status))
    }

    /// Returns the failure of the endpoint to which the request was sent last, if the response is one.
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

    /// Returns the failure of the endpoint that the request was sent to last, if the response is one, and whether it is one
    /// of success.
    fn outcome(&self) -> (Option<Failure>, bool) {
        (self.failure(), self.is_success())
    }

    /// Returns the failure of the endpoint that the request was sent to, where the response is another one's.
    fn elsewhere(&self, reason: Reason, freshness: Freshness) -> Failure {
        Failure {
            reason,
            // What another endpoint served was hardly the request's fault, unless the first is well but for
            // it: then the request may have taken long enough there for a retry to overtake it. A page that never
            // came says neither: perhaps none is polled.
            certain: self.failure().is_none() && freshness == Freshness::Stale,
        }
    }
}

impl Picker {
    /// Returns whether the endpoint at this address is another one than the one that the request was sent to.
    pub fn is_served_elsewhere(&self, id: ExchangeId, upstream: &Upstream) -> bool {
        let endpoints = &self.dispatcher.endpoints;
        let (Some(exchange), Some(server)) = (self.exchanges.get(id), &upstream.server) else {
            return false;
        };
        let target = endpoints.present_target(exchange);
        target.is_some_and(|target| !endpoints.is_server(exchange, target.slot, server))
    }
}

impl PoolState {
    /// Returns whether the server at this address is the endpoint in the slot to which a request was sent.
    fn is_server(&self, exchange: &Exchange, slot: Slot, server: &[u8]) -> bool {
        let address = self.address(slot);
        match exchange.port {
            None => address.as_bytes() == server,
            Some(port) => with_port(address, port).as_bytes() == server,
        }
    }
}

impl Dispatcher {
    /// Returns whether the host is to look up where the response to this request comes from.
    pub fn wants_upstream(&mut self, exchange: &Exchange) -> bool {
        let Some(target) = exchange.primary() else {
            return exchange.is_dry_run;
        };
        // After a retry it may be another endpoint, which then is the one that holds the prompt.
        let needed = exchange.awaits_proof()
            || !exchange.proposed_model.is_empty()
            // If the proxy has no endpoint for this request, it has none for those that wait.
            || !self.flow.queues.is_empty();
        self.endpoints.examines(target.slot, needed, &self.clock)
    }

    /// Handles the response's headers; `upstream` is given if [`Self::wants_upstream`] requested it.
    pub fn begin_response(&mut self, exchange: &mut Exchange, upstream: Option<&Upstream>) {
        if exchange.is_dry_run {
            self.compare(exchange, upstream);
        }
        let rejects = |upstream: &Upstream| upstream.status.is_some() && !upstream.is_success();
        let is_rejected = upstream.is_some_and(rejects);
        if is_rejected {
            self.prefixes.refute(exchange, &self.endpoints);
        }
        let waiting_since = exchange.response.awaited_since();
        exchange.response.begin(!is_rejected);
        let explanation = exchange.explanation.take();
        if let Some(target) = self.endpoints.present_target(exchange) {
            if let Some(seen) = upstream {
                self.record_response(exchange, target.slot, (seen, waiting_since));
                if seen.is_success() {
                    self.propose_model(exchange, target.slot);
                }
            } else {
                // Perhaps without success: it shows no work.
                self.endpoints
                    .mark_responsive(target.slot, self.clock.now());
            }
        }
        self.prefixes.prove(exchange, &self.endpoints);
        let report = upstream.and_then(|seen| Some((seen, seen.load_report.as_deref()?)));
        if let Some((seen, value)) = report {
            self.take_load_report(exchange, seen, value);
        }
        if let Some(targets) = exchange.targets_mut() {
            self.endpoints.mark_seen(targets);
        }
        if let Some(explanation) = explanation {
            let text = explanation.text(self.endpoints.pool());
            let header = (EXPLAIN_HEADER.to_owned(), text);
            exchange.response_headers.push(header);
        }
        let id = exchange.id;
        for (name, value) in exchange.response_headers.drain(..) {
            let effect = Effect::SetResponseHeader { id, name, value };
            self.effects.push_back(effect);
        }
    }

    /// Records the response to a request that was sent to the endpoint in this slot.
    fn record_response(
        &mut self,
        exchange: &mut Exchange,
        slot: Slot,
        (seen, waiting_since): (&Upstream, Option<Instant>),
    ) {
        let refused = seen.status.is_some_and(|status| status >= 500)
            && seen.origin == ResponseOrigin::Overflow;
        let Some(server) = seen.server.as_deref().filter(|_| !refused) else {
            // The proxy responded before it contacted an endpoint.
            if seen.origin == ResponseOrigin::NoEndpoint && self.other_cluster(seen).is_none() {
                let interval = self.plan.discovery.interval();
                let until = self.clock.now().after(interval + MAX_ADOPTION);
                self.endpoints.count_as_empty(until);
            }
            return;
        };
        let now = self.clock.now();
        if self.endpoints.is_server(exchange, slot, server) {
            self.endpoints.override_check.record(slot, false, now);
            self.record_or_await(exchange, slot, seen);
            return;
        }
        exchange.response.stop_waiting();
        self.statistics.registry.add(SERVED_ELSEWHERE, NoLabels, 1);
        let by_address = |endpoint: &Endpoint| endpoint.address.as_bytes() == server;
        let server = self.endpoints.pool().find_by(by_address);
        if let Some(cluster) = self.other_cluster(seen).filter(|_| server.is_none()) {
            // No endpoint of the pool has seen it.
            self.statistics.left_alone.misroute(cluster);
            return self.prefixes.refute(exchange, &self.endpoints);
        }
        // Then the proxy has chosen the other endpoint by itself, which says nothing about the named one.
        let is_first = seen.attempts == Some(1);
        if is_first
            && self
                .endpoints
                .endpoint(slot)
                .is_some_and(|named| named.is_available())
        {
            self.endpoints.override_check.record(slot, true, now);
        }
        match seen.is_success() {
            true => self.prefixes.refute_primary(exchange, &self.endpoints),
            false => self.prefixes.refute(exchange, &self.endpoints),
        }
        if !is_first && !self.endpoints.override_check.is_ignored() {
            let waited = waiting_since.map(|since| now.since(since));
            let is_quick = waited.is_some_and(|waited| waited < MAX_GIVEN_AWAY);
            let reason = match is_quick && self.endpoints.is_reachable(slot) {
                true => Reason::Overloaded,
                false => Reason::Unserved,
            };
            let elsewhere = seen.elsewhere(reason, self.endpoints.freshness(slot));
            self.record_outcome(exchange, slot, (Some(elsewhere), false));
        }
        if let Some(server) = server {
            self.record_or_await(exchange, server, seen);
        }
    }

    /// Records the response of the endpoint in this slot, unless the first bytes of its body have to show whether it is a
    /// success: its engine may stand still behind a server that sends headers.
    fn record_or_await(&mut self, exchange: &mut Exchange, slot: Slot, seen: &Upstream) {
        if seen.is_success() && exchange.response.takes_engine() {
            exchange.response.responder = Some(slot);
        } else {
            self.record_outcome(exchange, slot, seen.outcome());
        }
    }

    /// The endpoint in this slot has served a request, which had waited since then for the endpoint that was picked.
    pub(super) fn record_served(
        &mut self,
        exchange: &Exchange,
        slot: Slot,
        waiting_since: Option<Instant>,
    ) {
        let picked = exchange.primary().filter(|target| target.slot == slot);
        if picked.is_some_and(|target| !self.endpoints.loads.stays(target)) {
            return;
        }
        let waiting_since = waiting_since.filter(|_| picked.is_some());
        self.endpoints
            .mark_served(slot, waiting_since, self.clock.now());
        self.record_outcome(exchange, slot, (None, true));
    }

    /// Returns the cluster to which the request's route leads, if that is not the pool's.
    fn other_cluster<'a>(&self, seen: &'a Upstream) -> Option<&'a [u8]> {
        let cluster = seen.cluster.as_deref()?;
        (cluster != self.plan.cluster().as_bytes()).then_some(cluster)
    }

    fn record_outcome(
        &mut self,
        exchange: &Exchange,
        slot: Slot,
        outcome: (Option<Failure>, bool),
    ) {
        let (failure, _) = outcome;
        let unserved = failure.is_some_and(|failure| failure.reason == Reason::Unserved);
        if !unserved {
            self.endpoints.mark_responsive(slot, self.clock.now());
        }
        let now = self.clock.wall();
        self.endpoints.record_outcome(exchange, slot, outcome, now);
    }
}

#[cfg(test)]
#[path = "upstream_tests.rs"]
mod tests;
