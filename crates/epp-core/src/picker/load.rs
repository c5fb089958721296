//! Loads: the requests in flight at each endpoint, the tokens that they still cost, and the requests that the
//! endpoint's metrics cannot show yet.
//!
//! Each picker counts its own, and adds what the others have published. A count belongs to a tenure: the time
//! that one endpoint is in its slot. A request that ends after its endpoint has left takes nothing
//! from the endpoint that has the slot then, so that no count goes below zero and none stays forever.

use super::costs::tokens_at;
use super::dispatcher::Dispatcher;
use super::exchange::{Exchange, Target};
use crate::endpoints::store::EndpointStore;
use crate::scheduling::{InFlight, Slot};

use serde::{Deserialize, Serialize};

/// The load of one slot's endpoint.
#[derive(Debug, Clone, Copy, Default)]
struct Load {
    /// Distinguishes the endpoint from others in the slot.
    tag: u32,
    /// Counts the endpoints that have been in the slot.
    tenure: u32,
    /// Counts the endpoint's pages and load reports, which shows whether a request was sent before the last one.
    scrapes: u32,
    /// What this count was when the last page came.
    page: u32,
    /// How many of `own.unseen` and of `others.unseen` a load report since the last page has shown.
    reported: (u32, u32),
    /// The requests of this picker in flight.
    own: InFlight,
    /// The requests of the other pickers in flight, as they published them.
    others: InFlight,
    /// Requests that the other pickers may have sent there since they published these.
    unreported: f64,
    /// Whether another picker needs the endpoint's next page soon.
    needs_page: bool,
}

impl Load {
    /// A request that was sent at this count needs no page any more: its response has begun, or it has ended.
    fn see(&mut self, scrapes: u32) {
        let since_page = self.scrapes.wrapping_sub(self.page);
        let age = self.scrapes.wrapping_sub(scrapes);
        if age <= since_page {
            self.own.unseen = self.own.unseen.saturating_sub(1);
            self.reported.0 = self.reported.0.saturating_sub(u32::from(age > 0));
        }
    }
}

/// The requests of one picker in flight at one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EndpointLoad {
    /// The endpoint's slot.
    pub slot: u32,
    /// Distinguishes the endpoint from former and later ones in its slot.
    pub tag: u32,
    /// Requests sent and not ended.
    pub requests: u32,
    /// Requests sent since the endpoint's page was read, without a response yet.
    pub unseen: u32,
    /// The number of that reading of the page.
    pub scraped: u32,
    /// Tokens that these requests still cost.
    pub tokens: u64,
    /// Whether the endpoint's page is needed soon: requests there have failed or waited unusually long.
    pub needs_page: bool,
}

/// The loads, by slot.
#[derive(Debug, Default)]
pub struct Loads {
    slots: Vec<Load>,
    /// The requests of this picker in flight at all endpoints.
    in_flight: usize,
    /// Whether a slot has [`Load::unreported`].
    has_unreported: bool,
}

impl Loads {
    /// A new endpoint is in this slot.
    pub fn add(&mut self, slot: Slot, store: &mut EndpointStore) {
        let Some(endpoint) = store.pool.get(slot) else {
            return;
        };
        let tag = endpoint.tag();
        if self.slots.len() <= slot.index() {
            self.slots.resize(slot.index() + 1, Load::default());
        }
        if let Some(load) = self.slots.get_mut(slot.index()) {
            self.in_flight = self.in_flight.saturating_sub(load.own.requests as usize);
            *load = Load {
                tag,
                tenure: load.tenure.wrapping_add(1),
                scrapes: load.scrapes,
                page: load.scrapes,
                ..Load::default()
            };
        }
        self.show(slot, store);
    }

    /// The endpoint in this slot has left.
    pub fn remove(&mut self, slot: Slot) {
        if let Some(load) = self.slots.get_mut(slot.index()) {
            self.in_flight = self.in_flight.saturating_sub(load.own.requests as usize);
            *load = Load {
                tenure: load.tenure.wrapping_add(1),
                ..Load::default()
            };
        }
    }

    /// Returns what distinguishes an endpoint from others that were or will be in its slot.
    pub fn tag(&self, slot: Slot) -> u32 {
        self.slots.get(slot.index()).map_or(0, |load| load.tag)
    }

    /// Returns how many requests of this picker are in flight at the endpoint in this slot.
    pub fn in_flight(&self, slot: Slot) -> usize {
        let load = self.slots.get(slot.index());
        load.map_or(0, |load| load.own.requests as usize)
    }

