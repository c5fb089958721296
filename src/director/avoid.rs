//! What answers tell of the endpoints that requests were sent to, and who is avoided for it.

use xxhash_rust::xxh64::xxh64;

use super::meter::Metric;
use super::Director;
use crate::datalayer::avoid::Reason;
use crate::scheduling::{Endpoint, Freshness, Slot};
use crate::worker::SharedData;

/// An answer of a healthy endpoint is looked at this often: that costs two host calls. Of an
/// endpoint at which a request has failed, each one is.
const CHECK_EACH_NS: u64 = 100_000_000;

const MILLISECOND: u64 = 1_000_000;

/// What Envoy says of an answer.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Who gave it; empty where nobody was asked.
    pub server: Vec<u8>,
    /// Its status.
    pub status: u16,
    /// Whether Envoy gave it itself, in the endpoint's stead.
    pub by_envoy: bool,
}

impl Seen {
    /// What it says of who gave it.
    fn failure(&self) -> Option<Reason> {
        match self.status {
            // Not implemented; not this version of HTTP: the request's fault.
            501 | 505 => None,
            500.. if self.by_envoy => Some(Reason::Unserved),
            503 => Some(Reason::Overloaded),
            500.. => Some(Reason::Errors),
            _ => None,
        }
    }
}

impl Director {
    /// Whether it is worth asking who answers this request.
    pub fn asks_for_server(&mut self, id: u32) -> bool {
        let pick = self.records.get(&id).and_then(|record| record.pick);
        let seat = pick.and_then(|pick| self.seats.get_mut(pick.slot.index()));
        let (Some(pick), Some(seat)) = (pick, seat) else {
            return false;
        };
        let asks = self.watch.avoided.avoider.suspects(pick.slot)
            || self.timing.now.abs_diff(seat.checked) >= CHECK_EACH_NS;
        if asks {
            seat.checked = self.timing.now;
        }
        asks
    }

    /// The response's headers have come; `seen` is what was asked about it. Returns the explanation
    /// that the client asked for.
    pub fn answered(&mut self, id: u32, seen: Option<&Seen>) -> Option<String> {
        let record = self.records.get_mut(&id)?;
        record.answer.begun = true;
        let explanation = record.explanation.take();
        if let Some(pick) = record.pick.filter(|pick| self.loads.stays(pick)) {
            if let Some(seen) = seen {
                self.judge(id, pick.slot, seen);
            } else if let Some(seat) = self.seats.get_mut(pick.slot.index()) {
                seat.heard = self.timing.now;
            }
        }
        self.prove(id);
        self.seen(id);
        explanation.map(|explanation| explanation.text(&self.watch.store.pool))
    }

    /// Takes note of who answered a request that was sent to the endpoint in this slot.
    fn judge(&mut self, id: u32, slot: Slot, seen: &Seen) {
        let address = self.watch.store.pool.get(slot);
        let address = address.map(|endpoint| endpoint.address.as_bytes());
        if seen.server.is_empty() {
            // Envoy answered before it asked anybody.
            return;
        }
        if address == Some(&seen.server) {
            self.note(id, slot, seen.failure());
            return;
        }
        self.metrics.add(Metric::ServedElsewhere, "", 1);
        self.refute(id);
        self.note(id, slot, Some(Reason::Unserved));
        let by_address = |endpoint: &Endpoint| endpoint.address.as_bytes() == seen.server;
        if let Some(server) = self.watch.store.pool.find_by(by_address) {
            self.note(id, server, seen.failure());
        }
    }

    fn note(&mut self, id: u32, slot: Slot, failure: Option<Reason>) {
        let seat = self.seats.get_mut(slot.index());
        if let Some(seat) = seat.filter(|_| failure != Some(Reason::Unserved)) {
            seat.heard = self.timing.now;
        }
        let endpoint = self.watch.store.pool.get(slot);
        let alive = endpoint.is_some_and(|endpoint| endpoint.freshness == Freshness::Fresh);
        let (now, watch) = (self.timing.now / MILLISECOND, &mut self.watch);
        watch.avoided.avoider.note(slot, id, failure, alive, now);
        if !watch.avoided.avoider.begun.is_empty() {
            // Not with the next tick: the next request is not to go there.
            watch.avoided.avoider.mark(&mut watch.store.pool);
        }
    }

