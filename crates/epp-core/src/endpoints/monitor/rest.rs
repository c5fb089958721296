//! Endpoints at rest: pages that say nothing new, and what is published of them.
//!
//! With each page that is read, the metrics of the whole pool are published, and adopted by each other picker. A page of an
//! endpoint at rest that says the same as before brings them nothing but the time at which it was read. That is kept
//! back, and noted for all endpoints at once.

use std::time::Duration;

use super::Monitor;
use crate::endpoints::scan::Page;
use crate::endpoints::store::{Condition, EndpointStore};
use crate::scheduling::{Freshness, Slot};
use crate::time::{whole_millis, Instant, Timestamp};

/// The reading time of an unchanged page is kept back for a third of the time by which a page may be late (0.6 s by default),
/// and never longer than this. Gauges and the status page show pages as older than they are by up to that time.
const MAX_KEPT_BACK: Duration = Duration::from_secs(1);

/// Pages of endpoints at rest that were read again, which the store does not know yet.
#[derive(Debug, Default)]
pub(super) struct Rereads {
    /// When each was read last, by slot.
    read: Vec<Option<Timestamp>>,
    /// When the store is told.
    due: Instant,
}

impl Rereads {
    pub(super) fn add(&mut self, slot: Slot, now: Timestamp) {
        if self.read.len() <= slot.index() {
            self.read.resize(slot.index() + 1, None);
        }
        if let Some(read) = self.read.get_mut(slot.index()) {
            *read = Some(now.floor_millis());
        }
    }

    pub(super) fn forget(&mut self, slot: Slot) {
        if let Some(read) = self.read.get_mut(slot.index()) {
            *read = None;
        }
    }

    pub(super) fn clear(&mut self) {
        self.read.clear();
    }

    /// Tells the store, if it is time, and does so again after `wait`. Returns whether there was something to tell.
    fn tell(&mut self, store: &mut EndpointStore, wait: Duration, now: Instant) -> bool {
        if now < self.due {
            return false;
        }
        self.due = now.after(wait);
        let mut tells = false;
        for (slot, read) in (0..).map(Slot).zip(&mut self.read) {
            if let Some(scraped) = read.take() {
                tells = true;
                let condition = store.condition(slot);
                let scraped = Some(scraped);
                store.set_condition(
                    slot,
                    Condition {
                        scraped,
                        ..condition
                    },
                );
            }
        }
        tells
    }
}

impl Monitor {
    /// Returns whether a page that says the same changes nothing but when it was read: the endpoint has rested for as long as it
    /// may, and its metrics are fresh.
    pub(super) fn stays_at_rest(&self, slot: Slot) -> bool {
        let Condition { failures, rest, .. } = self.store.condition(slot);
        let endpoint = self.store.pool.get(slot);
        let is_fresh = endpoint.is_some_and(|known| known.freshness == Freshness::Fresh);
        let rests = rest > 0 && rest == self.poller.rest(slot);
        // The page takes the place of what was reported before it.
        let has_no_report = self.store.report(slot).is_none();
        // Where only constants are needed, the rest of the page was not compared.
        is_fresh && failures == 0 && rests && has_no_report && !self.needs_constants
    }

    /// Notes when pages of endpoints at rest were read again, each time that a third of the time has passed by which a page
    /// may be late.
    pub(super) fn note_rereads(&mut self, now: Instant) {
        let settings = &self.settings;
        let late = settings.staleness.saturating_sub(settings.interval);
        let wait = MAX_KEPT_BACK.min(late / 3);
        self.revisions.metrics += u64::from(self.rereads.tell(&mut self.store, wait, now));
    }

    /// Returns whether a page says the same as the one before of what the plan needs.
    pub(super) fn is_known(&self, slot: Slot, page: &Page) -> bool {
        let known = self.store.page(slot);
        known.is_some_and(|known| {
            known.has_constants_of(&page.metrics)
                && (self.needs_constants
                    || known.has_measurements_of(&page.metrics, page.lora_seen))
        })
    }

    /// Returns whether the load of an endpoint was last read from the other one of its sources.
    pub(super) fn is_of_other_source(&self, slot: Slot, page: &Page) -> bool {
        let endpoint = self.store.pool.get(slot);
        endpoint.is_some_and(|known| known.metrics.from_loads != page.metrics.from_loads)
    }

    /// Ends a rest: the page counts as on time until now, and is late from now on.
    pub(super) fn end_rest(&mut self, slot: Slot, now: Instant) {
        // When the page was read again is not noted: without a rest, it would count as a new page, and the other pickers would
        // take requests that were sent since then for seen. The page counts as older than it is, by what may be kept back.
        self.rereads.forget(slot);
        let age = self.store.page_age(slot, now).unwrap_or_default();
        let rest = whole_millis(age).saturating_sub(whole_millis(self.settings.interval));
        let rest = rest.min(self.store.condition(slot).rest);
        self.store.set_rest(slot, rest);
        self.revisions.metrics += 1;
    }
}
