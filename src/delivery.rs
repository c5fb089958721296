//! Detection of whether Envoy delivers bodies before it routes.
//!
//! It does only where the plugin has `allow_on_headers_stop_iteration`, which the filter
//! cannot find out otherwise (and which Istio's WasmPlugin cannot set). Where it does not, a request that is held for
//! its body would hang.
//!
//! That a body does not show up proves nothing: its client may not have sent any. What proves it is
//! what Envoy itself has counted: bytes of a body that it has received and not shown, and that it
//! shows at once when the request is released. No client can bring that about where bodies are
//! delivered. Three such requests end the waiting, but for a probe once a minute. A body that was
//! shown to any worker while the request was held outvotes all that, until the next configuration.

use std::collections::VecDeque;
use std::time::Duration;

use epp_core::time::Timestamp;

/// The time without a byte after which the filter asks Envoy whether it has received any of a held request's
/// body, and the interval of repetitions. Long enough that nearly every body has begun; short, since where
/// bodies are not delivered the first requests wait for it.
const FIRST_BYTE: Duration = Duration::from_millis(300);

/// The most requests for which Envoy is asked in one tick: three host calls each, a few microseconds. Only
/// requests without a byte count.
const MAX_PROBES_PER_TICK: usize = 64;

/// Requests whose bodies were withheld, after which none is waited for. Envoy shows the first one's
/// already; three, in case another filter holds back a body but not its headers.
const MISSES_TO_STOP: u32 = 3;

/// The interval at which it is tried again then.
const REPEAT_PROBE: Duration = Duration::from_secs(60);

/// The time after which another request tries it while one has no result yet, because its client may never send a
/// body. Longer than it takes to detect that one was withheld.
const RETRY_PROBE: Duration = Duration::from_secs(1);

/// Held requests of which no byte was shown yet, each with the time when it was looked at last, oldest
/// first. Those that were released stay until they come up.
#[derive(Debug, Default)]
pub struct FirstByteProbes(VecDeque<(Timestamp, u32)>);

impl FirstByteProbes {
    /// A request is held from `now` on.
    pub fn add(&mut self, id: u32, now: Timestamp) {
        self.0.push_back((now, id));
    }

    /// Returns up to [`MAX_PROBES_PER_TICK`] requests that were not looked at for [`FIRST_BYTE`], which counts as a look.
    /// `lacks_first_byte` says whether one is still held and without a byte.
    pub fn take_due(&mut self, now: Timestamp, lacks_first_byte: impl Fn(u32) -> bool) -> Vec<u32> {
        let mut found = Vec::new();
        while found.len() < MAX_PROBES_PER_TICK {
            // After a clock was set back, due entries must not wait forever.
            let is_due = |at: Timestamp| at.after(FIRST_BYTE) <= now || at > now;
            let due = self.0.front().filter(|(at, _)| is_due(*at));
            let Some((_, id)) = due.copied() else {
                break;
            };
            self.0.pop_front();
            if lacks_first_byte(id) {
                self.0.push_back((now, id));
                found.push(id);
            }
        }
        found
    }
}

/// The finding so far.
#[derive(Debug)]
pub enum Delivery {
    /// A body was shown to a request that was held.
    Seen,
    /// None was.
    Unseen {
        /// Bodies that were withheld.
        misses: u32,
        /// When a request tries it again; `None`: at once.
        again_at: Option<Timestamp>,
    },
}

impl Default for Delivery {
    fn default() -> Self {
        Self::Unseen {
            misses: 0,
            again_at: None,
        }
    }
}

impl Delivery {
    /// Returns whether a body is worth waiting for at `now`; the first one while bodies are not delivered is the
    /// one that tries it again.
    pub fn expects(&mut self, now: Timestamp) -> bool {
        let again_at = match self {
            Self::Unseen { misses, again_at } if *misses >= MISSES_TO_STOP => again_at,
            Self::Unseen { .. } | Self::Seen => return true,
        };
        // A time that is later than any wait was set before the clock was set back.
        let waits = |at: Timestamp| at > now && at.is_near(now, REPEAT_PROBE);
        let due = !again_at.is_some_and(waits);
        if due {
            *again_at = Some(now.after(RETRY_PROBE));
        }
        due
    }

    /// Returns whether bodies are read, probes aside.
    pub fn reads(&self) -> bool {
        self.finding() != Some(false)
    }

