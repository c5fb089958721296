//! The lease that selects the one VM of an Envoy that polls.
//!
//! The lease is a record in the store: its holder, and how many heartbeats that has sent. Every VM reads it
//! on each of its ticks; a VM that saw the same record for ten ticks takes it by compare-and-swap. There is
//! no clock in it, so that clock steps change nothing: time is counted in ticks, which Envoy's timer drives.
//!
//! The VM of Envoy's main thread serves no requests, so that a page of 2 MB read there delays none: a VM
//! that has served a request waits longer before it takes the lease, and gives it up once when its first
//! request comes.

use serde::{Deserialize, Serialize};

use crate::shared::{Found, Shared};

/// Ticks without a heartbeat after which the holder is considered gone: half a second at 50 ms. A holder
/// sends one every tick; ten missed ones are more than a hiccup.
const MISSED_HEARTBEATS: u32 = 10;

/// Further ticks that a VM which serves requests leaves to one that does not.
const SERVING_DELAY: u32 = 5;

/// Ticks without a heartbeat after which the pool counts as not polled: five seconds. Any VM takes the lease long before, unless the
/// store refuses what it writes.
const ABANDONED: u32 = 100;

/// The lease's value in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// The VM that polls; none where it has given the lease up.
    holder: Option<u64>,
    /// Heartbeats so far, of all holders.
    heartbeat: u64,
}

/// One VM's view of the lease.
#[derive(Debug)]
pub struct Lease {
    key: String,
    own: u64,
    heartbeat: u64,
    seen: Option<Record>,
    /// Ticks for which the record was the same.
    unchanged: u32,
    holds: bool,
    serves: bool,
    yielded: bool,
    /// Whether this VM took it from one that had not given it up.
    took: bool,
    /// The latest record, and the ticks for which it has been that, whatever this VM tried.
    latest: (Option<Record>, u32),
}

impl Lease {
    /// Returns a VM's view; `own` distinguishes it from the others.
    pub fn new(key: String, own: u64) -> Self {
        Self {
            key,
            own,
            heartbeat: 0,
            seen: None,
            unchanged: 0,
            holds: false,
            serves: false,
            yielded: false,
            took: false,
            latest: (None, 0),
        }
    }

    /// Returns whether this VM polls until the next tick.
    pub fn holds(&self) -> bool {
        self.holds
    }

    /// Returns whether the VM that polled before this one is gone, without having given the lease up.
    pub fn follows_a_lost_vm(&self) -> bool {
        self.took
    }

    /// Returns whether no VM has sent a heartbeat for long.
    pub fn is_abandoned(&self) -> bool {
        self.latest.1 >= ABANDONED
    }

    /// This VM serves requests.
    pub fn serve(&mut self) {
        self.serves = true;
    }

    /// Sends a heartbeat, gives the lease up, or waits and takes it. Returns whether this VM polls until the
    /// next tick.
    pub fn tick(&mut self, shared: &mut Shared<'_>) -> bool {
        let (found, version) = shared.get(&self.key, |_| true);
        let unrecognised = found == Found::Unrecognised;
        let record: Option<Record> = found.value();
        self.latest = match self.latest {
            (latest, ticks) if latest == record => (latest, ticks.saturating_add(1)),
            _ => (record, 0),
        };
        self.holds = match record {
            Some(record) if record.holder == Some(self.own) => self.keep(shared, version),
            record => {
                self.took = unrecognised || record.is_some_and(|record| record.holder.is_some());
                self.wait(shared, version, record)
            }
        };
        self.holds
    }

    fn keep(&mut self, shared: &mut Shared<'_>, version: Option<u32>) -> bool {
        self.unchanged = 0;
        self.heartbeat += 1;
        if self.serves && !self.yielded {
            self.yielded = true;
            self.write(None, shared, version);
            return false;
        }
        self.write(Some(self.own), shared, version)
    }

    fn wait(
        &mut self,
        shared: &mut Shared<'_>,
        version: Option<u32>,
        record: Option<Record>,
    ) -> bool {
        if record == self.seen {
            self.unchanged += 1;
        } else {
            self.unchanged = 0;
            self.seen = record;
        }
        let vacant = record.is_none_or(|record| record.holder.is_none());
        let missed = if vacant { 0 } else { MISSED_HEARTBEATS };
        let delay = if self.serves { SERVING_DELAY } else { 0 };
        if self.unchanged < missed + delay {
            return false;
        }
        self.unchanged = 0;
        self.seen = None;
        // A VM that serves and is left alone keeps it from then on.
        self.yielded = self.serves;
        self.heartbeat = record.map_or(0, |record| record.heartbeat).wrapping_add(1);
        self.write(Some(self.own), shared, version)
    }

