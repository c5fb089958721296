//! What is in flight at each endpoint: requests, the tokens that they still cost, and the requests
//! that the endpoint's metrics cannot show yet.
//!
//! Each VM counts its own, and adds what the others said they have. A count belongs to a tenure:
//! one endpoint's stay in its slot. A request that ends after its endpoint has left takes nothing
//! from whoever sits there then, so that no count goes below zero and none stays for ever.

use super::decide::matches;
use super::exchange::Pick;
use super::Picker;
use crate::config::Plan;
use crate::endpoints::store::Store;
use crate::request::BodyReader;
use crate::scheduling::{self, Cost, Request, Slot};
use crate::worker::seats::SlotLoad;

/// What is in flight at one slot's endpoint.
#[derive(Debug, Clone, Copy, Default)]
struct Load {
    /// Tells the endpoint from others.
    tag: u32,
    /// Counts the endpoints that sat here.
    tenure: u32,
    /// Counts the endpoint's scrapes, so that a request knows whether it was sent before the last.
    scrapes: u32,
    /// What this VM has in flight.
    own: Sum,
    /// What the other VMs said they have.
    others: Sum,
}

#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    requests: u32,
    unseen: u32,
    tokens: u64,
}

/// What is in flight, by slot.
#[derive(Debug, Default)]
pub struct Loads {
    slots: Vec<Load>,
}

