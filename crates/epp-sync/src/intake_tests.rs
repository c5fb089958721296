//! The bound on the placements of other VMs that are imported per tick.

use super::peers::{Peers, HASHES_PER_TICK};
use super::shared::{Shared, Traffic};
use super::InProcess;
use epp_core::picker::peers::{EndpointLoad, IndexPeer};
use epp_core::picker::peers::{Evidence, LearntLog, PlacedBlocks, Placement};

/// Hashes of one segment.
const SEGMENT: usize = 4_096;

/// Counts the hashes that are read, by worker slot.
#[derive(Default)]
struct Counted {
    hashes: Vec<usize>,
    learnt: LearntLog,
}

impl IndexPeer for Counted {
    fn fingerprint(&self) -> u64 {
        1
    }

    fn learnt(&mut self) -> &mut LearntLog {
        &mut self.learnt
    }

    fn learn(&mut self, worker: u32, _: Placement, prompt: &[u64], _: usize) {
        self.hashes
            .resize(self.hashes.len().max(worker as usize + 1), 0);
        self.hashes[worker as usize] += prompt.len();
    }

    fn allow_gaps(&mut self, _: bool) {}

    fn index_list(&self, _: usize, _: &mut Vec<u64>) -> Option<Placement> {
        None
    }

    fn clear_index(&mut self) {}

    fn max_index_bytes(&self) -> usize {
        64 << 20
    }

    fn held(&self) -> u32 {
        0
    }

    fn own_loads(&self, _: &mut Vec<EndpointLoad>) {}

    fn set_peer_loads(&mut self, _: &mut dyn Iterator<Item = &[EndpointLoad]>) {}
}

#[test]
fn a_tick_takes_in_a_bounded_part_of_every_journal_and_the_rest_later() {
    const RUN: Placement = Placement::Blocks(PlacedBlocks {
        evidence: Evidence::Sent,
        producer: 0,
        slot: 0,
        tag: 0,
    });
    /// The number of hashes that a journal publishes in a tick.
    const FRESH: usize = 60_000;
    let mut memory = InProcess::default();
    let mut vms: Vec<Peers> = (1..=5).map(|own| Peers::new("b", own)).collect();
    let mut tick = |vm: &mut Peers, counted: &mut Counted| {
        let mut traffic = Traffic::default();
        let shared = &mut Shared::new(&mut memory, &mut traffic);
        vm.tick(true, false, shared, counted);
        std::mem::take(&mut counted.hashes)
    };
    for _ in 0..60 {
        for vm in &mut vms {
            tick(vm, &mut Counted::default());
        }
    }
    let prompt: Vec<u64> = (0..FRESH as u64).collect();
    let (listener, tellers) = vms.split_first_mut().unwrap();
    for teller in tellers.iter_mut() {
        let mut counted = Counted::default();
        counted.learnt.set_enabled(true);
        (0..FRESH).for_each(|block| counted.learnt.append(RUN, &prompt, block));
        tick(teller, &mut counted);
    }
    let mut taken = vec![0; 5];
    for round in 0..10 {
        let hashes = tick(listener, &mut Counted::default());
        let sum: usize = hashes.iter().sum();
        assert!(sum <= HASHES_PER_TICK + SEGMENT, "{sum} at once");
        if round == 0 {
            let heard = hashes.iter().filter(|hashes| **hashes > 0);
            assert_eq!(
                heard.count(),
                4,
                "one that floods keeps no other waiting: {hashes:?}"
            );
        }
        for (taken, more) in taken.iter_mut().zip(hashes) {
            *taken += more;
        }
    }
    assert!(taken[1..].iter().all(|taken| *taken >= FRESH), "{taken:?}");
}
