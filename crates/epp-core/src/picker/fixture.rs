//! Fixtures: pickers whose endpoints are set by hand.

use super::Picker;
use crate::endpoints::monitor::{Monitor, Scrape};
use crate::scheduling::{Pool, Slot};
use crate::time::{Clock, Timestamp};

/// The endpoints of a picker that no proxy feeds, to be set by hand: for tools such as `eppctl explain`, and
/// for tests.
///
/// Returned by [`Picker::fixture`].
pub struct Fixture<'a>(&'a mut Picker);

impl Picker {
    /// Returns the endpoints, to be set by hand.
    pub fn fixture(&mut self) -> Fixture<'_> {
        Fixture(self)
    }
}

impl<'a> Fixture<'a> {
    /// Returns the endpoints, to change.
    pub fn pool(self) -> &'a mut Pool {
        &mut self.0.dispatcher.endpoints.monitor.store.pool
    }

    /// Chooses the decision mode again, after the endpoints' freshness was changed.
    pub fn choose_mode(self) {
        self.0.dispatcher.endpoints.monitor.store.choose_mode();
    }

    /// Reads an endpoint's metrics page. Returns whether it has any of the engine's metrics.
    pub fn read_page(self, now: Timestamp, slot: Slot, mut page: &[u8]) -> bool {
        self.read(now, slot, |monitor, address, clock| {
            monitor.on_page(slot, address, Ok(&mut page), clock)
        })
    }

    /// Returns whether the plan reads an endpoint's `/v1/loads`, if it serves it.
    pub fn may_serve_loads(self, slot: Slot) -> bool {
        let monitor = &self.0.dispatcher.endpoints.monitor;
        let endpoint = monitor.store.pool.get(slot);
        endpoint.is_some_and(|endpoint| monitor.may_serve_loads(endpoint))
    }

    /// Reads an endpoint's answer to `/v1/loads`. Returns whether it was understood.
    pub fn read_loads(self, now: Timestamp, slot: Slot, mut answer: &[u8]) -> bool {
        self.read(now, slot, |monitor, address, clock| {
            monitor.on_loads(slot, address, Ok(&mut answer), clock)
        })
    }

    fn read(
        self,
        now: Timestamp,
        slot: Slot,
        read: impl FnOnce(&mut Monitor, &str, &Clock) -> Scrape,
    ) -> bool {
        let Some(endpoint) = self.0.pool().get(slot) else {
            return false;
        };
        let address = endpoint.address.clone();
        let dispatcher = &mut self.0.dispatcher;
        dispatcher.clock.advance(now);
        let (monitor, clock) = (&mut dispatcher.endpoints.monitor, &dispatcher.clock);
        let scrape = read(monitor, &address, clock);
        matches!(scrape, Scrape::Fresh | Scrape::Known)
    }
}
