//! The memory that clients size: what the readers of all requests keep, bounded for the VM as a whole.
//!
//! A bound on each request is none on the VM: a few hundred requests, each within its own, were enough
//! to use up what the host gives a VM. So all of them share a budget. Of what is left of it, one
//! request may take an eighth: where little is used that is more than any request can keep,
//! and where many keep much it is the largest that are decided with what is known of them. A request
//! that was decided and only reads on for the prefix index stops where half of the budget is used.
//!
//! Kept is what buffers have allocated, used or not. What a callback needs for its own duration and
//! the exchange itself (2.5 KB for each of Envoy's streams) are not part of it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use super::dispatcher::Dispatcher;
use super::exchange::Exchange;
use super::tick::MAX_RELEASES_PER_TICK;
use super::Picker;
use crate::metrics::labels::ForcedRelease;

/// The budget: an eighth of what the host gives a VM (1 GiB). A prefix index takes 64 MiB by default,
/// and of what is freed not every piece fits again: with twice the budget a VM still has half of
/// its memory for indexes of several pools, a callback's own needs, and Envoy's streams.
pub const BUDGET_BYTES: usize = 128 << 20;

/// A request may use 1/8 of the free budget. With the default of 1,024 held
/// requests, all of the largest size, each can still keep 127 KB: what 4,000 blocks need.
const REQUEST_SHARE: usize = 8;

/// Buffers of up to this many bytes stay with an exchange whose body is not read any more, so that the
/// next request finds them: what a prompt of 4 KB takes among 1,000 endpoints. Where the budget is
/// short they are given back as well.
pub(super) const MAX_SPARE_BYTES: usize = 8 << 10;

/// The bytes that the readers of one VM keep.
#[derive(Debug)]
pub struct Memory {
    budget: usize,
    used: AtomicUsize,
}

impl Default for Memory {
    fn default() -> Self {
        Self::of(BUDGET_BYTES)
    }
}

impl Memory {
    /// Returns an unused budget of this many bytes.
    fn of(budget: usize) -> Self {
        let used = AtomicUsize::new(0);
        Self { budget, used }
    }

    /// Returns the bytes that are kept now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Returns how many bytes one request may keep now.
    fn allowance(&self) -> usize {
        self.budget.saturating_sub(self.used()) / REQUEST_SHARE
    }

    /// Returns how many bytes each of 1,024 held requests, the default of `maxHeld`, may keep before half
    /// of the budget is used: 64 KiB. To release such a request for memory would not help.
    fn small(&self) -> usize {
        self.budget / 2 / 1024
    }

    /// Returns whether so much is used that no request reads on for the index alone.
    fn is_short(&self) -> bool {
        self.used() > self.budget / 2
    }
}

/// The part of the VM's memory budget that one pool's readers, or one body that is set aside, use. It is
/// given back when this is dropped.
#[derive(Debug, Default)]
pub struct Account {
    memory: Arc<Memory>,
    own: usize,
}

impl Account {
    /// Returns how many bytes one request may keep now.
    fn allowance(&self) -> usize {
        self.memory.allowance()
    }

    /// Returns whether so much is used that no request reads on for the index alone.
    fn is_short(&self) -> bool {
        self.memory.is_short()
    }

    /// Returns the bytes that all readers of the VM keep, and how many they may.
    pub fn use_and_bound(&self) -> (u64, u64) {
        (self.memory.used() as u64, self.memory.budget as u64)
    }

    /// Frees buffers of a request that are not needed any more, and counts the others. Returns their bytes.
    pub fn count(&mut self, exchange: &mut Exchange) -> usize {
        let small = if self.is_short() { 0 } else { MAX_SPARE_BYTES };
        let mut kept = exchange.allocated();
        if kept > small && exchange.host_hold().is_none() && !exchange.reader.wants_more() {
            exchange.give_back();
            kept = exchange.allocated();
        }
        let before = std::mem::replace(&mut exchange.counted_bytes, kept);
        self.change(before, kept);
        kept
    }

    /// A request has ended: none of its bytes are counted any more.
    pub fn close(&mut self, exchange: &mut Exchange) {
        self.change(std::mem::take(&mut exchange.counted_bytes), 0);
    }

    /// Counts with the other pools of the VM.
    fn join(&mut self, memory: &Arc<Memory>) {
        let own = self.own;
        self.change(own, 0);
        self.memory = Arc::clone(memory);
        self.change(0, own);
    }

