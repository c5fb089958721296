//! Deadlines of requests.
//!
//! Clients choose how many requests are under way and how often their bytes come. No tick may therefore walk over
//! all of them, unless memory is short: each deadline costs a push when it begins, and a tick examines only due entries.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::time::Instant;

/// Entries of requests that do not wait any more, beyond as many as there are waiting ones, before they are swept
/// out. Any small number does: sweeping costs a look-up an entry.
const MAX_STALE: usize = 64;

/// Requests by when they are due for one reason.
///
/// There is an instance for each reason: due entries are fetched with a separate bound for each of them, and
/// `maxHeld` takes the held request with the earliest base however early that is, which in a heap of mixed reasons
/// would be behind entries of others. Those that wait for a response have an instance per endpoint, so that
/// only an endpoint that shows no sign of life costs any look at them.
///
/// An entry is a lower bound: what moves a deadline moves it later, and changes nothing here. Only once the entry
/// comes up is the request looked at, and the entry is moved, at most once for what came of the request since it
/// was looked at last. Entries of requests that do not wait any more stay until they come up or are swept out;
/// the caller decides whether one waits, and until when.
#[derive(Debug, Default)]
pub struct Deadlines {
    /// The earliest first.
    entries: BinaryHeap<Reverse<(Instant, u32)>>,
    /// How often a request was looked at.
    #[cfg(test)]
    pub looks: usize,
}

impl Deadlines {
    /// A request waits, at least until then. Once for each time that it begins to wait.
    pub fn add(&mut self, id: u32, due: Instant) {
        self.entries.push(Reverse((due, id)));
    }

    /// Returns whether no request waits, so far as it is known without looking at any.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the request that is due first, if that is not after `bound`. Its entry stays until it does not wait
    /// any more. `due` returns when a request is due; none if it does not wait.
    pub fn first_due(
        &mut self,
        bound: Instant,
        due: impl Fn(u32) -> Option<Instant>,
    ) -> Option<u32> {
        while let Some(Reverse((known, id))) = self.entries.peek().copied() {
            if known > bound {
                return None;
            }
            self.count_looks(1);
            let due = due(id);
            if due.is_some_and(|due| due <= known) {
                return Some(id);
            }
            self.entries.pop();
            if let Some(due) = due {
                self.entries.push(Reverse((due, id)));
            }
        }
        None
    }

    /// Returns how many requests are due by `bound`, at most `most`.
    pub fn count_due(
        &mut self,
        bound: Instant,
        most: usize,
        due: impl Fn(u32) -> Option<Instant>,
    ) -> usize {
        let mut found = Vec::new();
        while found.len() < most && self.first_due(bound, &due).is_some() {
            found.extend(self.entries.pop());
        }
        let count = found.len();
        self.entries.extend(found);
        count
    }

    /// Removes entries of requests that do not wait any more, once most of them may be such; `waiting` requests at
    /// most wait. Two looks at most for each entry that was added since the last time.
    pub fn sweep(&mut self, waiting: usize, waits: impl Fn(u32) -> bool) {
        if self.entries.len() > 2 * waiting + MAX_STALE {
            self.count_looks(self.entries.len());
            self.entries.retain(|Reverse((_, id))| waits(*id));
        }
    }

    /// Removes all entries.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// Counts looks at requests, which the tests bound.
    #[cfg_attr(not(test), allow(clippy::unused_self))]
    fn count_looks(&mut self, _looks: usize) {
        #[cfg(test)]
        {
            self.looks += _looks;
        }
    }

    /// Returns how many entries there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
#[path = "deadlines_tests.rs"]
mod tests;
