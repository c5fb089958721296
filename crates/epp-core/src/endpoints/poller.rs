//! When whose metrics page is fetched: one request per endpoint and interval, never two at once,
//! spread over the interval, and rarer while an endpoint does not answer.

use crate::scheduling::Slot;

/// Requests under way at most. Envoy's default circuit breaker lets 1024 through per cluster, and
/// the clients' requests share it.
const MAX_IN_FLIGHT: usize = 512;

/// A failing endpoint is asked at least this often, so that it is back within seconds.
const MAX_BACKOFF_MS: u64 = 5_000;

/// A request that was never called back counts as lost after this many intervals.
const LOST_AFTER: u64 = 20;

/// One endpoint's place in the schedule; times in milliseconds.
#[derive(Debug, Clone, Copy, Default)]
struct Turn {
    due: u64,
    sent: Option<u64>,
    failures: u32,
}

/// The schedule of all endpoints.
#[derive(Debug)]
pub struct Poller {
    interval: u64,
    turns: Vec<Turn>,
    in_flight: usize,
}

impl Poller {
    /// A schedule with this interval in milliseconds.
    pub fn new(interval: u64) -> Self {
        Self {
            interval: interval.max(1),
            turns: Vec::new(),
            in_flight: 0,
        }
    }

    /// Changes the interval from the next turn on.
    pub fn set_interval(&mut self, interval: u64) {
        self.interval = interval.max(1);
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

    /// Whether it is this endpoint's turn; if so it counts as asked from now on.
    pub fn take(&mut self, slot: Slot, now: u64, rng: &mut fastrand::Rng) -> bool {
        let Some(turn) = self.turns.get_mut(slot.index()) else {
            return false;
        };
        let lost = self.interval.saturating_mul(LOST_AFTER).max(MAX_BACKOFF_MS);
        if turn.sent.is_some_and(|sent| now.abs_diff(sent) > lost) {
            turn.sent = None;
            self.in_flight = self.in_flight.saturating_sub(1);
        }
        // A clock that was set back by more than the longest wait would leave everybody waiting.
        let waits = turn.due > now && turn.due - now <= MAX_BACKOFF_MS.max(self.interval);
        if turn.sent.is_some() || waits || self.in_flight >= MAX_IN_FLIGHT {
            return false;
        }
        turn.sent = Some(now);
        self.in_flight += 1;
        // The first turns are drawn over the whole interval, so that a thousand endpoints that
        // came at once are asked evenly; later ones keep their beat, give or take a tenth.
        let spread = if turn.due == 0 {
            rng.u64(0..self.interval)
        } else {
            rng.u64(0..=self.interval / 5) + self.interval * 9 / 10
        };
        turn.due = now + spread.max(1);
        true
    }

    /// An endpoint answered with a good page, or did not.
    pub fn answered(&mut self, slot: Slot, good: bool, now: u64, rng: &mut fastrand::Rng) {
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
        let doubled = self.interval << turn.failures.min(8);
        let wait = doubled.min(MAX_BACKOFF_MS.max(self.interval));
        turn.due = now + wait / 2 + rng.u64(0..=wait / 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rng() -> fastrand::Rng {
        fastrand::Rng::with_seed(3)
    }

    fn poller(endpoints: u32) -> Poller {
        let mut poller = Poller::new(200);
        (0..endpoints).for_each(|slot| poller.join(Slot(slot)));
        poller
    }

    #[test]
    fn each_endpoint_is_asked_once_per_interval() {
        let (mut poller, mut rng) = (poller(3), rng());
        let mut asked = 0;
        for now in (1_000..11_000).step_by(10) {
            for slot in (0..3).map(Slot) {
                if poller.take(slot, now, &mut rng) {
                    asked += 1;
                    poller.answered(slot, true, now, &mut rng);
                }
            }
        }
        assert!((140..=160).contains(&asked), "{asked}");
    }

    #[test]
    fn nobody_is_asked_twice_before_it_answered() {
        let (mut poller, mut rng) = (poller(1), rng());
        assert!(poller.take(Slot(0), 1_000, &mut rng));
        assert!((1_000..3_000).all(|now| !poller.take(Slot(0), now, &mut rng)));
    }

    #[test]
    fn a_lost_answer_does_not_end_the_asking() {
        let (mut poller, mut rng) = (poller(1), rng());
        assert!(poller.take(Slot(0), 1_000, &mut rng));
        assert!((1_000..10_000).any(|now| poller.take(Slot(0), now, &mut rng)));
    }

    #[test]
    fn a_failing_endpoint_is_asked_ever_more_rarely_but_never_forgotten() {
        let (mut poller, mut rng) = (poller(1), rng());
        let mut times = Vec::new();
        for now in (1_000..61_000).step_by(10) {
            if poller.take(Slot(0), now, &mut rng) {
                times.push(now);
                poller.answered(Slot(0), false, now, &mut rng);
            }
        }
        assert!(times.len() < 40, "{}", times.len());
        let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(gaps.max().unwrap() <= MAX_BACKOFF_MS + 10);
    }

    #[test]
    fn a_thousand_endpoints_are_no_burst() {
        let (mut poller, mut rng) = (poller(1_000), rng());
        let mut per_tick = Vec::new();
        for now in (1_000..5_000).step_by(50) {
            let mut asked = 0;
            for slot in (0..1_000).map(Slot) {
                if poller.take(slot, now, &mut rng) {
                    asked += 1;
                    poller.answered(slot, true, now, &mut rng);
                }
            }
            per_tick.push(asked);
        }
        let settled = &per_tick[20..];
        assert!(settled.iter().all(|asked| *asked < 400), "{settled:?}");
    }

    #[test]
    fn a_clock_that_is_set_back_stops_nothing() {
        let (mut poller, mut rng) = (poller(1), rng());
        assert!(poller.take(Slot(0), 10_000_000, &mut rng));
        poller.answered(Slot(0), true, 10_000_000, &mut rng);
        assert!(poller.take(Slot(0), 1_000, &mut rng));
    }
}
