//! The prefix indexes, and what they learn from decisions and responses.

use super::exchange::{Exchange, Target};
use super::learnt::{Evidence, LearntLog, PlacedBlocks, Placement};
use super::pool_state::PoolState;
use super::status::IndexFill;
use crate::config::Plan;
use crate::plugins::PrefixProducer;
use crate::prefix::index::{Index, Provenance, SentBlocks};
use crate::prefix::key::{Key, Secret, TableKey};
use crate::prefix::walk::{Part, Walk};
use crate::request::Fact;
use crate::response::Usage;
use crate::scheduling::Slot;

/// Blocks that the index forgets for each block that an endpoint did not have. In a model with eight caches, an index
/// that grew to 8.8 times what a cache holds settles at 1.7 times with one, and at 1.3 times with four.
const DROPPED_PER_MISSING_BLOCK: usize = 4;

/// One index for each prefix producer of the plan, and how they are keyed.
#[derive(Debug)]
pub struct Prefixes {
    producers: Vec<PrefixProducer>,
    /// Bound of the memory of all indexes.
    max_bytes: usize,
    pub(super) indexes: Vec<Index>,
    /// Evidence that has not been published to the other pickers.
    pub learnt: LearntLog,
    /// Whether the indexes expect blocks without those before them.
    gaps_allowed: bool,
    /// How many pickers learn from each other, this one included.
    sharers: usize,
    /// Identifies how prompts are cut and keyed.
    fingerprint: u64,
    /// Keys digests and indexes: this VM's own, or what those of its Envoy agreed on.
    secret: Secret,
    /// The key of digests, derived from the secret.
    key: Key,
}

impl Prefixes {
    /// Returns empty indexes for the plan's producers.
    pub fn new(plan: &Plan, secret: Secret) -> Self {
        let mut prefixes = Self {
            producers: Vec::new(),
            max_bytes: 0,
            indexes: Vec::new(),
            learnt: LearntLog::default(),
            gaps_allowed: false,
            sharers: 1,
            fingerprint: 0,
            key: Key::Secret(secret.clone()),
            secret,
        };
        prefixes.begin(plan);
        prefixes
    }

    /// Makes an empty index for each producer of the plan. Requests under way were cut or digested for the former
    /// ones: they are to be read no further.
    pub fn begin(&mut self, plan: &Plan) {
        let producers = plan.producers.iter();
        self.producers = producers.map(|(_, producer)| producer.clone()).collect();
        self.max_bytes = plan.settings.max_index_bytes;
        self.indexes = vec![self.empty_index(); self.producers.len()];
        self.learnt.restart(TableKey::new(&self.secret));
        // Pickers with different secrets do not exchange blocks, and the secret itself is not published.
        self.fingerprint = plan.prompt_fingerprint(self.secret.number("cut"));
    }

    /// Returns an empty index; all share the memory bound evenly.
    fn empty_index(&self) -> Index {
        let bytes = self.max_bytes / self.producers.len().max(1);
        let mut index = Index::new(bytes, &self.secret);
        index.allow_gaps(self.gaps_allowed);
        index
    }

    /// Applies another bound to the present indexes; one that is larger is emptied, since memory is given back
    /// as a whole only.
    pub fn set_bound(&mut self, max_bytes: usize) {
        self.max_bytes = max_bytes;
        let empty = self.empty_index();
        for index in &mut self.indexes {
            if !index.take_bound_of(&empty) {
                *index = empty.clone();
            }
        }
    }

    /// Returns how digests are keyed.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Returns the secret that keys digests and indexes.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Replaces the secret, and the indexes by empty ones.
    pub fn set_secret(&mut self, secret: Secret, plan: &Plan) {
        self.key = Key::Secret(secret.clone());
        self.secret = secret;
        self.begin(plan);
    }

    /// Returns what identifies how prompts are cut and keyed.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Returns whether the plan has no prefix producer, and so no index.
    pub fn is_empty(&self) -> bool {
        self.indexes.is_empty()
    }

