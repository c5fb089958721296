//! Random arrivals, cancels, expiries, updates and dispatches of flow control, compared with a list of what should wait.
//!
//! `SEEDS` is the number of seeds. The time is simulated.

// A test fails loudly.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::sync::Arc;
use std::time::Duration;

use epp_core::flow::{
    Arrival, BandSpec, Departure, Fairness, FlowControl, Ordering, ProgramAware, Queues,
    SaturationDetector, Strategy, UsageLimit,
};
use epp_core::scheduling::{Endpoint, InFlight, Needs};
use epp_core::time::Instant;
use epp_core::ExchangeId;

use self::model::{Model, Waiting};

#[path = "queues/model.rs"]
mod model;

/// Measures nothing: the test names the saturation.
#[derive(Debug)]
struct Unused;

impl SaturationDetector for Unused {
    fn value(&self, _: &Endpoint, _: InFlight) -> Option<f64> {
        None
    }

    fn saturation_at(&self, _: f64) -> f64 {
        0.0
    }

    fn needs(&self) -> Needs {
        Needs::default()
    }
}

fn band(rng: &mut fastrand::Rng, priority: i32) -> BandSpec {
    let las = Strategy::Las {
        service_weight: 0.8,
        wait_weight: 0.2,
        half_life: Some(Duration::from_secs(1)),
    };
    let turns = Strategy::TurnPriority {
        time_weight: 0.5,
        inactivity: Some(Duration::from_secs(2)),
    };
    let program_aware = |strategy| {
        Fairness::ProgramAware(ProgramAware {
            strategy,
            idle: Some(Duration::from_secs(30)),
        })
    };
    BandSpec {
        priority,
        max_requests: Some(rng.u64(1..40)),
        max_bytes: Some(rng.u64(100..4_000)),
        ttl: match rng.u8(..3) {
            0 => None,
            1 => Some(None),
            _ => Some(Some(Duration::from_millis(rng.u64(1..2_000)))),
        },
        ordering: [Ordering::Fcfs, Ordering::Edf, Ordering::SloDeadline][rng.usize(..3)],
        fairness: match rng.u8(..4) {
            0 => Fairness::GlobalStrict,
            1 => Fairness::RoundRobin,
            2 => program_aware(las),
            _ => program_aware(turns),
        },
    }
}

fn limit<T>(rng: &mut fastrand::Rng, limit: T) -> Option<T> {
    rng.bool().then_some(limit)
}

fn control(rng: &mut fastrand::Rng) -> FlowControl {
    let mut bands = vec![band(rng, 0)];
    for priority in [7, 3, -2] {
        if rng.bool() {
            bands.push(band(rng, priority));
        }
    }
    bands.sort_by_key(|band| std::cmp::Reverse(band.priority));
    let requests = rng.u64(1..80);
    let bytes = rng.u64(100..8_000);
    let ttl = Duration::from_millis(rng.u64(1..3_000));
    let empty = Duration::from_millis(rng.u64(1..3_000));
    FlowControl {
        max_requests: limit(rng, requests),
        max_bytes: limit(rng, bytes),
        ttl: limit(rng, ttl),
        empty_pool_ttl: limit(rng, empty),
        bands,
        default_band: band(rng, 0),
        negative_band: band(rng, 0),
        usage_limit: UsageLimit::Static(1.0),
        detector: Arc::new(Unused),
        detector_name: "unused".to_owned(),
        eviction: false,
        eviction_grace: Duration::ZERO,
    }
}

