//! The way back of an endpoint that is avoided: one request of one worker tries it.
//!
//! Which request that is, is left to chance, so that it may be a client's that wants the endpoint
//! to stay avoided. A request that fails by its own fault, is given up by its client, or takes long
//! leaves the trial to the next one.

use super::Reason;
use super::{Avoider, Entry};
use crate::scheduling::{Freshness, Pool, Slot};

/// A worker that was to try an endpoint and says nothing for this long leaves it to another. A
/// trial without an answer for this long does not keep others from trying: its client may never
/// end its upload.
pub(super) const TRIAL_MS: u64 = 3_000;

/// For so long a worker that had nothing to send to an endpoint leaves it to the others.
const REST_MS: u64 = 200;

impl Avoider {
    /// A request was sent to this endpoint. Whether it is the one that tries it.
    pub fn sent(&mut self, slot: Slot, request: u32, now: u64) -> bool {
        if !self.tries {
            return false;
        }
        let seat = self.seats.get_mut(slot.index()).filter(|seat| seat.open);
        let Some(seat) = seat else {
            return false;
        };
        seat.open = false;
        seat.trying = Some(request);
        seat.tried = now;
        self.marked = true;
        true
    }

    /// A request to this endpoint has ended without an answer: if it tried it, nothing was learnt.
    /// Where its client gave up soon, as it may do on purpose, the next request tries.
    pub fn ended(&mut self, slot: Slot, request: u32, now: u64) {
        if !self.tries {
            return;
        }
        let seat = self.seats.get_mut(slot.index());
        if let Some(seat) = seat.filter(|seat| seat.trying == Some(request)) {
            seat.trying = None;
            self.marked = true;
            if now.abs_diff(seat.tried) < TRIAL_MS {
                seat.open = true;
                return;
            }
            seat.entry.trial = 0;
            seat.entry.until = now + self.settings.first;
            seat.entry.changed = now.max(seat.entry.changed + 1);
            self.dirty = true;
        }
    }

    /// Endpoints whose time is over, and which nobody tries yet. One that refused or hung is not
    /// tried before its metrics page comes again, unless that takes longer than the longest time.
    pub fn due(&self, pool: &Pool, now: u64) -> Vec<Slot> {
        let seats = self.seats.iter().enumerate();
        let due = seats.filter(|(index, seat)| {
            let entry = &seat.entry;
            // A clock that was set back makes nobody wait longer than the longest time.
            let waits = entry.until > now && entry.until - now <= 2 * self.settings.most;
            if !seat.avoided() || waits {
                return false;
            }
            let taken = entry.trial != 0 && now.abs_diff(entry.changed) <= TRIAL_MS;
            let endpoint = pool.get(Slot(*index as u32));
            let silent = matches!(entry.reason, Reason::Unserved | Reason::Hung)
                && endpoint.is_some_and(|endpoint| endpoint.freshness == Freshness::Stale)
                && now.saturating_sub(entry.until) < self.settings.most;
            let rests = seat.rests != 0 && now.abs_diff(seat.rests) < REST_MS;
            endpoint.is_some() && !taken && !silent && !rests
        });
        due.map(|(index, _)| Slot(index as u32)).collect()
    }

    /// What the entry of an endpoint becomes where this worker is the one to try it.
    pub fn claim(&self, slot: Slot, now: u64) -> Option<Entry> {
        let entry = self.seats.get(slot.index())?.entry;
        Some(Entry {
            trial: self.own,
            changed: now.max(entry.changed + 1),
            ..entry
        })
    }

    /// This worker is the one to try it.
    pub fn claimed(&mut self, slot: Slot, entry: Entry) {
        if let Some(seat) = self.seats.get_mut(slot.index()) {
            seat.entry = entry;
            seat.open = true;
            seat.trying = None;
            self.tries = true;
            self.marked = true;
        }
    }

    /// Says again, now and then, that this worker is still trying.
    pub fn hold_claims(&mut self, now: u64) {
        if !self.tries {
            return;
        }
        self.tries = false;
        for seat in &mut self.seats {
            let mine = seat.entry.trial == self.own && (seat.open || seat.trying.is_some());
            self.tries |= mine;
            if mine && now.abs_diff(seat.entry.changed) > TRIAL_MS / 3 {
                if seat.open {
                    // No request came this way: another worker may have more to send.
                    seat.open = false;
                    seat.entry.trial = 0;
                    seat.rests = now;
                } else if now.abs_diff(seat.tried) >= TRIAL_MS {
                    seat.open = true;
                }
                seat.entry.changed = now.max(seat.entry.changed + 1);
                self.dirty = true;
                self.marked = true;
            }
        }
    }
}
