//! Placements told to the other workers, so that all of one Envoy decide from the same knowledge.
//!
//! Each VM that serves requests keeps one value in shared data: its last 16,384 placements with a
//! running number. On each tick it writes what is new, and reads from the others' values what it has
//! not seen. The values are bounded, so that a reader that falls behind loses hints and nobody loses
//! memory; a VM that is gone leaves a value that nobody adds to.

use hashbrown::HashMap;

use super::pack::{Reader, Writer};
use super::SharedData;

/// Placements kept for the others. At 1,000 cold requests a second with 256 blocks each, shared by
/// four workers, some 3,000 come up per tick; five times that rides out a late reader. 12 bytes
/// each: setting the value costs some 12 µs.
const KEPT: usize = 16_384;

/// Journals read at most: more than workers that any machine gives an Envoy. Of VMs that came and
/// went the oldest drop out.
const PEERS: usize = 128;

/// Tries at putting oneself on the list while others do the same; the next tick tries again.
const TRIES: usize = 4;

/// One placement: a block's hash and the endpoint that it was sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// Index of the prefix producer in the plan.
    pub producer: u8,
    /// The endpoint's slot, below 2²⁴.
    pub slot: u32,
    /// The block's hash.
    pub hash: u64,
}

/// One VM's journal and what it has read of the others'.
#[derive(Debug)]
pub struct Journal {
    base: String,
    own: u64,
    listed: bool,
    /// The last placements, oldest first.
    kept: Vec<Placement>,
    /// Placements ever written.
    written: u64,
    fresh: usize,
    /// Running number up to which each peer's journal was read.
    read: HashMap<u64, u64>,
}

impl Journal {
    /// An empty journal under these keys; `own` tells this VM from the others.
    pub fn new(base: String, own: u64) -> Self {
        Self {
            base,
            own,
            listed: false,
            kept: Vec::new(),
            written: 0,
            fresh: 0,
            read: HashMap::new(),
        }
    }

    /// Notes a placement, to be told with the next tick.
    pub fn note(&mut self, placement: Placement) {
        self.kept.push(placement);
        self.written += 1;
        self.fresh += 1;
        // Cut back now and then, rather than shift with each new one.
        if self.kept.len() >= 2 * KEPT {
            self.kept.drain(..self.kept.len() - KEPT);
        }
    }

    /// Tells what is new, and takes in what the others told since the last tick. Values that are
    /// foreign or torn are counted in `foreign`.
    pub fn exchange(
        &mut self,
        host: &mut dyn SharedData,
        foreign: &mut u64,
        mut take: impl FnMut(Placement),
    ) {
        if self.fresh > 0 {
            self.fresh = 0;
            self.tell(host);
        }
        for peer in self.peers(host).unwrap_or_default() {
            if peer == self.own {
                continue;
            }
            let Some((value, _)) = host.get(&self.key(peer)) else {
                continue;
            };
            let seen = self.read.get(&peer).copied().unwrap_or(0);
            match read(&value, seen, &mut take) {
                Some(written) => {
                    self.read.insert(peer, written);
                }
                None => *foreign += 1,
            }
        }
    }

    fn tell(&mut self, host: &mut dyn SharedData) {
        let from = self.kept.len().saturating_sub(KEPT);
        let kept = self.kept.get(from..).unwrap_or_default();
        let mut writer = Writer::default();
        writer.u64(self.written);
        writer.u32(kept.len() as u32);
        for placement in kept {
            writer.u32(u32::from(placement.producer) << 24 | placement.slot & 0xff_ffff);
            writer.u64(placement.hash);
        }
        host.set(&self.key(self.own), &writer.seal(), None);
        if !self.listed {
            self.listed = self.enlist(host);
        }
    }

    /// Puts this VM on the list of journals.
    fn enlist(&self, host: &mut dyn SharedData) -> bool {
        (0..TRIES).any(|_| {
            let mut peers = self.peers(host).unwrap_or_default();
            if peers.contains(&self.own) {
                return true;
            }
            peers.push(self.own);
            let surplus = peers.len().saturating_sub(PEERS);
            let mut writer = Writer::default();
            writer.u32((peers.len() - surplus) as u32);
            peers
                .iter()
                .skip(surplus)
                .for_each(|peer| writer.u64(*peer));
            let cas = host.get(&self.peers_key()).map(|(_, cas)| cas);
            host.set(&self.peers_key(), &writer.seal(), cas)
        })
    }

