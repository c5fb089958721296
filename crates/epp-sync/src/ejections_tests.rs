//! Several workers over one shared memory.

use std::time::Duration;

use super::*;
use crate::shared::Traffic;
use crate::InProcess;
use epp_core::endpoints::outlier::{Failure, Outcome, OutlierSettings, Reason};
use epp_core::scheduling::{Endpoint, Freshness, Health};

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

struct Worker {
    ejections: Ejections,
    detector: OutlierDetector,
    pool: Pool,
    traffic: Traffic,
}

/// A pool of four fresh endpoints.
fn pool() -> Pool {
    let mut pool = Pool::default();
    for slot in (0..4).map(Slot) {
        let endpoint = Endpoint {
            health: Health::Healthy,
            freshness: Freshness::Fresh,
            ..Endpoint::default()
        };
        pool.set(slot, endpoint);
    }
    pool
}

impl Worker {
    fn new(seed: u64) -> Self {
        let settings = OutlierSettings {
            first: Duration::from_secs(1),
            max: Duration::from_secs(60),
        };
        let mut detector = OutlierDetector::new(Some(settings), fastrand::Rng::with_seed(seed));
        (0..4).for_each(|slot| detector.add_endpoint(Slot(slot), u64::from(slot) + 1));
        Self {
            ejections: Ejections::new("ejections".to_owned()),
            detector,
            pool: pool(),
            traffic: Traffic::default(),
        }
    }

    fn tick(&mut self, host: &mut InProcess, now: u64) {
        let shared = &mut Shared::new(host, &mut self.traffic);
        self.ejections
            .exchange(&mut self.detector, &mut self.pool, shared, at(now));
    }

    fn fail(&mut self, slot: u32, now: u64) {
        for _ in 0..4 {
            self.note(slot, 0, true, now);
        }
    }

    /// A request to an endpoint fails, or does not.
    fn note(&mut self, slot: u32, request: u32, fails: bool, now: u64) {
        let failure = Failure {
            reason: Reason::Errors,
            certain: false,
        };
        let outcome = Outcome {
            request,
            served: true,
            failure: fails.then_some(failure),
            ..Outcome::default()
        };
        let detector = &mut self.detector;
        detector.record_outcome(Slot(slot), &outcome, Freshness::Fresh, at(now));
    }

    fn avoids(&self) -> Vec<u32> {
        let avoided = self.pool.iter().filter(|(_, endpoint)| endpoint.ejected);
        avoided.map(|(slot, _)| slot.0).collect()
    }
}

fn tick(workers: &mut [Worker], host: &mut InProcess, now: u64) {
    workers.iter_mut().for_each(|worker| worker.tick(host, now));
}

#[test]
fn all_workers_avoid_an_endpoint_that_one_ejected_and_one_probes_it() {
    let mut host = InProcess::default();
    let mut workers: Vec<Worker> = (1..=4).map(Worker::new).collect();
    workers[2].fail(1, 1_000);
    tick(&mut workers, &mut host, 1_000);
    tick(&mut workers, &mut host, 1_050);
    assert!(workers.iter().all(|worker| worker.avoids() == [1]));
    let mut now = 1_050;
    while workers.iter().all(|worker| worker.avoids() == [1]) {
        now += 50;
        tick(&mut workers, &mut host, now);
        assert!(now < 2_500);
    }
    tick(&mut workers, &mut host, now + 50);
    let open: Vec<usize> = (0..4)
        .filter(|number| workers[*number].avoids().is_empty())
        .collect();
    assert_eq!(open.len(), 1, "one tries");
    let worker = &mut workers[open[0]];
    assert!(worker.detector.start_probe(Slot(1), 7, at(now)));
    worker.note(1, 7, false, now);
    tick(&mut workers, &mut host, now + 100);
    tick(&mut workers, &mut host, now + 150);
    assert!(workers.iter().all(|worker| worker.avoids().is_empty()));
}

