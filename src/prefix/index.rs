//! Which endpoint was sent which prefix blocks: an approximation of what its KV cache holds.
//!
//! Each endpoint has a list of its block hashes in order of last use, bounded by the capacity that
//! it is taken to have. All entries lie in one arena (`arena.rs`), 28 bytes each and 2 for the table that
//! finds them. Who holds a block that several hold is a number of set (`sets.rs`), so that a look-up does
//! not walk over them: it compares the number with that of the block before, and counts the members
//! once for all blocks of a stretch. Look-ups do not refresh: only what was sent again is used
//! again.

pub use super::arena::context;
use super::arena::{Arena, Entry, FURTHER, NONE};
use super::held::Held;
pub use super::matcher::Matcher;
use super::sets::Sets;

/// Bytes of an entry with its share of the table.
const ENTRY_BYTES: usize = 30;

/// The part of the bound that sets of endpoints may take: 2 bytes of 32. Beyond, a block gets no
/// further holder, which costs hints and no memory.
const SETS_SHARE: usize = 16;

/// Blocks that are looked for in the table in one go, before they are added one by one: as many cache
/// misses as a core has under way at a time.
const AHEAD: usize = 16;

/// The index.
#[derive(Debug, Clone)]
pub struct Index {
    most: usize,
    most_sets: usize,
    arena: Arena,
    sets: Sets,
    evictions: u64,
    held: Vec<Held>,
}

/// How far the blocks of a prompt have been added.
struct Trail {
    /// The last of them.
    before: Option<u64>,
    /// The place of the endpoint's own entry of it.
    own: u32,
    /// The place of the entry that speaks for it.
    speaker: u32,
    /// Whether it was new to everybody: what follows it lies behind no entry then.
    new: bool,
}

impl Index {
    /// An empty index that never takes more than `max_bytes`, a few chunks aside.
    pub fn new(max_bytes: usize) -> Self {
        let most_sets = max_bytes / SETS_SHARE;
        Self {
            most: ((max_bytes - most_sets) / ENTRY_BYTES).clamp(1, NONE as usize - 1),
            most_sets,
            arena: Arena::default(),
            sets: Sets::default(),
            evictions: 0,
            held: Vec::new(),
        }
    }

    /// Whether blocks may be added without those before them ([`context`]), as they are when an index
    /// is handed over in order of use: then each has to be found by itself. To be said before the
    /// first is added.
    pub fn expect_loose_blocks(&mut self, loose: bool) {
        self.arena.put_all_into_the_table(loose);
    }

    /// Bounds it as the other one is. False where it holds more than that: then it stays as it is.
    pub fn take_bound_of(&mut self, other: &Self) -> bool {
        let fits = self.arena.len() <= other.most;
        if fits {
            (self.most, self.most_sets) = (other.most, other.most_sets);
        }
        fits
    }

    /// Entries in use.
    pub fn entries(&self) -> usize {
        self.arena.len()
    }

    /// Memory taken.
    pub fn bytes(&self) -> usize {
        let held = self.held.capacity() * size_of::<Held>();
        self.arena.bytes() + self.sets.bytes() + held
    }

    /// Entries dropped for newer ones so far.
    pub fn evictions(&self) -> u64 {
        self.evictions
    }

