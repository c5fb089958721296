//! Ticks: polling, requests that are held for too long, and gauges.

use super::hold::Unread;
use super::{Effect, Picker};
use crate::endpoints::store::Changes;
use crate::metrics::labels::ForcedRelease;
use crate::time::{Instant, Timestamp};

/// Overdue requests that are released in one tick, as many for memory, and as many bodies that are shown again.
/// Clients choose when theirs become due; all at once they would hold up the worker for a thousand decisions. At
/// some 50 µs each with what Envoy does for it, a tenth of a tick; the default `maxHeld` is through in eight ticks.
/// Those beyond `maxHeld` are released all: they would keep places from newcomers.
pub(super) const MAX_RELEASES_PER_TICK: usize = 128;

/// Bytes left unread that are read in one tick, and what the last request has beyond: at about a
/// millisecond per MiB, a tenth of a tick.
const MAX_SHOWN_BYTES_PER_TICK: usize = 4 << 20;

impl Picker {
    /// Time has passed. To be called every 50 ms or so.
    pub fn tick(&mut self, now: Timestamp) {
        self.dispatcher.begin_event(now);
        // First: where a tick panics, these do not grow with every request after it.
        self.exchanges.sweep();
        self.dispatcher.endpoints.sweep(&self.exchanges);
        let clock = self.dispatcher.clock;
        self.dispatcher.readers.responses.tick();
        let waiting = self.dispatcher.flow.waits();
        let (changes, queries) = self.dispatcher.endpoints.tick(waiting, &clock);
        self.apply_changes(&changes);
        self.dispatcher.endpoints.end_emptiness(clock.now());
        self.expire_queued();
        self.dispatcher.states.expire(clock.now());
        self.release_due();
        self.relieve_memory();
        // Otherwise it is not known which endpoint a request waits for.
        let follows = !self.dispatcher.endpoints.override_check.is_ignored();
        if follows {
            let endpoints = &mut self.dispatcher.endpoints;
            endpoints.find_stalled(&self.exchanges, &clock);
        }
        self.probe_ejected();
        self.dispatch();
        self.evict();
        queries.into_iter().for_each(|query| self.fetch(query));
        if self.gauges.take_due(clock.now()) {
            let endpoints = &mut self.dispatcher.endpoints;
            self.fetches.drop_lost(clock.now(), &endpoints.monitor);
            let patience = self.dispatcher.plan.source.staleness;
            let interval = self.dispatcher.plan.discovery.interval();
            endpoints.override_check.end_period(interval, clock.now());
            if follows {
                endpoints.find_hung(&self.exchanges, patience, &clock);
            }
            self.set_gauges();
            self.update_verdict();
            self.dispatcher.statistics.registry.flush();
        }
        self.show_unread();
    }

    /// Applies which endpoints came and went.
    pub(super) fn apply_changes(&mut self, changes: &Changes) {
        if self.dispatcher.apply_changes(changes) {
            // The gauges show it with the next tick.
            self.gauges.expire();
        }
    }

    /// Decides with what is known those that are held beyond `maxHeld`, and those whose body does not come as it
    /// should.
    fn release_due(&mut self) {
        let Self {
            exchanges,
            dispatcher,
            ..
        } = self;
        let proxy = &dispatcher.plan.settings;
        let (timeout, max_held) = (proxy.body_timeout, proxy.max_held);
        let overdue = dispatcher.clock.now().before(timeout);
        let excess = exchanges.held().saturating_sub(max_held);
        for _ in 0..excess.max(MAX_RELEASES_PER_TICK) {
            let (bound, reason) = match exchanges.held() > max_held {
                true => (Instant::MAX, ForcedRelease::Held),
                false => (overdue, ForcedRelease::Timeout),
            };
            let due = exchanges.first_overdue(bound, timeout);
            let Some(mut exchange) = due.and_then(|id| exchanges.get_mut(id)) else {
                break;
            };
            dispatcher.release(&mut exchange, reason);
            dispatcher.readers.memory.count(&mut exchange);
        }
    }

    /// Has those bodies shown of which nothing came for a while and a part was left unread: that part may hold the
    /// model.
    fn show_unread(&mut self) {
        let now = self.dispatcher.clock.now();
        let mut read = 0;
        for _ in 0..MAX_RELEASES_PER_TICK {
            if read >= MAX_SHOWN_BYTES_PER_TICK {
                break;
            }
            let due = self.exchanges.first_unread(now);
            let Some(mut exchange) = due.and_then(|id| self.exchanges.get_mut(id)) else {
                break;
            };
            let (id, position) = (exchange.id, exchange.position);
            if let Some(hold) = exchange.host_hold_mut() {
                read += hold.arrived.saturating_sub(position);
                hold.unread = Unread::Never;
            }
            self.dispatcher.effects.push_back(Effect::ShowBody { id });
        }
    }
}

#[cfg(test)]
#[path = "tick_tests.rs"]
mod tests;
