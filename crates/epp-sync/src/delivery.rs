//! What the workers have found about whether Envoy delivers bodies before it routes: a body that any of them
//! has seen outvotes those that were withheld, until the next configuration.

use super::pack::{Reader, Writer};
use super::Store;

/// One worker's view of what all have found.
#[derive(Debug, Default)]
pub struct SharedFinding {
    /// The shared value's version when this worker last looked.
    version: Option<u32>,
    /// What was found since this worker first looked: what stood there before may be about another
    /// configuration of the listener.
    found: Option<bool>,
}

impl SharedFinding {
    /// Publishes what this worker has found under this key, if it is news. Returns what the others have
    /// found, if they have; what is foreign is counted.
    pub fn exchange(
        &mut self,
        base: &str,
        own: Option<bool>,
        foreign: &mut u64,
        host: &mut dyn Store,
    ) -> Option<bool> {
        let key = format!("{base}/delivery");
        let shared = host.get(&key);
        let version = shared.as_ref().map_or(0, |(_, version)| *version);
        let before = self.version.replace(version);
        if before.is_some_and(|before| before != version) {
            self.found = shared.and_then(|(value, _)| unpack(&value));
            *foreign += u64::from(self.found.is_none());
        }
        match (own, self.found) {
            (Some(true), Some(false) | None) | (Some(false), None) => {
                // By its version: of two that write at once, the one that has seen a body writes again at
                // its next tick.
                host.set(&key, &pack(own == Some(true)), Some(version));
            }
            _ => {}
        }
        self.found
    }
}

fn pack(seen: bool) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.u32(u32::from(seen));
    writer.seal()
}

fn unpack(value: &[u8]) -> Option<bool> {
    match Reader::open(value)?.u32()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::InProcess;
    use epp_core::picker::delivery::Delivery;

    /// A worker.
    #[derive(Debug, Default)]
    struct Worker {
        delivery: Delivery,
        shared: SharedFinding,
    }

    impl Worker {
        fn exchange(&mut self, foreign: &mut u64, host: &mut InProcess) {
            let own = self.delivery.finding();
            if let Some(found) = self.shared.exchange("base", own, foreign, host) {
                self.delivery.adopt(found, 10);
            }
        }

        /// Has had three bodies withheld.
        fn withheld(&mut self) {
            (1..=3).for_each(|now| self.delivery.withheld(now));
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
        let mut foreign = 0;
        for worker in order {
            worker.exchange(&mut foreign, host);
        }
        assert_eq!(foreign, 0);
    }

    #[test]
    fn what_one_worker_finds_the_others_hear() {
        let mut host = InProcess::default();
        let (mut one, mut two) = (Worker::default(), Worker::default());
        exchange(&mut host, &mut [&mut one, &mut two]);
        one.withheld();
        exchange(&mut host, &mut [&mut one, &mut two]);
        assert!(!two.reads() && !two.delivery.expects(11));
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
    fn a_worker_that_starts_late_does_not_talk_the_others_out_of_it() {
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
    fn what_was_found_before_a_reload_does_not_count() {
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
    fn a_foreign_value_is_counted_once_and_replaced() {
        let mut host = InProcess::default();
        let mut worker = Worker::default();
        exchange(&mut host, &mut [&mut worker]);
        host.set("base/delivery", &[0], None);
        let mut foreign = 0;
        for _ in 0..3 {
            worker.exchange(&mut foreign, &mut host);
        }
        assert_eq!(foreign, 1);
        assert!(worker.reads(), "a byte is not a finding");
        worker.seen();
        worker.exchange(&mut foreign, &mut host);
        assert_eq!(unpack(&host.get("base/delivery").unwrap().0), Some(true));
    }
}
