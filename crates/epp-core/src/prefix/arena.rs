//! Entries of the prefix index, and the table that finds them: memory that grows piece by piece.
//!
//! Doubling, as vectors do it, would take twice the memory in the worst case, and stop a request
//! for as long as it takes to copy it all. Both the entries and the buckets of the table come in
//! chunks that stay where they are, and the table grows by one bucket at a time (linear hashing).
//!
//! Most entries are not in the table. A block's hash says all that stands before it, so that whoever
//! looks for it has found the block before it: an entry that lies right behind the one of that block
//! is found there, and what one prompt brings lies in its order. That spares a new block the table's
//! cache misses, which are most of what it costs. An entry is put into the table when that ceases to
//! hold: when the one before it goes, or when a second endpoint holds its block. One block in sixteen
//! is in the table in any case ([`TableKey::context`]), so that a prompt can be taken up in its middle.

use super::key::{Scattered, TableKey};

/// Marks the end of a list.
pub const NONE: u32 = u32::MAX;

/// What a block's second and further entries have in the place of its holders.
pub const FURTHER: u32 = u32::MAX;

/// What an entry that is not in the table has in the place of the next one in its bucket.
const APART: u32 = u32::MAX - 1;

/// The slot of an entry that is free.
const FREE: u16 = u16::MAX;

/// Items of one chunk.
const CHUNK: usize = 1024;

/// Entries per bucket, in the table or not. Where few are in it most buckets are empty: that a block is
/// new is seen without a look at any entry.
const PER_BUCKET: usize = 2;

/// The most entries of a bucket. Of keyed hashes some two come to lie in one, four where every entry is
/// in the table; 64 in one have a probability of 10^-55. That bounds what a look-up, an insertion and a
/// split cost, whatever the hashes are: an entry that finds its bucket full stays out of the table, and
/// so is a hint that is lost.
const MOST_CHAIN: usize = 64;

/// Whose word it is that an endpoint holds a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin(u8);

impl Origin {
    /// An answer has proven it.
    pub const PROVEN: Self = Self(0);
    /// A request of this worker's that is under way.
    pub const OWN: Self = Self(1);

    /// Requests of another worker's that are under way, or whose proof it kept to itself. Of more than 254
    /// workers two count as one, which costs hints.
    pub fn of_seat(seat: u32) -> Self {
        Self((seat % 254) as u8 + 2)
    }
}

/// One (endpoint, block): 28 bytes, the hash in two halves so that nothing is padded.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    hash: [u32; 2],
    /// The next entry in the bucket, or [`APART`]; for a free entry the next free one.
    next: u32,
    /// The neighbours in the endpoint's list.
    pub newer: u32,
    pub older: u32,
    /// Who holds the block: 0 for this endpoint alone, else a number of [`super::sets::Sets`];
    /// [`FURTHER`] where another entry of the block says it.
    pub holders: u32,
    /// The endpoint.
    pub slot: u16,
    /// The quarter in which others were told of it, without its upper half.
    told: u8,
    origin: Origin,
}

impl Entry {
    /// An entry in no list.
    pub fn new(hash: u64, slot: u16, holders: u32, origin: Origin) -> Self {
        Self {
            hash: [hash as u32, (hash >> 32) as u32],
            next: NONE,
            newer: NONE,
            older: NONE,
            holders,
            slot,
            told: 0,
            origin,
        }
    }

    /// The block's hash.
    pub fn hash(&self) -> u64 {
        let [low, high] = self.hash;
        u64::from(low) | u64::from(high) << 32
    }

    /// Whose word it is.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// An answer proves it. Whether none had before.
    pub fn prove(&mut self) -> bool {
        std::mem::replace(&mut self.origin, Origin::PROVEN) != Origin::PROVEN
    }

    /// It is said again. Whether no answer had proven it before. Of other workers the last one counts: then
    /// it is not for those before to take it back.
    pub fn say(&mut self, origin: Origin) -> bool {
        let doubted = self.origin != Origin::PROVEN;
        if doubted && origin != Origin::OWN {
            self.origin = origin;
        }
        doubted
    }

