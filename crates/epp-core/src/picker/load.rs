//! What is in flight at each endpoint: requests, the tokens that they still cost, and the requests
//! that the endpoint's metrics cannot show yet.
//!
//! Each picker counts its own, and adds what the others have published. A count belongs to a tenure: the time
//! that one endpoint is in its slot. A request that ends after its endpoint has left takes nothing
//! from the endpoint that has the slot then, so that no count goes below zero and none stays forever.

use super::exchange::{Exchange, Target};
use super::Picker;
use crate::endpoints::store::Store;
use crate::scheduling::{self, Slot, TargetRole};

use serde::{Deserialize, Serialize};

/// What is in flight at one slot's endpoint.
#[derive(Debug, Clone, Copy, Default)]
struct Load {
    /// Distinguishes the endpoint from others in the slot.
    tag: u32,
    /// Counts the endpoints that have been in the slot.
    tenure: u32,
    /// Counts the endpoint's scrapes, so that a request knows whether it was sent before the last.
    scrapes: u32,
    /// What this VM has in flight.
    own: InFlight,
    /// What the other VMs have in flight, as they have published it.
    others: InFlight,
}

#[derive(Debug, Clone, Copy, Default)]
struct InFlight {
    requests: u32,
    unseen: u32,
    tokens: u64,
}

/// What one picker has in flight at one endpoint.
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
    /// Which reading of the page that is.
    pub scraped: u32,
    /// Tokens that these requests still cost.
    pub tokens: u64,
}

/// What is in flight, by slot.
#[derive(Debug, Default)]
pub struct Loads {
    slots: Vec<Load>,
}

impl Loads {
    /// A new endpoint is in this slot.
    pub fn add(&mut self, slot: Slot, store: &mut Store) {
        let Some(endpoint) = store.pool.get(slot) else {
            return;
        };
        let tag = endpoint.tag();
        if self.slots.len() <= slot.index() {
            self.slots.resize(slot.index() + 1, Load::default());
        }
        if let Some(load) = self.slots.get_mut(slot.index()) {
            *load = Load {
                tag,
                tenure: load.tenure.wrapping_add(1),
                scrapes: load.scrapes,
                ..Load::default()
            };
        }
        self.show(slot, store);
    }

