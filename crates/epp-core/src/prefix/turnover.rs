//! Insertion and removal of the index's entries.

use std::ops::Range;

use super::arena::{Entry, NONE, SECONDARY};
use super::index::{AddCursor, Index, Provenance};
use super::key::ScatteredHash;
use super::lru::LruList;

/// One response drops at most one part in this many of an endpoint's entries: whatever a client or a model server
/// makes of the counts, it takes many responses to empty a list. It also bounds the work, to 4,000 entries of the
/// default capacity.
const MAX_DROPPED_PART: usize = 8;

/// A new block drops at most this many of the endpoint's oldest: one to make room, and one more while the list exceeds
/// a capacity that has become smaller. So it shrinks without one request that pays for all of it.
const MAX_DROPPED_FOR_NEW: usize = 2;

impl Index {
    /// Removes an endpoint.
    pub fn remove(&mut self, slot: u32) {
        let Ok(slot) = u16::try_from(slot) else {
            return;
        };
        // The newest first: then free places are reused in ascending order.
        while self.drop_entry(slot, |list| list.newest) {}
        self.arena.link_orphan();
        if let Some(list) = self.lists.get_mut(usize::from(slot)) {
            *list = LruList::EMPTY;
        }
    }

    /// Records that a response proves the blocks of a prompt from position `from` on, as far as the endpoint's entries lie
    /// in order; nearly always all do. `unproven` is called with the position of each block that was not proven before.
    /// Returns how many blocks were covered; the others are for [`Index::record`].
    pub fn prove(
        &mut self,
        slot: u32,
        prompt: &[u64],
        from: usize,
        mut unproven: impl FnMut(usize),
    ) -> usize {
        let Ok(slot) = u16::try_from(slot) else {
            return 0;
        };
        let before = prompt.get(..from).unwrap_or_default();
        let blocks = prompt.get(from..).unwrap_or_default();
        let Some((first, rest)) = blocks.split_first() else {
            return 0;
        };
        let primary = self.find_last(before);
        let found = self.arena.primary_after(primary, *first);
        let Some(mut own) = found.and_then(|found| self.find(found, slot, *first)) else {
            return 0;
        };
        let mut number = from;
        let mut rest = rest.iter();
        loop {
            if self.arena.get_mut(own).is_some_and(Entry::prove) {
                unproven(number);
            }
            number += 1;
            let next = rest.next();
            let next = next.and_then(|hash| self.arena.entry_after(own, *hash, slot));
            match next {
                Some(next) => own = next,
                None => return number - from,
            }
        }
    }

    /// Removes those of these blocks of a prompt, given by position, for which `provenance` is the only evidence that the
    /// endpoint holds them. Of the blocks before, [`Index::context`] suffices. `dropped` is called with the position of
    /// each removed block.
    pub fn retract(
        &mut self,
        slot: u32,
        prompt: &[u64],
        blocks: Range<usize>,
        provenance: Provenance,
        dropped: &mut dyn FnMut(usize),
    ) {
        let Ok(slot) = u16::try_from(slot) else {
            return;
        };
        let before = prompt.get(..blocks.start).unwrap_or_default();
        let mut primary = self.find_last(before);
        let mut own = primary;
        for (number, hash) in blocks.clone().zip(prompt.get(blocks).unwrap_or_default()) {
            let first = self.arena.primary_after(primary, *hash);
            let found = self.arena.entry_after(own, *hash, slot);
            let found = found.or_else(|| self.find(first?, slot, *hash));
            primary = first.unwrap_or(NONE);
            own = found.unwrap_or(NONE);
            let entry = self.arena.get(own);
            if entry.is_some_and(|entry| entry.provenance() == provenance)
                && self.drop_at(slot, own)
            {
                dropped(number);
            }
        }
        self.arena.link_orphan();
    }

    /// Drops the entries that an endpoint used longest ago, as many as `count`, or an eighth of all if that is fewer, but
    /// not the last `keep` that it used. Returns how many were dropped.
    pub fn drop_unused(&mut self, slot: u32, count: usize, keep: usize) -> usize {
        let list = self.lists.get(slot as usize);
        let (Some(list), Ok(slot)) = (list, u16::try_from(slot)) else {
            return 0;
        };
        let most = list.count / MAX_DROPPED_PART;
        let count = count.min(most).min(list.count.saturating_sub(keep));
        let dropped = (0..count).take_while(|_| self.drop_oldest(slot)).count();
        self.arena.link_orphan();
        dropped
    }

