//! Whether Envoy delivers bodies before it routes.
//!
//! It does only where the plugin has `allow_on_headers_stop_iteration`, which nothing tells the
//! filter (and which Istio's WasmPlugin cannot set). Where it does not, a request that is held for
//! its body would hang.
//!
//! That a body does not show up proves nothing: its client may not have sent any. What proves it is
//! what Envoy itself has counted: bytes of a body that it has received and not shown, and that it
//! shows at once when the request is released. No client can bring that about where bodies are
//! delivered. Three such requests end the waiting, but for a probe once a minute. A body that was
//! shown to any worker while the request was held outvotes all that, until the next configuration.

use crate::worker::pack::{Reader, Writer};
use crate::worker::SharedData;

/// How long a held request goes without a byte before Envoy is asked whether it has received any,
/// and how often it is asked again. Long enough that nearly every body has begun; short, since where
/// bodies are not delivered the first requests wait for it.
pub const PROBE_NS: u64 = 300_000_000;

/// For how many requests Envoy is asked in one tick: two host calls each, a few microseconds. Only
/// requests without a byte are asked for.
pub const PROBES: usize = 64;

/// Requests whose bodies were withheld, after which none is waited for. Envoy shows the first one's
/// already; three, in case another filter holds back a body but not its headers.
const MISSES: u32 = 3;

/// How often it is tried again then.
const AGAIN_NS: u64 = 60_000_000_000;

/// How soon another request tries it where one has told nothing yet: its client may never send a
/// body. Longer than it takes to see that one was withheld.
const RETRY_NS: u64 = 1_000_000_000;

/// What is known of it.
#[derive(Debug, Default)]
pub struct Delivery {
    /// A body was shown to a request that was held.
    seen: bool,
    /// Bodies that were withheld.
    misses: u32,
    again_at: u64,
    /// The shared value's version when this VM last looked.
    version: Option<u32>,
    /// What the VMs have found, as far as they have said so since this VM first looked: what stood
    /// there before may be about another configuration of the listener.
    told: Option<bool>,
}

impl Delivery {
    /// Whether a body is worth waiting for at `now`; one that asks while the answer is no is the
    /// one that tries it again.
    pub fn expects(&mut self, now: u64) -> bool {
        if self.reads() {
            return true;
        }
        let due = now >= self.again_at || self.again_at - now > AGAIN_NS;
        if due {
            self.again_at = now + RETRY_NS;
        }
        due
    }

    /// Whether bodies are read, probes aside.
    pub fn reads(&self) -> bool {
        self.seen || self.misses < MISSES
    }

    /// A body was shown to a request that was held.
    pub fn seen(&mut self) {
        self.seen = true;
        self.misses = 0;
    }

    /// A body that Envoy had received came only, and at once, when its request was released.
    pub fn withheld(&mut self, now: u64) {
        if self.seen {
            return;
        }
        self.misses = self.misses.saturating_add(1);
        self.again_at = now + AGAIN_NS;
        if self.misses == MISSES {
            log::warn!(
                "Envoy does not deliver bodies before routing: set allow_on_headers_stop_iteration \
                 next to the plugin's name, or `readBody: never` on envoy-proxy; until then \
                 requests are routed without their prompts"
            );
        }
    }