    /// A request keeps `now` bytes and kept `before`.
    pub fn change(&mut self, before: usize, now: usize) {
        let moved = |sum: usize| sum.saturating_sub(before) + now;
        self.own = moved(self.own);
        let used = moved(self.memory.used());
        self.memory.used.store(used, Ordering::Relaxed);
    }

    /// Adds these bytes, for a body that is set aside while its request continues. Returns whether there is
    /// enough: at most a quarter of the budget in use, so that what clients leave unfinished never makes
    /// it short for what is read.
    pub fn reserve(&mut self, bytes: usize) -> bool {
        let memory = &self.memory;
        let fits = memory.used().saturating_add(bytes) <= memory.budget / 4;
        if fits {
            self.change(0, bytes);
        }
        fits
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.change(self.own, 0);
    }
}

impl Picker {
    /// Shares the budget of a VM that serves several pools.
    pub fn share_memory(&mut self, memory: &Arc<Memory>) {
        self.dispatcher.readers.memory.join(memory);
    }

    /// Returns an account of its own with the VM's budget, which may outlive the pool.
    pub fn open_account(&self) -> Account {
        let memory = Arc::clone(&self.dispatcher.readers.memory.memory);
        Account { memory, own: 0 }
    }

    /// Frees memory if more than half of the budget is used: requests that were decided stop reading, and of
    /// those that are held the largest are released, until less is used or the largest are small. Otherwise
    /// memory that was used while more was left would be kept for as long as its client likes.
    ///
    /// This is the only work of a tick that looks at all exchanges, and only while memory is short: a few
    /// nanoseconds each, where to keep them in the order of their sizes would cost each part of each body more.
    /// How many are decided is bounded, as each costs a decision and what the host does for it.
    pub(super) fn relieve_memory(&mut self) {
        let Self {
            exchanges,
            dispatcher,
            ..
        } = self;
        if !dispatcher.readers.memory.is_short() {
            return;
        }
        let mut held = Vec::new();
        exchanges.for_each_mut(|exchange| {
            if exchange.is_held() {
                held.push((exchange.counted_bytes, exchange.id));
            } else if exchange.counted_bytes > 0 {
                dispatcher.stop_for_memory(exchange);
            }
        });
        if let Some(last) = held.len().min(MAX_RELEASES_PER_TICK).checked_sub(1) {
            held.select_nth_unstable_by(last, |one, other| other.cmp(one));
            held.truncate(MAX_RELEASES_PER_TICK);
        }
        held.sort_unstable_by(|one, other| other.cmp(one));
        for (kept, id) in held {
            let memory = &dispatcher.readers.memory;
            if !memory.is_short() || kept <= memory.memory.small() {
                break;
            }
            if let Some(mut exchange) = exchanges.get_mut(id) {
                dispatcher.release_for_memory(&mut exchange);
            }
        }
    }
}

impl Dispatcher {
    /// Counts what a request keeps after a part of its body was read. One that keeps more than its
    /// share is decided with what is known of it.
    pub fn bound_memory(&mut self, exchange: &mut Exchange) {
        let memory = &mut self.readers.memory;
        let over = memory.count(exchange) > memory.allowance();
        if !exchange.is_held() {
            if over || exchange.reader.wants_more() && memory.is_short() {
                self.stop_for_memory(exchange);
            }
        } else if over {
            self.release_for_memory(exchange);
        }
    }

    /// No more of a request's body can be read: the host has no memory for it. One that is held is
    /// decided with what is known of it.
    pub fn cannot_read(&mut self, exchange: &mut Exchange) {
        if exchange.is_held() {
            self.release_for_memory(exchange);
        } else {
            self.stop_for_memory(exchange);
        }
    }

    /// Decides a held request with what is known of it, and reads no further.
    fn release_for_memory(&mut self, exchange: &mut Exchange) {
        exchange.reader.stop();
        self.release(exchange, ForcedRelease::Memory);
        self.stop_for_memory(exchange);
    }

    /// Reads no further of a request that was decided. What explains the decision waits for the response,
    /// unless that alone is more than the request's share.
    fn stop_for_memory(&mut self, exchange: &mut Exchange) {
        exchange.reader.stop();
        let memory = &mut self.readers.memory;
        if memory.count(exchange) <= memory.allowance() {
            return;
        }
        exchange.explanation = None;
        if memory.count(exchange) > memory.allowance() {
            // The hashes that a response is to prove are too much by themselves.
            self.prefixes.refute(exchange, &self.endpoints);
            self.readers.memory.count(exchange);
        }
    }
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