    /// Inserts an entry of the block whose primary entry is `first`, as the newest in the endpoint's list, and as published.
    /// Returns `None` if there is no room for another holder.
    pub(super) fn insert(
        &mut self,
        cursor: &AddCursor,
        slot: u16,
        block: ScatteredHash,
        first: Option<u32>,
    ) -> Option<u32> {
        let hash = block.hash;
        if first.is_some_and(|first| !self.can_share(first, slot, hash)) {
            self.evictions += 1;
            return None;
        }
        let list = self.lists.get(usize::from(slot)).copied();
        let list = list.unwrap_or(LruList::EMPTY);
        let excess = (list.count + 1).saturating_sub(list.capacity);
        let dropped = if excess > 0 {
            let drops = 0..excess.min(MAX_DROPPED_FOR_NEW);
            drops.take_while(|_| self.drop_oldest(slot)).count()
        } else if self.arena.len() >= self.max_entries {
            let own = list.count > 0 && self.drop_oldest(slot);
            usize::from(own || self.drop_oldest(self.largest()))
        } else {
            0
        };
        self.evictions += dropped as u64;
        // The primary entry may be the one that was dropped.
        let first = match first {
            Some(first) if dropped > 0 && !self.arena.is_primary(first, hash) => {
                self.arena.primary_of(block)
            }
            first => first,
        };
        let holders = match first {
            None => 0,
            Some(first) => {
                let entry = *self.arena.get(first)?;
                let holders = self.sets.with(entry.holders, entry.slot, slot);
                self.arena.set_holders(first, holders);
                SECONDARY
            }
        };
        let own = self.arena.get(cursor.own).filter(|own| {
            own.slot == slot && own.holders != SECONDARY && cursor.before == Some(own.hash())
        });
        let last = own.map_or(NONE, |_| cursor.own);
        let list = self.lists.get_mut(usize::from(slot))?;
        let mut entry = Entry::new(hash, slot, holders, cursor.provenance);
        entry.older = list.newest;
        entry.mark_published(list.period);
        let place = self.arena.insert(entry, block, last);
        list.append_new(place, &mut self.arena);
        Some(place)
    }

    /// Returns whether there is room for another holder of the block whose primary entry is `first`. This is checked
    /// before anything is dropped for it.
    fn can_share(&self, first: u32, slot: u16, hash: u64) -> bool {
        // The endpoint is in the set already if its entry found no room in the table.
        let holds = |entry: &Entry| self.sets.contains(entry.holders, slot);
        self.sets.bytes() < self.max_set_bytes
            && !self.arena.get(first).is_some_and(holds)
            && self.arena.has_room(hash, slot)
    }

    /// Returns the endpoint with the most entries. Only an endpoint without entries of its own to drop pays for this
    /// search.
    fn largest(&self) -> u16 {
        let slots = self.lists.iter().enumerate();
        let largest = slots.max_by_key(|(_, list)| list.count);
        largest.map_or(0, |(slot, _)| slot as u16)
    }

    /// Drops the entry that an endpoint used longest ago. Returns whether there was one.
    fn drop_oldest(&mut self, slot: u16) -> bool {
        self.drop_entry(slot, |list| list.oldest)
    }

    /// Drops one of an endpoint's entries. Returns whether there was one.
    fn drop_entry(&mut self, slot: u16, which: fn(&LruList) -> u32) -> bool {
        let place = self.lists.get(usize::from(slot)).map(which);
        place.is_some_and(|place| self.drop_at(slot, place))
    }

    /// Drops an endpoint's entry at a place. Returns whether there was one. [`Arena::link_orphan`] must be called afterwards.
    fn drop_at(&mut self, slot: u16, place: u32) -> bool {
        let Some(entry) = self.arena.get(place).copied() else {
            return false;
        };
        if let Some(list) = self.lists.get_mut(usize::from(slot)) {
            list.unlink(place, place, &mut self.arena);
            list.count -= 1;
        }
        self.remove_holder(place, &entry);
        self.arena.remove(place);
        true
    }

    /// Removes an entry's endpoint from the holders of the block.
    fn remove_holder(&mut self, place: u32, entry: &Entry) {
        let hash = entry.hash();
        if entry.holders == 0 {
            return;
        }
        let primary = if entry.holders == SECONDARY {
            self.arena.primary(hash)
        } else {
            Some(place)
        };
        let holders = primary.and_then(|primary| self.arena.get(primary));
        let Some(holders) = holders.map(|primary| primary.holders) else {
            return;
        };
        if !self.sets.contains(holders, entry.slot) {
            if entry.holders != SECONDARY {
                self.sets.release(holders);
            }
            return;
        }
        let (left, next) = self.sets.without(holders, entry.slot);
        if entry.holders == SECONDARY {
            if let Some(primary) = primary {
                self.arena.set_holders(primary, left);
            }
            return;
        }
        // Another entry becomes primary.
        let next = if left == 0 {
            Some(next)
        } else {
            self.sets.members(left).next()
        };
        let heir = next.and_then(|next| self.arena.secondary(hash, next));
        self.arena.set_holders(place, 0);
        match heir {
            Some(heir) => self.arena.set_holders(heir, left),
            // That endpoint's entry found no room in the table.
            None => self.sets.release(left),
        }
    }
}
