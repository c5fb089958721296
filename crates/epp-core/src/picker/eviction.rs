//! Evictions: sheddable requests in flight that give way to queued requests of a higher priority.

use super::dispatcher::Dispatcher;
use super::exchange::Exchange;
use super::reply::LocalReply;
use super::{Effect, Picker};
use crate::flow::Dropped;
use crate::scheduling::ScheduleError;

impl Picker {
    /// Evicts sheddable requests in flight where the highest band that waits is kept back by a full pool. From ticks
    /// only: there a host can reply to any request.
    pub(super) fn evict(&mut self) {
        let Self {
            exchanges,
            dispatcher,
            ..
        } = self;
        let control = dispatcher.plan.flow.as_ref();
        let Some(control) = control.filter(|control| control.eviction) else {
            return;
        };
        if dispatcher.endpoints.is_empty() {
            // What waits could be sent nowhere.
            return;
        }
        let flow = &mut dispatcher.flow;
        let Some(blocked) = flow.queues.blocked(control) else {
            return;
        };
        if flow.others.priority() > Some(blocked.priority) {
            // It waits for another picker's requests.
            return;
        }
        let pool = dispatcher.endpoints.pool();
        let saturation = flow.meter.measure(pool).effective;
        let (_, in_flight) = dispatcher.endpoints.in_flight();
        let (filled, grace) = ((saturation, in_flight as usize), control.eviction_grace);
        let now = dispatcher.clock.now();
        for id in flow.evictions.choose(blocked, filled, grace, now) {
            if let Some(mut exchange) = exchanges.get_mut(id) {
                dispatcher.evict(&mut exchange);
            }
        }
    }
}

impl Dispatcher {
    fn evict(&mut self, exchange: &mut Exchange) {
        exchange.ticket.evicted = true;
        let error = ScheduleError::Dropped(Dropped::Evicted);
        let reply = LocalReply::new(&error, self.plan.dialect);
        self.statistics.count_eviction(exchange.ticket.priority);
        let id = exchange.id;
        self.effects.push_back(Effect::Evict { id, reply });
    }
}

#[cfg(test)]
#[path = "eviction_tests.rs"]
mod tests;