    /// Notes that the blocks of a prompt from number `from` on were sent to the endpoint in this slot.
    /// Of those before, what [`context`] keeps will do. `capacity` is how many blocks the endpoint
    /// holds; what was said first holds until it is removed. `news` is told of the blocks, by number,
    /// that others should hear of.
    pub fn add(
        &mut self,
        slot: u32,
        prompt: &[u64],
        from: usize,
        capacity: usize,
        news: &mut dyn FnMut(usize),
    ) {
        let Ok(slot) = u16::try_from(slot) else {
            return;
        };
        if slot == u16::MAX {
            // It stands for a free entry.
            return;
        }
        if self.held.len() <= usize::from(slot) {
            self.held.resize(usize::from(slot) + 1, Held::EMPTY);
        }
        if let Some(held) = self.held.get_mut(usize::from(slot)) {
            if held.capacity == 0 {
                held.capacity = capacity.max(1);
            }
        }
        let Some(before) = prompt.get(..from) else {
            return;
        };
        let speaker = self.find_last(before);
        let mut trail = Trail {
            before: before.last().copied(),
            own: speaker,
            speaker,
            new: false,
        };
        let mut number = from;
        let mut hinted = from;
        while let Some(left) = prompt.get(number..).filter(|left| !left.is_empty()) {
            let known = self.use_again(&mut trail, slot, left, &mut |block| news(number + block));
            if number + known >= hinted {
                hinted = number + known + AHEAD;
                self.arena.hint(left.iter().skip(known).take(AHEAD));
            }
            if let Some(hash) = left.get(known) {
                if self.add_one(&mut trail, slot, *hash) {
                    news(number + known);
                }
            }
            number += known + 1;
        }
        self.arena.settle();
    }

    /// The place of the entry that speaks for the last of these blocks.
    fn find_last(&self, blocks: &[u64]) -> u32 {
        let find = |place, hash: &u64| self.arena.first_behind(place, *hash).unwrap_or(NONE);
        context(blocks).iter().fold(NONE, find)
    }

    /// Notes the first of these blocks that the endpoint holds already in the order in which it was
    /// sent them last: a prompt that comes again, or goes on. They are moved to the end of its list
    /// in one go. Returns how many these are.
    fn use_again(
        &mut self,
        trail: &mut Trail,
        slot: u16,
        blocks: &[u64],
        news: &mut dyn FnMut(usize),
    ) -> usize {
        let held = self.held.get(usize::from(slot)).copied();
        let Some(mut held) = held.filter(|_| !trail.new) else {
            return 0;
        };
        let full = held.count >= held.capacity || self.arena.len() >= self.most;
        let first = trail.own.wrapping_add(1);
        let mut own = trail.own;
        let mut count = 0;
        for hash in blocks {
            let Some(next) = self.arena.own_behind(own, *hash, slot) else {
                break;
            };
            let Some(entry) = self
                .arena
                .get_mut(next)
                .filter(|entry| next == first || entry.older == own)
            else {
                break;
            };
            held.count_use();
            if full && std::mem::replace(&mut entry.told, held.quarter) != held.quarter {
                news(count);
            }
            own = next;
            count += 1;
        }
        if count == 0 {
            return 0;
        }
        held.unlink(first, own, &mut self.arena);
        held.append(first, own, &mut self.arena);
        if let Some(place) = self.held.get_mut(usize::from(slot)) {
            *place = held;
        }
        let last = blocks.get(count - 1).copied();
        trail.before = last;
        trail.own = own;
        let hash = last.unwrap_or_default();
        trail.speaker = match self.arena.speaks(own, hash) {
            true => own,
            false => self.arena.first(hash).unwrap_or(NONE),
        };
        count
    }

    /// Notes the block behind the one that the trail has come to. Whether it is news.
    fn add_one(&mut self, trail: &mut Trail, slot: u16, hash: u64) -> bool {
        let Some(held) = self.held.get_mut(usize::from(slot)) else {
            return false;
        };
        held.count_use();
        let quarter = held.quarter;
        let full = held.count >= held.capacity || self.arena.len() >= self.most;
        let (own, first) = self.find_next(trail, slot, hash);
        let known = own.or_else(|| self.find(first?, slot, hash));
        if let (Some(place), Some(held)) = (known, self.held.get_mut(usize::from(slot))) {
            held.unlink(place, place, &mut self.arena);
        }
        let placed = known.or_else(|| self.insert(trail, slot, hash, first));
        trail.new = first.is_none();
        trail.before = Some(hash);
        trail.own = placed.unwrap_or(NONE);
        let speaker = first.filter(|first| self.arena.speaks(*first, hash));
        trail.speaker = speaker.or(placed).unwrap_or(NONE);
        let Some(place) = placed else {
            return false;
        };
        if let Some(held) = self.held.get_mut(usize::from(slot)) {
            held.append(place, place, &mut self.arena);
        }
        let Some(entry) = self.arena.get_mut(place) else {
            return false;
        };
        let news = known.is_none() || (full && entry.told != quarter);
        if news {
            entry.told = quarter;
        }
        news
    }

