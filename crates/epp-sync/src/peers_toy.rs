//! The index and the loads of a VM as tests have them, beside an unbounded model of what it should know.

use std::collections::{BTreeMap, HashSet};

use epp_core::prefix::index::Index;
use epp_core::prefix::key::Secret;
use epp_core::prefix::matcher::Matcher;

use epp_core::picker::peers::{EndpointLoad, Evidence, LearntLog, PlacedBlocks, Placement};

use super::super::*;

/// Endpoints there are.
pub const SLOTS: u32 = 5;
/// Requests that each VM says it holds.
pub const HELD: u32 = 3;

/// A prompt: one of few beginnings, and it parts from others of that one somewhere, so that contexts
/// of all lengths occur, and blocks that several hold. A block's hash covers all blocks before it.
pub fn prompt(rng: &mut fastrand::Rng) -> Vec<u64> {
    // Above what contents are, so that no block is the same behind another one.
    let mut last = rng.u64(16..19);
    let length = rng.usize(1..60);
    let parts = rng.usize(..=length);
    let blocks = (0..length).map(|number| {
        let content = if number < parts { 1 } else { rng.u64(1..3) };
        last = (last ^ content)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(23);
        last
    });
    blocks.collect()
}

/// Returns a placement that is sent to the endpoint in this slot.
pub fn run(producer: u8, slot: u32) -> Placement {
    Placement::Blocks(PlacedBlocks {
        evidence: Evidence::Sent,
        producer,
        slot,
        tag: slot + 100,
    })
}

/// The blocks that one VM holds: in the index that it decides from, and in a plain set without a bound.
pub struct Toy {
    pub index: Index,
    pub all: HashSet<(u32, u64)>,
    pub capacity: usize,
    pub learnt: LearntLog,
    pub own: BTreeMap<u32, EndpointLoad>,
    pub others: BTreeMap<u32, (u32, u64)>,
}

/// Creates the index of a VM that has just started, which may receive another VM's.
pub fn empty_index() -> Index {
    let mut index = Index::new(64 << 20, &Secret::from(0));
    index.allow_gaps(true);
    index
}

fn kept_log() -> LearntLog {
    let mut log = LearntLog::default();
    log.set_enabled(true);
    log
}

impl Default for Toy {
    fn default() -> Self {
        Self {
            index: empty_index(),
            all: HashSet::new(),
            capacity: usize::MAX,
            learnt: kept_log(),
            own: BTreeMap::new(),
            others: BTreeMap::new(),
        }
    }
}

impl Toy {
    /// The blocks of a prompt from number `from` on were sent somewhere. What of it is news.
    pub fn add(&mut self, run: Placement, prompt: &[u64], from: usize) -> Vec<usize> {
        let Placement::Blocks(PlacedBlocks { slot, .. }) = run else {
            panic!("expected blocks, found {run:?}");
        };
        let mut news = Vec::new();
        let mut tell = |block| news.push(block);
        self.index.add(slot, prompt, from, self.capacity, &mut tell);
        let blocks = prompt[from..].iter().map(|hash| (slot, *hash));
        self.all.extend(blocks);
        news
    }
}

impl IndexPeer for Toy {
    fn fingerprint(&self) -> u64 {
        1
    }

    fn learnt(&mut self) -> &mut LearntLog {
        &mut self.learnt
    }

    fn learn(&mut self, _: u32, run: Placement, prompt: &[u64], from: usize) {
        self.add(run, prompt, from);
    }

    fn allow_gaps(&mut self, allowed: bool) {
        self.index.allow_gaps(allowed);
    }

    fn index_list(&self, number: usize, hashes: &mut Vec<u64>) -> Option<Placement> {
        let slot = number as u32;
        self.index.list(slot, hashes);
        (slot < SLOTS).then(|| run(0, slot))
    }

    fn clear_index(&mut self) {
        self.index = empty_index();
    }

    fn max_index_bytes(&self) -> usize {
        64 << 20
    }

    fn max_index_blocks(&self) -> usize {
        self.capacity.saturating_mul(SLOTS as usize)
    }

    fn held(&self) -> u32 {
        HELD
    }

    fn own_loads(&self, loads: &mut Vec<EndpointLoad>) {
        loads.extend(self.own.values().filter(|load| load.requests > 0));
    }

    fn set_peer_loads(&mut self, others: &mut dyn Iterator<Item = &[EndpointLoad]>) {
        self.others.clear();
        for load in others.flatten() {
            let sum = self.others.entry(load.slot).or_default();
            sum.0 += load.requests;
            sum.1 += load.tokens;
        }
    }
}

/// Returns how many blocks of a prompt each endpoint holds.
pub fn matched(index: &Index, prompt: &[u64]) -> Vec<u32> {
    let mut matcher = Matcher::default();
    for hash in prompt {
        matcher.extend(index, *hash);
    }
    matcher.settle(index);
    let mut counts = matcher.counts().to_vec();
    counts.resize(SLOTS as usize, 0);
    counts
}
