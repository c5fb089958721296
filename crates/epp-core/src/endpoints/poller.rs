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
    /// Whether requests wait for what any page says: no endpoint rests once its next page has come.
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
            self.hastens |= rest > 0 && interval + rest >= self.longest;
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
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::default().after(Duration::from_millis(millis))
    }

    const CADENCE: Cadence = Cadence {
        interval: Duration::from_millis(200),
        longest: Duration::from_secs(2),
    };

    fn rng() -> fastrand::Rng {
        fastrand::Rng::with_seed(3)
    }

    fn poller(endpoints: u32) -> Poller {
        let mut poller = Poller::new(CADENCE);
        (0..endpoints).for_each(|slot| poller.join(Slot(slot)));
        poller
    }

    #[test]
    fn each_endpoint_is_scraped_once_per_interval() {
        let (mut poller, mut rng) = (poller(3), rng());
        let mut asked = 0;
        for now in (1_000..11_000).step_by(10) {
            for slot in (0..3).map(Slot) {
                if poller.take(slot, at(now), &mut rng) {
                    asked += 1;
                    poller.record_result(slot, PageNews::Changed, at(now), &mut rng);
                }
            }
        }
        assert!((140..=160).contains(&asked), "{asked}");
    }

    #[test]
    fn no_endpoint_is_scraped_again_before_it_has_responded() {
        let (mut poller, mut rng) = (poller(1), rng());
        assert!(poller.take(Slot(0), at(1_000), &mut rng));
        assert!((1_000..3_000).all(|now| !poller.take(Slot(0), at(now), &mut rng)));
    }

    #[test]
    fn a_lost_response_does_not_end_the_scraping() {
        let (mut poller, mut rng) = (poller(1), rng());
        assert!(poller.take(Slot(0), at(1_000), &mut rng));
        assert!((1_000..10_000).any(|now| poller.take(Slot(0), at(now), &mut rng)));
    }

    #[test]
    fn a_failing_endpoint_is_scraped_less_and_less_often_but_never_dropped() {
        let (mut poller, mut rng) = (poller(1), rng());
        let mut times = Vec::new();
        for now in (1_000..61_000).step_by(10) {
            if poller.take(Slot(0), at(now), &mut rng) {
                times.push(now);
                poller.record_result(Slot(0), PageNews::Unread, at(now), &mut rng);
            }
        }
        assert!(times.len() < 40, "{}", times.len());
        let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(gaps.max().unwrap() <= MAX_BACKOFF + 10);
    }

    #[test]
    fn a_thousand_endpoints_are_not_scraped_in_a_burst() {
        let (mut poller, mut rng) = (poller(1_000), rng());
        let mut per_tick = Vec::new();
        for now in (1_000..5_000).step_by(50) {
            let mut asked = 0;
            for slot in (0..1_000).map(Slot) {
                if poller.take(slot, at(now), &mut rng) {
                    asked += 1;
                    poller.record_result(slot, PageNews::Changed, at(now), &mut rng);
                }
            }
            per_tick.push(asked);
        }
        let settled = &per_tick[20..];
        assert!(settled.iter().all(|asked| *asked < 400), "{settled:?}");
    }

    #[test]
    fn all_endpoints_are_asked_as_often_where_too_many_requests_would_be_under_way() {
        const ENDPOINTS: u32 = 2_000;
        // A page takes longer than a tick: 512 in 100 ms, a quarter of what the interval asks for.
        let (mut poller, mut rng) = (poller(ENDPOINTS), rng());
        let mut asked = vec![0; ENDPOINTS as usize];
        let mut under_way: Vec<(u64, Slot)> = Vec::new();
        for now in (1_000..9_000).step_by(50) {
            let (come, later) = under_way.iter().partition(|(due, _)| *due <= now);
            under_way = later;
            let come: Vec<(u64, Slot)> = come;
            for (_, slot) in come {
                poller.record_result(slot, PageNews::Changed, at(now), &mut rng);
            }
            let first = poller.first().0;
            for slot in (first..ENDPOINTS).chain(0..first).map(Slot) {
                if poller.take(slot, at(now), &mut rng) {
                    asked[slot.index()] += 1;
                    under_way.push((now + 60, slot));
                }
            }
            assert!(under_way.len() <= MAX_IN_FLIGHT);
        }
        let (least, most) = (asked.iter().min().unwrap(), asked.iter().max().unwrap());
        assert!(*least >= 18 && most - least <= 2, "{least} to {most}");
    }

    /// Polls an endpoint whose page stays the same until this time. Returns when it was polled.
    fn poll_same(poller: &mut Poller, until: u64, rng: &mut fastrand::Rng) -> Vec<u64> {
        let mut times = Vec::new();
        for now in (1_000..until).step_by(10) {
            if poller.take(Slot(0), at(now), rng) {
                times.push(now);
                poller.record_result(Slot(0), PageNews::Same, at(now), rng);
            }
        }
        times
    }

    #[test]
    fn an_endpoint_rests_up_to_the_bound_while_its_page_stays_the_same() {
        let (mut poller, mut rng) = (poller(1), rng());
        let times = poll_same(&mut poller, 61_000, &mut rng);
        let gaps: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.iter().all(|gap| *gap <= 2_010), "{gaps:?}");
        assert!(times.len() < 40, "{gaps:?}");
        assert_eq!(poller.rest(Slot(0)), 1_800);
    }

    #[test]
    fn an_endpoint_that_rests_is_polled_at_once_when_its_page_is_needed() {
        for waiting in [false, true] {
            let (mut poller, mut rng) = (poller(1), rng());
            let last = poll_same(&mut poller, 20_000, &mut rng).pop().unwrap();
            poller.set_waiting(waiting);
            assert!(!poller.take(Slot(0), at(last + 250), &mut rng));
            assert!(poller.need(Slot(0), true));
            assert!(!poller.need(Slot(0), true));
            assert!(poller.take(Slot(0), at(last + 250), &mut rng));
            // It is needed further on: the same page is no reason to rest.
            poller.record_result(Slot(0), PageNews::Same, at(last + 251), &mut rng);
            assert!(poller.take(Slot(0), at(last + 480), &mut rng));
            assert_eq!(poller.rest(Slot(0)), 0);
        }
    }

    #[test]
    fn a_page_that_changes_by_itself_ends_the_rest_and_hastens_the_others() {
        let (mut poller, mut rng) = (poller(2), rng());
        let last = poll_same(&mut poller, 20_000, &mut rng).pop().unwrap();
        poller.record_result(Slot(0), PageNews::Changed, at(last + 1), &mut rng);
        assert!(std::mem::take(&mut poller.hastens));
        poller.record_result(Slot(0), PageNews::Changed, at(last + 2), &mut rng);
        assert!(!poller.hastens);
        poller.record_result(Slot(1), PageNews::Same, at(last), &mut rng);
        assert!(poller.take(Slot(1), at(last), &mut rng));
        for _ in 0..9 {
            poller.record_result(Slot(1), PageNews::Same, at(last), &mut rng);
        }
        assert!(!poller.take(Slot(1), at(last + 500), &mut rng));
        poller.hasten_all(at(last + 300), &mut rng);
        assert!(!poller.take(Slot(1), at(last + 500), &mut rng));
        poller.hastens = true;
        poller.hasten_all(at(last + 300), &mut rng);
        assert!(poller.take(Slot(1), at(last + 500), &mut rng));
    }

    #[test]
    fn a_thousand_endpoints_that_rest_are_not_hastened_in_a_burst() {
        let (mut poller, mut rng) = (poller(1_000), rng());
        for now in (1_000..21_000).step_by(50) {
            for slot in (0..1_000).map(Slot) {
                if poller.take(slot, at(now), &mut rng) {
                    poller.record_result(slot, PageNews::Same, at(now), &mut rng);
                }
            }
        }
        let mut per_tick = Vec::new();
        for now in (21_000..21_450).step_by(50) {
            // With each tick the page of another one shows traffic.
            poller.hastens = true;
            poller.hasten_all(at(now), &mut rng);
            let mut asked = 0;
            for slot in (0..1_000).map(Slot) {
                if poller.take(slot, at(now), &mut rng) {
                    asked += 1;
                    poller.record_result(slot, PageNews::Same, at(now), &mut rng);
                }
            }
            per_tick.push(asked);
        }
        let fetched: u32 = per_tick.iter().sum();
        assert!(fetched >= 1_000, "{per_tick:?}");
        assert!(per_tick.iter().all(|asked| *asked < 400), "{per_tick:?}");
    }

    #[test]
    fn a_page_that_alternates_does_not_hasten_the_others() {
        let (mut poller, mut rng) = (poller(1), rng());
        let last = poll_same(&mut poller, 20_000, &mut rng).pop().unwrap();
        let mut hastened = Vec::new();
        for news in [PageNews::Changed, PageNews::Same].repeat(10) {
            poller.record_result(Slot(0), news, at(last), &mut rng);
            hastened.push(std::mem::take(&mut poller.hastens));
        }
        assert!(hastened[0] && hastened[1..].iter().all(|hastens| !hastens));
    }

    #[test]
    fn an_endpoint_that_failed_does_not_rest_as_soon_as_it_is_back() {
        let (mut poller, mut rng) = (poller(1), rng());
        let last = poll_same(&mut poller, 20_000, &mut rng).pop().unwrap();
        poller.record_result(Slot(0), PageNews::Unread, at(last + 10), &mut rng);
        assert!(poller.take(Slot(0), at(last + 500), &mut rng));
        poller.record_result(Slot(0), PageNews::Same, at(last + 500), &mut rng);
        assert!(poller.take(Slot(0), at(last + 1_000), &mut rng));
    }
}