    /// Says whether blocks may come without those before them.
    pub fn allow_gaps(&mut self, allowed: bool) {
        self.gaps_allowed = allowed;
        let indexes = self.indexes.iter_mut();
        indexes.for_each(|index| index.allow_gaps(allowed));
    }

    /// The endpoint in this slot has left.
    pub fn remove_endpoint(&mut self, slot: Slot) {
        let indexes = self.indexes.iter_mut();
        indexes.for_each(|index| index.remove(slot.0));
    }

    /// Returns how far the indexes are filled.
    pub fn fill(&self) -> IndexFill {
        let sum = |of: fn(&Index) -> usize| self.indexes.iter().map(of).sum::<usize>() as u64;
        IndexFill {
            entries: sum(Index::entries),
            bytes: sum(Index::bytes),
            bound: self.max_bytes as u64,
            evictions: self.indexes.iter().map(Index::evictions).sum(),
        }
    }
}

/// One request's prompt.
impl Prefixes {
    /// Walks the blocks read so far through the indexes. Returns whether new ones were looked up; `None` while there
    /// is nothing to look up, since the chain of blocks begins with the model.
    pub fn walk(&mut self, exchange: &mut Exchange, pool: &PoolState) -> Option<bool> {
        let model = match exchange.model() {
            Fact::Known(model) => model,
            Fact::Absent => "",
            Fact::Unknown if exchange.host_hold().is_some() && exchange.reader.wants_more() => {
                return None
            }
            Fact::Unknown => "",
        };
        let salt = match exchange.reader.salt() {
            Fact::Known(salt) => salt,
            Fact::Absent | Fact::Unknown => "",
        };
        let seed = self.key.seed(model, salt);
        let restarted = exchange.restarts != exchange.reader.restarts();
        if restarted || exchange.walks.iter().any(|walk| walk.restarts_with(seed)) {
            // What was recorded of it is another prompt, or under another model's name.
            self.apply(Evidence::Refuted, exchange, pool);
        }
        if restarted {
            exchange.restarts = exchange.reader.restarts();
            exchange.walks.iter_mut().for_each(Walk::reset);
        }
        let blocks = |walks: &[Walk]| walks.iter().map(Walk::total).sum::<usize>();
        let before = blocks(&exchange.walks);
        for (stream, (walk, index)) in exchange.walks.iter_mut().zip(&self.indexes).enumerate() {
            let reader = &exchange.reader;
            walk.advance(seed, |first| reader.prompts_from(stream, first), index);
        }
        Some(blocks(&exchange.walks) > before)
    }

    /// Adds the blocks that went to the picked endpoint to the indexes (the first of the primary profile's
    /// picks, as the Endpoint Picker does before the request leaves). Called again as the rest of a prompt
    /// streams past. They count at once: a prompt that was sent 10 ms ago is likely there. New blocks stay in
    /// doubt until a response comes.
    pub fn learn(&mut self, exchange: &mut Exchange, pool: &PoolState) {
        if exchange.updates_indexes {
            self.apply(Evidence::Sent, exchange, pool);
            if exchange.response.has_begun() {
                self.apply(Evidence::Proven, exchange, pool);
            }
        }
    }

    /// The request's response has begun: its endpoint has the blocks that the request has added.
    pub fn prove(&mut self, exchange: &mut Exchange, pool: &PoolState) {
        if exchange.is_doubted() {
            self.apply(Evidence::Proven, exchange, pool);
        }
    }

    /// The request's response is not a success, or comes from another endpoint than the picked one. That the picked
    /// one holds the prompt is as unproven as before: the indexes forget the blocks that this request has added, and
    /// learn no more of it.
    pub fn refute(&mut self, exchange: &mut Exchange, pool: &PoolState) {
        self.apply(Evidence::Refuted, exchange, pool);
        exchange.abandon_prompt();
    }