    fn write(&self, holder: Option<u64>, shared: &mut Shared<'_>, version: Option<u32>) -> bool {
        let record = Record {
            holder,
            heartbeat: self.heartbeat,
        };
        shared.put(&self.key, &record, version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faulty::Faulty;
    use crate::shared::Traffic;
    use crate::{InProcess, Store};

    /// Ticks of 50 ms within which another must have taken over: two seconds.
    const TAKEOVER: usize = 40;

    fn lease(own: u64) -> Lease {
        Lease::new("lease".to_owned(), own)
    }

    fn tick(lease: &mut Lease, store: &mut dyn Store) -> bool {
        lease.tick(&mut Shared::new(store, &mut Traffic::default()))
    }

    #[test]
    fn a_lost_vm_is_told_from_none_and_from_one_that_gave_the_lease_up() {
        let mut memory = InProcess::default();
        let [mut first, mut second, mut third] = [1, 2, 3].map(lease);
        let take = |lease: &mut Lease, memory: &mut InProcess| {
            assert!((0..TAKEOVER).any(|_| tick(lease, memory)));
            lease.follows_a_lost_vm()
        };
        assert!(!take(&mut first, &mut memory), "there was none");
        assert!(take(&mut second, &mut memory), "the first is gone");
        second.serve();
        assert!(!tick(&mut second, &mut memory), "it gives the lease up");
        assert!(!take(&mut third, &mut memory));
        memory.set("lease", b"another version's", None);
        assert!(take(&mut first, &mut memory));
    }

    fn holders(leases: &[Lease]) -> Vec<u64> {
        let holding = leases.iter().filter(|lease| lease.holds);
        holding.map(|lease| lease.own).collect()
    }

    #[test]
    fn the_vm_that_serves_nothing_polls_and_keeps_polling() {
        let mut memory = InProcess::default();
        let mut leases: Vec<Lease> = (1..=4).map(lease).collect();
        // Workers tick before the main thread does, and serve soon.
        for number in 0..200 {
            for (position, lease) in leases.iter_mut().enumerate() {
                if position > 0 && number > 5 {
                    lease.serve();
                }
                tick(lease, &mut memory);
            }
        }
        assert_eq!(holders(&leases), [1]);
    }

    #[test]
    fn a_holder_that_is_gone_is_replaced_even_if_all_others_serve() {
        let mut memory = InProcess::default();
        let mut leases: Vec<Lease> = (1..=3).map(lease).collect();
        for _ in 0..20 {
            leases.iter_mut().for_each(|lease| {
                tick(lease, &mut memory);
            });
        }
        assert_eq!(holders(&leases), [1]);
        let mut rest = leases.split_off(1);
        rest.iter_mut().for_each(Lease::serve);
        let mut since = 0;
        while holders(&rest).is_empty() {
            since += 1;
            assert!(since <= TAKEOVER);
            rest.iter_mut().for_each(|lease| {
                tick(lease, &mut memory);
            });
        }
        for _ in 0..200 {
            rest.iter_mut().for_each(|lease| {
                tick(lease, &mut memory);
            });
            assert_eq!(holders(&rest).len(), 1);
        }
    }

    #[test]
    fn random_crashes_delays_and_corrupt_reads_leave_one_poller_within_two_seconds() {
        for seed in 0..200 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut memory = InProcess::default();
            let mut next = 0;
            let mut leases: Vec<Lease> = Vec::new();
            let (mut without, mut several) = (0, 0);
            for _ in 0..2_000 {
                while leases.len() < 4 {
                    next += 1;
                    leases.push(lease(next));
                }
                if rng.u32(0..100) == 0 {
                    // A VM crashes; another takes its place.
                    leases.swap_remove(rng.usize(0..4));
                    continue;
                }
                rng.shuffle(&mut leases);
                // Some are late.
                for lease in &mut leases {
                    if rng.u32(0..10) == 0 {
                        continue;
                    }
                    if rng.u32(0..20) == 0 {
                        lease.serve();
                    }
                    let mut host = Faulty {
                        memory: &mut memory,
                        rng: &mut rng,
                        corrupt: [0, 200][(seed % 2) as usize],
                    };
                    tick(lease, &mut host);
                }
                let holding = holders(&leases).len();
                without = if holding == 0 { without + 1 } else { 0 };
                several = if holding > 1 { several + 1 } else { 0 };
                assert!(without <= TAKEOVER, "seed {seed}: no VM polls");
                assert!(several <= MISSED_HEARTBEATS, "seed {seed}: {holding} poll");
            }
        }
    }

    #[test]
    fn an_unrecognised_lease_is_taken_over_even_if_all_serve() {
        let mut memory = InProcess::default();
        memory.set("lease", b"something else", None);
        let mut lease = lease(1);
        lease.serve();
        assert!((0..TAKEOVER).any(|_| tick(&mut lease, &mut memory)));
    }

    #[test]
    fn an_unrecognised_value_is_taken_over_after_a_while() {
        let mut memory = InProcess::default();
        memory.set("lease", b"something else", None);
        let mut lease = lease(1);
        assert!((0..TAKEOVER).any(|_| tick(&mut lease, &mut memory)));
    }
}
