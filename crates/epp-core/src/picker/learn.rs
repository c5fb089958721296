//! What the prefix indexes learn from decisions and responses.

use super::learnt::{Evidence, Placement};
use super::status::IndexFill;
use super::Picker;
use crate::metrics::definitions::{
    HELD_REQUESTS, INFLIGHT_REQUESTS, INFLIGHT_TOKENS, PREFIX_INDEX_BYTES, PREFIX_INDEX_EVICTIONS,
    PREFIX_INDEX_LIMIT, PREFIX_INDEX_SIZE, SHARED_READ, SHARED_WRITTEN, SHARING_VMS,
    UNRECOGNIZED_VALUES,
};
use crate::metrics::labels::{Endpoint, NoLabels};
use crate::prefix::index::Index;
use crate::prefix::key::TableKey;
use crate::prefix::walk::Walk;

impl Picker {
    /// Adds the blocks that went to the picked endpoint to the indexes (the first of the primary profile's
    /// picks, as the Endpoint Picker does before the request leaves). Called again as the rest of a prompt
    /// streams past. They count at once: a prompt that was sent 10 ms ago is likely there. New blocks stay in
    /// doubt until a response comes.
    pub(super) fn learn(&mut self, id: u32) {
        let Some(exchange) = self
            .exchanges
            .get(&id)
            .filter(|exchange| exchange.updates_indexes)
        else {
            return;
        };
        let begun = exchange.response.begun;
        self.apply_evidence(id, Evidence::Sent);
        if begun {
            self.apply_evidence(id, Evidence::Proven);
        }
    }

    /// Returns whether the indexes need the request's outcome: its prompt has added blocks that no response has
    /// proven, or may still add some.
    pub(super) fn awaits_proof(&self, id: u32) -> bool {
        let exchange = self.exchanges.get(&id);
        let reads_on = exchange
            .is_some_and(|exchange| exchange.updates_indexes && exchange.reader.wants_more());
        reads_on || self.is_doubted(id)
    }

    /// Returns whether a request's prompt has added blocks that no response has proven.
    fn is_doubted(&self, id: u32) -> bool {
        let exchange = self.exchanges.get(&id);
        exchange.is_some_and(|exchange| exchange.walks.iter().any(Walk::is_unproven))
    }

    /// The request's response is not a success, or comes from another endpoint than the picked one, or
    /// there will be none. That the endpoint holds the prompt is as unproven as before: the indexes forget
    /// the blocks that this request has added.
    pub(super) fn refute(&mut self, id: u32) {
        self.apply_evidence(id, Evidence::Refuted);
        if let Some(exchange) = self.exchanges.get_mut(&id) {
            exchange.stop_reading();
        }
    }

    /// The request's response has begun: its endpoint has the blocks that the request has added.
    pub(super) fn prove(&mut self, id: u32) {
        if self.is_doubted(id) {
            self.apply_evidence(id, Evidence::Proven);
        }
    }

    /// The request has ended. A client that leaves before its response begins proves nothing, and could leave
    /// at once: sending prompts must not be cheaper than having them computed.
    pub(super) fn refute_unproven(&mut self, id: u32) {
        if self.is_doubted(id) {
            self.apply_evidence(id, Evidence::Refuted);
        }
    }

    /// Applies what is now known of a request's blocks and its primary target to the indexes, here and after the
    /// next tick in the other pickers. The primary target only: it computes or fetches the whole prompt, and a
    /// walk keeps the doubts of one slot.
    pub(super) fn apply_evidence(&mut self, id: u32, evidence: Evidence) {
        let Some(exchange) = self.exchanges.get_mut(&id) else {
            return;
        };
        let Some(pick) = exchange
            .primary()
            .copied()
            .filter(|pick| self.loads.stays(pick))
        else {
            return;
        };
        let (slot, tag) = (pick.slot.0, self.loads.tag(pick.slot));
        let producers = self.plan.producers.iter();
        let walks = exchange.walks.iter_mut().zip(&mut self.indexes);
        for (number, ((walk, index), (_, producer))) in walks.zip(producers).enumerate() {
            let capacity = producer.capacity_of(self.monitor.store.pool.get(pick.slot));
            let placement = Placement {
                evidence,
                producer: number as u8,
                slot,
                tag,
            };
            let learnt = &mut self.learnt;
            let mut news = |prompt: &[u64], block| learnt.append(placement, prompt, block);
            match evidence {
                Evidence::Sent => walk.learn(index, slot, capacity, &mut news),
                Evidence::Proven => walk.prove(index, slot, capacity, &mut news),
                Evidence::Refuted => walk.refute(index, slot, &mut news),
            }
        }
    }

