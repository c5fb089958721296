//! What a decision teaches the prefix indexes, here and in the other workers.

use super::load::Loads;
use super::meter::Metric;
use super::Picker;
use crate::config::Plan;
use crate::endpoints::store::Store;
use crate::prefix::index::{Index, Origin, Sent};
use crate::prefix::key::{Key, TableKey};
use crate::prefix::walk::Walk;
use crate::scheduling::Slot;
use crate::worker::handover::Known;
use crate::worker::journal::{Run, Word};
use crate::worker::report::Fill;
use crate::worker::seats::SlotLoad;
use crate::worker::share::{Knowledge, Now, Share};
use crate::worker::{secret, SharedData};

use xxhash_rust::xxh64::xxh64;

/// Ticks between looks at the secret that counts: two VMs that start at the same time may differ for so
/// long, a second.
const SECRET_EACH: u32 = 20;

impl Picker {
    /// Tells the indexes which blocks went to the picked endpoint (the first of the primary
    /// profile's picks, as the Endpoint Picker does before the request leaves). Called again as the
    /// rest of a prompt streams past. It counts at once: a prompt that was sent 10 ms ago is likely there.
    /// What is new stays in doubt until an answer comes.
    pub(super) fn learn(&mut self, id: u32) {
        let Some(exchange) = self.exchanges.get(&id).filter(|exchange| exchange.teaches) else {
            return;
        };
        let begun = exchange.answer.begun;
        self.teach(id, Word::Sent);
        if begun {
            self.teach(id, Word::Proven);
        }
    }

    /// Whether it matters to the indexes if the request's answer is a success: its prompt brought
    /// something that no answer has proven, or may still bring it.
    pub(super) fn awaits_proof(&self, id: u32) -> bool {
        let exchange = self.exchanges.get(&id);
        let reads_on =
            exchange.is_some_and(|exchange| exchange.teaches && exchange.reader.wants_more());
        reads_on || self.is_doubted(id)
    }

    /// Whether a request's prompt brought something that no answer has proven.
    fn is_doubted(&self, id: u32) -> bool {
        let exchange = self.exchanges.get(&id);
        exchange.is_some_and(|exchange| exchange.walks.iter().any(Walk::is_doubted))
    }

    /// The request's answer is not a success, or comes from another endpoint than the picked one, or
    /// there will be none. That the endpoint holds the prompt is as unproven as before: the indexes forget
    /// what this request brought.
    pub(super) fn refute(&mut self, id: u32) {
        self.teach(id, Word::Refuted);
        if let Some(exchange) = self.exchanges.get_mut(&id) {
            exchange.stop_reading();
        }
    }

    /// The request's answer has begun.
    pub(super) fn prove(&mut self, id: u32) {
        if self.is_doubted(id) {
            self.teach(id, Word::Proven);
        }
    }

    /// The request has ended. A client that leaves before its answer begins proves nothing, and could leave
    /// at once: sending prompts must not be cheaper than having them computed.
    pub(super) fn give_up(&mut self, id: u32) {
        if self.is_doubted(id) {
            self.teach(id, Word::Refuted);
        }
    }