    /// Others are told of it in this quarter. Whether they were not told before.
    pub fn tell(&mut self, quarter: u16) -> bool {
        let quarter = quarter as u8;
        std::mem::replace(&mut self.told, quarter) != quarter
    }
}

/// A vector in chunks.
#[derive(Debug, Clone)]
struct Chunks<T> {
    chunks: Vec<Box<[T; CHUNK]>>,
    len: usize,
}

impl<T: Copy> Chunks<T> {
    const EMPTY: Self = Self {
        chunks: Vec::new(),
        len: 0,
    };

    fn get(&self, place: usize) -> Option<&T> {
        self.chunks.get(place / CHUNK)?.get(place % CHUNK)
    }

    fn get_mut(&mut self, place: usize) -> Option<&mut T> {
        self.chunks.get_mut(place / CHUNK)?.get_mut(place % CHUNK)
    }

    fn push(&mut self, item: T) {
        if self.len == self.chunks.len() * CHUNK {
            self.chunks.push(Box::new([item; CHUNK]));
        }
        self.len += 1;
        if let Some(place) = self.get_mut(self.len - 1) {
            *place = item;
        }
    }

    fn bytes(&self) -> usize {
        self.chunks.len() * CHUNK * size_of::<T>()
            + self.chunks.capacity() * size_of::<Box<[T; CHUNK]>>()
    }
}

/// The entries and their table.
#[derive(Debug, Clone)]
pub struct Arena {
    entries: Chunks<Entry>,
    /// The first entry of each bucket.
    buckets: Chunks<u32>,
    free: u32,
    live: usize,
    /// An entry that lost the one before it: what comes next most often takes it away, too, and it
    /// need not be put into the table for that long. See [`Arena::settle`].
    pending: u32,
    /// Whether every entry is put into the table.
    all: bool,
    key: TableKey,
    /// Entries of buckets that were looked at.
    #[cfg(test)]
    pub steps: std::cell::Cell<usize>,
}

impl Arena {
    /// An empty arena, whose table has this key.
    pub fn new(key: TableKey) -> Self {
        let mut buckets = Chunks::EMPTY;
        buckets.push(NONE);
        Self {
            entries: Chunks::EMPTY,
            buckets,
            free: NONE,
            live: 0,
            pending: NONE,
            all: false,
            key,
            #[cfg(test)]
            steps: std::cell::Cell::default(),
        }
    }

    /// What its table scatters hashes with.
    pub fn key(&self) -> TableKey {
        self.key
    }

    /// Entries in use.
    pub fn len(&self) -> usize {
        self.live
    }

    /// Memory taken.
    pub fn bytes(&self) -> usize {
        self.entries.bytes() + self.buckets.bytes()
    }

    /// An entry.
    pub fn get(&self, place: u32) -> Option<&Entry> {
        self.entries.get(place as usize)
    }

    /// An entry, to change what is not its key.
    pub fn get_mut(&mut self, place: u32) -> Option<&mut Entry> {
        self.entries.get_mut(place as usize)
    }

    /// The entry that says who holds a block, if it is in the table.
    pub fn first(&self, hash: u64) -> Option<u32> {
        self.first_of(self.key.scatter(hash))
    }

    /// [`Self::first`] of a block whose hash is scattered already.
    pub fn first_of(&self, block: Scattered) -> Option<u32> {
        let Scattered { hash, mixed } = block;
        let is = |entry: &Entry| entry.holders != FURTHER && entry.hash() == hash;
        let pending = || Some(self.pending).filter(|pending| self.speaks(*pending, hash));
        self.find(mixed, is).or_else(pending)
    }

    /// Whether the entry at this place is in use and says who holds this block.
    pub fn speaks(&self, place: u32, hash: u64) -> bool {
        self.get(place).is_some_and(|entry| {
            entry.slot != FREE && entry.holders != FURTHER && entry.hash() == hash
        })
    }

