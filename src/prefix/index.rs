//! Which endpoint was sent which prefix blocks: an approximation of what its KV cache holds.
//!
//! Each endpoint has a list of its block hashes in order of last use, bounded by the capacity that
//! it is taken to have. All entries lie in one arena, 24 bytes each, linked twice: by endpoint in
//! order of use, and by hash over the endpoints that have it; a table of the first entry per hash
//! finds them. Look-ups do not refresh: only what was sent again is used again.

use hashbrown::HashTable;

/// Marks the end of a list.
const NONE: u32 = u32::MAX;

/// Bytes of an entry with its share of the table: 24, and 5 per place of a table that is between
/// 7/16 and 7/8 full.
const ENTRY_BYTES: usize = 32;

/// One (endpoint, block).
#[derive(Debug, Clone, Copy)]
struct Entry {
    hash: u64,
    slot: u32,
    /// The next endpoint that has this hash; for a free entry the next free one.
    peer: u32,
    newer: u32,
    older: u32,
}

/// One endpoint's entries in order of use.
#[derive(Debug, Clone, Copy)]
struct Held {
    newest: u32,
    oldest: u32,
    count: usize,
    capacity: usize,
}

impl Held {
    const EMPTY: Self = Self {
        newest: NONE,
        oldest: NONE,
        count: 0,
        capacity: 0,
    };
}

/// The index.
#[derive(Debug, Clone)]
pub struct Index {
    most: usize,
    entries: Vec<Entry>,
    free: u32,
    live: usize,
    evictions: u64,
    /// By hash: the first entry of its list.
    firsts: HashTable<u32>,
    held: Vec<Held>,
}

/// How far one prompt has been matched. Kept from request to request.
#[derive(Debug, Default)]
pub struct Matcher {
    counts: Vec<u32>,
    ended: bool,
}

impl Matcher {
    /// Forgets what was matched.
    pub fn reset(&mut self) {
        self.counts.clear();
        self.ended = false;
    }

    /// Begins another prompt; what was matched so far still counts.
    pub fn restart(&mut self) {
        self.ended = false;
    }

    /// Matched blocks by slot.
    pub fn counts(&self) -> &[u32] {
        &self.counts
    }
}

impl Index {
    /// An empty index that never takes more than `max_bytes`.
    pub fn new(max_bytes: usize) -> Self {
        Self {
            most: (max_bytes / ENTRY_BYTES).clamp(1, NONE as usize - 1),
            entries: Vec::new(),
            free: NONE,
            live: 0,
            evictions: 0,
            firsts: HashTable::new(),
            held: Vec::new(),
        }
    }

    /// Entries in use.
    pub fn entries(&self) -> usize {
        self.live
    }

    /// Whether an endpoint's list is as long as it may be: what is added drops what is older.
    pub fn is_full(&self, slot: u32) -> bool {
        let held = self.held.get(slot as usize);
        held.is_some_and(|held| held.count >= held.capacity) || self.live >= self.most
    }

    /// Memory taken.
    pub fn bytes(&self) -> usize {
        let table = self.firsts.capacity() * 8 / 7 * (size_of::<u32>() + 1);
        self.entries.capacity() * size_of::<Entry>() + table
    }

    /// Entries dropped for newer ones so far.
    pub fn evictions(&self) -> u64 {
        self.evictions
    }

    /// Notes that these blocks were sent to the endpoint in this slot, in this order. `capacity` is
    /// how many blocks it holds; what was said first holds until it is removed. `news` is told of
    /// the blocks that others should hear of.
    pub fn add(
        &mut self,
        slot: u32,
        hashes: impl Iterator<Item = u64>,
        capacity: usize,
        news: &mut dyn FnMut(u64),
    ) {
        if self.held.len() <= slot as usize {
            self.held.resize(slot as usize + 1, Held::EMPTY);
        }
        if let Some(held) = self.held.get_mut(slot as usize) {
            if held.capacity == 0 {
                held.capacity = capacity.max(1);
            }
        }
        for hash in hashes {
            match self.find(slot, hash) {
                Some(entry) => {
                    self.unlink_use(entry);
                    if self.is_full(slot) {
                        news(hash);
                    }
                }
                None => {
                    self.insert(slot, hash);
                    news(hash);
                }
            }
            if let Some(entry) = self.find(slot, hash) {
                self.link_newest(entry);
            }
        }
    }

    /// An endpoint's hashes in the order of their use, those used last at the end.
    pub fn list(&self, slot: u32, hashes: &mut Vec<u64>) {
        let held = self.held.get(slot as usize);
        let mut place = held.map_or(NONE, |held| held.oldest);
        while let Some(entry) = self.entries.get(place as usize) {
            hashes.push(entry.hash);
            place = entry.newer;
        }
    }

    /// Forgets an endpoint.
    pub fn remove(&mut self, slot: u32) {
        while self.drop_oldest(slot) {}
        if let Some(held) = self.held.get_mut(slot as usize) {
            *held = Held::EMPTY;
        }
    }

    /// Takes in the next block of a prompt: everybody who has it has one more match. The walk ends
    /// at the first block that nobody has; whether it still goes on.
    pub fn extend(&self, matcher: &mut Matcher, hash: u64) -> bool {
        if matcher.ended {
            return false;
        }
        let mut entry = self.first(hash);
        matcher.ended = entry == NONE;
        while let Some(found) = self.entries.get(entry as usize) {
            let slot = found.slot as usize;
            if matcher.counts.len() <= slot {
                matcher.counts.resize(slot + 1, 0);
            }
            if let Some(count) = matcher.counts.get_mut(slot) {
                *count += 1;
            }
            entry = found.peer;
        }
        !matcher.ended
    }

