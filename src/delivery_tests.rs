//! Workers that share whether Envoy shows bodies.

use epp_sync::delivery::SharedFinding;
use epp_sync::shared::{Shared, Traffic};
use epp_sync::{InProcess, Store};

use epp_core::time::Timestamp;

use super::delivery::Delivery;

fn at(nanos: u64) -> Timestamp {
    Timestamp::from_nanos(nanos)
}

/// A worker.
#[derive(Debug)]
struct Worker {
    delivery: Delivery,
    shared: SharedFinding,
}

impl Default for Worker {
    fn default() -> Self {
        Self {
            delivery: Delivery::default(),
            shared: SharedFinding::new("base/delivery".to_owned()),
        }
    }
}

impl Worker {
    fn exchange(&mut self, unrecognised: &mut u64, host: &mut InProcess) {
        let own = self.delivery.finding();
        let mut traffic = Traffic::default();
        let shared = &mut Shared::new(host, &mut traffic);
        if let Some(found) = self.shared.exchange(own, shared) {
            self.delivery.adopt(found, at(10));
        }
        *unrecognised += traffic.unrecognised;
    }

    /// Has had three bodies withheld.
    fn withheld(&mut self) {
        (1..=3).for_each(|now| self.delivery.withheld(at(now)));
    }

    fn seen(&mut self) {
        self.delivery.seen();
    }

    fn reads(&self) -> bool {
        self.delivery.reads()
    }
}

/// The workers exchange what they found, in this order.
fn exchange(host: &mut InProcess, order: &mut [&mut Worker]) {
    let mut unrecognised = 0;
    for worker in order {
        worker.exchange(&mut unrecognised, host);
    }
    assert_eq!(unrecognised, 0);
}

#[test]
fn a_finding_of_one_worker_reaches_the_others() {
    let mut host = InProcess::default();
    let (mut one, mut two) = (Worker::default(), Worker::default());
    exchange(&mut host, &mut [&mut one, &mut two]);
    one.withheld();
    exchange(&mut host, &mut [&mut one, &mut two]);
    assert!(!two.reads() && !two.delivery.expects(at(11)));
    two.seen();
    exchange(&mut host, &mut [&mut two, &mut one]);
    assert!(one.reads());
}

/// Every order of two ticks in which one worker sees a body and two have theirs withheld.
#[test]
fn a_worker_that_has_seen_a_body_outvotes_the_others_in_any_order() {
    for order in 0..(6 * 6 * 8) {
        let mut host = InProcess::default();
        let mut workers = [(); 3].map(|()| Worker::default());
        let mut tick = |workers: &mut [Worker; 3], order: usize| {
            let orders = [
                [0, 1, 2],
                [0, 2, 1],
                [1, 0, 2],
                [1, 2, 0],
                [2, 0, 1],
                [2, 1, 0],
            ];
            for worker in orders[order] {
                workers[worker].exchange(&mut 0, &mut host);
            }
        };
        tick(&mut workers, 0);
        let when = order / 36;
        for round in 0..2 {
            for (number, worker) in workers.iter_mut().enumerate() {
                if when >> number & 1 == round {
                    match number {
                        0 => worker.seen(),
                        _ => worker.withheld(),
                    }
                }
            }
            tick(&mut workers, [order % 6, order / 6 % 6][round]);
        }
        (0..3).for_each(|_| tick(&mut workers, 0));
        assert!(workers.iter().all(Worker::reads), "{order}: {workers:?}");
        workers[2].withheld();
        (0..3).for_each(|_| tick(&mut workers, 0));
        assert!(workers.iter().all(Worker::reads), "{order}: {workers:?}");
    }
}

/// The worker that restarted takes what the others said before for another configuration's.
#[test]
fn a_worker_that_starts_late_does_not_change_the_finding() {
    let mut host = InProcess::default();
    let (mut old, mut new) = (Worker::default(), Worker::default());
    exchange(&mut host, &mut [&mut old]);
    old.seen();
    exchange(&mut host, &mut [&mut old, &mut new]);
    new.withheld();
    for _ in 0..3 {
        exchange(&mut host, &mut [&mut new, &mut old]);
    }
    assert!(old.reads() && new.reads());
}

#[test]
fn findings_before_a_reload_do_not_count() {
    let mut host = InProcess::default();
    let mut old = Worker::default();
    old.withheld();
    exchange(&mut host, &mut [&mut old]);
    let mut new = Worker::default();
    exchange(&mut host, &mut [&mut new]);
    exchange(&mut host, &mut [&mut new]);
    assert!(new.reads());
}

#[test]
fn an_unrecognised_value_is_counted_once_and_replaced() {
    let mut host = InProcess::default();
    let mut worker = Worker::default();
    exchange(&mut host, &mut [&mut worker]);
    host.set("base/delivery", &[0], None);
    let mut unrecognised = 0;
    for _ in 0..3 {
        worker.exchange(&mut unrecognised, &mut host);
    }
    assert_eq!(unrecognised, 1);
    assert!(worker.reads(), "a byte is not a finding");
    worker.seen();
    worker.exchange(&mut unrecognised, &mut host);
    exchange(&mut host, &mut [&mut worker]);
    let value = host.get("base/delivery").unwrap().0;
    assert!(value.len() > 1, "it is ours again");
}