    /// The entry that says who holds a block; `place` is that of the block before it.
    pub fn first_behind(&self, place: u32, hash: u64) -> Option<u32> {
        let (next, entry) = self.behind(place);
        let is = |entry: &Entry| entry.hash() == hash && entry.holders != FURTHER;
        let found = entry.is_some_and(is).then_some(next);
        found.or_else(|| self.first(hash))
    }

    /// An endpoint's entry of a block, if it lies right behind this one.
    pub fn own_behind(&self, place: u32, hash: u64, slot: u16) -> Option<u32> {
        let (next, entry) = self.behind(place);
        let entry = entry?;
        (entry.hash() == hash && entry.slot == slot).then_some(next)
    }

    /// The place behind this one, and the entry there if one is in use.
    fn behind(&self, place: u32) -> (u32, Option<&Entry>) {
        let next = place.wrapping_add(1);
        let used = (next as usize) < self.entries.len;
        let entry = self.get(next).filter(|entry| used && entry.slot != FREE);
        (next, entry)
    }

    /// An endpoint's entry of a block that another entry speaks for.
    pub fn further(&self, hash: u64, slot: u16) -> Option<u32> {
        let is =
            |entry: &Entry| entry.holders == FURTHER && entry.slot == slot && entry.hash() == hash;
        self.find(self.further_key(hash, slot), is)
    }

    /// Whether an endpoint's entry of a block that another entry speaks for finds room in the table.
    pub fn has_room(&self, hash: u64, slot: u16) -> bool {
        let bucket = self.bucket(self.further_key(hash, slot));
        let head = self.buckets.get(bucket).copied();
        self.chain(head.unwrap_or(NONE)).count() < MOST_CHAIN
    }

    /// By what the table finds a further entry of a block.
    fn further_key(&self, hash: u64, slot: u16) -> u64 {
        self.key.mix(hash ^ self.key.mix(u64::from(slot)))
    }

    /// By what the table finds an entry: the block alone, or block and endpoint.
    fn key_of(&self, entry: &Entry) -> u64 {
        if entry.holders == FURTHER {
            self.further_key(entry.hash(), entry.slot)
        } else {
            self.key.mix(entry.hash())
        }
    }

    /// Scatters the hashes of the first of these blocks, and has the processor fetch their buckets, all at
    /// the same time: of a large table nearly each is a cache miss, which one after the other is most of
    /// what a new block costs.
    pub fn hint(&self, blocks: &[u64], scattered: &mut [Scattered]) {
        let mut heads = 0;
        for (hash, block) in blocks.iter().zip(scattered) {
            *block = self.key.scatter(*hash);
            heads ^= self.buckets.get(self.bucket(block.mixed)).unwrap_or(&0);
        }
        std::hint::black_box(heads);
    }

    fn find(&self, key: u64, is: impl Fn(&Entry) -> bool) -> Option<u32> {
        let head = *self.buckets.get(self.bucket(key))?;
        let found = self.chain(head).find(|(_, entry)| is(entry));
        found.map(|(place, _)| place)
    }

    /// The entries of a bucket from this one on.
    fn chain(&self, mut place: u32) -> impl Iterator<Item = (u32, &Entry)> {
        std::iter::from_fn(move || {
            let (found, entry) = (place, self.get(place)?);
            #[cfg(test)]
            self.steps.set(self.steps.get() + 1);
            place = entry.next;
            Some((found, entry))
        })
    }

    /// The bucket of a key, of which there are as many as entries ask for: those below a power of
    /// two, and as many of the next half as were split off already.
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

    /// Whether every entry that is added from now on is put into the table.
    pub fn put_all_into_the_table(&mut self, all: bool) {
        self.all = all;
    }

    /// Adds an entry of this block; `last` is the place of the same endpoint's entry of the block before
    /// it, if that speaks for its block. Returns its place.
    pub fn insert(&mut self, entry: Entry, block: Scattered, last: u32) -> u32 {
        let place = match self.get(self.free).map(|free| free.next) {
            Some(next) => std::mem::replace(&mut self.free, next),
            None => {
                self.entries.push(entry);
                (self.entries.len - 1) as u32
            }
        };
        if let Some(free) = self.get_mut(place) {
            *free = entry;
            free.next = APART;
        }
        self.live += 1;
        let behind = last != NONE && last + 1 == place;
        let is_found_behind = behind && entry.holders == 0 && !block.is_milestone();
        if self.all || !is_found_behind {
            self.link(place);
        }
        if self.live > PER_BUCKET * self.buckets.len {
            self.split();
        }
        place
    }

