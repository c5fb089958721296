//! Who polls: one VM of all those of one Envoy.
//!
//! The lease is a record in shared data: who holds it and how often the holder has beaten. Every VM
//! reads it on each of its ticks; a VM that saw the same record for ten ticks takes it by
//! compare-and-swap. There is no clock in it, so that clock steps change nothing: time is counted
//! in ticks, which Envoy's timer drives.
//!
//! The VM of Envoy's main thread serves no requests, so that a page of 2 MB read there delays
//! nobody: whoever has served a request waits longer before it takes the lease, and gives it up
//! once when its first request comes.

use super::pack::{Reader, Writer};
use super::Store;

/// Ticks without a beat after which the holder is taken for gone: half a second at 50 ms. A holder
/// beats each tick; ten missed ones are no hiccup.
const PATIENCE: u32 = 10;

/// Further ticks that a VM which serves requests leaves to one that does not.
const COURTESY: u32 = 5;

/// One VM's view of the lease.
#[derive(Debug)]
pub struct Lease {
    key: String,
    own: u64,
    beat: u64,
    seen: Option<(u64, u64)>,
    unchanged: u32,
    holds: bool,
    serves: bool,
    yielded: bool,
}

impl Lease {
    /// A VM's view; `own` tells it from the others.
    pub fn new(key: String, own: u64) -> Self {
        Self {
            key,
            // Zero stands for nobody.
            own: own.max(1),
            beat: 0,
            seen: None,
            unchanged: 0,
            holds: false,
            serves: false,
            yielded: false,
        }
    }

    /// This VM serves requests.
    pub fn serve(&mut self) {
        self.serves = true;
    }

    /// One tick: beats, gives up, or waits and takes. Returns whether this VM polls until the next.
    pub fn tick(&mut self, host: &mut dyn Store) -> bool {
        let found = host.get(&self.key);
        let cas = found.as_ref().map(|(_, cas)| *cas);
        let record = found.and_then(|(bytes, _)| unpack(&bytes));
        self.holds = match record {
            Some((holder, _)) if holder == self.own => self.keep(host, cas),
            record => self.wait(host, cas, record),
        };
        self.holds
    }

    fn keep(&mut self, host: &mut dyn Store, cas: Option<u32>) -> bool {
        self.unchanged = 0;
        self.beat += 1;
        if self.serves && !self.yielded {
            self.yielded = true;
            host.set(&self.key, &pack(0, self.beat), cas);
            return false;
        }
        host.set(&self.key, &pack(self.own, self.beat), cas)
    }

    fn wait(&mut self, host: &mut dyn Store, cas: Option<u32>, record: Option<(u64, u64)>) -> bool {
        if record == self.seen && record.is_some() {
            self.unchanged += 1;
        } else {
            self.unchanged = 0;
            self.seen = record;
        }
        let vacant = record.is_none_or(|(holder, _)| holder == 0);
        let patience = if vacant { 0 } else { PATIENCE };
        let courtesy = if self.serves { COURTESY } else { 0 };
        if self.unchanged < patience + courtesy {
            return false;
        }
        self.unchanged = 0;
        self.seen = None;
        // Whoever is left alone with requests keeps it from then on.
        self.yielded = self.serves;
        self.beat = record.map_or(0, |(_, beat)| beat) + 1;
        host.set(&self.key, &pack(self.own, self.beat), cas)
    }
}

fn pack(holder: u64, beat: u64) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.u64(holder);
    writer.u64(beat);
    writer.seal()
}

fn unpack(bytes: &[u8]) -> Option<(u64, u64)> {
    let mut reader = Reader::open(bytes)?;
    let record = (reader.u64()?, reader.u64()?);
    reader.rest().is_empty().then_some(record)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faulty::Faulty;
    use crate::InProcess;

    /// Ticks of 50 ms within which another must have taken over: two seconds.
    const TAKEOVER: usize = 40;

    fn lease(own: u64) -> Lease {
        Lease::new("lease".to_owned(), own)
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
        for tick in 0..200 {
            for (position, lease) in leases.iter_mut().enumerate() {
                if position > 0 && tick > 5 {
                    lease.serve();
                }
                lease.tick(&mut memory);
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
                lease.tick(&mut memory);
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
                lease.tick(&mut memory);
            });
        }
        for _ in 0..200 {
            rest.iter_mut().for_each(|lease| {
                lease.tick(&mut memory);
            });
            assert_eq!(holders(&rest).len(), 1);
        }
    }

    #[test]
    fn random_crashes_delays_and_torn_reads_leave_one_poller_within_two_seconds() {
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
                        torn: [0, 200][(seed % 2) as usize],
                    };
                    lease.tick(&mut host);
                }
                let holding = holders(&leases).len();
                without = if holding == 0 { without + 1 } else { 0 };
                several = if holding > 1 { several + 1 } else { 0 };
                assert!(without <= TAKEOVER, "seed {seed}: nobody polls");
                assert!(several <= PATIENCE, "seed {seed}: {holding} poll");
            }
        }
    }

    #[test]
    fn a_foreign_value_is_taken_over_after_a_while() {
        let mut memory = InProcess::default();
        memory.set("lease", b"something else", None);
        let mut lease = lease(1);
        assert!((0..TAKEOVER).any(|_| lease.tick(&mut memory)));
    }
}