    /// Returns how far the indexes are filled.
    pub(super) fn fill(&self) -> IndexFill {
        let sum = |of: fn(&Index) -> usize| self.indexes.iter().map(of).sum::<usize>() as u64;
        IndexFill {
            entries: sum(Index::entries),
            bytes: sum(Index::bytes),
            bound: self.plan.settings.max_index_bytes as u64,
            evictions: self.indexes.iter().map(Index::evictions).sum(),
        }
    }

    /// Sets the gauges of the index's size, of what the workers share, and of what is in flight.
    pub(super) fn set_sharing_gauges(&mut self) {
        let fill = self.fill();
        let more = fill.evictions.saturating_sub(self.timing.evictions);
        self.timing.evictions = fill.evictions;
        let metrics = &mut self.metrics;
        // All VMs that serve have the same index, so that any one's values are right.
        if self.serves {
            metrics.set(PREFIX_INDEX_SIZE, NoLabels, fill.entries);
            metrics.set(PREFIX_INDEX_BYTES, NoLabels, fill.bytes);
            metrics.set(PREFIX_INDEX_LIMIT, NoLabels, fill.bound);
            metrics.add(PREFIX_INDEX_EVICTIONS, NoLabels, more);
        }
        let counted = self.sharing_statistics;
        let before = std::mem::replace(&mut self.timing.exported, counted);
        let written = counted.written_bytes.saturating_sub(before.written_bytes);
        metrics.add(SHARED_WRITTEN, NoLabels, written);
        let read = counted.read_bytes.saturating_sub(before.read_bytes);
        metrics.add(SHARED_READ, NoLabels, read);
        let unrecognised = counted.unrecognised.saturating_sub(before.unrecognised);
        if unrecognised > 0 {
            metrics.add(UNRECOGNIZED_VALUES, NoLabels, unrecognised);
        }
        if !self.monitor.polls() {
            return;
        }
        metrics.set(SHARING_VMS, NoLabels, counted.sharers);
        let held = self.exchanges.held() as u64 + counted.held_by_others;
        metrics.set(HELD_REQUESTS, NoLabels, held);
        let pool = &self.monitor.store.pool;
        for (slot, endpoint) in pool.iter() {
            let (load, labels) = (pool.load(slot), Endpoint(&endpoint.address));
            metrics.set(INFLIGHT_REQUESTS, labels, load.requests.into());
            if self.plan.needs.tokens {
                metrics.set(INFLIGHT_TOKENS, labels, load.tokens);
            }
        }
    }

    /// Returns an empty index; all share the memory bound evenly.
    fn empty_index(&self) -> Index {
        let count = self.plan.producers.len().max(1);
        let bytes = self.plan.settings.max_index_bytes / count;
        let mut index = Index::new(bytes, &self.secret);
        index.allow_gaps(self.gaps_allowed);
        index
    }

    /// Applies the plan's bound to the present indexes; one that is larger is emptied, since memory is given back
    /// as a whole only.
    pub(super) fn bound_indexes(&mut self) {
        let empty = self.empty_index();
        for index in &mut self.indexes {
            if !index.take_bound_of(&empty) {
                *index = empty.clone();
            }
        }
    }

    /// Replaces the indexes by empty ones. Requests under way were cut or digested for the former ones, and read
    /// no further. Those that are held are decided when more of their bodies comes, each in an event of its own:
    /// all at once they would hold up the worker.
    pub(super) fn begin_indexes(&mut self) {
        self.lay_out_indexes();
        let ids: Vec<u32> = self.exchanges.iter().map(|(id, _)| id).collect();
        for id in ids {
            if let Some(exchange) = self.exchanges.get_mut(&id) {
                exchange.stop_reading();
            }
            self.count_memory(id);
        }
    }

    /// Makes an empty index for each producer of the plan.
    pub(super) fn lay_out_indexes(&mut self) {
        let empty = self.empty_index();
        self.indexes = vec![empty; self.plan.producers.len()];
        self.learnt.restart(TableKey::new(&self.secret));
        // Pickers with different secrets do not exchange blocks, and the secret itself is not published.
        self.fingerprint = self.plan.prompt_fingerprint(self.secret.number("cut"));
    }
}

#[cfg(test)]
#[path = "learn_tests.rs"]
mod tests;
