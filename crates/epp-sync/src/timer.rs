//! The period of the timer that drives a picker and its sharing: 50 ms for ticks, and 10 ms while workers have something to exchange in
//! between. It is no shorter than necessary, because each firing wakes a thread of Envoy's.

/// The time from one tick to the next, in milliseconds: all workers have a peer's placements and new metrics
/// within it.
const TICK_MS: u32 = 50;

/// The time from one exchange of counts in flight to the next, in milliseconds: as long as a worker takes to
/// decide some tens of requests. With 50 ms, four workers sent to the same endpoint meanwhile, and a pool
/// without any reuse was balanced worse than by least request.
const EXCHANGE_MS: u32 = 10;

const EXCHANGES_PER_TICK: u32 = TICK_MS / EXCHANGE_MS;

/// Ticks without anything to exchange after which the timer slows down: a second, so that single requests do
/// not change its period each time.
const IDLE_TICKS: u32 = 20;

/// The timer of one picker, or of several that tick together.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timer {
    /// Whether it fires between ticks as well.
    fast: bool,
    /// How often it has fired since the last tick.
    fired: u32,
    /// Ticks in a row with nothing to exchange.
    idle_ticks: u32,
}

impl Timer {
    /// Returns the time from one firing to the next, in milliseconds.
    pub fn period(&self) -> u32 {
        if self.fast {
            EXCHANGE_MS
        } else {
            TICK_MS
        }
    }

    /// The timer has fired. Returns whether that is a tick.
    pub fn fire(&mut self) -> bool {
        self.fired += 1;
        let tick = !self.fast || self.fired >= EXCHANGES_PER_TICK;
        if tick {
            self.fired = 0;
        }
        tick
    }

    /// Adjusts the period after a tick to whether there is something to exchange before the next one. Returns
    /// the new period, if it changes.
    pub fn adjust(&mut self, exchanges: bool) -> Option<u32> {
        self.idle_ticks = if exchanges { 0 } else { self.idle_ticks + 1 };
        let fast = exchanges || (self.fast && self.idle_ticks < IDLE_TICKS);
        let changes = fast != self.fast;
        self.fast = fast;
        changes.then(|| self.period())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn with_nothing_to_exchange_each_firing_is_a_tick() {
        let mut timer = Timer::default();
        assert_eq!(timer.period(), 50);
        assert!((0..100).all(|_| timer.fire() && timer.adjust(false).is_none()));
    }

    #[test]
    fn exchanges_come_between_ticks_that_stay_50_ms_apart_and_end_a_second_after_their_reason() {
        let mut timer = Timer::default();
        assert!(timer.fire());
        assert_eq!(timer.adjust(true), Some(10));
        let tick = |timer: &mut Timer| (0..5).map(|_| timer.fire()).collect::<Vec<bool>>();
        for _ in 0..3 {
            assert_eq!(tick(&mut timer), [false, false, false, false, true]);
            assert_eq!(timer.adjust(true), None);
        }
        let mut calm = 0;
        let period = loop {
            assert_eq!(tick(&mut timer), [false, false, false, false, true]);
            calm += 1;
            if let Some(period) = timer.adjust(false) {
                break period;
            }
        };
        assert_eq!((calm, period), (20, 50));
        assert!(timer.fire());
    }
}
