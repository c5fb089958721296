//! What one endpoint holds: its entries of the index in order of use.

use super::arena::{Arena, NONE};

/// An endpoint's blocks are told to the others again after a quarter of its capacity was used: to
/// them it is as old as they last heard of it, and what they drop first should be old here too.
const TOLD_EACH: usize = 4;

/// One endpoint's entries in order of use.
#[derive(Debug, Clone, Copy)]
pub struct Held {
    pub newest: u32,
    pub oldest: u32,
    pub count: usize,
    /// How many it may have; 0 as long as nobody has said it.
    pub capacity: usize,
    /// Which quarter of the capacity is being used, and how many uses are left of it.
    pub quarter: u16,
    left: usize,
}

impl Held {
    pub const EMPTY: Self = Self {
        newest: NONE,
        oldest: NONE,
        count: 0,
        capacity: 0,
        quarter: 0,
        left: 0,
    };

    /// One use more.
    pub fn count_use(&mut self) {
        if self.left == 0 {
            self.quarter = self.quarter.wrapping_add(1);
            self.left = (self.capacity / TOLD_EACH).max(1);
        }
        self.left -= 1;
    }

    /// Takes a part of the list out of it, from the oldest to the newest of these entries.
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

    /// Puts entries that are linked among each other, or one, at the end of the list.
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
