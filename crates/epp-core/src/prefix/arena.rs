//! The entries of the prefix index and the hash table that finds them, in memory that grows piece by piece.
//!
//! A vector that doubles would take twice the memory in the worst case, and stop a request for as long as it takes to
//! copy everything. Both the entries and the buckets of the table therefore come in chunks (`chunks.rs`) that stay
//! where they are, and the table grows by one bucket at a time (linear hashing).
//!
//! A block may have several entries, one for each endpoint that holds it. The *primary* entry says which endpoints
//! these are; the others are *secondary*.
//!
//! Most entries are not in the table. A block's hash depends on all blocks before it, so that a look-up has found the
//! block before it already. An entry that lies in the arena right behind the entry of that block is found there, and
//! the entries of one prompt lie in its order. A new block thus avoids the table's cache misses, which are most of its
//! cost. An entry is linked into the table when it can no longer be found like that: when the entry before it is
//! removed, or when a second endpoint holds its block. One block in sixteen is always linked
//! ([`TableKey::context`]), so that a look-up can begin in the middle of a prompt.

use super::chunks::Chunks;
use super::key::{ScatteredHash, TableKey};

/// Marks the end of a list.
pub const NONE: u32 = u32::MAX;

/// Value of [`Entry::holders`] in a secondary entry.
pub const SECONDARY: u32 = u32::MAX;

/// Value of [`Entry::next`] in an entry that is not in the table.
const UNLINKED: u32 = u32::MAX - 1;

/// Value of [`Entry::slot`] in a free entry.
const FREE_SLOT: u16 = u16::MAX;

/// Entries per bucket, in the table or not.
const ENTRIES_PER_BUCKET: usize = 3;

/// Buckets that are split off together: the entries that move are cache misses, and those of several buckets overlap.
const BUCKETS_PER_SPLIT: usize = 32;

/// Maximum entries per bucket. With keyed hashes a bucket has at most six entries on average, if every entry is in the
/// table; 64 have a probability of 10^-43. The bound limits the cost of a look-up, an insertion and a split whatever the hashes
/// are. An entry whose bucket is full stays out of the table, which loses its match.
const MAX_CHAIN: usize = 64;

/// The evidence that an endpoint holds a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Provenance(u8);

impl Provenance {
    /// A response has proven it.
    pub const PROVEN: Self = Self(0);
    /// A request of this worker is in flight.
    pub const OWN: Self = Self(1);

    /// Another worker has published it without proof. If there are more than 254 workers, some share a value, which may
    /// lose matches.
    pub fn of_worker(worker: u32) -> Self {
        Self((worker % 254) as u8 + 2)
    }
}

/// One endpoint's entry of one block: 28 bytes, with the hash in two halves to avoid padding.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    hash: [u32; 2],
    /// The next entry in the bucket, or [`UNLINKED`]; in a free entry the next free one.
    next: u32,
    /// The next newer entry in the endpoint's list.
    pub newer: u32,
    /// The next older entry in the endpoint's list.
    pub older: u32,
    /// The endpoints that hold the block: 0 for this endpoint alone, the number of a set in [`super::sets::Sets`], or
    /// [`SECONDARY`] if the block's primary entry has them.
    pub holders: u32,
    /// The endpoint.
    pub slot: u16,
    /// The lower half of the period in which the entry was last published.
    published: u8,
    provenance: Provenance,
}

impl Entry {
    /// Returns an entry that is in no list.
    pub fn new(hash: u64, slot: u16, holders: u32, provenance: Provenance) -> Self {
        Self {
            hash: [hash as u32, (hash >> 32) as u32],
            next: UNLINKED,
            newer: NONE,
            older: NONE,
            holders,
            slot,
            published: 0,
            provenance,
        }
    }

    /// Returns the block's hash.
    pub fn hash(&self) -> u64 {
        let [low, high] = self.hash;
        u64::from(low) | u64::from(high) << 32
    }

    /// Returns the evidence for the entry.
    pub fn provenance(&self) -> Provenance {
        self.provenance
    }

    /// Marks the entry as proven. Returns whether it was unproven.
    pub fn prove(&mut self) -> bool {
        std::mem::replace(&mut self.provenance, Provenance::PROVEN) != Provenance::PROVEN
    }

    /// Adds evidence. Returns whether the entry is unproven. Of several other workers the last one counts, so that the
    /// earlier ones cannot retract the entry.
    pub fn add_evidence(&mut self, provenance: Provenance) -> bool {
        let unproven = self.provenance != Provenance::PROVEN;
        if unproven && provenance != Provenance::OWN {
            self.provenance = provenance;
        }
        unproven
    }