    /// Returns how many requests of this picker are in flight at all endpoints.
    pub fn all_in_flight(&self) -> usize {
        self.in_flight
    }

    /// Returns whether the endpoint that a request was sent to is still there.
    pub fn stays(&self, target: &Target) -> bool {
        let load = self.slots.get(target.slot.index());
        load.is_some_and(|load| load.tenure == target.tenure)
    }

    /// A newer page shows what was sent before it.
    pub fn scraped(&mut self, slot: Slot, store: &mut EndpointStore) {
        if let Some(load) = self.slots.get_mut(slot.index()) {
            load.scrapes = load.scrapes.wrapping_add(1);
            load.page = load.scrapes;
            load.own.unseen = 0;
            load.others.unseen = 0;
            load.reported = (0, 0);
        }
        self.show(slot, store);
    }

    /// A load report shows what was sent before it. The other pickers do not have it: what they are told stays.
    pub fn reported(&mut self, slot: Slot, store: &mut EndpointStore) {
        if let Some(load) = self.slots.get_mut(slot.index()) {
            load.scrapes = load.scrapes.wrapping_add(1);
            load.reported = (load.own.unseen, load.others.unseen);
        }
        self.show(slot, store);
    }

    /// A request is sent to the endpoint in this slot. `unseen`: whether its metrics cannot show the request yet.
    pub fn send(
        &mut self,
        slot: Slot,
        unseen: bool,
        tokens: u64,
        store: &mut EndpointStore,
    ) -> Target {
        let mut target = Target {
            slot,
            tenure: 0,
            scrapes: 0,
            unseen,
            tokens: Some(tokens),
        };
        if let Some(load) = self.slots.get_mut(slot.index()) {
            load.own.requests = load.own.requests.saturating_add(1);
            self.in_flight += 1;
            load.own.unseen = load.own.unseen.saturating_add(u32::from(unseen));
            load.own.tokens = load.own.tokens.saturating_add(tokens);
            target.tenure = load.tenure;
            target.scrapes = load.scrapes;
        }
        self.show(slot, store);
        target
    }

    /// A request turns out to cost this many tokens; `None` where it costs no more.
    pub fn set_tokens(
        &mut self,
        target: &mut Target,
        tokens: Option<u64>,
        store: &mut EndpointStore,
    ) {
        if let Some(load) = self.load_of(target) {
            let others = load.own.tokens.saturating_sub(target.tokens.unwrap_or(0));
            load.own.tokens = others.saturating_add(tokens.unwrap_or(0));
        }
        target.tokens = tokens;
        self.show(target.slot, store);
    }

    /// The response to a request has begun: its endpoint's next page shows the request or what became of it.
    pub fn mark_seen(&mut self, target: &mut Target, store: &mut EndpointStore) {
        if !std::mem::take(&mut target.unseen) {
            return;
        }
        let scrapes = target.scrapes;
        if let Some(load) = self.load_of(target) {
            load.see(scrapes);
        }
        self.show(target.slot, store);
    }

    /// An endpoint has done its part of a request.
    pub fn end(&mut self, target: Target, store: &mut EndpointStore) {
        let Some(load) = self.load_of(&target) else {
            return;
        };
        if target.unseen {
            load.see(target.scrapes);
        }
        let own = &mut load.own;
        own.tokens = own.tokens.saturating_sub(target.tokens.unwrap_or(0));
        own.requests = own.requests.saturating_sub(1);
        self.in_flight = self.in_flight.saturating_sub(1);
        self.show(target.slot, store);
    }

    /// Returns the load that a request is part of, if its endpoint is still there.
    fn load_of(&mut self, target: &Target) -> Option<&mut Load> {
        let load = self.slots.get_mut(target.slot.index())?;
        (load.tenure == target.tenure).then_some(load)
    }

    /// Returns whether another picker needs the next page of the endpoint in this slot soon.
    pub fn others_need_page(&self, slot: Slot) -> bool {
        let load = self.slots.get(slot.index());
        load.is_some_and(|load| load.needs_page)
    }

    /// Appends what this picker has in flight, to be published. `needs_page` returns whether it needs the next page of
    /// an endpoint soon.
    pub fn append_own(
        &self,
        store: &EndpointStore,
        needs_page: impl Fn(Slot) -> bool,
        loads: &mut Vec<EndpointLoad>,
    ) {
        for (slot, load) in (0..).zip(&self.slots) {
            let needs_page = needs_page(Slot(slot));
            if load.own.requests > 0 || needs_page {
                loads.push(EndpointLoad {
                    slot,
                    tag: load.tag,
                    requests: load.own.requests,
                    unseen: load.own.unseen,
                    scraped: scraped(store, Slot(slot)),
                    tokens: load.own.tokens,
                    needs_page,
                });
            }
        }
    }