struct World {
    rng: fastrand::Rng,
    control: FlowControl,
    queues: Queues,
    model: Model,
    now: Instant,
    next: u32,
    empty_pool: bool,
    /// On average, the pool becomes empty or is filled again once in this number of ticks.
    flaps: u8,
    left: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let control = control(&mut rng);
        Self {
            control,
            flaps: [20, 2, 1][rng.usize(..3)],
            rng,
            queues: Queues::default(),
            model: Model::default(),
            now: Instant::default().after(Duration::from_secs(1_000)),
            next: 0,
            empty_pool: false,
            left: 0,
        }
    }

    fn arrive(&mut self) {
        let rng = &mut self.rng;
        let flow = ["a", "b", "c", "default-flow", "", "é"][rng.usize(..6)];
        let wish = [0, 1, 50, 700, u64::MAX][rng.usize(..5)];
        let arrival = Arrival {
            id: ExchangeId(self.next),
            priority: [7, 3, 0, 0, -2, 11][rng.usize(..6)],
            fairness_id: flow,
            bytes: rng.u64(..400),
            received: self.now.before(Duration::from_millis(rng.u64(..50))),
            slo_ttft: limit(rng, Duration::from_millis(wish)),
            ttl: limit(rng, Duration::from_millis(wish)),
        };
        self.next += 1;
        let found = self.queues.enqueue(&self.control, &arrival, self.now);
        let spec = self.model.spec(&self.control, arrival.priority);
        let expected = self.model.room(&self.control, &spec, arrival.bytes);
        assert_eq!(found, expected, "{arrival:?}");
        if found.is_ok() {
            let waiting = Waiting::of(&arrival, &spec, &self.control, self.now);
            self.model.waiting.push(waiting);
        }
    }

    fn leave(&mut self, gone: Departure) -> Waiting {
        self.left += 1;
        let place = self.model.waiting.iter();
        let mut place = place.enumerate().filter(|(_, one)| one.id == gone.id);
        let (place, _) = place.next().expect("each leaves once, and only what came");
        let waiting = self.model.waiting.remove(place);
        assert_eq!(
            (gone.priority, gone.bytes),
            (waiting.priority, waiting.bytes)
        );
        assert_eq!(gone.waited, self.now.since(waiting.since));
        waiting
    }

    fn cancel(&mut self) {
        let id = ExchangeId(self.rng.u32(..self.next + 1));
        let expected = self.model.waiting.iter().any(|one| one.id == id);
        assert_eq!(self.queues.contains(id), expected);
        if let Some(gone) = self.queues.remove(id, self.now) {
            assert_eq!(gone.id, id);
            self.leave(gone);
        } else {
            assert!(!expected);
        }
    }

    fn dispatch(&mut self) {
        let saturation = [0.0, 0.5, 1.0, 2.0][self.rng.usize(..4)];
        for _ in 0..self.rng.usize(..6) {
            let found = self.queues.dispatch(&self.control, saturation, self.now);
            let highest = self.model.waiting.iter().map(|one| one.priority).max();
            let open = highest.filter(|_| saturation < 1.0);
            assert_eq!(found.map(|gone| gone.priority), open, "strict priority");
            let Some(gone) = found else {
                return;
            };
            let spec = self.model.spec(&self.control, gone.priority);
            self.model.check_order(&spec, gone.id);
            let waiting = self.leave(gone);
            self.model.goes(&spec, &waiting);
        }
    }

    fn tick(&mut self) {
        // Now and then so much that idle flows and bands are forgotten.
        let passed = if self.rng.u8(..100) == 0 { 400_000 } else { 50 };
        self.pass(Duration::from_millis(passed));
        self.empty_pool ^= self.rng.u8(..self.flaps) == 0;
        let empty_pool = self.empty_pool;
        while let Some((gone, dropped)) = self.queues.expired(&self.control, empty_pool, self.now) {
            let waiting = self.leave(gone);
            assert_eq!(self.model.due(&self.control, &waiting), Some(dropped));
        }
        let waiting = self.model.waiting.iter();
        let mut due = waiting.filter_map(|one| self.model.due(&self.control, one));
        assert_eq!(due.next(), None, "none waits beyond its time");
        drop(due);
        self.queues.sweep(self.now);
        let served = (self.rng.u64(..1_000), self.rng.u64(..1_000));
        self.queues.served(0, "a", served.0, served.1, self.now);
    }

    /// Time passes, in which the pool is empty or not.
    fn pass(&mut self, time: Duration) {
        self.now = self.now.after(time);
        for one in &mut self.model.waiting {
            match self.empty_pool {
                true => one.without_endpoints += time,
                false => one.with_endpoints += time,
            }
        }
    }

    fn step(&mut self) {
        match self.rng.u8(..100) {
            0..40 => self.arrive(),
            40..50 => self.cancel(),
            50..75 => self.dispatch(),
            75..99 => self.tick(),
            _ => {
                self.control = control(&mut self.rng);
                self.queues.reinstall(&self.control);
                self.model.reinstall();
            }
        }
        let passed = Duration::from_micros(self.rng.u64(..500));
        self.pass(passed);
        assert_eq!(self.queues.len(), self.model.waiting.len());
        let oldest = self.queues.bands();
        for status in oldest {
            let own = || {
                self.model
                    .waiting
                    .iter()
                    .filter(|one| one.priority == status.priority)
            };
            assert_eq!(status.requests, own().count() as u64);
            assert_eq!(status.bytes, own().map(|one| one.bytes).sum::<u64>());
            assert_eq!(status.oldest, own().map(|one| one.since).min());
        }
    }

    fn end(mut self) {
        while let Some(gone) = self.queues.release(self.now) {
            self.leave(gone);
        }
        assert!(self.queues.is_empty() && self.model.waiting.is_empty());
        for band in self.queues.bands() {
            assert_eq!((band.requests, band.bytes, band.oldest), (0, 0, None));
        }
        assert!(self.left > 0);
    }
}

#[test]
fn what_waits_leaves_once_in_its_order_and_in_time() {
    let seeds = std::env::var("SEEDS").ok();
    let seeds: u64 = seeds.and_then(|seeds| seeds.parse().ok()).unwrap_or(100);
    for seed in 0..seeds {
        let held = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            for _ in 0..1_500 {
                world.step();
            }
            world.end();
        });
        assert!(held.is_ok(), "seed {seed}");
    }
}