    /// Marks the entry as published in this period. Returns whether it was not yet.
    pub fn mark_published(&mut self, period: u16) -> bool {
        let period = period as u8;
        std::mem::replace(&mut self.published, period) != period
    }
}

/// The entries and their table.
#[derive(Debug, Clone)]
pub struct Arena {
    entries: Chunks<Entry>,
    /// The first entry of each bucket.
    buckets: Chunks<u32>,
    /// The marks of each bucket's keys ([`mark`]), and of keys that left it while others stayed. A new block is recognised
    /// by them alone, which are few enough to stay in the cache.
    marks: Chunks<u8>,
    /// The first free entry.
    free: u32,
    /// Number of entries in use.
    live: usize,
    /// An unlinked entry whose predecessor was removed. Most often it is removed next, so that it is not linked into the
    /// table before [`Arena::link_orphan`].
    orphan: u32,
    /// Whether every new entry is linked into the table.
    links_all: bool,
    key: TableKey,
    /// Number of bucket entries that were read.
    #[cfg(test)]
    pub steps: std::cell::Cell<usize>,
}

impl Arena {
    /// Creates an empty arena, whose table has this key.
    pub fn new(key: TableKey) -> Self {
        let (mut buckets, mut marks) = (Chunks::EMPTY, Chunks::EMPTY);
        buckets.push(NONE);
        marks.push(0);
        Self {
            entries: Chunks::EMPTY,
            buckets,
            marks,
            free: NONE,
            live: 0,
            orphan: NONE,
            links_all: false,
            key,
            #[cfg(test)]
            steps: std::cell::Cell::default(),
        }
    }

    /// Returns the key of the table.
    pub fn key(&self) -> TableKey {
        self.key
    }

    /// Returns the number of entries in use.
    pub fn len(&self) -> usize {
        self.live
    }

    /// Returns the allocated memory in bytes.
    pub fn bytes(&self) -> usize {
        self.entries.bytes() + self.buckets.bytes() + self.marks.bytes()
    }

    /// Returns the entry at a place.
    pub fn get(&self, place: u32) -> Option<&Entry> {
        self.entries.get(place as usize)
    }

    /// Returns the entry at a place, to change what the table does not depend on.
    pub fn get_mut(&mut self, place: u32) -> Option<&mut Entry> {
        self.entries.get_mut(place as usize)
    }

    /// Returns the primary entry of a block, if it is in the table.
    pub fn primary(&self, hash: u64) -> Option<u32> {
        self.primary_of(self.key.scatter(hash))
    }

    /// Returns [`Self::primary`] for a hash that is scattered already.
    pub fn primary_of(&self, block: ScatteredHash) -> Option<u32> {
        let ScatteredHash { hash, mixed } = block;
        let is = |entry: &Entry| entry.holders != SECONDARY && entry.hash() == hash;
        let orphan = || Some(self.orphan).filter(|orphan| self.is_primary(*orphan, hash));
        self.find(mixed, is).or_else(orphan)
    }

    /// Returns whether the entry at a place is the primary entry of a block.
    pub fn is_primary(&self, place: u32, hash: u64) -> bool {
        self.get(place).is_some_and(|entry| {
            entry.slot != FREE_SLOT && entry.holders != SECONDARY && entry.hash() == hash
        })
    }

    /// Returns the primary entry of a block; `place` is that of the block before it.
    pub fn primary_after(&self, place: u32, hash: u64) -> Option<u32> {
        let (next, entry) = self.after(place);
        let is = |entry: &Entry| entry.hash() == hash && entry.holders != SECONDARY;
        let found = entry.is_some_and(is).then_some(next);
        found.or_else(|| self.primary(hash))
    }

    /// Returns an endpoint's entry of a block, if it lies right behind `place`.
    pub fn entry_after(&self, place: u32, hash: u64, slot: u16) -> Option<u32> {
        let (next, entry) = self.after(place);
        let entry = entry?;
        (entry.hash() == hash && entry.slot == slot).then_some(next)
    }

    /// Returns the place behind this one, and the entry there if it is in use.
    fn after(&self, place: u32) -> (u32, Option<&Entry>) {
        let next = place.wrapping_add(1);
        let used = (next as usize) < self.entries.len;
        let entry = self
            .get(next)
            .filter(|entry| used && entry.slot != FREE_SLOT);
        (next, entry)
    }

