//! Fetches: those that were requested of the host, and their results.

use std::borrow::Cow;

use super::{Effect, Fetch, FetchError, FetchId, Fetched, Picker};
use crate::body::BodyView;
use crate::endpoints::monitor::{Monitor, Query, Scrape};
use crate::endpoints::partial_page::PageBody;
use crate::metrics::definitions::SCRAPE_ERRORS;
use crate::metrics::labels::PollError;
use crate::time::{Instant, Timestamp};

/// The fetches under way, with when they began.
#[derive(Debug, Default)]
pub struct Fetches {
    under_way: hashbrown::HashMap<FetchId, (Query, Instant)>,
    /// Fetches so far.
    count: u32,
}

impl Fetches {
    fn begin(&mut self, query: Query, now: Instant) -> FetchId {
        self.count = self.count.wrapping_add(1);
        let id = FetchId(self.count);
        self.under_way.insert(id, (query, now));
        id
    }

    fn end(&mut self, id: FetchId) -> Option<Query> {
        self.under_way.remove(&id).map(|(query, _)| query)
    }

    /// Drops the fetches that the monitor takes for lost: a host that drops results would let them grow.
    pub fn drop_lost(&mut self, now: Instant, monitor: &Monitor) {
        let is_awaited = |query: &Query, begun| now.since(begun) <= monitor.lost_after(query);
        self.under_way
            .retain(|_, (query, begun)| is_awaited(query, *begun));
    }

    /// Returns how many there were.
    #[cfg(test)]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Returns how many are under way.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.under_way.len()
    }
}

impl Picker {
    /// Asks the host to fetch something.
    pub(super) fn fetch(&mut self, query: Query) {
        let dispatcher = &mut self.dispatcher;
        let timeout = dispatcher.endpoints.monitor.timeout(&query);
        let fetch = match &query {
            Query::Members => Fetch::Members,
            Query::Survey(missing) => Fetch::Survey { missing: *missing },
            Query::Metrics(_, address) => Fetch::Metrics {
                address: address.clone(),
            },
            Query::Loads(_, address) => Fetch::Loads {
                address: address.clone(),
            },
        };
        let id = self.fetches.begin(query, dispatcher.clock.now());
        let effect = Effect::Fetch { id, fetch, timeout };
        dispatcher.effects.push_back(effect);
    }

    /// Returns whether the result of a fetch is still waited for.
    pub fn awaits(&self, id: FetchId) -> bool {
        self.fetches.under_way.contains_key(&id)
    }

    /// A fetch has ended. Late or repeated results are ignored; one of another kind is a failure.
    pub fn fetched(
        &mut self,
        now: Timestamp,
        id: FetchId,
        result: Result<Fetched<'_>, FetchError>,
    ) {
        let dispatcher = &mut self.dispatcher;
        dispatcher.begin_event(now);
        let Some(query) = self.fetches.end(id) else {
            return;
        };
        match query {
            Query::Members => {
                let listing = match result {
                    Ok(Fetched::Members(listing)) => Ok(listing),
                    Ok(_) => Err(FetchError::NotAPage),
                    Err(error) => Err(error),
                };
                let (monitor, now) = (&mut dispatcher.endpoints.monitor, dispatcher.clock.now());
                let changes = monitor.on_members(listing, now);
                self.apply_changes(&changes);
            }
            Query::Survey(_) => {
                let survey = match result {
                    Ok(Fetched::Survey(survey)) => Some(survey),
                    _ => None,
                };
                dispatcher.endpoints.monitor.on_survey(survey);
            }
            Query::Metrics(slot, ref address) | Query::Loads(slot, ref address) => {
                let mut page = match result {
                    Ok(Fetched::Page(page)) => Ok(FetchedPage(page)),
                    Ok(_) => Err(FetchError::NotAPage),
                    Err(error) => Err(error),
                };
                let body = page.as_mut().map(|page| page as &mut dyn PageBody);
                let body = body.map_err(|error| *error);
                let monitor = &mut dispatcher.endpoints.monitor;
                let clock = &dispatcher.clock;
                let scrape = match query {
                    Query::Loads(..) => monitor.on_loads(slot, address, body, clock),
                    _ => monitor.on_page(slot, address, body, clock),
                };
                match scrape {
                    Scrape::Fresh => dispatcher.endpoints.mark_scraped(slot),
                    Scrape::Known => (),
                    Scrape::Failed(reason) => {
                        let metrics = &mut dispatcher.statistics.registry;
                        let endpoint = &**address;
                        metrics.add(SCRAPE_ERRORS, PollError { endpoint, reason }, 1);
                    }
                    // Its end is not an error, and a label of its own would stay.
                    Scrape::Departed => (),
                }
            }
        }
        self.dispatch();
    }
}

/// A fetched body as a page for the metrics reader.
struct FetchedPage<'a>(&'a mut dyn BodyView);

impl PageBody for FetchedPage<'_> {
    fn size(&self) -> usize {
        self.0.available().len()
    }

    fn part(&mut self, start: usize, length: usize) -> Vec<u8> {
        let end = start.saturating_add(length).min(self.size());
        let part = self.0.read(start..end.max(start));
        part.map_or_else(|_| Vec::new(), Cow::into_owned)
    }
}
