//! The index of prefix blocks: which blocks were sent to which endpoint, an approximation of what its KV cache holds.
//!
//! Each endpoint has a list of its block hashes in order of last use (`lru.rs`), bounded by its assumed capacity. All
//! entries lie in one arena (`arena.rs`), 28 bytes each and 2 for the table that finds them. The holders of a block that
//! several endpoints hold are a numbered set (`sets.rs`), so that a look-up does not walk over them: it compares the
//! number with that of the block before, and counts the members once for all blocks of a run. Look-ups do not count
//! as uses: only blocks that are sent again are used again.

pub use super::arena::Provenance;
use super::arena::{Arena, Entry, NONE};
use super::key::{ScatteredHash, Secret, TableKey};
use super::lru::LruList;
use super::sets::Sets;

/// Memory of an entry with its share of the table.
const ENTRY_BYTES: usize = 30;

/// Sets of endpoints may take one part in this many of the memory bound: 2 bytes of 32. Beyond that a block gets no
/// further holder, which loses matches and takes no memory.
const SETS_SHARE: usize = 16;

/// Blocks whose buckets are prefetched together before the blocks are added one by one: the number of cache misses that
/// a core can overlap.
const PREFETCHED_BLOCKS: usize = 16;

/// The index of the blocks that were sent to each endpoint.
#[derive(Debug, Clone)]
pub struct Index {
    /// Maximum number of entries.
    pub(super) max_entries: usize,
    /// Maximum memory of the sets, in bytes.
    pub(super) max_set_bytes: usize,
    pub(super) arena: Arena,
    pub(super) sets: Sets,
    pub(super) evictions: u64,
    /// The list of each endpoint's entries, by slot.
    pub(super) lists: Vec<LruList>,
}

/// Blocks of a prompt that were sent to an endpoint.
#[derive(Debug, Clone, Copy)]
pub struct SentBlocks<'p> {
    /// The endpoint's slot.
    pub slot: u32,
    /// The prompt, or its last part: of the blocks before the sent ones, the [`Index::context`] suffices.
    pub prompt: &'p [u64],
    /// Position in `prompt` of the first sent block.
    pub from: usize,
    /// The evidence that the endpoint holds the blocks.
    pub provenance: Provenance,
}

/// The effect of recording a block.
#[derive(Debug, Clone, Copy)]
pub struct BlockChange {
    /// The endpoint has not held the block before.
    pub new: bool,
    /// The endpoint held the block without proof.
    pub unproven: bool,
    /// The block should be published to other workers.
    pub to_publish: bool,
}

impl BlockChange {
    /// Returns whether recording the block had any effect.
    fn is_any(self) -> bool {
        self.new || self.unproven || self.to_publish
    }
}

/// The endpoints that hold a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holders {
    /// The endpoint in this slot alone.
    One(u16),
    /// The set with this number.
    Set(u32),
}

impl Default for Holders {
    fn default() -> Self {
        Self::One(0)
    }
}

/// The position in a prompt whose blocks are being added.
pub(super) struct AddCursor {
    /// The last block that was added.
    pub before: Option<u64>,
    /// Place of the endpoint's own entry of that block.
    pub own: u32,
    /// Place of the primary entry of that block.
    primary: u32,
    /// The evidence that the endpoint holds the added blocks.
    pub provenance: Provenance,
    /// Whether no endpoint held that block: then no entry lies behind it.
    new: bool,
}

impl Index {
    /// Creates an empty index that never takes more than `max_bytes`, apart from a few chunks. The secret keys its
    /// tables.
    pub fn new(max_bytes: usize, secret: &Secret) -> Self {
        let key = TableKey::new(secret);
        let max_set_bytes = max_bytes / SETS_SHARE;
        Self {
            max_entries: ((max_bytes - max_set_bytes) / ENTRY_BYTES).clamp(1, NONE as usize - 1),
            max_set_bytes,
            arena: Arena::new(key),
            sets: Sets::new(key),
            evictions: 0,
            lists: Vec::new(),
        }
    }

    /// Sets whether blocks may be added without their context, as happens when an index is handed over in order of use:
    /// then each block must be found by itself. This must be set before the first block is added.
    pub fn allow_gaps(&mut self, allowed: bool) {
        self.arena.link_all(allowed);
    }

    /// Adopts the bounds of another index. Returns false, and changes nothing, if this index exceeds them.
    pub fn take_bound_of(&mut self, other: &Self) -> bool {
        let fits = self.arena.len() <= other.max_entries;
        if fits {
            (self.max_entries, self.max_set_bytes) = (other.max_entries, other.max_set_bytes);
        }
        fits
    }

    /// Returns the number of entries in use.
    pub fn entries(&self) -> usize {
        self.arena.len()
    }