#[test]
fn a_worker_that_dies_leaves_the_trial_to_another() {
    let mut host = InProcess::default();
    let mut workers: Vec<Worker> = (1..=3).map(Worker::new).collect();
    workers[0].fail(1, 1_000);
    let mut now = 1_000;
    while !workers.iter().any(|worker| worker.avoids().is_empty()) || now < 1_100 {
        tick(&mut workers, &mut host, now);
        now += 50;
    }
    let open = workers.iter().position(|worker| worker.avoids().is_empty());
    workers.remove(open.unwrap());
    tick(&mut workers, &mut host, now);
    assert!(workers.iter().all(|worker| worker.avoids() == [1]));
    while workers.iter().all(|worker| worker.avoids() == [1]) {
        now += 50;
        tick(&mut workers, &mut host, now);
        assert!(now < 10_000);
    }
}

#[test]
fn a_worker_without_requests_leaves_the_probe_to_another() {
    let mut host = InProcess::default();
    let mut workers: Vec<Worker> = (1..=3).map(Worker::new).collect();
    workers[0].fail(1, 1_000);
    let mut open = [false; 3];
    for now in (1_000..120_000).step_by(50) {
        tick(&mut workers, &mut host, now);
        for (worker, open) in workers.iter().zip(&mut open) {
            *open |= now > 2_000 && worker.avoids().is_empty();
        }
        let at_once = workers.iter().filter(|worker| worker.avoids().is_empty());
        assert!(now <= 1_050 || at_once.count() <= 1);
    }
    assert!(open.iter().filter(|open| **open).count() > 1, "{open:?}");
}

#[test]
fn a_worker_that_starts_later_reads_the_ejection() {
    let mut host = InProcess::default();
    let mut old = Worker::new(1);
    old.fail(2, 1_000);
    old.tick(&mut host, 1_000);
    let mut new = Worker::new(2);
    new.tick(&mut host, 1_050);
    assert_eq!(new.avoids(), [2]);
}

#[test]
fn two_that_find_something_at_once_both_are_heard() {
    let mut host = InProcess::default();
    let mut workers: Vec<Worker> = (1..=3).map(Worker::new).collect();
    workers[0].fail(0, 1_000);
    workers[1].fail(3, 1_000);
    for now in [1_000, 1_050, 1_100, 1_150] {
        tick(&mut workers, &mut host, now);
    }
    for worker in &workers {
        assert_eq!(worker.avoids(), [0, 3]);
    }
}

#[test]
fn a_corrupt_value_is_counted_and_replaced() {
    let mut host = InProcess::default();
    let mut workers: Vec<Worker> = (1..=2).map(Worker::new).collect();
    workers[0].fail(0, 1_000);
    tick(&mut workers, &mut host, 1_000);
    host.corrupt("ejections");
    let mut fresh = Worker::new(9);
    fresh.tick(&mut host, 1_050);
    assert_eq!((fresh.traffic.unrecognised, fresh.avoids()), (1, vec![]));
    workers[0].fail(3, 1_100);
    tick(&mut workers, &mut host, 1_100);
    fresh.tick(&mut host, 1_150);
    assert_eq!(fresh.avoids(), [0, 3]);
}

#[test]
fn another_endpoint_in_the_same_slot_is_not_meant() {
    let mut host = InProcess::default();
    let mut workers: Vec<Worker> = (1..=2).map(Worker::new).collect();
    workers[0].fail(0, 1_000);
    workers[0].tick(&mut host, 1_000);
    workers[1].detector.remove_endpoint(Slot(0));
    workers[1].detector.add_endpoint(Slot(0), 77);
    workers[1].tick(&mut host, 1_050);
    assert!(workers[1].avoids().is_empty());
}