    /// The request's response is a success and comes from another endpoint than the picked one, as after a retry. This
    /// refutes that the picked endpoint holds the prompt, and proves that the prefill endpoint does.
    pub fn refute_primary(&mut self, exchange: &mut Exchange, pool: &PoolState) {
        let prefill = exchange.targets().and_then(|targets| targets.prefill);
        if let Some(prefill) = prefill {
            self.apply_at(Evidence::Proven, (Part::Prefill, prefill), exchange, pool);
        }
        let primary = exchange.primary().copied();
        if let Some(primary) = primary {
            self.apply_at(Evidence::Refuted, (Part::Primary, primary), exchange, pool);
        }
        exchange.abandon_prompt();
    }

    /// The request has ended: the indexes forget the blocks of it that no response has proven. To send prompts must
    /// not be cheaper for a client than to have them computed.
    pub fn refute_unproven(&mut self, exchange: &mut Exchange, pool: &PoolState) {
        if exchange.is_doubted() {
            self.apply(Evidence::Refuted, exchange, pool);
        }
    }

    /// A response says how much of the prompt its endpoint had in its cache. If that is less than half of what the index
    /// had expected, the endpoint's cache is smaller than the index takes it to be, or was emptied: the index forgets
    /// the blocks that the endpoint used longest ago. Those of this prompt stay, since the endpoint has computed them
    /// now. Returns how many were forgotten.
    ///
    /// Half, because the index measures a prompt in bytes and the endpoint in tokens, of which the parts of a prompt
    /// have more or fewer. Several indexes stand for several caches, and the response does not say which one was
    /// smaller. Of several prompts servers report the cached tokens of one; of a prompt that the server has cut short
    /// they say nothing about the rest.
    pub fn correct(&mut self, exchange: &mut Exchange, usage: &Usage, pool: &PoolState) -> usize {
        let target = pool.present_target(exchange).map(|target| target.slot);
        let (Some(slot), [producer], [index], [walk]) = (
            target,
            self.producers.as_slice(),
            self.indexes.as_mut_slice(),
            exchange.walks.as_mut_slice(),
        ) else {
            return 0;
        };
        let (Some(prompt), Some(cached)) = (usage.prompt, usage.cached) else {
            return 0;
        };
        let total = walk.total();
        let spec = producer.block_spec(pool.pool());
        // A token has four bytes, more or less.
        let is_whole = prompt.saturating_mul(8) >= (total * spec.block_bytes) as u64;
        let is_cut = spec
            .max_blocks
            .is_some_and(|max_blocks| total >= max_blocks);
        if prompt == 0 || is_cut || !is_whole || !walk.is_single() {
            // Of a prompt that is longer than the window it is not known which share the window is.
            return 0;
        }
        let expected = walk.matched().get(slot.index()).copied().unwrap_or(0) as usize;
        let found = (cached as f64 / prompt as f64 * total as f64) as usize;
        if found.saturating_mul(2) >= expected {
            return 0;
        }
        let missing = (expected - found).saturating_mul(DROPPED_PER_MISSING_BLOCK);
        index.drop_unused(slot.0, missing.saturating_mul(self.sharers), total)
    }

    /// Says how many pickers learn from each other: each sees the responses to its own requests only, and the indexes
    /// of all hold the same.
    pub fn set_sharers(&mut self, sharers: usize) {
        self.sharers = sharers.max(1);
    }

    /// Applies what is now known of a request's blocks to the indexes, here and after the next tick in the other
    /// pickers: of its primary target and of the one that computes the prompt for it, which both get the prompt into
    /// their caches.
    fn apply(&mut self, evidence: Evidence, exchange: &mut Exchange, pool: &PoolState) {
        let Some(targets) = exchange.targets() else {
            return;
        };
        let (primary, prefill) = (targets.primary, targets.prefill);
        self.apply_at(evidence, (Part::Primary, primary), exchange, pool);
        if let Some(prefill) = prefill {
            self.apply_at(evidence, (Part::Prefill, prefill), exchange, pool);
        }
    }