    /// Returns the memory in bytes.
    pub fn bytes(&self) -> usize {
        let list = self.lists.capacity() * size_of::<LruList>();
        self.arena.bytes() + self.sets.bytes() + list
    }

    /// Returns how many entries were evicted for newer ones so far.
    pub fn evictions(&self) -> u64 {
        self.evictions
    }

    /// Returns the context of a block: those of the blocks before it that are needed to find it.
    pub fn context<'p>(&self, before: &'p [u64]) -> &'p [u64] {
        self.arena.key().context(before)
    }

    /// Records blocks with proof, as [`Self::record`] does. `to_publish` is called with the position of each block that
    /// should be published.
    pub fn add(
        &mut self,
        slot: u32,
        prompt: &[u64],
        from: usize,
        capacity: usize,
        to_publish: &mut dyn FnMut(usize),
    ) {
        let sent = SentBlocks {
            slot,
            prompt,
            from,
            provenance: Provenance::PROVEN,
        };
        self.record(sent, capacity, &mut |block, change| {
            if change.to_publish {
                to_publish(block);
            }
        });
    }

    /// Records blocks that were sent to an endpoint. `capacity` is how many blocks the endpoint can hold. It may change: the
    /// first blocks are often recorded before the endpoint has reported it. `changed` is called with the position and the
    /// effect of each block for which anything has changed.
    pub fn record(
        &mut self,
        sent: SentBlocks<'_>,
        capacity: usize,
        changed: &mut dyn FnMut(usize, BlockChange),
    ) {
        let SentBlocks { prompt, from, .. } = sent;
        let Ok(slot) = u16::try_from(sent.slot) else {
            return;
        };
        if slot == u16::MAX {
            // This slot marks free entries.
            return;
        }
        if self.lists.len() <= usize::from(slot) {
            self.lists.resize(usize::from(slot) + 1, LruList::EMPTY);
        }
        if let Some(list) = self.lists.get_mut(usize::from(slot)) {
            list.set_capacity(capacity);
        }
        let Some(before) = prompt.get(..from) else {
            return;
        };
        let primary = self.find_last(before);
        let mut cursor = AddCursor {
            before: before.last().copied(),
            own: primary,
            primary,
            provenance: sent.provenance,
            new: false,
        };
        let mut number = from;
        let mut ahead = [ScatteredHash::default(); PREFETCHED_BLOCKS];
        let mut hinted = from;
        while let Some(left) = prompt.get(number..).filter(|left| !left.is_empty()) {
            let mut again = |block, change| changed(number + block, change);
            let known = self.record_known(&mut cursor, slot, left, &mut again);
            let left = left.get(known..).unwrap_or_default();
            number += known;
            if number >= hinted {
                hinted = number + PREFETCHED_BLOCKS;
                self.arena.prefetch(left, &mut ahead);
            }
            let next = ahead.get(PREFETCHED_BLOCKS + number - hinted);
            if let Some(block) = next.filter(|_| !left.is_empty()) {
                let change = self.record_one(&mut cursor, slot, *block);
                if let Some(change) = change.filter(|change| change.is_any()) {
                    changed(number, change);
                }
            }
            number += 1;
        }
        self.arena.link_orphan();
    }

    /// Returns the place of the primary entry of the last of these blocks.
    pub(super) fn find_last(&self, blocks: &[u64]) -> u32 {
        let next = |place, hash: &u64| self.arena.primary_after(place, *hash).unwrap_or(NONE);
        self.context(blocks).iter().fold(NONE, next)
    }

    /// Records the first of these blocks that the endpoint already holds in the same order, as for a prompt that comes
    /// again or continues. They are moved to the end of its list together. Returns how many blocks these are.
    fn record_known(
        &mut self,
        cursor: &mut AddCursor,
        slot: u16,
        blocks: &[u64],
        changed: &mut dyn FnMut(usize, BlockChange),
    ) -> usize {
        let list = self.lists.get(usize::from(slot)).copied();
        let Some(mut list) = list.filter(|_| !cursor.new) else {
            return 0;
        };
        let full = list.count >= list.capacity || self.arena.len() >= self.max_entries;
        let first = cursor.own.wrapping_add(1);
        let mut own = cursor.own;
        let mut count = 0;
        for hash in blocks {
            let Some(next) = self.arena.entry_after(own, *hash, slot) else {
                break;
            };
            let Some(entry) = self
                .arena
                .get_mut(next)
                .filter(|entry| next == first || entry.older == own)
            else {
                break;
            };
            // A block that a response proves was counted when it was sent.
            if cursor.provenance != Provenance::PROVEN || entry.provenance() == Provenance::PROVEN {
                list.count_use();
            }
            let change = change(entry, full, list.period, cursor.provenance);
            if change.is_any() {
                changed(count, change);
            }
            own = next;
            count += 1;
        }
        if count == 0 {
            return 0;
        }
        list.unlink(first, own, &mut self.arena);
        list.append(first, own, &mut self.arena);
        if let Some(stored) = self.lists.get_mut(usize::from(slot)) {
            *stored = list;
        }
        let last = blocks.get(count - 1).copied();
        cursor.before = last;
        cursor.own = own;
        let hash = last.unwrap_or_default();
        cursor.primary = match self.arena.is_primary(own, hash) {
            true => own,
            false => self.arena.primary(hash).unwrap_or(NONE),
        };
        count
    }

    /// Records the block at the cursor. Returns the effect.
    fn record_one(
        &mut self,
        cursor: &mut AddCursor,
        slot: u16,
        block: ScatteredHash,
    ) -> Option<BlockChange> {
        let hash = block.hash;
        let list = self.lists.get_mut(usize::from(slot))?;
        list.count_use();
        let period = list.period;
        let full = list.count >= list.capacity || self.arena.len() >= self.max_entries;
        let (own, first) = self.find_next(cursor, slot, block);
        let known = own.or_else(|| self.find(first?, slot, hash));
        if let (Some(place), Some(list)) = (known, self.lists.get_mut(usize::from(slot))) {
            list.unlink(place, place, &mut self.arena);
            list.append(place, place, &mut self.arena);
        }
        let placed = known.or_else(|| self.insert(cursor, slot, block, first));
        cursor.new = first.is_none();
        cursor.before = Some(hash);
        cursor.own = placed.unwrap_or(NONE);
        let primary = first.filter(|first| self.arena.is_primary(*first, hash));
        cursor.primary = primary.or(placed).unwrap_or(NONE);
        let place = placed?;
        if known.is_some() {
            let entry = self.arena.get_mut(place)?;
            return Some(change(entry, full, period, cursor.provenance));
        }
        Some(BlockChange {
            new: true,
            unproven: false,
            to_publish: true,
        })
    }

    /// Returns the endpoint's own entry of the block at the cursor, if it lies behind the entry before, and the primary
    /// entry of the block.
    fn find_next(
        &self,
        cursor: &AddCursor,
        slot: u16,
        block: ScatteredHash,
    ) -> (Option<u32>, Option<u32>) {
        let hash = block.hash;
        if cursor.new {
            return (None, self.arena.primary_of(block));
        }
        let own = self.arena.entry_after(cursor.own, hash, slot);
        let first = match own {
            Some(own) if self.arena.is_primary(own, hash) => Some(own),
            _ => self.arena.primary_after(cursor.primary, hash),
        };
        (own, first)
    }

    /// Appends an endpoint's hashes in order of use, the last used one at the end.
    pub fn list(&self, slot: u32, hashes: &mut Vec<u64>) {
        let list = self.lists.get(slot as usize);
        let mut place = list.map_or(NONE, |list| list.oldest);
        while let Some(entry) = self.arena.get(place) {
            hashes.push(entry.hash());
            place = entry.newer;
        }
    }

    /// Returns the place of the primary entry of a block, and the block's holders if it has any. `place` is that of the
    /// block before it.
    #[inline]
    pub(super) fn holders_after(&self, place: u32, hash: u64) -> (u32, Option<Holders>) {
        let primary = self.arena.primary_after(place, hash);
        let entry = primary.and_then(|primary| self.arena.get(primary));
        let holders = entry.map(|entry| match entry.holders {
            0 => Holders::One(entry.slot),
            number => Holders::Set(number),
        });
        (primary.unwrap_or(NONE), holders)
    }

    /// Calls `visit` with the slot of each holder.
    pub(super) fn for_each_holder(&self, holders: Holders, mut visit: impl FnMut(u16)) {
        match holders {
            Holders::One(slot) => visit(slot),
            Holders::Set(number) => self.sets.members(number).for_each(visit),
        }
    }

    /// Returns an endpoint's entry of the block whose primary entry is `first`.
    pub(super) fn find(&self, first: u32, slot: u16, hash: u64) -> Option<u32> {
        let entry = self.arena.get(first)?;
        if entry.slot == slot {
            return Some(first);
        }
        let holds = entry.holders != 0 && self.sets.contains(entry.holders, slot);
        holds.then(|| self.arena.secondary(hash, slot)).flatten()
    }
}

/// Records the use of an entry and returns the effect.
#[inline]
fn change(entry: &mut Entry, full: bool, period: u16, provenance: Provenance) -> BlockChange {
    BlockChange {
        new: false,
        unproven: entry.add_evidence(provenance),
        to_publish: full && entry.mark_published(period),
    }
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