    /// The endpoint in this slot has left.
    pub fn remove(&mut self, slot: Slot) {
        if let Some(load) = self.slots.get_mut(slot.index()) {
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

    /// Returns whether the endpoint that a request was sent to is still there.
    pub fn stays(&self, target: &Target) -> bool {
        let load = self.slots.get(target.slot.index());
        load.is_some_and(|load| load.tenure == target.tenure)
    }

    /// A newer page shows what was sent before it.
    pub fn scraped(&mut self, slot: Slot, store: &mut Store) {
        if let Some(load) = self.slots.get_mut(slot.index()) {
            load.scrapes = load.scrapes.wrapping_add(1);
            load.own.unseen = 0;
            load.others.unseen = 0;
        }
        self.show(slot, store);
    }

    /// A request is sent to this endpoint. Its tenure and scrape count are set here.
    pub fn send(&mut self, mut target: Target, store: &mut Store) -> Target {
        if let Some(load) = self.slots.get_mut(target.slot.index()) {
            load.own.requests += 1;
            load.own.unseen += u32::from(target.unseen);
            load.own.tokens = load.own.tokens.saturating_add(target.tokens.unwrap_or(0));
            target.tenure = load.tenure;
            target.scrapes = load.scrapes;
        }
        self.show(target.slot, store);
        target
    }

    /// A request turns out to cost this many tokens; `None` where it costs no more.
    fn set_tokens(&mut self, target: &mut Target, tokens: Option<u64>, store: &mut Store) {
        if let Some(load) = self.load_of(target) {
            let others = load.own.tokens.saturating_sub(target.tokens.unwrap_or(0));
            load.own.tokens = others.saturating_add(tokens.unwrap_or(0));
        }
        target.tokens = tokens;
        self.show(target.slot, store);
    }

    /// The response to a request has begun: its endpoint's next page shows the request or what became of it.
    pub fn answered(&mut self, target: &mut Target, store: &mut Store) {
        if !std::mem::take(&mut target.unseen) {
            return;
        }
        let scrapes = target.scrapes;
        if let Some(load) = self.load_of(target).filter(|load| load.scrapes == scrapes) {
            load.own.unseen = load.own.unseen.saturating_sub(1);
        }
        self.show(target.slot, store);
    }

    /// An endpoint has done its part of a request.
    pub fn end(&mut self, mut target: Target, store: &mut Store) {
        self.answered(&mut target, store);
        self.set_tokens(&mut target, None, store);
        if let Some(load) = self.load_of(&target) {
            load.own.requests = load.own.requests.saturating_sub(1);
        }
        self.show(target.slot, store);
    }

    /// Returns the load that a request is part of, if its endpoint is still there.
    fn load_of(&mut self, target: &Target) -> Option<&mut Load> {
        let load = self.slots.get_mut(target.slot.index())?;
        (load.tenure == target.tenure).then_some(load)
    }

    /// Appends what this VM has in flight, to be published.
    pub fn append_own(&self, store: &Store, loads: &mut Vec<EndpointLoad>) {
        for (slot, load) in (0..).zip(&self.slots) {
            if load.own.requests > 0 {
                loads.push(EndpointLoad {
                    slot,
                    tag: load.tag,
                    requests: load.own.requests,
                    unseen: load.own.unseen,
                    scraped: scraped(store, Slot(slot)),
                    tokens: load.own.tokens,
                });
            }
        }
    }

    /// Replaces what the other pickers have in flight.
    pub fn set_others(
        &mut self,
        others: &mut dyn Iterator<Item = &[EndpointLoad]>,
        store: &mut Store,
    ) {
        for load in &mut self.slots {
            load.others = InFlight::default();
        }
        for reported in others.flatten() {
            let same = |load: &&mut Load| load.tag == reported.tag;
            let load = self.slots.get_mut(reported.slot as usize).filter(same);
            if let Some(load) = load {
                let others = &mut load.others;
                others.requests = others.requests.saturating_add(reported.requests);
                others.tokens = others.tokens.saturating_add(reported.tokens);
                // What was sent before the page that is known here is in that page.
                if reported.scraped == scraped(store, Slot(reported.slot)) {
                    others.unseen = others.unseen.saturating_add(reported.unseen);
                }
            }
        }
        (0..self.slots.len()).for_each(|slot| self.show(Slot(slot as u32), store));
    }

    /// Shows an endpoint's load to the scorers.
    fn show(&self, slot: Slot, store: &mut Store) {
        if let Some(Load { own, others, .. }) = self.slots.get(slot.index()) {
            let load = scheduling::Load {
                requests: own.requests.saturating_add(others.requests),
                unseen: own.unseen.saturating_add(others.unseen),
                tokens: own.tokens.saturating_add(others.tokens),
            };
            store.pool.set_load(slot, load);
        }
    }
}

/// Returns which reading of an endpoint's page this picker has.
fn scraped(store: &Store, slot: Slot) -> u32 {
    // Readings are milliseconds apart: the lower half distinguishes them for seven weeks.
    let scraped = store.condition(slot).scraped;
    scraped.map_or(0, |scraped| scraped.as_millis() as u32)
}

impl Picker {
    /// More was read of a request that has left: it costs more than was known, wherever its prompt has not been
    /// computed yet.
    pub(super) fn update_token_estimate(&mut self, id: u32) {
        if !self.plan.needs.tokens {
            return;
        }
        let targets = self
            .exchanges
            .get(&id)
            .map_or(0, |exchange| exchange.targets().len());
        for number in 0..targets {
            let exchange = self.exchanges.get(&id);
            let target = exchange.and_then(|exchange| exchange.targets().get(number).copied());
            let Some(mut target) = target.filter(|target| target.tokens.is_some()) else {
                continue;
            };
            let tokens = Some(self.tokens_at(id, target.slot));
            self.loads
                .set_tokens(&mut target, tokens, &mut self.monitor.store);
            let exchange = self.exchanges.get_mut(&id);
            let targets = exchange.and_then(|exchange| exchange.targets_mut());
            let known = targets.and_then(|targets| targets.get_mut(number));
            if let Some(known) = known {
                *known = target;
            }
        }
    }

    /// Counts a request at an endpoint that serves it.
    pub(super) fn begin_at(&mut self, id: u32, slot: Slot, role: TargetRole) -> Target {
        let target = Target {
            slot,
            tenure: 0,
            role,
            scrapes: 0,
            unseen: self.plan.settings.correct_queue,
            tokens: Some(self.tokens_at(id, slot)),
        };
        self.loads.send(target, &mut self.monitor.store)
    }

    /// The first bytes of a response's body have come: the prompt has been computed, and its media encoded.
    pub(super) fn prompt_computed(&mut self, id: u32) {
        let load = self.plan.load.as_ref();
        let counts_output = load.is_some_and(|load| load.counts_output);
        let (loads, store) = (&mut self.loads, &mut self.monitor.store);
        let exchange = self.exchanges.get_mut(&id);
        let Some(targets) = exchange.and_then(|exchange| exchange.targets_mut()) else {
            return;
        };
        targets.retain(|target| match target.role {
            TargetRole::Primary => {
                if target.tokens.is_some() && !counts_output {
                    loads.set_tokens(target, None, store);
                }
                true
            }
            TargetRole::Prefill | TargetRole::Encode => {
                loads.end(*target, store);
                false
            }
        });
    }

    /// Takes a request off its endpoints' counts of those that their metrics cannot show yet.
    pub(super) fn mark_answered(&mut self, id: u32) {
        if let Some(exchange) = self.exchanges.get_mut(&id) {
            for target in exchange.targets_mut().into_iter().flatten() {
                self.loads.answered(target, &mut self.monitor.store);
            }
        }
    }

    /// Takes a request that has left the table, however it ended, off the counts that it shares with others: what
    /// is in flight at its endpoints, the responses being read, and the memory that readers keep.
    pub(super) fn release_counts(&mut self, exchange: &mut Exchange) {
        for target in exchange.take_targets() {
            self.loads.end(target, &mut self.monitor.store);
        }
        exchange.response.stop_reading(&mut self.budget);
        self.account
            .change(std::mem::take(&mut exchange.counted), 0);
    }
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