    /// Takes an entry away. [`Self::settle`] must follow before anything is looked for that may
    /// not be the next to go.
    pub fn remove(&mut self, place: u32) {
        self.unlink(place);
        if self.pending == place {
            self.pending = NONE;
        }
        let free = std::mem::replace(&mut self.free, place);
        if let Some(entry) = self.get_mut(place) {
            entry.next = free;
            // Its hash stays, and must not be taken for a block's.
            entry.slot = FREE;
        }
        self.live -= 1;
        let (next, entry) = self.behind(place);
        if entry.is_some_and(|entry| entry.next == APART) && next != self.pending {
            self.settle();
            self.pending = next;
        }
    }

    /// Puts the entry that lost the one before it into the table.
    pub fn settle(&mut self) {
        let pending = std::mem::replace(&mut self.pending, NONE);
        if pending != NONE {
            self.link(pending);
        }
    }

    /// Lets an entry speak for its block, or another one.
    pub fn set_holders(&mut self, place: u32, holders: u32) {
        let Some(entry) = self.get(place) else {
            return;
        };
        let apart = entry.next == APART;
        let moves = apart || (entry.holders == FURTHER) != (holders == FURTHER);
        if moves {
            self.unlink(place);
        }
        if self.pending == place {
            self.pending = NONE;
        }
        if let Some(entry) = self.get_mut(place) {
            entry.holders = holders;
        }
        if moves {
            self.link(place);
        }
    }

    /// Puts an entry into the table, if its bucket has room.
    fn link(&mut self, place: u32) {
        let Some(key) = self.get(place).map(|entry| self.key_of(entry)) else {
            return;
        };
        let bucket = self.bucket(key);
        let Some(head) = self.buckets.get(bucket).copied() else {
            return;
        };
        let has_room = self.chain(head).nth(MOST_CHAIN - 1).is_none();
        if let Some(entry) = self.get_mut(place) {
            entry.next = if has_room { head } else { APART };
        }
        if let Some(first) = self.buckets.get_mut(bucket).filter(|_| has_room) {
            *first = place;
        }
    }

    /// Takes an entry out of the table, if it is there.
    fn unlink(&mut self, place: u32) {
        let Some(entry) = self.get(place).filter(|entry| entry.next != APART) else {
            return;
        };
        let (key, next) = (self.key_of(entry), entry.next);
        let bucket = self.bucket(key);
        let Some(head) = self.buckets.get_mut(bucket) else {
            return;
        };
        if *head == place {
            *head = next;
            return;
        }
        let head = *head;
        let before = self.chain(head).find(|(_, entry)| entry.next == place);
        let before = before.map_or(NONE, |(before, _)| before);
        if let Some(entry) = self.get_mut(before) {
            entry.next = next;
        }
    }

    /// Adds a bucket, and moves there what belongs there of the one that it is split off from.
    fn split(&mut self) {
        let new = self.buckets.len;
        self.buckets.push(NONE);
        let old = new - (new + 1).next_power_of_two() / 2;
        let Some(head) = self.buckets.get_mut(old) else {
            return;
        };
        let mut place = std::mem::replace(head, NONE);
        while let Some(entry) = self.get(place) {
            let (key, next) = (self.key_of(entry), entry.next);
            // No more than the old one held: both have room.
            let bucket = self.bucket(key);
            if let Some(head) = self.buckets.get_mut(bucket) {
                let behind = std::mem::replace(head, place);
                if let Some(entry) = self.get_mut(place) {
                    entry.next = behind;
                }
            }
            #[cfg(test)]
            self.steps.set(self.steps.get() + 1);
            place = next;
        }
    }
}