    /// A body was shown to a request that was held.
    pub fn seen(&mut self) {
        *self = Self::Seen;
    }

    /// A body that Envoy had received came only, and at once, when its request was released.
    pub fn withheld(&mut self, now: Timestamp) {
        let Self::Unseen { misses, again_at } = self else {
            return;
        };
        *misses = misses.saturating_add(1);
        *again_at = Some(now.after(REPEAT_PROBE));
        if *misses == MISSES_TO_STOP {
            log::warn!(
                "Envoy does not deliver bodies before routing: set allow_on_headers_stop_iteration \
                 next to the plugin's name, or `readBody: never` on envoy-proxy; until then \
                 requests are routed without their prompts"
            );
        }
    }

    /// Returns what was found: whether bodies are delivered, if that is known.
    pub fn finding(&self) -> Option<bool> {
        match self {
            Self::Seen => Some(true),
            Self::Unseen { misses, .. } => (*misses >= MISSES_TO_STOP).then_some(false),
        }
    }

    /// Takes over what another worker found. A body that any of them has seen outvotes the rest.
    pub fn adopt(&mut self, found: bool, now: Timestamp) {
        if found {
            self.seen();
        } else if self.finding().is_none() {
            *self = Self::Unseen {
                misses: MISSES_TO_STOP,
                again_at: Some(now.after(REPEAT_PROBE)),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanos: u64) -> Timestamp {
        Timestamp::from_nanos(nanos)
    }

    /// One that has had three bodies withheld.
    fn withheld(delivery: &mut Delivery) {
        (1..=MISSES_TO_STOP).for_each(|now| delivery.withheld(at(u64::from(now))));
    }

    #[test]
    fn three_withheld_bodies_end_the_waiting_but_for_a_probe_a_minute() {
        let mut delivery = Delivery::default();
        for now in 0..3 {
            assert!(delivery.expects(at(now)));
            delivery.withheld(at(now));
        }
        assert!(!delivery.expects(at(10)));
        assert!(!delivery.reads());
        assert!(delivery.expects(at(2).after(REPEAT_PROBE)));
        assert!(
            !delivery.expects(at(3).after(REPEAT_PROBE)),
            "one probe at a time"
        );
        delivery.withheld(at(4).after(REPEAT_PROBE));
        assert!(!delivery.expects(at(4).after(REPEAT_PROBE).after(RETRY_PROBE)));
        delivery.seen();
        assert!(delivery.expects(at(5).after(REPEAT_PROBE)));
    }

    #[test]
    fn a_probe_that_sends_nothing_does_not_use_up_the_minute() {
        let mut delivery = Delivery::default();
        withheld(&mut delivery);
        let now = at(3).after(REPEAT_PROBE);
        assert!(delivery.expects(now), "a client that never sends a body");
        assert!(delivery.expects(now.after(RETRY_PROBE)));
    }

    #[test]
    fn requests_without_a_byte_are_probed_in_turn_and_a_bounded_number_at_a_time() {
        const BEGIN: u64 = 1_000_000_000_000;
        let first_byte = at(BEGIN).after(FIRST_BYTE);
        let mut probes = FirstByteProbes::default();
        let count = MAX_PROBES_PER_TICK as u32 + 2;
        (0..count).for_each(|id| probes.add(id, at(BEGIN)));
        let mut look = |now| probes.take_due(now, |id| id != 1);
        assert!(look(at(first_byte.as_nanos() - 1)).is_empty());
        let first: Vec<u32> = (0..=MAX_PROBES_PER_TICK as u32)
            .filter(|id| *id != 1)
            .collect();
        assert_eq!(look(first_byte), first);
        assert_eq!(look(at(first_byte.as_nanos() + 1)), [count - 1]);
        assert!(look(at(first_byte.as_nanos() + 2)).is_empty());
        assert_eq!(look(first_byte.after(FIRST_BYTE)), first);
    }

    #[test]
    fn a_request_that_is_released_at_once_leaves_no_probe() {
        let mut probes = FirstByteProbes::default();
        (0..1_000).for_each(|id| probes.add(id, at(0)));
        assert!(probes
            .take_due(at(0).after(FIRST_BYTE), |_| false)
            .is_empty());
        assert!(probes.0.is_empty());
    }

    #[test]
    fn once_a_body_came_nothing_ends_the_waiting() {
        let mut delivery = Delivery::default();
        delivery.seen();
        withheld(&mut delivery);
        assert!(delivery.reads());
    }
}
