//! The polling schedule: one request per endpoint and interval for its metrics page, never two at once, spread
//! over the interval, rarer while an endpoint does not respond, and rarer while no decision needs it.
//!
//! An endpoint is at rest while no decision needs its page and the page stays the same: with each such page the time to
//! the next one doubles, up to the cadence's bound.

use std::time::Duration;

use crate::scheduling::Slot;
use crate::time::{whole_millis, Instant};

/// Requests under way at most. Envoy's default circuit breaker lets 1024 through per cluster, and
/// the clients' requests share it.
const MAX_IN_FLIGHT: usize = 512;

/// A failing endpoint is polled at least this often, in milliseconds, so that it is back within seconds.
const MAX_BACKOFF: u64 = 5_000;

/// A request that was never called back counts as lost after this many intervals.
const LOST_AFTER_INTERVALS: u64 = 20;

/// Milliseconds between two pages of an endpoint that requests wait for, where decisions need constants only: an engine that
/// stands still is found by pages that stay the same.
const BUSY_INTERVAL: u64 = 1_000;

/// How often pages are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cadence {
    /// The time between two pages of an endpoint.
    pub interval: Duration,
    /// The longest time between two pages of an endpoint that rests.
    pub longest: Duration,
}

/// Enough doublings to reach the longest `maxInterval` from the shortest interval.
const MAX_DOUBLINGS: u8 = 16;

/// What a page says that has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageNews {
    /// The same as the one before.
    Same,
    /// Something else.
    Changed,
    /// Nothing: it could not be read.
    Unread,
}

/// One endpoint's place in the schedule.
#[derive(Debug, Clone, Copy, Default)]
struct Turn {
    /// When it is polled next; none: at once, for the first time.
    due: Option<Instant>,
    /// When it was last polled.
    asked: Instant,
    /// Whether that request is under way.
    is_asked: bool,
    failures: u32,
    /// Whether its page is needed at each interval.
    is_needed: bool,
    /// Pages in a row that were the same while it was not.
    rests: u8,
}

/// The schedule of all endpoints.
#[derive(Debug)]
pub struct Poller {
    /// In milliseconds, as all times here: durations take divisions and more code.
    interval: u64,
    /// The longest time between two pages.
    longest: u64,
    turns: Vec<Turn>,
    in_flight: usize,
    /// The first endpoint of this tick that was not asked because too many requests were under way.
    refused: Option<Slot>,
    /// Whether an endpoint has ended its rest by itself since [`Self::hasten_all`]: requests come to it that are not this
    /// proxy's.
    hastens: bool,
    /// Whether requests wait for what any page says: an endpoint ends its rest with its next page then.
    waiting: bool,
    /// How often all turns were walked.
    #[cfg(test)]
    pub(super) walks: u32,
}

impl Poller {
    /// Returns a schedule with this cadence.
    pub fn new(cadence: Cadence) -> Self {
        let mut poller = Self {
            interval: 0,
            longest: 0,
            turns: Vec::new(),
            in_flight: 0,
            refused: None,
            hastens: false,
            waiting: false,
            #[cfg(test)]
            walks: 0,
        };
        poller.set_cadence(cadence);
        poller
    }

    /// Changes the cadence from the next turn on.
    pub fn set_cadence(&mut self, cadence: Cadence) {
        self.interval = whole_millis(cadence.interval).max(1);
        self.longest = whole_millis(cadence.longest).max(self.interval);
    }

    /// Forgets all endpoints.
    pub fn clear(&mut self) {
        self.turns.clear();
        self.in_flight = 0;
    }

    /// Returns the endpoint whose turn is decided first in this tick: where too many requests were under way, those that
    /// were not asked precede those that were.
    pub fn first(&mut self) -> Slot {
        self.refused.take().unwrap_or(Slot(0))
    }

    /// Begins a new endpoint's schedule at once.
    pub fn join(&mut self, slot: Slot) {
        self.leave(slot);
        if self.turns.len() <= slot.index() {
            self.turns.resize(slot.index() + 1, Turn::default());
        }
    }

    /// Forgets an endpoint; late responses are ignored.
    pub fn leave(&mut self, slot: Slot) {
        if let Some(turn) = self.turns.get_mut(slot.index()) {
            self.in_flight -= usize::from(turn.is_asked).min(self.in_flight);
            *turn = Turn::default();
        }
    }

    /// Returns how long after a request its response counts as lost.
    pub fn lost_after(&self) -> Duration {
        Duration::from_millis(self.lost())
    }

    fn lost(&self) -> u64 {
        let lost = self.interval.saturating_mul(LOST_AFTER_INTERVALS);
        lost.max(MAX_BACKOFF)
    }

    /// Returns the time between two pages after so many doublings.
    fn wait(&self, rests: u8) -> u64 {
        let doubled = self.interval.saturating_mul(1 << rests.min(MAX_DOUBLINGS));
        doubled.min(self.longest)
    }

    /// Sets whether an endpoint's page is needed at each interval. Returns whether it has rested until now.
    pub fn need(&mut self, slot: Slot, is_needed: bool) -> bool {
        let Some(turn) = self.turns.get_mut(slot.index()) else {
            return false;
        };
        turn.is_needed = is_needed;
        let wakes = is_needed && turn.rests > 0;
        if wakes {
            turn.rests = 0;
            turn.hasten(turn.asked.after_millis(self.interval));
        }
        wakes
    }

    /// Sets whether requests wait for what any page says.
    pub fn set_waiting(&mut self, waiting: bool) {
        self.waiting = waiting;
    }

