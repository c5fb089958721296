//! Whether Envoy delivers bodies before it routes.
//!
//! It does only where the plugin has `allow_on_headers_stop_iteration`, which nothing tells the
//! filter (and which Istio's WasmPlugin cannot set). A request that is held and whose body never
//! shows up would hang: the first three are released after a moment, then bodies are no longer
//! waited for but once a minute. The workers of one Envoy tell each other what they found.

use crate::worker::SharedData;

/// How long a request waits for the first sign of a body, while none was ever seen.
const PROBE_NS: u64 = 300_000_000;

/// Requests in a row without a body, after which the answer is taken to be no.
const MISSES: u32 = 3;

/// How often it is tried again then.
const AGAIN_NS: u64 = 60_000_000_000;

/// What is known of it.
#[derive(Debug, Default)]
pub struct Delivery {
    /// A body has come: from then on slow clients are given their time.
    seen: bool,
    misses: u32,
    again_at: u64,
    /// What this VM has told or heard last.
    told: Option<bool>,
    /// Version of the shared value when this VM first looked: what was found before may be about
    /// another configuration of the listener.
    before: Option<u32>,
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
            self.again_at = now + AGAIN_NS;
        }
        due
    }

    /// Whether bodies are read, probes aside.
    pub fn reads(&self) -> bool {
        self.seen || self.misses < MISSES
    }

    /// A body has come.
    pub fn seen(&mut self) {
        self.seen = true;
        self.misses = 0;
    }

    /// Whether a request without any sign of a body has waited long enough since `then`.
    pub fn overdue(&self, then: u64, now: u64) -> bool {
        !self.seen && now.abs_diff(then) >= PROBE_NS
    }

    /// Tells the other workers what was found, or hears it from them.
    pub fn exchange(&mut self, key: &str, now: u64, host: &mut dyn SharedData) {
        if self.seen && self.told.is_none_or(|told| told) {
            // Bodies come, and nobody was told otherwise by us.
            return;
        }
        let shared = host.get(key);
        let version = shared.as_ref().map_or(0, |(_, version)| *version);
        let before = *self.before.get_or_insert(version);
        let found = match (self.seen, self.misses >= MISSES) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        };
        if found.is_some() && found != self.told {
            self.told = found;
            host.set(key, &[u8::from(self.seen)], None);
            // Ours is not news to us.
            self.before = host.get(key).map(|(_, version)| version);
            return;
        }
        let Some((value, _)) = shared.filter(|_| version != before) else {
            return;
        };
        self.before = Some(version);
        match value.as_slice() {
            [0] if !self.seen => {
                self.misses = MISSES;
                self.again_at = now + AGAIN_NS;
                self.told = Some(false);
            }
            [1] => {
                self.seen();
                self.told = Some(true);
            }
            _ => {}
        }
    }

    /// A request waited in vain.
    pub fn missed(&mut self, now: u64) {
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_misses_end_the_waiting_but_for_a_probe_a_minute() {
        let mut delivery = Delivery::default();
        for now in 0..3 {
            assert!(delivery.expects(now));
            assert!(delivery.overdue(now, now + PROBE_NS));
            delivery.missed(now);
        }
        assert!(!delivery.expects(10));
        assert!(!delivery.reads());
        assert!(delivery.expects(3 + AGAIN_NS));
        assert!(!delivery.expects(4 + AGAIN_NS), "one probe at a time");
        delivery.seen();
        assert!(delivery.expects(5 + AGAIN_NS));
    }

    #[test]
    fn what_one_worker_finds_the_others_hear() {
        let mut host = crate::worker::Local::default();
        let mut workers = [Delivery::default(), Delivery::default()];
        let mut tick = |workers: &mut [Delivery; 2], now| {
            for worker in workers {
                worker.exchange("key", now, &mut host);
            }
        };
        tick(&mut workers, 0);
        (1..=3).for_each(|now| workers[0].missed(now));
        tick(&mut workers, 10);
        assert!(!workers[1].reads() && !workers[1].expects(11));
        workers[1].seen();
        tick(&mut workers, 20);
        tick(&mut workers, 30);
        assert!(workers[0].reads());
    }

    #[test]
    fn what_was_found_before_a_reload_does_not_count() {
        let mut host = crate::worker::Local::default();
        let mut old = Delivery::default();
        (1..=3).for_each(|now| old.missed(now));
        old.exchange("key", 4, &mut host);
        let mut new = Delivery::default();
        new.exchange("key", 5, &mut host);
        new.exchange("key", 6, &mut host);
        assert!(new.reads());
    }

    #[test]
    fn once_a_body_came_slow_clients_are_given_their_time() {
        let mut delivery = Delivery::default();
        delivery.seen();
        assert!(!delivery.overdue(0, 10 * PROBE_NS));
    }
}
