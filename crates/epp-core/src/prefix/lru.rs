//! The entries of one endpoint in order of use.

use super::arena::{Arena, NONE};

/// A block that is used again is published to other workers again once per this part of the endpoint's capacity. Other
/// workers take a block to be as old as its last publication, and what they evict first should be old here too.
const PUBLICATIONS_PER_CAPACITY: usize = 4;

/// The list of one endpoint's entries in order of use, linked through the arena.
#[derive(Debug, Clone, Copy)]
pub struct LruList {
    /// The entry used last.
    pub newest: u32,
    /// The entry used longest ago.
    pub oldest: u32,
    /// Number of entries.
    pub count: usize,
    /// Number of entries that the endpoint can hold; the list shrinks to it as blocks are added.
    pub capacity: usize,
    /// Number of the current publication period, see [`PUBLICATIONS_PER_CAPACITY`].
    pub period: u16,
    /// Uses left in the current period.
    uses_left: usize,
}

impl LruList {
    /// A list without entries.
    pub const EMPTY: Self = Self {
        newest: NONE,
        oldest: NONE,
        count: 0,
        capacity: 0,
        period: 0,
        uses_left: 0,
    };

    /// Sets the number of entries that the endpoint can hold. The current period is no longer than one of it.
    pub fn set_capacity(&mut self, capacity: usize) {
        self.capacity = capacity.max(1);
        self.uses_left = self.uses_left.min(self.uses_of_period());
    }

    /// Counts one more use of an entry.
    pub fn count_use(&mut self) {
        if self.uses_left == 0 {
            self.period = self.period.wrapping_add(1);
            self.uses_left = self.uses_of_period();
        }
        self.uses_left -= 1;
    }

    fn uses_of_period(&self) -> usize {
        (self.capacity / PUBLICATIONS_PER_CAPACITY).max(1)
    }

    /// Unlinks a part of the list, from `oldest` to `newest`.
    pub fn unlink(&mut self, oldest: u32, newest: u32, arena: &mut Arena) {
        let older = arena.get(oldest).map_or(NONE, |entry| entry.older);
        let newer = arena.get(newest).map_or(NONE, |entry| entry.newer);
        if let Some(entry) = arena.get_mut(newer) {
            entry.older = older;
        }
        if let Some(entry) = arena.get_mut(older) {
            entry.newer = newer;
        }
        if self.newest == newest {
            self.newest = older;
        }
        if self.oldest == oldest {
            self.oldest = newer;
        }
    }

    /// Appends an entry that was inserted with [`Self::newest`] as the next older one.
    pub fn append_new(&mut self, place: u32, arena: &mut Arena) {
        self.count += 1;
        let before = std::mem::replace(&mut self.newest, place);
        match arena.get_mut(before) {
            Some(before) => before.newer = place,
            None => self.oldest = place,
        }
    }

    /// Appends one entry, or several that are linked among each other, as the newest.
    pub fn append(&mut self, oldest: u32, newest: u32, arena: &mut Arena) {
        let before = std::mem::replace(&mut self.newest, newest);
        if self.oldest == NONE {
            self.oldest = oldest;
        }
        if let Some(entry) = arena.get_mut(before) {
            entry.newer = oldest;
        }
        if let Some(entry) = arena.get_mut(oldest) {
            entry.older = before;
        }
        if let Some(entry) = arena.get_mut(newest) {
            entry.newer = NONE;
        }
    }
}