    /// Has the indexes, here and with the next tick in the other workers, take this in of a request and
    /// the endpoint that was picked for it.
    pub(super) fn teach(&mut self, id: u32, word: Word) {
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
            let capacity = producer.capacity_of(self.watch.store.pool.get(pick.slot));
            let run = Run {
                word,
                producer: number as u8,
                slot,
                tag,
            };
            let share = &mut self.watch.share;
            let mut news = |prompt: &[u64], block| share.note(run, prompt, block);
            match word {
                Word::Sent => walk.learn(index, slot, capacity, &mut news),
                Word::Proven => walk.prove(index, slot, capacity, &mut news),
                Word::Refuted => walk.refute(index, slot, &mut news),
            }
        }
    }

    /// Takes over the secret of this Envoy's VMs, if they share what they know.
    pub(super) fn agree(&mut self, host: &mut dyn SharedData) {
        self.timing.agreed += 1;
        if !self.watch.share.is_on() || self.timing.agreed % SECRET_EACH != 1 {
            return;
        }
        let (base, foreign) = (self.watch.share.base(), &mut self.watch.foreign);
        let secret = secret::agree(base, &self.secret, host, foreign);
        if secret != self.secret {
            self.key = Key::Secret(secret.clone());
            self.secret = secret;
            self.begin_indexes();
        }
    }

    /// Tells the other workers what is new here, and takes in what is new there.
    pub(super) fn exchange(&mut self, host: &mut dyn SharedData) {
        let now = Now {
            serves: self.watch.served(),
            stirred: std::mem::take(&mut self.stirred),
        };
        let (share, foreign, mut knowledge) = self.sharing();
        share.exchange(now, host, foreign, &mut knowledge);
    }

    /// Whether there is something to glance for between this root's ticks.
    pub fn glances(&self, root: u32) -> bool {
        root == self.timing.root && self.watch.served() && self.watch.share.glances()
    }

    /// Between two ticks: tells and hears what is in flight.
    pub fn glance(&mut self, root: u32, host: &mut dyn SharedData) {
        if root == self.timing.root && self.watch.served() {
            let (share, foreign, mut knowledge) = self.sharing();
            share.glance(host, foreign, &mut knowledge);
        }
    }

    fn sharing(&mut self) -> (&mut Share, &mut u64, Shared<'_>) {
        let knowledge = Shared {
            cut: self.cut,
            held: self.holding as u32,
            plan: &self.plan,
            indexes: &mut self.indexes,
            loads: &mut self.loads,
            store: &mut self.watch.store,
        };
        (&mut self.watch.share, &mut self.watch.foreign, knowledge)
    }

    /// How far the indexes are filled.
    pub(super) fn fill(&self) -> Fill {
        let sum = |of: fn(&Index) -> usize| self.indexes.iter().map(of).sum::<usize>() as u64;
        Fill {
            entries: sum(Index::entries),
            bytes: sum(Index::bytes),
            bound: self.plan.proxy.max_index_bytes as u64,
            evictions: self.indexes.iter().map(Index::evictions).sum(),
        }
    }

    /// How large the index is, what the workers tell each other, and what is in flight.
    pub(super) fn set_sharing_gauges(&mut self) {
        let fill = self.fill();
        let more = fill.evictions.saturating_sub(self.timing.evictions);
        self.timing.evictions = fill.evictions;
        let metrics = &mut self.metrics;
        // Of the VMs that serve each has the same index, so that any one's word will do.
        if self.watch.served() {
            metrics.set(Metric::PrefixIndexSize, "", fill.entries);
            metrics.set(Metric::PrefixIndexBytes, "", fill.bytes);
            metrics.set(Metric::PrefixIndexBound, "", fill.bound);
            metrics.add(Metric::PrefixIndexEvictions, "", more as i64);
        }
        let traffic = self.watch.share.take_traffic();
        metrics.add(Metric::SharedWritten, "", traffic.written as i64);
        metrics.add(Metric::SharedRead, "", traffic.read as i64);
        if !self.watch.polls() {
            return;
        }
        metrics.set(Metric::Sharers, "", self.watch.share.sharers() as u64);
        let held = self.holding as u64 + self.watch.share.others_held();
        metrics.set(Metric::Held, "", held);
        let pool = &self.watch.store.pool;
        for (slot, _) in pool.iter() {
            let Some(seat) = self.seats.get(slot.index()) else {
                continue;
            };
            let load = pool.load(slot);
            metrics.set(Metric::InflightRequests, &seat.label, load.requests.into());
            if self.plan.needs.tokens {
                metrics.set(Metric::InflightTokens, &seat.label, load.tokens);
            }
        }
    }

    /// An empty index; all share the memory bound evenly.
    fn empty_index(&self) -> Index {
        let count = self.plan.producers.len().max(1);
        let bytes = self.plan.proxy.max_index_bytes / count;
        let mut index = Index::new(bytes, &self.secret);
        index.expect_loose_blocks(self.watch.share.asks());
        index
    }

    /// The plan's bound holds for the indexes that there are; one that holds more begins anew, since
    /// memory is given back as a whole only.
    pub(super) fn bound_indexes(&mut self) {
        let empty = self.empty_index();
        for index in &mut self.indexes {
            if !index.take_bound_of(&empty) {
                *index = empty.clone();
            }
        }
    }

    /// Empty indexes; requests under way were cut or digested for the old ones.
    pub(super) fn begin_indexes(&mut self) {
        self.lay_out_indexes();
        let ids: Vec<u32> = self.exchanges.keys().copied().collect();
        for id in ids {
            if let Some(exchange) = self.exchanges.get_mut(&id) {
                exchange.stop_reading();
            }
            self.count_memory(id);
        }
    }

    /// Empty indexes, one per producer of the plan.
    pub(super) fn lay_out_indexes(&mut self) {
        let empty = self.empty_index();
        self.indexes = vec![empty; self.plan.producers.len()];
        self.watch.share.set_key(TableKey::new(&self.secret));
        let cut = format!("{:?} {:?}", self.plan.dialect, self.plan.producers);
        // VMs with different secrets do not believe each other, and the secret itself is not told.
        self.cut = xxh64(cut.as_bytes(), self.secret.number("cut"));
    }
}