/// A failure that all of one worker's requests see and none of the others': its clients cause it.
#[test]
fn a_worker_ignores_a_finding_about_an_endpoint_that_serves_it() {
    let mut host = InProcess::default();
    let mut workers: Vec<Worker> = (1..=3).map(Worker::new).collect();
    let mut avoided = 0;
    for now in (1_000..61_000).step_by(50) {
        // Ten prompts a tick to the first worker, other ones each time; one to each of the others.
        (0..10).for_each(|_| workers[0].note(1, 0, true, now));
        for (number, worker) in workers.iter_mut().enumerate().skip(1) {
            let slot = (now / 50 + number as u64) as u32 % 4;
            if !worker.avoids().contains(&slot) {
                worker.note(slot, 0, false, now);
            }
        }
        tick(&mut workers, &mut host, now);
        let others = workers[1..].iter();
        avoided += others.filter(|worker| !worker.avoids().is_empty()).count();
    }
    // Of 2,400: before they have served a request each.
    assert!(avoided < 24, "{avoided}");
    // Once it fails everywhere it is left out everywhere.
    let mut everywhere = 0;
    for now in (61_000..62_000).step_by(50) {
        for worker in &mut workers {
            (0..4)
                .filter(|slot| *slot != 1)
                .for_each(|slot| worker.note(slot, 0, false, now));
            if worker.avoids().is_empty() {
                worker.note(1, 0, true, now);
            }
        }
        tick(&mut workers, &mut host, now);
        let all = workers.iter().all(|worker| worker.avoids() == [1]);
        everywhere += u32::from(all);
    }
    assert!(everywhere > 5, "of 20 ticks: {everywhere}");
}

#[test]
fn a_record_from_the_end_of_time_pins_no_ejection() {
    let mut host = InProcess::default();
    let mut workers: Vec<Worker> = (1..=3).map(Worker::new).collect();
    let pinned = StoredRecord {
        endpoint: 2,
        reason: Reason::Errors,
        certain: true,
        level: 1,
        until: u64::MAX,
        prober: 0,
        changed: u64::MAX,
    };
    let mut traffic = Traffic::default();
    let shared = &mut Shared::new(&mut host, &mut traffic);
    assert!(shared.put("ejections", &[(Slot(1), pinned)][..], None));
    tick(&mut workers, &mut host, 10_000);
    let reason = |worker: &Worker| worker.detector.reason(Slot(1));
    assert!(workers.iter().all(|worker| reason(worker).is_none()));
    // What the workers find themselves replaces it.
    workers[0].fail(1, 10_000);
    tick(&mut workers, &mut host, 10_050);
    tick(&mut workers, &mut host, 10_100);
    assert!(workers.iter().all(|worker| worker.avoids() == [1]));
    assert!(recovers(&mut workers, &mut host, 1, 10_100) < 13_000);
}

/// Lets the probe of an endpoint succeed, which one worker alone sends. Returns when no worker ejects the endpoint
/// any more.
fn recovers(workers: &mut [Worker], host: &mut InProcess, slot: u32, mut now: u64) -> u64 {
    let mut probes = 0;
    while workers.iter().any(|worker| worker.avoids().contains(&slot)) {
        now += 50;
        tick(workers, host, now);
        for worker in &mut *workers {
            if worker.detector.start_probe(Slot(slot), 7, at(now)) {
                probes += 1;
                worker.note(slot, 7, false, now);
            }
        }
        assert!(now < 100_000, "it stays ejected");
    }
    assert_eq!(probes, 1);
    now
}

#[test]
fn a_clock_that_is_set_back_pins_no_ejection() {
    let mut host = InProcess::default();
    let mut workers: Vec<Worker> = (1..=3).map(Worker::new).collect();
    workers[0].fail(1, 10_000_000);
    tick(&mut workers, &mut host, 10_000_000);
    tick(&mut workers, &mut host, 10_000_050);
    assert!(workers.iter().all(|worker| worker.avoids() == [1]));
    assert!(recovers(&mut workers, &mut host, 1, 50_000) < 53_000);
}