    /// Agrees with the other workers on what was found. Counts in `foreign` a value that is not ours.
    pub fn exchange(&mut self, key: &str, now: u64, foreign: &mut u64, host: &mut dyn SharedData) {
        let shared = host.get(key);
        let version = shared.as_ref().map_or(0, |(_, version)| *version);
        let before = self.version.replace(version);
        if before.is_some_and(|before| before != version) {
            self.told = shared.and_then(|(value, _)| unpack(&value));
            *foreign += u64::from(self.told.is_none());
        }
        let found = match (self.seen, self.reads()) {
            (true, _) => Some(true),
            (_, false) => Some(false),
            _ => None,
        };
        match (found, self.told) {
            (_, Some(true)) => self.seen(),
            (Some(true), _) | (Some(false), None) => {
                // By its version: of two that write at once, the one that has seen a body writes
                // again at its next tick.
                host.set(key, &pack(self.seen), Some(version));
            }
            (None, Some(false)) => {
                self.misses = MISSES;
                self.again_at = now + AGAIN_NS;
            }
            (Some(false), Some(false)) | (None, None) => {}
        }
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
    use crate::worker::Local;

    /// The workers exchange what they found, in this order.
    fn exchange(host: &mut Local, order: &mut [&mut Delivery]) {
        let mut foreign = 0;
        for worker in order {
            worker.exchange("key", 10, &mut foreign, host);
        }
        assert_eq!(foreign, 0);
    }

    /// One that has had three bodies withheld.
    fn withheld(delivery: &mut Delivery) {
        (1..=MISSES).for_each(|now| delivery.withheld(u64::from(now)));
    }

    #[test]
    fn three_withheld_bodies_end_the_waiting_but_for_a_probe_a_minute() {
        let mut delivery = Delivery::default();
        for now in 0..3 {
            assert!(delivery.expects(now));
            delivery.withheld(now);
        }
        assert!(!delivery.expects(10));
        assert!(!delivery.reads());
        assert!(delivery.expects(2 + AGAIN_NS));
        assert!(!delivery.expects(3 + AGAIN_NS), "one probe at a time");
        delivery.withheld(4 + AGAIN_NS);
        assert!(!delivery.expects(4 + AGAIN_NS + RETRY_NS));
        delivery.seen();
        assert!(delivery.expects(5 + AGAIN_NS));
    }

    #[test]
    fn a_probe_that_sends_nothing_does_not_use_up_the_minute() {
        let mut delivery = Delivery::default();
        withheld(&mut delivery);
        let now = 3 + AGAIN_NS;
        assert!(delivery.expects(now), "a client that never sends a body");
        assert!(delivery.expects(now + RETRY_NS));
    }

    #[test]
    fn what_one_worker_finds_the_others_hear() {
        let mut host = Local::default();
        let (mut one, mut two) = (Delivery::default(), Delivery::default());
        exchange(&mut host, &mut [&mut one, &mut two]);
        withheld(&mut one);
        exchange(&mut host, &mut [&mut one, &mut two]);
        assert!(!two.reads() && !two.expects(11));
        two.seen();
        exchange(&mut host, &mut [&mut two, &mut one]);
        assert!(one.reads());
    }

    /// Every order of two ticks in which one worker sees a body and two have theirs withheld.
    #[test]
    fn a_worker_that_has_seen_a_body_outvotes_the_others_in_any_order() {
        for order in 0..(6 * 6 * 8) {
            let mut host = Local::default();
            let mut workers = [(); 3].map(|()| Delivery::default());
            let mut tick = |workers: &mut [Delivery; 3], order: usize| {
                let orders = [
                    [0, 1, 2],
                    [0, 2, 1],
                    [1, 0, 2],
                    [1, 2, 0],
                    [2, 0, 1],
                    [2, 1, 0],
                ];
                for worker in orders[order] {
                    workers[worker].exchange("key", 10, &mut 0, &mut host);
                }
            };
            tick(&mut workers, 0);
            let when = order / 36;
            for round in 0..2 {
                for (worker, delivery) in workers.iter_mut().enumerate() {
                    if when >> worker & 1 == round {
                        match worker {
                            0 => delivery.seen(),
                            _ => withheld(delivery),
                        }
                    }
                }
                tick(&mut workers, [order % 6, order / 6 % 6][round]);
            }
            (0..3).for_each(|_| tick(&mut workers, 0));
            assert!(workers.iter().all(Delivery::reads), "{order}: {workers:?}");
            withheld(&mut workers[2]);
            (0..3).for_each(|_| tick(&mut workers, 0));
            assert!(workers.iter().all(Delivery::reads), "{order}: {workers:?}");
        }
    }

    /// The worker that restarted takes what the others said before for another configuration's.
    #[test]
    fn a_worker_that_starts_late_does_not_talk_the_others_out_of_it() {
        let mut host = Local::default();
        let (mut old, mut new) = (Delivery::default(), Delivery::default());
        exchange(&mut host, &mut [&mut old]);
        old.seen();
        exchange(&mut host, &mut [&mut old, &mut new]);
        withheld(&mut new);
        for _ in 0..3 {
            exchange(&mut host, &mut [&mut new, &mut old]);
        }
        assert!(old.reads() && new.reads());
    }

    #[test]
    fn what_was_found_before_a_reload_does_not_count() {
        let mut host = Local::default();
        let mut old = Delivery::default();
        withheld(&mut old);
        exchange(&mut host, &mut [&mut old]);
        let mut new = Delivery::default();
        exchange(&mut host, &mut [&mut new]);
        exchange(&mut host, &mut [&mut new]);
        assert!(new.reads());
    }

    #[test]
    fn a_foreign_value_is_counted_once_and_replaced() {
        let mut host = Local::default();
        let mut delivery = Delivery::default();
        exchange(&mut host, &mut [&mut delivery]);
        host.set("key", &[0], None);
        let mut foreign = 0;
        for _ in 0..3 {
            delivery.exchange("key", 10, &mut foreign, &mut host);
        }
        assert_eq!(foreign, 1);
        assert!(delivery.reads(), "a byte is not a finding");
        delivery.seen();
        delivery.exchange("key", 10, &mut foreign, &mut host);
        assert_eq!(unpack(&host.get("key").unwrap().0), Some(true));
    }

    #[test]
    fn once_a_body_came_nothing_ends_the_waiting() {
        let mut delivery = Delivery::default();
        delivery.seen();
        withheld(&mut delivery);
        assert!(delivery.reads());
    }
}