    /// A request was sent to this endpoint: it may be the one that tries it.
    pub(super) fn tries(&mut self, id: u32, slot: Slot) {
        let watch = &mut self.watch;
        if watch.avoided.avoider.sent(slot, id) {
            watch.avoided.avoider.mark(&mut watch.store.pool);
        }
    }

    /// A request has ended: if it tried an endpoint and no answer came, nothing was learnt.
    pub(super) fn tried(&mut self, id: u32) {
        let pick = self.records.get(&id).and_then(|record| record.pick);
        if let Some(pick) = pick.filter(|pick| self.loads.stays(pick)) {
            let now = self.timing.now / MILLISECOND;
            self.watch.avoided.avoider.ended(pick.slot, id, now);
        }
    }

    /// Hears and tells who is avoided.
    pub(super) fn exchange_avoided(&mut self, host: &mut dyn SharedData) {
        let now = self.timing.now / MILLISECOND;
        let watch = &mut self.watch;
        let (pool, foreign) = (&mut watch.store.pool, &mut watch.foreign);
        watch.avoided.exchange(host, foreign, pool, now);
        let begun = std::mem::take(&mut watch.avoided.avoider.begun);
        for (slot, reason) in begun {
            let label = self.seats.get(slot.index());
            let label = label.map_or("", |seat| seat.label.as_str());
            let label = format!("{label};reason={}", reason.name());
            self.metrics.add(Metric::Avoidances, &label, 1);
        }
    }

    /// Finds endpoints of which neither a page nor an answer has come for longer than a page may be
    /// old, while a request waits there.
    pub(super) fn find_hung(&mut self, now: u64) {
        let patience = self.plan.source.staleness_ms * MILLISECOND;
        let silent = |slot: Slot| {
            let endpoint = self.watch.store.pool.get(slot);
            let stale = endpoint.is_some_and(|endpoint| endpoint.freshness == Freshness::Stale);
            let heard = self.seats.get(slot.index()).map_or(now, |seat| seat.heard);
            stale && now.saturating_sub(heard) > patience
        };
        let slots = (0..self.seats.len() as u32).map(Slot);
        let silent: Vec<Slot> = slots.filter(|slot| silent(*slot)).collect();
        let waiting = |slot: Slot| {
            let mut records = self.records.values();
            records.any(|record| {
                let pick = record.pick.filter(|pick| pick.slot == slot);
                let here = pick.is_some_and(|pick| self.loads.stays(&pick));
                let asked = record.answer.asked;
                here && !record.answer.begun && now.saturating_sub(asked) > patience
            })
        };
        let hung: Vec<Slot> = silent.into_iter().filter(|slot| waiting(*slot)).collect();
        for slot in hung {
            self.watch.avoided.avoider.hangs(slot, now / MILLISECOND);
        }
    }

    /// Says who is avoided and why.
    pub(super) fn set_avoided_gauges(&mut self) {
        for index in 0..self.seats.len() {
            let reason = self.watch.avoided.avoider.reason(Slot(index as u32));
            let Some(seat) = self.seats.get_mut(index) else {
                continue;
            };
            let before = std::mem::replace(&mut seat.avoided, reason);
            if before == reason {
                continue;
            }
            for (told, value) in [(before, 0), (reason, 1)] {
                if let Some(told) = told {
                    let label = format!("{};reason={}", seat.label, told.name());
                    self.metrics.set(Metric::Avoided, &label, value);
                }
            }
        }
    }

    /// A new endpoint sits in this slot.
    pub(super) fn know(&mut self, slot: Slot) {
        if let Some(endpoint) = self.watch.store.pool.get(slot) {
            let number = xxh64(endpoint.address.as_bytes(), 0).max(1);
            self.watch.avoided.avoider.join(slot, number);
        }
    }
}
