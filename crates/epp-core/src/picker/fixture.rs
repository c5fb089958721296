//! Fixtures: pickers whose endpoints are set by hand.

use super::Picker;
use crate::endpoints::monitor::Scrape;
use crate::scheduling::{Pool, Slot};
use crate::time::Timestamp;

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
        let Some(endpoint) = self.0.pool().get(slot) else {
            return false;
        };
        let address = endpoint.address.clone();
        let dispatcher = &mut self.0.dispatcher;
        dispatcher.clock.advance(now);
        let (monitor, clock) = (&mut dispatcher.endpoints.monitor, &dispatcher.clock);
        let scrape = monitor.on_page(slot, &address, Ok(&mut page), clock);
        matches!(scrape, Scrape::Fresh | Scrape::Known)
    }
}