    /// The endpoint's own entry of the block behind the trail, if it lies behind the one before, and
    /// the entry that speaks for the block.
    fn find_next(&self, trail: &Trail, slot: u16, hash: u64) -> (Option<u32>, Option<u32>) {
        if trail.new {
            return (None, self.arena.first(hash));
        }
        let own = self.arena.own_behind(trail.own, hash, slot);
        let first = match own {
            Some(own) if self.arena.speaks(own, hash) => Some(own),
            _ => self.arena.first_behind(trail.speaker, hash),
        };
        (own, first)
    }

    /// An endpoint's hashes in the order of their use, those used last at the end.
    pub fn list(&self, slot: u32, hashes: &mut Vec<u64>) {
        let held = self.held.get(slot as usize);
        let mut place = held.map_or(NONE, |held| held.oldest);
        while let Some(entry) = self.arena.get(place) {
            hashes.push(entry.hash());
            place = entry.newer;
        }
    }

    /// Forgets an endpoint.
    pub fn remove(&mut self, slot: u32) {
        let Ok(slot) = u16::try_from(slot) else {
            return;
        };
        // The newest first: their places are taken again in the order in which they lie.
        while self.drop_entry(slot, |held| held.newest) {}
        self.arena.settle();
        if let Some(held) = self.held.get_mut(usize::from(slot)) {
            *held = Held::EMPTY;
        }
    }

    /// Goes on behind these blocks of a prompt, after the index may have changed.
    pub fn resume(&self, matcher: &mut Matcher, blocks: &[u64]) {
        matcher.place = self.find_last(blocks);
    }

    /// Takes in the next block of a prompt: everybody who has it has one more match. The walk ends
    /// at the first block that nobody has; whether it still goes on.
    pub fn extend(&self, matcher: &mut Matcher, hash: u64) -> bool {
        if matcher.ended {
            return false;
        }
        let first = self.arena.first_behind(matcher.place, hash);
        matcher.place = first.unwrap_or(NONE);
        let Some(entry) = first.and_then(|first| self.arena.get(first)) else {
            matcher.ended = true;
            return false;
        };
        // Of a set every member is in it, whoever speaks for the block.
        let slot = if entry.holders == 0 { entry.slot } else { 0 };
        if matcher.run > 0 && matcher.last != (entry.holders, slot) {
            self.settle(matcher);
        }
        matcher.last = (entry.holders, slot);
        matcher.run += 1;
        true
    }

    /// Counts what was matched so far, before the index changes.
    pub fn settle(&self, matcher: &mut Matcher) {
        let run = std::mem::take(&mut matcher.run);
        if run == 0 {
            return;
        }
        let (holders, slot) = matcher.last;
        let counts = &mut matcher.counts;
        let mut count = |slot: u16| {
            let slot = usize::from(slot);
            if counts.len() <= slot {
                counts.resize(slot + 1, 0);
            }
            if let Some(count) = counts.get_mut(slot) {
                *count += run;
            }
        };
        if holders == 0 {
            count(slot);
        } else {
            self.sets.members(holders).for_each(count);
        }
    }

    /// An endpoint's entry of the block for which `first` speaks.
    fn find(&self, first: u32, slot: u16, hash: u64) -> Option<u32> {
        let entry = self.arena.get(first)?;
        if entry.slot == slot {
            return Some(first);
        }
        let holds = entry.holders != 0 && self.sets.contains(entry.holders, slot);
        holds.then(|| self.arena.further(hash, slot)).flatten()
    }

