//! The polling schedule: one request per endpoint and interval for its metrics page, never two at once, spread
//! over the interval, and rarer while an endpoint does not respond.

use std::time::Duration;

use crate::scheduling::Slot;
use crate::time::Instant;

/// Requests under way at most. Envoy's default circuit breaker lets 1024 through per cluster, and
/// the clients' requests share it.
const MAX_IN_FLIGHT: usize = 512;

/// A failing endpoint is polled at least this often, so that it is back within seconds.
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// A request that was never called back counts as lost after this many intervals.
const LOST_AFTER_INTERVALS: u32 = 20;

/// One endpoint's place in the schedule.
#[derive(Debug, Clone, Copy, Default)]
struct Turn {
    /// When it is polled next; none: at once, for the first time.
    due: Option<Instant>,
    /// When the request was sent that is under way.
    sent: Option<Instant>,
    failures: u32,
}

/// The schedule of all endpoints.
#[derive(Debug)]
pub struct Poller {
    interval: Duration,
    turns: Vec<Turn>,
    in_flight: usize,
}

/// Shorter intervals count as this one.
const MIN_INTERVAL: Duration = Duration::from_millis(1);

impl Poller {
    /// Returns a schedule with this interval.
    pub fn new(interval: Duration) -> Self {
        Self {
            interval: interval.max(MIN_INTERVAL),
            turns: Vec::new(),
            in_flight: 0,
        }
    }

    /// Changes the interval from the next turn on.
    pub fn set_interval(&mut self, interval: Duration) {
        self.interval = interval.max(MIN_INTERVAL);
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
            self.in_flight -= usize::from(turn.sent.is_some()).min(self.in_flight);
            *turn = Turn::default();
        }
    }

    /// Returns how long after a request its response counts as lost.
    pub fn lost_after(&self) -> Duration {
        let lost = self.interval.saturating_mul(LOST_AFTER_INTERVALS);
        lost.max(MAX_BACKOFF)
    }

    /// Returns whether it is this endpoint's turn; if so it counts as polled from now on.
    pub fn take(&mut self, slot: Slot, now: Instant, rng: &mut fastrand::Rng) -> bool {
        let lost = self.lost_after();
        let Some(turn) = self.turns.get_mut(slot.index()) else {
            return false;
        };
        if turn.sent.is_some_and(|sent| sent.after(lost) < now) {
            turn.sent = None;
            self.in_flight = self.in_flight.saturating_sub(1);
        }
        let waits = turn.due.is_some_and(|due| due > now);
        if turn.sent.is_some() || waits || self.in_flight >= MAX_IN_FLIGHT {
            return false;
        }
        turn.sent = Some(now);
        self.in_flight += 1;
        // The first turns are drawn over the whole interval, so that a thousand endpoints that
        // came at once are polled evenly; later ones follow after the interval, give or take a tenth.
        let wait = match turn.due {
            None => random_up_to(self.interval, rng),
            Some(_) => self.interval.saturating_mul(9) / 10 + random_up_to(self.interval / 5, rng),
        };
        turn.due = Some(now.after(wait.max(MIN_INTERVAL)));
        true
    }

    /// An endpoint has responded with a good page, or has not.
    pub fn record_result(&mut self, slot: Slot, good: bool, now: Instant, rng: &mut fastrand::Rng) {
        let Some(turn) = self.turns.get_mut(slot.index()) else {
            return;
        };
        if turn.sent.take().is_some() {
            self.in_flight = self.in_flight.saturating_sub(1);
        }
        if good {
            turn.failures = 0;
            return;
        }
        turn.failures = turn.failures.saturating_add(1);
        let doubled = self.interval.saturating_mul(1 << turn.failures.min(8));
        let wait = doubled.min(MAX_BACKOFF.max(self.interval));
        turn.due = Some(now.after(wait / 2 + random_up_to(wait / 2, rng)));
    }
}

/// Returns a random duration of whole milliseconds.
fn random_up_to(limit: Duration, rng: &mut fastrand::Rng) -> Duration {
    let limit = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(rng.u64(0..=limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::default().after(Duration::from_millis(millis))
    }

    fn rng() -> fastrand::Rng {
        fastrand::Rng::with_seed(3)
    }

    fn poller(endpoints: u32) -> Poller {
        let mut poller = Poller::new(Duration::from_millis(200));
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
                    poller.record_result(slot, true, at(now), &mut rng);
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
                poller.record_result(Slot(0), false, at(now), &mut rng);
            }
        }
        assert!(times.len() < 40, "{}", times.len());
        let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(gaps.max().unwrap() <= MAX_BACKOFF.as_millis() as u64 + 10);
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
                    poller.record_result(slot, true, at(now), &mut rng);
                }
            }
            per_tick.push(asked);
        }
        let settled = &per_tick[20..];
        assert!(settled.iter().all(|asked| *asked < 400), "{settled:?}");
    }
}
