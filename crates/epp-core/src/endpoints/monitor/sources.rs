//! Which of its two sources an endpoint is asked for: its metrics page, or SGLang's `/v1/loads`.
//!
//! The page comes first, and then once a minute for what `/v1/loads` does not say: the size of the KV cache, and the model.
//! Its gauges count only while `/v1/loads` brings nothing. SGLang updates them at other times, so that a change from one
//! source to the other is no sign of work or of traffic. An endpoint whose `/v1/loads` brings nothing is asked for its page
//! at once, and for a minute.

use super::{Monitor, Scrape};
use crate::endpoints::fetch_error::FetchError;
use crate::endpoints::loads::{Loads, MAX_BYTES};
use crate::endpoints::partial_page::{PageBody, PageReader};
use crate::endpoints::scan::{Extraction, Page};
use crate::scheduling::{Endpoint, Slot};
use crate::time::{Clock, Instant};

/// Milliseconds from one page to the next where `/v1/loads` is read, and from an answer that brought nothing until it is asked
/// for again.
const PERIOD: u64 = 60_000;

/// The state of an endpoint's sources.
#[derive(Debug, Clone, Copy, Default)]
struct Turn {
    /// When the page is due. The default is in the past: it comes first.
    page_due: Instant,
    /// When `/v1/loads` may be requested again.
    loads_due: Instant,
    /// Whether the last answer of `/v1/loads` was understood.
    has_loads: bool,
}

/// The sources of all endpoints.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// Whether `/v1/loads` is read.
    pub(super) with_loads: bool,
    turns: Vec<Turn>,
}

impl Sources {
    /// Returns the state of an endpoint, to be changed: it is there from now on.
    fn turn_mut(&mut self, slot: Slot) -> Option<&mut Turn> {
        if self.turns.len() <= slot.index() {
            self.turns.resize(slot.index() + 1, Turn::default());
        }
        self.turns.get_mut(slot.index())
    }

    /// Returns the state of an endpoint.
    fn turn(&self, slot: Slot) -> Turn {
        self.turns.get(slot.index()).copied().unwrap_or_default()
    }

    pub(super) fn forget(&mut self, slot: Slot) {
        if let Some(turn) = self.turns.get_mut(slot.index()) {
            *turn = Turn::default();
        }
    }

    pub(super) fn clear(&mut self) {
        self.turns.clear();
    }

    /// Takes the turn of an endpoint that may serve `/v1/loads`. Returns whether it is asked for that; otherwise it is asked for
    /// its page, and not again for a minute.
    pub(super) fn take(&mut self, slot: Slot, now: Instant) -> bool {
        let is_loads = self.turn(slot).awaits_loads(now);
        if let Some(turn) = self.turn_mut(slot).filter(|_| !is_loads) {
            turn.page_due = now.after_millis(PERIOD);
        }
        is_loads
    }
}

impl Turn {
    fn awaits_loads(&self, now: Instant) -> bool {
        self.loads_due <= now && now < self.page_due
    }
}

impl Monitor {
    /// A response to [`Query::Loads`](super::Query::Loads) has come.
    pub fn on_loads(
        &mut self,
        slot: Slot,
        address: &str,
        answer: Result<&mut dyn PageBody, FetchError>,
        clock: &Clock,
    ) -> Scrape {
        let Some(known) = self.polled(slot, address) else {
            return Scrape::Departed;
        };
        let loads = answer.and_then(|answer| match answer.size() {
            size @ 0..=MAX_BYTES => Loads::read(&answer.part(0, size)).ok_or(FetchError::NotAPage),
            _ => Err(FetchError::TooLarge),
        });
        let metrics = loads.map(|loads| loads.metrics(&known.metrics));
        if let Some(turn) = self.sources.turn_mut(slot) {
            turn.has_loads = metrics.is_ok();
            if metrics.is_err() {
                turn.loads_due = clock.now().after_millis(PERIOD);
            }
        }
        match metrics {
            Ok(metrics) => {
                // A minute later the families may stand elsewhere on the page.
                if let Some(page) = self.pages.get_mut(slot.index()) {
                    *page = PageReader::default();
                }
                let lora_seen = false;
                let found = Ok(Page { metrics, lora_seen });
                self.take_in(slot, (found, clock.wall()), clock)
            }
            Err(error) => {
                self.poller.ask_again(slot, clock.now());
                Scrape::Failed(error)
            }
        }
    }

    /// Takes in a page, or that none came, where `/v1/loads` may be read.
    pub(super) fn take_in_page(
        &mut self,
        slot: Slot,
        mut found: Result<Page, FetchError>,
        clock: &Clock,
    ) -> Scrape {
        // The plan or the endpoint's engine may be another one since `/v1/loads` was asked for.
        let endpoint = self.store.pool.get(slot);
        let serves = endpoint.is_some_and(|endpoint| self.may_serve_loads(endpoint));
        let turn = match serves {
            true => self.sources.turn(slot),
            false => Turn::default(),
        };
        let has_loads = turn.has_loads;
        // A page that brings no load makes none newer.
        let loads_at = self.store.condition(slot).scraped.filter(|_| has_loads);
        let at = loads_at.unwrap_or(clock.wall());
        // Without what was reported meanwhile, which is not the page's.
        let known = self.store.page(slot).filter(|_| has_loads);
        if let (Some(known), Ok(page)) = (known, &mut found) {
            let metrics = &mut page.metrics;
            metrics.from_loads = known.from_loads;
            (metrics.waiting, metrics.running) = (known.waiting, known.running);
            (metrics.kv_usage, metrics.generated) = (known.kv_usage, known.generated);
        }
        let scrape = match found {
            // The endpoint's load is known all the same.
            Err(error) if has_loads => Scrape::Failed(error),
            found => match self.take_in(slot, (found, at), clock) {
                // It says nothing of what was sent since `/v1/loads` was read.
                Scrape::Fresh if has_loads => Scrape::Known,
                scrape => scrape,
            },
        };
        let is_read = !matches!(scrape, Scrape::Failed(_));
        if (is_read || has_loads) && turn.awaits_loads(clock.now()) {
            self.poller.ask_again(slot, clock.now());
        }
        scrape
    }

    /// Returns whether `/v1/loads` of this endpoint is to be read, if it serves it.
    pub fn may_serve_loads(&self, endpoint: &Endpoint) -> bool {
        let suffice = |extraction: &Extraction| extraction.loads_suffice();
        self.sources.with_loads && self.extraction(endpoint).is_some_and(suffice)
    }
}

#[cfg(test)]
#[path = "sources_tests.rs"]
mod tests;