impl Loads {
    /// A new endpoint sits in this slot.
    pub fn seat(&mut self, slot: Slot, store: &mut Store) {
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
    pub fn forget(&mut self, slot: Slot) {
        if let Some(load) = self.slots.get_mut(slot.index()) {
            *load = Load {
                tenure: load.tenure.wrapping_add(1),
                ..Load::default()
            };
        }
    }

    /// Tells an endpoint from others that were or will be in its slot.
    pub fn tag(&self, slot: Slot) -> u32 {
        self.slots.get(slot.index()).map_or(0, |load| load.tag)
    }

    /// Whether the endpoint that a request was sent to is still there.
    pub fn stays(&self, pick: &Pick) -> bool {
        let load = self.slots.get(pick.slot.index());
        load.is_some_and(|load| load.tenure == pick.tenure)
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

    /// A request is sent to the endpoint in this slot.
    pub fn send(&mut self, slot: Slot, tokens: u64, unseen: bool, store: &mut Store) -> Pick {
        let mut pick = Pick {
            slot,
            tenure: 0,
            scrapes: 0,
            open: true,
            unseen,
            tokens,
        };
        if let Some(load) = self.slots.get_mut(slot.index()) {
            load.own.requests += 1;
            load.own.unseen += u32::from(unseen);
            load.own.tokens += tokens;
            pick.tenure = load.tenure;
            pick.scrapes = load.scrapes;
        }
        self.show(slot, store);
        pick
    }

    /// A request turns out to cost so many tokens.
    pub fn reckon(&mut self, pick: &mut Pick, tokens: u64, store: &mut Store) {
        if let Some(load) = self.of(pick) {
            let others = load.own.tokens.saturating_sub(pick.tokens);
            load.own.tokens = others + tokens;
        }
        pick.tokens = tokens;
        self.show(pick.slot, store);
    }

    /// A request has been answered: its endpoint's next page shows it or what became of it.
    pub fn answered(&mut self, pick: &mut Pick, store: &mut Store) {
        if !std::mem::take(&mut pick.unseen) {
            return;
        }
        let scrapes = pick.scrapes;
        if let Some(load) = self.of(pick).filter(|load| load.scrapes == scrapes) {
            load.own.unseen = load.own.unseen.saturating_sub(1);
        }
        self.show(pick.slot, store);
    }

    /// A request has ended.
    pub fn end(&mut self, pick: &mut Pick, store: &mut Store) {
        self.answered(pick, store);
        self.reckon(pick, 0, store);
        if let Some(load) = self.of(pick) {
            load.own.requests = load.own.requests.saturating_sub(1);
        }
        pick.open = false;
        self.show(pick.slot, store);
    }

    /// The load that a request is part of, if its endpoint is still there.
    fn of(&mut self, pick: &Pick) -> Option<&mut Load> {
        let load = self.slots.get_mut(pick.slot.index())?;
        (pick.open && load.tenure == pick.tenure).then_some(load)
    }

    /// What this VM has in flight, to tell the others.
    pub fn own(&self, store: &Store, loads: &mut Vec<SlotLoad>) {
        for (slot, load) in (0..).zip(&self.slots) {
            if load.own.requests > 0 {
                loads.push(SlotLoad {
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

    /// What the others have in flight, in the stead of what they said before.
    pub fn set_others(&mut self, others: &mut dyn Iterator<Item = &[SlotLoad]>, store: &mut Store) {
        for load in &mut self.slots {
            load.others = Sum::default();
        }
        for said in others.flatten() {
            let same = |load: &&mut Load| load.tag == said.tag;
            let load = self.slots.get_mut(said.slot as usize).filter(same);
            if let Some(load) = load {
                let others = &mut load.others;
                others.requests = others.requests.saturating_add(said.requests);
                others.tokens = others.tokens.saturating_add(said.tokens);
                // What was sent before the page that is known here is in that page.
                if said.scraped == scraped(store, Slot(said.slot)) {
                    others.unseen = others.unseen.saturating_add(said.unseen);
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

/// Which reading of an endpoint's page is known here.
fn scraped(store: &Store, slot: Slot) -> u32 {
    // Readings are milliseconds apart: the lower half tells them apart for seven weeks.
    store.condition(slot).scraped as u32
}

/// What a request costs as far as it was read, and at most.
pub fn costs(plan: &Plan, reader: &BodyReader, reading: bool) -> (Cost, Cost) {
    let Some(load) = plan.load.as_ref().filter(|_| plan.needs.tokens) else {
        return (Cost::default(), Cost::default());
    };
    let allowed = reader.max_tokens().map(|most| most as f64);
    let cost = |prompt: usize, allowed| Cost {
        prompt: prompt as f64,
        output: load.output(prompt as f64, allowed),
        prefix: plan.discounts,
    };
    // A field that says otherwise may still come.
    let least = if reading { Some(0.0) } else { allowed };
    let most = if reading { None } else { allowed };
    (
        cost(reader.prompt_tokens(), least),
        cost(reader.most_prompt_tokens(), most),
    )
}

impl Picker {
    /// Tokens that a request costs the endpoint in this slot, as far as it was read.
    pub(super) fn tokens_at(&mut self, id: u32, slot: Slot) -> u64 {
        let Self {
            plan,
            watch,
            exchanges,
            ..
        } = self;
        let Some(exchange) = exchanges.get_mut(&id).filter(|_| plan.needs.tokens) else {
            return 0;
        };
        let Some(load) = plan.load.as_ref() else {
            return 0;
        };
        let prompt = exchange.reader.prompt_tokens() as f64;
        let allowed = exchange.reader.max_tokens().map(|most| most as f64);
        let prefix = matches(&mut exchange.walks, plan, &watch.store.pool);
        let request = Request {
            prefix: &prefix,
            cost: Cost {
                prompt,
                output: load.output(prompt, allowed),
                prefix: plan.discounts,
            },
            ..Request::default()
        };
        request.tokens_at(slot) as u64
    }

    /// More was read of a request that has left: it costs more than was known.
    pub(super) fn reckon(&mut self, id: u32) {
        let Some(pick) = self.exchanges.get(&id).and_then(|exchange| exchange.pick) else {
            return;
        };
        if !pick.open || pick.tokens == 0 {
            return;
        }
        let tokens = self.tokens_at(id, pick.slot);
        if let Some(pick) = self
            .exchanges
            .get_mut(&id)
            .and_then(|exchange| exchange.pick.as_mut())
        {
            self.loads.reckon(pick, tokens, &mut self.watch.store);
        }
    }

    /// The first bytes of an answer's body have come: the prompt has been computed.
    pub(super) fn computed(&mut self, id: u32) {
        let counts_output = self
            .plan
            .load
            .as_ref()
            .is_some_and(|load| load.counts_output);
        let pick = self
            .exchanges
            .get_mut(&id)
            .and_then(|exchange| exchange.pick.as_mut());
        if let Some(pick) = pick.filter(|pick| pick.tokens > 0 && !counts_output) {
            self.loads.reckon(pick, 0, &mut self.watch.store);
        }
    }

    /// Takes a request off its endpoint's count of those that its metrics cannot show yet.
    pub(super) fn seen(&mut self, id: u32) {
        let pick = self
            .exchanges
            .get_mut(&id)
            .and_then(|exchange| exchange.pick.as_mut());
        if let Some(pick) = pick {
            self.loads.answered(pick, &mut self.watch.store);
        }
    }

    /// Takes a request that has ended off all counts.
    pub(super) fn end(&mut self, id: u32) {
        let pick = self
            .exchanges
            .get_mut(&id)
            .and_then(|exchange| exchange.pick.as_mut());
        if let Some(pick) = pick {
            self.loads.end(pick, &mut self.watch.store);
        }
    }
}