    fn peers(&self, host: &mut dyn SharedData) -> Option<Vec<u64>> {
        let (value, _) = host.get(&self.peers_key())?;
        let mut reader = Reader::open(&value)?;
        let count = reader.u32()?.min(PEERS as u32);
        (0..count).map(|_| reader.u64()).collect()
    }

    fn peers_key(&self) -> String {
        format!("{}/journals", self.base)
    }

    fn key(&self, peer: u64) -> String {
        format!("{}/journal/{peer:016x}", self.base)
    }
}

/// Takes in the placements numbered above `seen`; the last number.
fn read(value: &[u8], seen: u64, take: &mut impl FnMut(Placement)) -> Option<u64> {
    let mut reader = Reader::open(value)?;
    let written = reader.u64()?;
    let count = u64::from(reader.u32()?);
    let first = written.saturating_sub(count);
    // A number that went back is another VM's journal under the same name: read it all.
    let seen = if seen > written { 0 } else { seen };
    for number in first..written {
        let place = reader.u32()?;
        let hash = reader.u64()?;
        if number >= seen {
            take(Placement {
                producer: (place >> 24) as u8,
                slot: place & 0xff_ffff,
                hash,
            });
        }
    }
    Some(written)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Memory;

    fn placement(hash: u64) -> Placement {
        Placement {
            producer: 0,
            slot: 3,
            hash,
        }
    }

    fn exchange(journal: &mut Journal, memory: &mut Memory) -> (Vec<u64>, u64) {
        let (mut taken, mut foreign) = (Vec::new(), 0);
        journal.exchange(memory, &mut foreign, |placement| taken.push(placement.hash));
        (taken, foreign)
    }

    fn two() -> (Journal, Journal, Memory) {
        let journal = |own| Journal::new("base".to_owned(), own);
        (journal(1), journal(2), Memory::default())
    }

    #[test]
    fn what_one_notes_the_other_takes_in_once() {
        let (mut one, mut other, mut memory) = two();
        (0..5).for_each(|hash| one.note(placement(hash)));
        exchange(&mut one, &mut memory);
        assert_eq!(exchange(&mut other, &mut memory).0, [0, 1, 2, 3, 4]);
        assert!(exchange(&mut other, &mut memory).0.is_empty());
        one.note(placement(5));
        assert!(exchange(&mut one, &mut memory).0.is_empty());
        assert_eq!(exchange(&mut other, &mut memory).0, [5]);
    }

    #[test]
    fn a_late_reader_loses_the_oldest_and_the_value_stays_bounded() {
        let (mut one, mut other, mut memory) = two();
        let many = 3 * KEPT as u64;
        for hash in 0..many {
            one.note(placement(hash));
            if hash % 1000 == 0 {
                exchange(&mut one, &mut memory);
            }
        }
        exchange(&mut one, &mut memory);
        let (taken, _) = exchange(&mut other, &mut memory);
        assert_eq!(taken.len(), KEPT);
        assert_eq!(taken.last(), Some(&(many - 1)));
        assert!(memory.largest() < KEPT * 12 + 100);
    }

    #[test]
    fn a_torn_value_is_counted_and_left_alone() {
        let (mut one, mut other, mut memory) = two();
        one.note(placement(1));
        exchange(&mut one, &mut memory);
        memory.tear("base/journal/0000000000000001");
        assert_eq!(exchange(&mut other, &mut memory), (vec![], 1));
        one.note(placement(2));
        exchange(&mut one, &mut memory);
        assert_eq!(exchange(&mut other, &mut memory).0, [1, 2]);
    }

    #[test]
    fn many_vms_find_each_other() {
        let mut memory = Memory::default();
        let mut journals: Vec<Journal> = (1..=16)
            .map(|own| Journal::new("base".to_owned(), own))
            .collect();
        for (hash, journal) in journals.iter_mut().enumerate() {
            journal.note(placement(hash as u64));
            exchange(journal, &mut memory);
        }
        let mut seen = exchange(&mut journals[0], &mut memory).0;
        seen.sort_unstable();
        assert_eq!(seen, (1..16).collect::<Vec<u64>>());
    }
}
