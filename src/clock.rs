//! How often a root context's clock strikes: a tick every 50 ms, and glances between them only while there
//! is something to glance for, because each strike wakes a thread of Envoy's that may have slept.

/// A peer's placement and a new scrape are known to all within this time, in milliseconds.
const TICK_MS: u32 = 50;

/// How often workers look at what the others have in flight, in milliseconds: as long as it takes a
/// worker to decide some tens of requests. With 50 ms, four workers sent to the same endpoint meanwhile,
/// and a pool without any reuse was balanced worse than by least request.
const GLANCE_MS: u32 = 10;

const STRIKES_PER_TICK: u32 = TICK_MS / GLANCE_MS;

/// Ticks without anything to glance for after which there are no more glances: a second, so that single
/// requests do not change the pace each time.
const CALM_TICKS: u32 = 20;

/// A root context's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct Clock {
    /// Whether it strikes for glances, too.
    glances: bool,
    /// Strikes since the last tick.
    strikes: u32,
    /// Ticks in a row with nothing to glance for.
    calm: u32,
}

impl Clock {
    /// Milliseconds between two strikes.
    pub fn period(&self) -> u32 {
        if self.glances {
            GLANCE_MS
        } else {
            TICK_MS
        }
    }

    /// The clock strikes; whether that is a tick.
    pub fn strike(&mut self) -> bool {
        self.strikes += 1;
        let tick = !self.glances || self.strikes >= STRIKES_PER_TICK;
        if tick {
            self.strikes = 0;
        }
        tick
    }

    /// With a tick: whether there is something to glance for. The period from now on, if it changes.
    pub fn pace(&mut self, something: bool) -> Option<u32> {
        self.calm = if something { 0 } else { self.calm + 1 };
        let glances = something || (self.glances && self.calm < CALM_TICKS);
        let changes = glances != self.glances;
        self.glances = glances;
        changes.then(|| self.period())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::Action;
    use crate::fake_host::host;
    use crate::filter_tests::{listed, request, vm, ROOT};
    use crate::vm::Vm;

    #[test]
    fn without_anything_to_glance_for_each_strike_is_a_tick() {
        let mut clock = Clock::default();
        assert_eq!(clock.period(), 50);
        assert!((0..100).all(|_| clock.strike() && clock.pace(false).is_none()));
    }

    #[test]
    fn glances_come_between_ticks_that_stay_50_ms_apart_and_end_a_second_after_their_reason() {
        let mut clock = Clock::default();
        assert!(clock.strike());
        assert_eq!(clock.pace(true), Some(10));
        let tick = |clock: &mut Clock| (0..5).map(|_| clock.strike()).collect::<Vec<bool>>();
        for _ in 0..3 {
            assert_eq!(tick(&mut clock), [false, false, false, false, true]);
            assert_eq!(clock.pace(true), None);
        }
        let mut calm = 0;
        let period = loop {
            assert_eq!(tick(&mut clock), [false, false, false, false, true]);
            calm += 1;
            if let Some(period) = clock.pace(false) {
                break period;
            }
        };
        assert_eq!((calm, period), (20, 50));
        assert!(clock.strike());
    }

    #[test]
    fn the_clock_strikes_for_glances_only_while_workers_have_something_in_flight() {
        let mut workers = [vm(&listed("queue-scorer", "")), Vm::default()];
        assert!(workers[1].configure(ROOT));
        let strike = |workers: &mut [Vm]| {
            let strikes = workers.iter_mut().map(|vm| {
                host(|host| host.period = 0);
                vm.strike(ROOT);
                host(|host| host.period)
            });
            strikes.collect::<Vec<u32>>()
        };
        for (id, vm) in (10..).zip(&mut workers) {
            request(&[(":path", "/v1/models"), (":method", "GET")]);
            assert_eq!(vm.request_headers(id, true), Action::Continue);
        }
        let begun: Vec<u32> = (0..5).flat_map(|_| strike(&mut workers)).collect();
        assert_eq!(begun.iter().filter(|period| **period == 10).count(), 2);
        for (id, vm) in (10..).zip(&mut workers) {
            vm.delete(id);
        }
        let ended: Vec<u32> = (0..200).flat_map(|_| strike(&mut workers)).collect();
        assert_eq!(
            ended
                .iter()
                .filter(|period| **period != 0)
                .collect::<Vec<_>>(),
            [&50, &50]
        );
    }
}