    fn first(&self, hash: u64) -> u32 {
        let entries = &self.entries;
        let same = |first: &u32| {
            entries
                .get(*first as usize)
                .is_some_and(|entry| entry.hash == hash)
        };
        self.firsts.find(hash, same).copied().unwrap_or(NONE)
    }

    fn find(&self, slot: u32, hash: u64) -> Option<u32> {
        let mut place = self.first(hash);
        loop {
            let entry = self.entries.get(place as usize)?;
            if entry.slot == slot {
                return Some(place);
            }
            place = entry.peer;
        }
    }

    /// A new entry, in the list of its hash but not yet in that of its endpoint.
    fn insert(&mut self, slot: u32, hash: u64) {
        let held = self.held.get(slot as usize).copied().unwrap_or(Held::EMPTY);
        if held.count >= held.capacity {
            self.evictions += u64::from(self.drop_oldest(slot));
        } else if self.live >= self.most {
            let own = held.count > 0 && self.drop_oldest(slot);
            self.evictions += u64::from(own || self.drop_oldest(self.largest()));
        }
        let entry = Entry {
            hash,
            slot,
            peer: self.first(hash),
            newer: NONE,
            older: NONE,
        };
        let place = self.place(entry);
        let entries = &self.entries;
        let same = |first: &u32| {
            entries
                .get(*first as usize)
                .is_some_and(|entry| entry.hash == hash)
        };
        let hasher = |first: &u32| entries.get(*first as usize).map_or(0, |entry| entry.hash);
        match self.firsts.find_mut(hash, same) {
            Some(first) => *first = place,
            None => {
                self.firsts.insert_unique(hash, place, hasher);
            }
        }
        self.live += 1;
        if let Some(held) = self.held.get_mut(slot as usize) {
            held.count += 1;
        }
    }

    fn place(&mut self, entry: Entry) -> u32 {
        if let Some(free) = self.entries.get_mut(self.free as usize) {
            let place = self.free;
            self.free = free.peer;
            *free = entry;
            return place;
        }
        if self.entries.len() == self.entries.capacity() {
            // A quarter more each time: doubling could overshoot the bound by as much again.
            let more = (self.entries.len() / 4).max(1024);
            self.entries.reserve_exact(
                more.min(self.most - self.entries.len().min(self.most))
                    .max(1),
            );
        }
        self.entries.push(entry);
        (self.entries.len() - 1) as u32
    }

    fn largest(&self) -> u32 {
        let slots = self.held.iter().enumerate();
        let largest = slots.max_by_key(|(_, held)| held.count);
        largest.map_or(0, |(slot, _)| slot as u32)
    }

    /// Drops an endpoint's entry that was used longest ago; whether there was one.
    fn drop_oldest(&mut self, slot: u32) -> bool {
        let Some(oldest) = self.held.get(slot as usize).map(|held| held.oldest) else {
            return false;
        };
        let Some(entry) = self.entries.get(oldest as usize).copied() else {
            return false;
        };
        self.unlink_use(oldest);
        self.unlink_hash(oldest, &entry);
        if let Some(place) = self.entries.get_mut(oldest as usize) {
            place.peer = self.free;
            // No walk may take a free entry for one of its own.
            place.slot = NONE;
        }
        self.free = oldest;
        self.live -= 1;
        if let Some(held) = self.held.get_mut(slot as usize) {
            held.count -= 1;
        }
        true
    }

    fn unlink_hash(&mut self, place: u32, entry: &Entry) {
        let hash = entry.hash;
        let first = self.first(hash);
        if first == place {
            let entries = &self.entries;
            let same = |first: &u32| *first == place && entries.get(place as usize).is_some();
            if entry.peer == NONE {
                if let Ok(found) = self.firsts.find_entry(hash, same) {
                    found.remove();
                }
            } else if let Some(found) = self.firsts.find_mut(hash, same) {
                *found = entry.peer;
            }
            return;
        }
        let mut before = first;
        while let Some(current) = self.entries.get_mut(before as usize) {
            if current.peer == place {
                current.peer = entry.peer;
                return;
            }
            before = current.peer;
        }
    }

    fn unlink_use(&mut self, place: u32) {
        let Some(entry) = self.entries.get(place as usize).copied() else {
            return;
        };
        if let Some(newer) = self.entries.get_mut(entry.newer as usize) {
            newer.older = entry.older;
        }
        if let Some(older) = self.entries.get_mut(entry.older as usize) {
            older.newer = entry.newer;
        }
        if let Some(held) = self.held.get_mut(entry.slot as usize) {
            if held.newest == place {
                held.newest = entry.older;
            }
            if held.oldest == place {
                held.oldest = entry.newer;
            }
        }
    }

    fn link_newest(&mut self, place: u32) {
        let Some(slot) = self.entries.get(place as usize).map(|entry| entry.slot) else {
            return;
        };
        let Some(held) = self.held.get_mut(slot as usize) else {
            return;
        };
        let before = std::mem::replace(&mut held.newest, place);
        if held.oldest == NONE {
            held.oldest = place;
        }
        if let Some(entry) = self.entries.get_mut(before as usize) {
            entry.newer = place;
        }
        if let Some(entry) = self.entries.get_mut(place as usize) {
            entry.older = before;
            entry.newer = NONE;
        }
    }
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