    /// A new entry of the block for which `first` speaks, not yet in the list of its endpoint; none
    /// where there is no room for the set of those that hold the block.
    fn insert(&mut self, trail: &Trail, slot: u16, hash: u64, first: Option<u32>) -> Option<u32> {
        let held = self.held.get(usize::from(slot)).copied();
        let held = held.unwrap_or(Held::EMPTY);
        let mut dropped = false;
        if held.count >= held.capacity {
            dropped = self.drop_oldest(slot);
        } else if self.arena.len() >= self.most {
            let own = held.count > 0 && self.drop_oldest(slot);
            dropped = own || self.drop_oldest(self.largest());
        }
        self.evictions += u64::from(dropped);
        // It may be the one that was dropped.
        let first = match first {
            Some(first) if dropped && !self.arena.speaks(first, hash) => self.arena.first(hash),
            first => first,
        };
        let holders = match first {
            None => 0,
            Some(first) => {
                if self.sets.bytes() >= self.most_sets {
                    self.evictions += 1;
                    return None;
                }
                let entry = *self.arena.get(first)?;
                let holders = self.sets.with(entry.holders, entry.slot, slot);
                self.arena.set_holders(first, holders);
                FURTHER
            }
        };
        if let Some(held) = self.held.get_mut(usize::from(slot)) {
            held.count += 1;
        }
        let last = trail.before.filter(|before| {
            let own = self.arena.get(trail.own);
            own.is_some_and(|own| own.slot == slot) && self.arena.speaks(trail.own, *before)
        });
        let last = last.map_or(NONE, |_| trail.own);
        Some(self.arena.insert(Entry::new(hash, slot, holders), last))
    }

    fn largest(&self) -> u16 {
        let slots = self.held.iter().enumerate();
        let largest = slots.max_by_key(|(_, held)| held.count);
        largest.map_or(0, |(slot, _)| slot as u16)
    }

    /// Drops an endpoint's entry that was used longest ago; whether there was one.
    fn drop_oldest(&mut self, slot: u16) -> bool {
        self.drop_entry(slot, |held| held.oldest)
    }

    /// Drops one of an endpoint's entries; whether there was one.
    fn drop_entry(&mut self, slot: u16, which: fn(&Held) -> u32) -> bool {
        let Some(place) = self.held.get(usize::from(slot)).map(which) else {
            return false;
        };
        let Some(entry) = self.arena.get(place).copied() else {
            return false;
        };
        if let Some(held) = self.held.get_mut(usize::from(slot)) {
            held.unlink(place, place, &mut self.arena);
            held.count -= 1;
        }
        self.hold_no_more(place, &entry);
        self.arena.remove(place);
        true
    }

    /// Takes an entry's endpoint out of the set of those that hold its block.
    fn hold_no_more(&mut self, place: u32, entry: &Entry) {
        let hash = entry.hash();
        if entry.holders == 0 {
            return;
        }
        let speaker = if entry.holders == FURTHER {
            self.arena.first(hash)
        } else {
            Some(place)
        };
        let holders = speaker.and_then(|speaker| self.arena.get(speaker));
        let Some(holders) = holders.map(|speaker| speaker.holders) else {
            return;
        };
        if !self.sets.contains(holders, entry.slot) {
            return;
        }
        let (left, next) = self.sets.without(holders, entry.slot);
        if entry.holders == FURTHER {
            if let Some(speaker) = speaker {
                self.arena.set_holders(speaker, left);
            }
            return;
        }
        // Another one speaks for the block from now on.
        let next = if left == 0 {
            Some(next)
        } else {
            self.sets.members(left).next()
        };
        let heir = next.and_then(|next| self.arena.further(hash, next));
        self.arena.set_holders(place, 0);
        if let Some(heir) = heir {
            self.arena.set_holders(heir, left);
        }
    }
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