    /// Replaces what the other pickers have in flight.
    pub fn set_others(
        &mut self,
        others: &mut dyn Iterator<Item = &[EndpointLoad]>,
        store: &mut EndpointStore,
    ) {
        for load in &mut self.slots {
            load.others = InFlight::default();
            load.needs_page = false;
        }
        for reported in others.flatten() {
            let same = |load: &&mut Load| load.tag == reported.tag;
            let load = self.slots.get_mut(reported.slot as usize).filter(same);
            if let Some(load) = load {
                load.needs_page |= reported.needs_page;
                let others = &mut load.others;
                others.requests = others.requests.saturating_add(reported.requests);
                others.tokens = others.tokens.saturating_add(reported.tokens);
                // What was sent before the page that is known here is in that page.
                if reported.scraped == scraped(store, Slot(reported.slot)) {
                    others.unseen = others.unseen.saturating_add(reported.unseen);
                }
            }
        }
        for load in &mut self.slots {
            // Requests that a report has shown and that have ended make no later ones seen.
            load.reported.1 = load.reported.1.min(load.others.unseen);
        }
        (0..self.slots.len()).for_each(|slot| self.show(Slot(slot as u32), store));
    }

    /// Other pickers may have sent this many requests to the endpoint in this slot.
    pub fn add_unreported(&mut self, slot: Slot, requests: f64, store: &mut EndpointStore) {
        if let Some(load) = self.slots.get_mut(slot.index()) {
            load.unreported += requests;
            self.has_unreported = true;
        }
        self.show(slot, store);
    }

    /// The other pickers have reported what they sent.
    pub fn forget_unreported(&mut self, store: &mut EndpointStore) {
        if !std::mem::take(&mut self.has_unreported) {
            return;
        }
        for load in &mut self.slots {
            load.unreported = 0.0;
        }
        (0..self.slots.len()).for_each(|slot| self.show(Slot(slot as u32), store));
    }

    /// Shows an endpoint's load to the scorers.
    fn show(&self, slot: Slot, store: &mut EndpointStore) {
        if let Some(load) = self.slots.get(slot.index()) {
            let mut shown = load.own.plus(load.others);
            let (own, others) = load.reported;
            let others = load.others.unseen.saturating_sub(others);
            shown.unseen = load.own.unseen.saturating_sub(own).saturating_add(others);
            // A part of a request counts as one.
            shown.unreported = load.unreported.ceil() as u32;
            store.pool.set_load(slot, shown);
        }
    }
}

/// Returns which reading of an endpoint's page this picker has.
fn scraped(store: &EndpointStore, slot: Slot) -> u32 {
    // Readings are milliseconds apart: the lower half distinguishes them for seven weeks.
    let scraped = store.condition(slot).scraped;
    scraped.map_or(0, |scraped| scraped.as_millis() as u32)
}

impl Dispatcher {
    /// More was read of a request that was sent: it costs more than was known, wherever its prompt has not been
    /// computed yet.
    pub fn update_token_estimate(&mut self, exchange: &mut Exchange) {
        let Self {
            plan, endpoints, ..
        } = self;
        if !plan.needs.tokens {
            return;
        }
        let Some((targets, prompt)) = exchange.targets_and_prompt() else {
            return;
        };
        for target in targets.iter_mut().filter(|target| target.tokens.is_some()) {
            let tokens = tokens_at(
                target.slot,
                prompt.walks,
                prompt.reader,
                plan,
                endpoints.pool(),
            );
            endpoints.set_tokens(target, Some(tokens));
        }
    }

    /// The first bytes of a response's body have come: the prompt has been computed, and its media encoded.
    pub fn prompt_computed(&mut self, exchange: &mut Exchange) {
        let load = self.plan.load.as_ref();
        let counts_output = load.is_some_and(|load| load.counts_output);
        let Some(targets) = exchange.targets_mut() else {
            return;
        };
        self.endpoints.end_targets(targets.take_helpers());
        let primary = &mut targets.primary;
        if primary.tokens.is_some() && !counts_output {
            self.endpoints.set_tokens(primary, None);
        }
    }
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
