//! Which endpoint was sent which prefix blocks: an approximation of what its KV cache holds.
//!
//! Each endpoint has a list of its block hashes in order of last use, bounded by the capacity that
//! it is taken to have. All entries lie in one arena (`arena.rs`), 28 bytes each and 2 for the table that
//! finds them. Who holds a block that several hold is a number of set (`sets.rs`), so that a look-up does
//! not walk over them: it compares the number with that of the block before, and counts the members
//! once for all blocks of a stretch. Look-ups do not refresh: only what was sent again is used
//! again.

pub use super::arena::Origin;
use super::arena::{Arena, Entry, NONE};
use super::held::Held;
use super::key::{Scattered, Secret, TableKey};
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
    pub(super) most: usize,
    pub(super) most_sets: usize,
    pub(super) arena: Arena,
    pub(super) sets: Sets,
    pub(super) evictions: u64,
    pub(super) held: Vec<Held>,
}

/// What was sent to an endpoint: blocks of a prompt.
#[derive(Debug, Clone, Copy)]
pub struct Sent<'p> {
    /// The endpoint.
    pub slot: u32,
    /// The prompt, or its last part: of what stands before the blocks the [`Index::context`] will do.
    pub prompt: &'p [u64],
    /// Number of the first of the blocks in it.
    pub from: usize,
    /// Whose word it is that the endpoint holds them.
    pub origin: Origin,
}

/// What adding a block has changed.
#[derive(Debug, Clone, Copy)]
pub struct Change {
    /// The endpoint was not known to hold it.
    pub new: bool,
    /// It was known, and nothing had proven it.
    pub doubted: bool,
    /// Others should hear of it.
    pub due: bool,
}

impl Change {
    /// Whether there is anything to note.
    fn is_any(self) -> bool {
        self.new || self.doubted || self.due
    }
}

/// How far the blocks of a prompt have been added.
pub(super) struct Trail {
    /// The last of them.
    pub before: Option<u64>,
    /// The place of the endpoint's own entry of it.
    pub own: u32,
    /// The place of the entry that speaks for it.
    speaker: u32,
    /// Whose word it is that the endpoint holds what is added.
    pub origin: Origin,
    /// Whether it was new to everybody: what follows it lies behind no entry then.
    new: bool,
}

impl Index {
    /// An empty index that never takes more than `max_bytes`, a few chunks aside. The secret says
    /// where its tables keep what.
    pub fn new(max_bytes: usize, secret: &Secret) -> Self {
        let key = TableKey::new(secret);
        let most_sets = max_bytes / SETS_SHARE;
        Self {
            most: ((max_bytes - most_sets) / ENTRY_BYTES).clamp(1, NONE as usize - 1),
            most_sets,
            arena: Arena::new(key),
            sets: Sets::new(key),
            evictions: 0,
            held: Vec::new(),
        }
    }

    /// Whether blocks may be added without those before them (their context), as they are when an index
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

