//! How entries of the index come and go.

use std::ops::Range;

use super::arena::{Entry, FURTHER, NONE};
use super::held::Held;
use super::index::{Index, Origin, Trail};
use super::key::Scattered;

impl Index {
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

    /// Notes that an answer proves the blocks of a prompt from number `from` on, as far as the endpoint's
    /// entries lie in their order, which are nearly always all. `doubted` is called with the number of each
    /// block that was not proven before. Returns how many blocks were covered; the others are for [`Index::note`].
    pub fn prove(
        &mut self,
        slot: u32,
        prompt: &[u64],
        from: usize,
        mut doubted: impl FnMut(usize),
    ) -> usize {
        let Ok(slot) = u16::try_from(slot) else {
            return 0;
        };
        let before = prompt.get(..from).unwrap_or_default();
        let blocks = prompt.get(from..).unwrap_or_default();
        let Some((first, rest)) = blocks.split_first() else {
            return 0;
        };
        let speaker = self.find_last(before);
        let found = self.arena.first_behind(speaker, *first);
        let Some(mut own) = found.and_then(|found| self.find(found, slot, *first)) else {
            return 0;
        };
        let mut number = from;
        let mut rest = rest.iter();
        loop {
            if self.arena.get_mut(own).is_some_and(Entry::prove) {
                doubted(number);
            }
            number += 1;
            let next = rest.next();
            let next = next.and_then(|hash| self.arena.own_behind(own, *hash, slot));
            match next {
                Some(next) => own = next,
                None => return number - from,
            }
        }
    }

    /// Forgets which of these blocks of a prompt, by number, the endpoint in this slot holds by nothing but
    /// the word of `origin`. Of those before, [`Index::context`] will do. `dropped` is called with the
    /// number of each block that is forgotten.
    pub fn retract(
        &mut self,
        slot: u32,
        prompt: &[u64],
        blocks: Range<usize>,
        origin: Origin,
        dropped: &mut dyn FnMut(usize),
    ) {
        let Ok(slot) = u16::try_from(slot) else {
            return;
        };
        let before = prompt.get(..blocks.start).unwrap_or_default();
        let mut speaker = self.find_last(before);
        let mut own = speaker;
        for (number, hash) in blocks.clone().zip(prompt.get(blocks).unwrap_or_default()) {
            let first = self.arena.first_behind(speaker, *hash);
            let found = self.arena.own_behind(own, *hash, slot);
            let found = found.or_else(|| self.find(first?, slot, *hash));
            speaker = first.unwrap_or(NONE);
            own = found.unwrap_or(NONE);
            let entry = self.arena.get(own);
            if entry.is_some_and(|entry| entry.origin() == origin) && self.drop_at(slot, own) {
                dropped(number);
            }
        }
        self.arena.settle();
    }

    /// A new entry of the block for which `first` speaks, not yet in the list of its endpoint; none
    /// where there is no room for the set of those that hold the block.
    pub(super) fn insert(
        &mut self,
        trail: &Trail,
        slot: u16,
        block: Scattered,
        first: Option<u32>,
    ) -> Option<u32> {
        let hash = block.hash;
        if first.is_some_and(|first| !self.can_share(first, slot, hash)) {
            self.evictions += 1;
            return None;
        }
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
            Some(first) if dropped && !self.arena.speaks(first, hash) => self.arena.first_of(block),
            first => first,
        };
        let holders = match first {
            None => 0,
            Some(first) => {
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
        let entry = Entry::new(hash, slot, holders, trail.origin);
        Some(self.arena.insert(entry, block, last))
    }

    /// Whether there is room for one more endpoint to hold the block for which `first` speaks. Asked
    /// before anything is dropped for it.
    fn can_share(&self, first: u32, slot: u16, hash: u64) -> bool {
        // It is in the set already where its entry found no room in the table.
        let holds = |entry: &Entry| self.sets.contains(entry.holders, slot);
        self.sets.bytes() < self.most_sets
            && !self.arena.get(first).is_some_and(holds)
            && self.arena.has_room(hash, slot)
    }

    /// The endpoint that holds most: a look at each, which an endpoint that holds nothing yet costs
    /// with its first block, and none that has one of its own to drop.
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
        let place = self.held.get(usize::from(slot)).map(which);
        place.is_some_and(|place| self.drop_at(slot, place))
    }

    /// Drops an endpoint's entry at this place; whether there was one. [`Arena::settle`] must follow.
    fn drop_at(&mut self, slot: u16, place: u32) -> bool {
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
            if entry.holders != FURTHER {
                self.sets.release(holders);
            }
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
        match heir {
            Some(heir) => self.arena.set_holders(heir, left),
            // Its entry found no room in the table.
            None => self.sets.release(left),
        }
    }
}
