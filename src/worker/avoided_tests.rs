//! Several workers over one shared memory.

use super::*;
use crate::datalayer::avoid::Settings;
use crate::scheduling::Metrics;
use crate::testing;
use crate::worker::Local;

struct Worker {
    avoided: Avoided,
    pool: Pool,
    foreign: u64,
}

impl Worker {
    fn new(seed: u64) -> Self {
        let settings = Settings {
            first: 1_000,
            most: 60_000,
        };
        let mut avoider = Avoider::new(settings, fastrand::Rng::with_seed(seed));
        (0..4).for_each(|slot| avoider.join(Slot(slot), u64::from(slot) + 1));
        Self {
            avoided: Avoided::new("avoided".to_owned(), avoider),
            pool: testing::pool((0..4).map(|_| Metrics::default())),
            foreign: 0,
        }
    }

    fn tick(&mut self, host: &mut Local, now: u64) {
        let (pool, foreign) = (&mut self.pool, &mut self.foreign);
        self.avoided.exchange(host, foreign, pool, now);
    }

    fn fail(&mut self, slot: u32, now: u64) {
        for _ in 0..4 {
            let reason = Some(Reason::Errors);
            self.avoided.avoider.note(Slot(slot), 0, reason, true, now);
        }
    }

    fn avoids(&self) -> Vec<u32> {
        let avoided = self.pool.iter().filter(|(_, endpoint)| endpoint.avoided);
        avoided.map(|(slot, _)| slot.0).collect()
    }
}

fn tick(workers: &mut [Worker], host: &mut Local, now: u64) {
    workers.iter_mut().for_each(|worker| worker.tick(host, now));
}

#[test]
fn what_one_finds_all_avoid_and_one_tries() {
    let mut host = Local::default();
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
    let avoider = &mut workers[open[0]].avoided.avoider;
    assert!(avoider.sent(Slot(1), 7));
    avoider.note(Slot(1), 7, None, true, now);
    tick(&mut workers, &mut host, now + 100);
    tick(&mut workers, &mut host, now + 150);
    assert!(workers.iter().all(|worker| worker.avoids().is_empty()));
}

#[test]
fn a_worker_that_dies_leaves_the_trial_to_another() {
    let mut host = Local::default();
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
fn who_has_nothing_to_send_there_leaves_the_trial_to_another() {
    let mut host = Local::default();
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
fn a_worker_that_starts_anew_hears_of_it() {
    let mut host = Local::default();
    let mut old = Worker::new(1);
    old.fail(2, 1_000);
    old.tick(&mut host, 1_000);
    let mut new = Worker::new(2);
    new.tick(&mut host, 1_050);
    assert_eq!(new.avoids(), [2]);
}

#[test]
fn two_that_find_something_at_once_both_are_heard() {
    let mut host = Local::default();
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
fn a_torn_value_is_counted_and_replaced() {
    let mut host = Local::default();
    let mut workers: Vec<Worker> = (1..=2).map(Worker::new).collect();
    workers[0].fail(0, 1_000);
    tick(&mut workers, &mut host, 1_000);
    host.tear("avoided");
    let mut fresh = Worker::new(9);
    fresh.tick(&mut host, 1_050);
    assert_eq!((fresh.foreign, fresh.avoids()), (1, vec![]));
    workers[0].fail(3, 1_100);
    tick(&mut workers, &mut host, 1_100);
    fresh.tick(&mut host, 1_150);
    assert_eq!(fresh.avoids(), [0, 3]);
}

#[test]
fn another_endpoint_in_the_same_slot_is_not_meant() {
    let mut host = Local::default();
    let mut workers: Vec<Worker> = (1..=2).map(Worker::new).collect();
    workers[0].fail(0, 1_000);
    workers[0].tick(&mut host, 1_000);
    workers[1].avoided.avoider.leave(Slot(0));
    workers[1].avoided.avoider.join(Slot(0), 77);
    workers[1].tick(&mut host, 1_050);
    assert!(workers[1].avoids().is_empty());
}