/// What of a picker the workers share.
struct Shared<'a> {
    cut: u64,
    held: u32,
    plan: &'a Plan,
    indexes: &'a mut [Index],
    loads: &'a mut Loads,
    store: &'a mut Store,
}

impl Known for Shared<'_> {
    fn list(&self, number: usize, hashes: &mut Vec<u64>) -> Option<Run> {
        let width = self.store.pool.width().max(1);
        let (producer, slot) = (number / width, (number % width) as u32);
        let index = self.indexes.get(producer)?;
        index.list(slot, hashes);
        Some(Run {
            // What is in doubt while it is handed over is little, and not worth a second list.
            word: Word::Proven,
            producer: producer as u8,
            slot,
            tag: self.loads.tag(Slot(slot)),
        })
    }
}

impl Knowledge for Shared<'_> {
    fn cut(&self) -> u64 {
        self.cut
    }

    fn place(&mut self, seat: u32, run: Run, prompt: &[u64], from: usize) {
        let producer = self.plan.producers.get(usize::from(run.producer));
        let index = self.indexes.get_mut(usize::from(run.producer));
        let endpoint = self.store.pool.get(Slot(run.slot));
        let endpoint = endpoint.filter(|_| self.loads.tag(Slot(run.slot)) == run.tag);
        if let (Some((_, producer)), Some(index), Some(_)) = (producer, index, endpoint) {
            let capacity = producer.capacity_of(endpoint);
            let teller = Origin::of_seat(seat);
            let origin = match run.word {
                Word::Sent => teller,
                Word::Proven => Origin::PROVEN,
                Word::Refuted => {
                    index.retract(run.slot, prompt, from..prompt.len(), teller, &mut |_| {});
                    return;
                }
            };
            let sent = Sent {
                slot: run.slot,
                prompt,
                from,
                origin,
            };
            index.note(sent, capacity, &mut |_, _| {});
        }
    }

    fn expect_loose_blocks(&mut self, loose: bool) {
        let indexes = self.indexes.iter_mut();
        indexes.for_each(|index| index.expect_loose_blocks(loose));
    }

    fn held(&self) -> u32 {
        self.held
    }

    fn in_flight(&self, loads: &mut Vec<SlotLoad>) {
        self.loads.own(self.store, loads);
    }

    fn others_in_flight(&mut self, others: &mut dyn Iterator<Item = &[SlotLoad]>) {
        self.loads.set_others(others, self.store);
    }
}

#[cfg(test)]
#[path = "learn_tests.rs"]
mod tests;