    /// Fetches the next page of an endpoint at rest once a second has passed since the last, or an interval if that is longer.
    pub fn hasten(&mut self, slot: Slot) {
        let interval = self.interval.max(BUSY_INTERVAL);
        let turn = self.turns.get_mut(slot.index());
        if let Some(turn) = turn.filter(|turn| turn.rests > 0) {
            turn.hasten(turn.asked.after_millis(interval));
        }
    }

    /// Ends all rests: the next page of each endpoint is due within an interval.
    pub fn restart(&mut self, now: Instant, rng: &mut fastrand::Rng) {
        for turn in &mut self.turns {
            turn.rests = 0;
            turn.hasten(now.after_millis(random_up_to(self.interval, rng)));
        }
    }

    /// If an endpoint has ended its rest by itself, or requests wait, fetches the next page of each other one at rest within an
    /// interval: spread over the interval, because thousands at once would hold up the worker. To be called once per tick.
    pub fn hasten_all(&mut self, now: Instant, rng: &mut fastrand::Rng) {
        let hastens = std::mem::take(&mut self.hastens) || self.waiting;
        if !hastens {
            return;
        }
        #[cfg(test)]
        {
            self.walks += 1;
        }
        // Those due sooner keep their turn: drawn again with each call, all would soon be due at once.
        let soon = Some(now.after_millis(self.interval));
        let resting = |turn: &&mut Turn| turn.rests > 0 && turn.due > soon;
        for turn in self.turns.iter_mut().filter(resting) {
            let earliest = turn.asked.after_millis(self.interval).max(now);
            turn.hasten(earliest.after_millis(random_up_to(self.interval, rng)));
        }
    }

    /// Returns how many milliseconds beyond the interval the page of an endpoint at rest is kept.
    pub fn rest(&self, slot: Slot) -> u64 {
        let rests = self.turns.get(slot.index()).map_or(0, |turn| turn.rests);
        self.wait(rests) - self.interval
    }

    /// Returns whether it is this endpoint's turn; if so it counts as polled from now on.
    pub fn take(&mut self, slot: Slot, now: Instant, rng: &mut fastrand::Rng) -> bool {
        let lost = self.lost();
        let Some(turn) = self.turns.get_mut(slot.index()) else {
            return false;
        };
        if turn.is_asked && turn.asked.after_millis(lost) < now {
            turn.is_asked = false;
            self.in_flight = self.in_flight.saturating_sub(1);
        }
        let waits = turn.due.is_some_and(|due| due > now);
        if turn.is_asked || waits {
            return false;
        }
        if self.in_flight >= MAX_IN_FLIGHT {
            self.refused.get_or_insert(slot);
            return false;
        }
        turn.is_asked = true;
        turn.asked = now;
        self.in_flight += 1;
        // The first turns are drawn over the whole interval, so that a thousand endpoints that
        // came at once are polled evenly; later ones follow after the interval, give or take a tenth.
        let wait = match turn.due {
            None => random_up_to(self.interval, rng),
            Some(_) => self.interval * 9 / 10 + random_up_to(self.interval / 5, rng),
        };
        turn.due = Some(now.after_millis(wait.max(1)));
        true
    }

    /// Asks an endpoint again with the next tick, whatever the last request to it has brought.
    pub fn ask_again(&mut self, slot: Slot, now: Instant) {
        if let Some(turn) = self.turns.get_mut(slot.index()) {
            self.in_flight -= usize::from(std::mem::take(&mut turn.is_asked)).min(self.in_flight);
            turn.due = Some(now);
        }
    }

    /// An endpoint has responded, or has not.
    pub fn record_result(
        &mut self,
        slot: Slot,
        news: PageNews,
        now: Instant,
        rng: &mut fastrand::Rng,
    ) {
        let (interval, rest) = (self.interval, self.rest(slot));
        let waiting = self.waiting;
        let Some(turn) = self.turns.get_mut(slot.index()) else {
            return;
        };
        if std::mem::take(&mut turn.is_asked) {
            self.in_flight = self.in_flight.saturating_sub(1);
        }
        if news == PageNews::Unread {
            turn.failures = turn.failures.saturating_add(1);
            // Once it responds again, it takes two pages until it is trusted.
            turn.rests = 0;
            // Eight doublings of the shortest interval, 50 ms, exceed the bound.
            let doubled = interval.saturating_mul(1 << turn.failures.min(8));
            let wait = doubled.min(MAX_BACKOFF.max(interval));
            turn.due = Some(now.after_millis(wait / 2 + random_up_to(wait / 2, rng)));
            return;
        }
        turn.failures = 0;
        if news == PageNews::Changed || turn.is_needed || waiting {
            turn.rests = 0;
            // One whose page changes again and again says nothing of the others.
            let had_rested = rest > 0 && interval + rest >= self.longest;
            self.hastens |= had_rested && news == PageNews::Changed;
            return;
        }
        turn.rests = MAX_DOUBLINGS.min(turn.rests + 1);
        // Never later than the bound: pages are kept for no longer.
        let wait = self.longest.min((interval + rest) * 2);
        let wait = wait * 4 / 5 + random_up_to(wait / 5, rng);
        turn.due = turn.due.max(Some(turn.asked.after_millis(wait)));
    }
}

impl Turn {
    /// The next page is due at this time at the latest.
    fn hasten(&mut self, due: Instant) {
        self.due = self.due.map(|known| known.min(due));
    }
}

#[inline(never)]
fn random_up_to(limit: u64, rng: &mut fastrand::Rng) -> u64 {
    rng.u64(0..=limit)
}

#[cfg(test)]
#[path = "poller_rates_tests.rs"]
mod rates;

#[cfg(test)]
#[path = "poller_tests.rs"]
mod tests;