    /// Returns the blocks before another one of a prompt that it takes to find it.
    pub fn context<'p>(&self, before: &'p [u64]) -> &'p [u64] {
        self.arena.key().context(before)
    }

    /// Notes that blocks hold. [`Self::note`] where that is proven, and nothing but what is `due` matters.
    pub fn add(
        &mut self,
        slot: u32,
        prompt: &[u64],
        from: usize,
        capacity: usize,
        due: &mut dyn FnMut(usize),
    ) {
        let sent = Sent {
            slot,
            prompt,
            from,
            origin: Origin::PROVEN,
        };
        self.note(sent, capacity, &mut |block, change| {
            if change.due {
                due(block);
            }
        });
    }

    /// Notes what was sent to an endpoint. `capacity` is how many blocks the endpoint holds; what was
    /// said first holds until it is removed. `changed` is called with the number of
    /// each block with which anything has changed.
    pub fn note(
        &mut self,
        sent: Sent<'_>,
        capacity: usize,
        changed: &mut dyn FnMut(usize, Change),
    ) {
        let Sent { prompt, from, .. } = sent;
        let Ok(slot) = u16::try_from(sent.slot) else {
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
            origin: sent.origin,
            new: false,
        };
        let mut number = from;
        let mut ahead = [Scattered::default(); AHEAD];
        let mut hinted = from;
        while let Some(left) = prompt.get(number..).filter(|left| !left.is_empty()) {
            let mut again = |block, change| changed(number + block, change);
            let known = self.use_again(&mut trail, slot, left, &mut again);
            let left = left.get(known..).unwrap_or_default();
            number += known;
            if number >= hinted {
                hinted = number + AHEAD;
                self.arena.hint(left, &mut ahead);
            }
            let next = ahead.get(AHEAD + number - hinted);
            if let Some(block) = next.filter(|_| !left.is_empty()) {
                let change = self.add_one(&mut trail, slot, *block);
                if let Some(change) = change.filter(|change| change.is_any()) {
                    changed(number, change);
                }
            }
            number += 1;
        }
        self.arena.settle();
    }

    /// The place of the entry that speaks for the last of these blocks.
    pub(super) fn find_last(&self, blocks: &[u64]) -> u32 {
        let find = |place, hash: &u64| self.arena.first_behind(place, *hash).unwrap_or(NONE);
        self.context(blocks).iter().fold(NONE, find)
    }

    /// Notes the first of these blocks that the endpoint holds already in the order in which it was
    /// sent them last: a prompt that comes again, or goes on. They are moved to the end of its list
    /// in one go. Returns how many these are.
    fn use_again(
        &mut self,
        trail: &mut Trail,
        slot: u16,
        blocks: &[u64],
        changed: &mut dyn FnMut(usize, Change),
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
            // What an answer proves was counted when it was sent.
            if trail.origin != Origin::PROVEN || entry.origin() == Origin::PROVEN {
                held.count_use();
            }
            let change = change(entry, full, held.quarter, trail.origin);
            if change.is_any() {
                changed(count, change);
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

    /// Notes the block behind the one that the trail has come to. Returns what that has changed.
    fn add_one(&mut self, trail: &mut Trail, slot: u16, block: Scattered) -> Option<Change> {
        let hash = block.hash;
        let held = self.held.get_mut(usize::from(slot))?;
        held.count_use();
        let quarter = held.quarter;
        let full = held.count >= held.capacity || self.arena.len() >= self.most;
        let (own, first) = self.find_next(trail, slot, block);
        let known = own.or_else(|| self.find(first?, slot, hash));
        if let (Some(place), Some(held)) = (known, self.held.get_mut(usize::from(slot))) {
            held.unlink(place, place, &mut self.arena);
        }
        let placed = known.or_else(|| self.insert(trail, slot, block, first));
        trail.new = first.is_none();
        trail.before = Some(hash);
        trail.own = placed.unwrap_or(NONE);
        let speaker = first.filter(|first| self.arena.speaks(*first, hash));
        trail.speaker = speaker.or(placed).unwrap_or(NONE);
        let place = placed?;
        if let Some(held) = self.held.get_mut(usize::from(slot)) {
            held.append(place, place, &mut self.arena);
        }
        let entry = self.arena.get_mut(place)?;
        if known.is_some() {
            return Some(change(entry, full, quarter, trail.origin));
        }
        entry.tell(quarter);
        Some(Change {
            new: true,
            doubted: false,
            due: true,
        })
    }

    /// The endpoint's own entry of the block behind the trail, if it lies behind the one before, and
    /// the entry that speaks for the block.
    fn find_next(&self, trail: &Trail, slot: u16, block: Scattered) -> (Option<u32>, Option<u32>) {
        let hash = block.hash;
        if trail.new {
            return (None, self.arena.first_of(block));
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
    pub(super) fn find(&self, first: u32, slot: u16, hash: u64) -> Option<u32> {
        let entry = self.arena.get(first)?;
        if entry.slot == slot {
            return Some(first);
        }
        let holds = entry.holders != 0 && self.sets.contains(entry.holders, slot);
        holds.then(|| self.arena.further(hash, slot)).flatten()
    }
}

/// What changes with an entry that is used again.
#[inline]
fn change(entry: &mut Entry, full: bool, quarter: u16, origin: Origin) -> Change {
    Change {
        new: false,
        doubted: entry.say(origin),
        due: full && entry.tell(quarter),
    }
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