    /// Returns an endpoint's secondary entry of a block.
    pub fn secondary(&self, hash: u64, slot: u16) -> Option<u32> {
        let is = |entry: &Entry| {
            entry.holders == SECONDARY && entry.slot == slot && entry.hash() == hash
        };
        self.find(self.secondary_key(hash, slot), is)
    }

    /// Returns whether the table has room for an endpoint's secondary entry of a block.
    pub fn has_room(&self, hash: u64, slot: u16) -> bool {
        let bucket = self.bucket(self.secondary_key(hash, slot));
        let head = self.buckets.get(bucket).copied();
        self.chain(head.unwrap_or(NONE)).count() < MAX_CHAIN
    }

    /// Returns the table's key of a secondary entry.
    fn secondary_key(&self, hash: u64, slot: u16) -> u64 {
        self.key.mix(hash ^ self.key.mix(u64::from(slot)))
    }

    /// Returns the table's key of an entry: the block, or for a secondary entry block and endpoint.
    fn key_of(&self, entry: &Entry) -> u64 {
        if entry.holders == SECONDARY {
            self.secondary_key(entry.hash(), entry.slot)
        } else {
            self.key.mix(entry.hash())
        }
    }

    /// Scatters the hashes of the first of these blocks, and reads their buckets' marks into the cache. In a large table
    /// many of these are cache misses; here the misses overlap, while one after the other they are most of the cost of a
    /// new block.
    pub fn prefetch(&self, blocks: &[u64], scattered: &mut [ScatteredHash]) {
        let mut marks = 0;
        for (hash, block) in blocks.iter().zip(scattered) {
            *block = self.key.scatter(*hash);
            marks ^= self.marks.get(self.bucket(block.mixed)).unwrap_or(&0);
        }
        std::hint::black_box(marks);
    }

    fn find(&self, key: u64, is: impl Fn(&Entry) -> bool) -> Option<u32> {
        let bucket = self.bucket(key);
        if self.marks.get(bucket)? & mark(key) == 0 {
            return None;
        }
        let head = *self.buckets.get(bucket)?;
        let found = self.chain(head).find(|(_, entry)| is(entry));
        found.map(|(place, _)| place)
    }

    /// Returns the entries of a bucket from `place` on.
    fn chain(&self, mut place: u32) -> impl Iterator<Item = (u32, &Entry)> {
        std::iter::from_fn(move || {
            let (found, entry) = (place, self.get(place)?);
            #[cfg(test)]
            self.steps.set(self.steps.get() + 1);
            place = entry.next;
            Some((found, entry))
        })
    }

    /// Returns the bucket of a key. The number of buckets is a power of two plus those that were split off since.
    fn bucket(&self, key: u64) -> usize {
        let buckets = self.buckets.len;
        let whole = buckets.next_power_of_two();
        let place = key as usize & (whole - 1);
        if place < buckets {
            place
        } else {
            place & (whole / 2 - 1)
        }
    }

    /// Sets whether every entry that is inserted from now on is linked into the table.
    pub fn link_all(&mut self, all: bool) {
        self.links_all = all;
    }

    /// Inserts an entry of a block and returns its place. `last` is the place of the same endpoint's entry of the block
    /// before, if that is a primary entry.
    pub fn insert(&mut self, entry: Entry, block: ScatteredHash, last: u32) -> u32 {
        let place = match self.entries.get_mut(self.free as usize) {
            Some(free) => {
                let next = std::mem::replace(free, entry).next;
                std::mem::replace(&mut self.free, next)
            }
            None => {
                self.entries.push(entry);
                (self.entries.len - 1) as u32
            }
        };
        self.live += 1;
        let follows = last != NONE && last + 1 == place;
        let is_found_after_last = follows && entry.holders == 0 && !block.is_milestone();
        if self.links_all || !is_found_after_last {
            self.link(place);
        }
        if self.live > ENTRIES_PER_BUCKET * self.buckets.len {
            self.split_some();
        }
        place
    }

    /// Removes an entry. [`Self::link_orphan`] must be called before any look-up other than for the next removal.
    pub fn remove(&mut self, place: u32) {
        self.unlink(place);
        if self.orphan == place {
            self.orphan = NONE;
        }
        let free = std::mem::replace(&mut self.free, place);
        if let Some(entry) = self.get_mut(place) {
            entry.next = free;
            // The hash stays in the entry and must not match.
            entry.slot = FREE_SLOT;
        }
        self.live -= 1;
        let (next, entry) = self.after(place);
        if entry.is_some_and(|entry| entry.next == UNLINKED) && next != self.orphan {
            self.link_orphan();
            self.orphan = next;
        }
    }

