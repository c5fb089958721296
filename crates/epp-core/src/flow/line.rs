//! A line of requests in the order of a key.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::table::Table;
use crate::ExchangeId;

/// The number under which a request waits. A request that leaves and comes back gets another.
pub type Turn = u32;

/// Entries of requests that have left, beyond as many as there are waiting ones, before they are swept out.
const MAX_STALE: usize = 16;

/// An empty line keeps the memory of this many entries.
const MAX_SPARE: usize = 64;

/// Requests in the order of a key, and where keys are equal in that of their turns.
///
/// The entry of a request that leaves stays until it comes up or is swept out. So a request leaves from anywhere at
/// no cost, and a sweep costs a look at each entry that was added since the last one.
#[derive(Debug, Default)]
pub struct Line {
    entries: BinaryHeap<Reverse<(u64, Turn, u32)>>,
}

impl Line {
    /// Adds a request.
    pub fn push(&mut self, key: u64, turn: Turn, id: ExchangeId) {
        self.entries.push(Reverse((key, turn, id.0)));
    }

    /// Returns the first request that still waits, and its key.
    pub fn first(&mut self, table: &Table) -> Option<(u64, ExchangeId)> {
        while let Some(Reverse((key, turn, id))) = self.entries.peek().copied() {
            if table.waits(ExchangeId(id), turn) {
                return Some((key, ExchangeId(id)));
            }
            self.entries.pop();
        }
        None
    }

    /// Returns the request of the first entry, which may have left.
    pub fn peek(&self) -> Option<ExchangeId> {
        let Reverse((_, _, id)) = self.entries.peek()?;
        Some(ExchangeId(*id))
    }

    /// Removes entries of requests that have left, once most are; `waiting` requests still wait.
    pub fn sweep(&mut self, waiting: usize, table: &Table) {
        if waiting == 0 {
            self.clear();
            return;
        }
        if self.entries.len() > 2 * waiting + MAX_STALE {
            self.entries
                .retain(|Reverse((_, turn, id))| table.waits(ExchangeId(*id), *turn));
        }
        if self.entries.capacity() > 4 * self.entries.len() + MAX_SPARE {
            self.entries.shrink_to(2 * self.entries.len());
        }
    }

    /// Removes all entries.
    pub fn clear(&mut self) {
        if self.entries.capacity() > MAX_SPARE {
            self.entries = BinaryHeap::new();
        } else {
            self.entries.clear();
        }
    }

    /// Returns how many entries there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns how many entries it has room for.
    #[cfg(test)]
    pub fn capacity(&self) -> usize {
        self.entries.capacity()
    }
}