    fn apply_at(
        &mut self,
        evidence: Evidence,
        (part, target): (Part, Target),
        exchange: &mut Exchange,
        pool: &PoolState,
    ) {
        if !pool.loads.stays(&target) {
            return;
        }
        let (slot, tag) = (target.slot.0, pool.loads.tag(target.slot));
        let walks = exchange.walks.iter_mut().zip(&mut self.indexes);
        for (number, ((walk, index), producer)) in walks.zip(&self.producers).enumerate() {
            let capacity = producer.capacity_of(pool.endpoint(target.slot));
            let placement = Placement::Blocks(PlacedBlocks {
                evidence,
                producer: number as u8,
                slot,
                tag,
            });
            let learnt = &mut self.learnt;
            let mut news = |prompt: &[u64], blocks| learnt.append_run(placement, prompt, blocks);
            match evidence {
                Evidence::Sent => walk.learn(index, (part, slot), capacity, &mut news),
                Evidence::Proven => walk.prove(index, (part, slot), capacity, &mut news),
                Evidence::Refuted => walk.refute(index, (part, slot), &mut news),
            }
        }
    }
}

/// The exchange of evidence with other pickers.
impl Prefixes {
    /// Learns what the picker `peer` has learnt of the blocks of a prompt from number `from` on.
    pub fn learn_from_peer(
        &mut self,
        peer: u32,
        learnt: PlacedBlocks,
        (prompt, from): (&[u64], usize),
        pool: &PoolState,
    ) {
        let slot = Slot(learnt.slot);
        let producer = self.producers.get(usize::from(learnt.producer));
        let index = self.indexes.get_mut(usize::from(learnt.producer));
        let endpoint = pool.endpoint(slot);
        let endpoint = endpoint.filter(|_| pool.loads.tag(slot) == learnt.tag);
        let (Some(producer), Some(index), Some(_)) = (producer, index, endpoint) else {
            return;
        };
        let sender = Provenance::of_worker(peer);
        let provenance = match learnt.evidence {
            Evidence::Sent => sender,
            Evidence::Proven => Provenance::PROVEN,
            Evidence::Refuted => {
                index.retract(learnt.slot, prompt, from..prompt.len(), sender, &mut |_| {});
                return;
            }
        };
        let sent = SentBlocks {
            slot: learnt.slot,
            prompt,
            from,
            provenance,
        };
        index.record(sent, producer.capacity_of(endpoint), &mut |_, _| {});
    }

    /// Returns how many blocks the endpoints that there are can hold together.
    pub fn max_blocks(&self, pool: &PoolState) -> usize {
        let endpoints = pool.pool().iter();
        let of_endpoint = |endpoint| {
            let producers = self.producers.iter();
            let capacities = producers.map(|producer| producer.capacity_of(Some(endpoint)));
            capacities.fold(0, usize::saturating_add)
        };
        let blocks = endpoints.map(|(_, endpoint)| of_endpoint(endpoint));
        blocks.fold(0, usize::saturating_add)
    }

    /// Returns how many lists [`Self::list`] writes.
    pub fn lists(&self, pool: &PoolState) -> usize {
        self.indexes.len() * pool.pool().width().max(1)
    }

    /// Writes into `hashes` all blocks that one endpoint holds for one producer, in the order of their use, the last
    /// used one at the end; `None` past the last pair of the two.
    pub fn list(
        &self,
        number: usize,
        hashes: &mut Vec<u64>,
        pool: &PoolState,
    ) -> Option<Placement> {
        let width = pool.pool().width().max(1);
        let (producer, slot) = (number / width, (number % width) as u32);
        self.indexes.get(producer)?.list(slot, hashes);
        Some(Placement::Blocks(PlacedBlocks {
            // Little is in doubt while it is handed over, and not worth a second list.
            evidence: Evidence::Proven,
            producer: producer as u8,
            slot,
            tag: pool.loads.tag(Slot(slot)),
        }))
    }
}

#[cfg(test)]
#[path = "prefixes_tests.rs"]
mod tests;