    /// Links the entry whose predecessor was removed into the table.
    pub fn link_orphan(&mut self) {
        let orphan = std::mem::replace(&mut self.orphan, NONE);
        if orphan != NONE {
            self.link(orphan);
        }
    }

    /// Sets the holders of an entry, which may make it primary or secondary.
    pub fn set_holders(&mut self, place: u32, holders: u32) {
        let Some(entry) = self.get(place) else {
            return;
        };
        let moves =
            entry.next == UNLINKED || (entry.holders == SECONDARY) != (holders == SECONDARY);
        if moves {
            self.unlink(place);
        }
        if self.orphan == place {
            self.orphan = NONE;
        }
        if let Some(entry) = self.get_mut(place) {
            entry.holders = holders;
        }
        if moves {
            self.link(place);
        }
    }

    /// Links an entry into the table, if its bucket has room.
    fn link(&mut self, place: u32) {
        let Some(key) = self.get(place).map(|entry| self.key_of(entry)) else {
            return;
        };
        let bucket = self.bucket(key);
        let Some(head) = self.buckets.get(bucket).copied() else {
            return;
        };
        let has_room = self.chain(head).nth(MAX_CHAIN - 1).is_none();
        if let Some(entry) = self.get_mut(place) {
            entry.next = if has_room { head } else { UNLINKED };
        }
        if has_room {
            self.put_first(place, bucket, key);
        }
    }

    /// Makes an entry with this key the first of a bucket.
    fn put_first(&mut self, place: u32, bucket: usize, key: u64) {
        if let Some(first) = self.buckets.get_mut(bucket) {
            *first = place;
        }
        if let Some(marks) = self.marks.get_mut(bucket) {
            *marks |= mark(key);
        }
    }

    /// Unlinks an entry from the table, if it is there.
    fn unlink(&mut self, place: u32) {
        let Some(entry) = self.get(place).filter(|entry| entry.next != UNLINKED) else {
            return;
        };
        let (key, next) = (self.key_of(entry), entry.next);
        let bucket = self.bucket(key);
        let Some(head) = self.buckets.get_mut(bucket) else {
            return;
        };
        if *head == place {
            *head = next;
            if let Some(marks) = self.marks.get_mut(bucket).filter(|_| next == NONE) {
                *marks = 0;
            }
            return;
        }
        let head = *head;
        let before = self.chain(head).find(|(_, entry)| entry.next == place);
        let before = before.map_or(NONE, |(before, _)| before);
        if let Some(entry) = self.get_mut(before) {
            entry.next = next;
        }
    }

    /// Splits [`BUCKETS_PER_SPLIT`] buckets.
    fn split_some(&mut self) {
        let first = self.buckets.len;
        let new = first..first + BUCKETS_PER_SPLIT;
        let heads = new
            .clone()
            .filter_map(|new| self.buckets.get(split_from(new)));
        let read = heads.filter_map(|head| self.get(*head));
        std::hint::black_box(read.fold(0, |all, entry| all ^ entry.next));
        new.for_each(|new| self.split(new));
    }

    /// Adds a bucket, and moves the entries that belong there from the bucket that it is split off from.
    fn split(&mut self, new: usize) {
        self.buckets.push(NONE);
        self.marks.push(0);
        let old = split_from(new);
        let Some(head) = self.buckets.get_mut(old) else {
            return;
        };
        let mut place = std::mem::replace(head, NONE);
        if let Some(marks) = self.marks.get_mut(old) {
            *marks = 0;
        }
        while let Some(entry) = self.get(place) {
            let (key, next) = (self.key_of(entry), entry.next);
            // Neither bucket gets more entries than the old one had.
            let bucket = self.bucket(key);
            let following = self.buckets.get(bucket).copied().unwrap_or(NONE);
            if let Some(entry) = self.get_mut(place) {
                entry.next = following;
            }
            self.put_first(place, bucket, key);
            #[cfg(test)]
            self.steps.set(self.steps.get() + 1);
            place = next;
        }
    }
}

/// Returns the bit that stands for a key among the marks of its bucket. The bits of the key below decide on the bucket,
/// and those above on what is a milestone.
fn mark(key: u64) -> u8 {
    1 << (key >> 56 & 7)
}

/// Returns the bucket that a new one is split off from.
fn split_from(new: usize) -> usize {
    new - (new + 1).next_power_of_two() / 2
}
