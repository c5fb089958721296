//! A VM that serves no requests, beside workers.

use epp_core::picker::peers::{Binding, PlacedBlocks};
use epp_core::scheduling::StateId;

use super::*;
use crate::archive::Archive;
use crate::handover::PIECE_HASHES;
use crate::journal::SEGMENT_HASHES;

impl Sim {
    /// Returns one in which one VM serves no requests, with so many workers, after the others stopped requesting an
    /// index. That VM has taken in what makes it keep an archive.
    fn with_idle(seed: u64, workers: usize) -> Self {
        let mut sim = Self::new(seed, workers + 1);
        sim.vms[0].idle = true;
        sim.vms[0].peers.taken_in = MIN_TAKEN_IN;
        (0..50).for_each(|_| sim.tick(0));
        sim
    }

    fn idle(&mut self) -> &mut Vm {
        self.vms.iter_mut().find(|vm| vm.idle).unwrap()
    }

    /// All workers end at once, and as many start.
    fn replace_workers(&mut self) {
        let workers = self.vms.len() - 1;
        self.vms.retain(|vm| vm.idle);
        (0..workers).for_each(|_| self.start());
    }
}

#[test]
fn workers_that_all_crash_at_once_receive_the_archive() {
    for seed in 0..24 {
        let mut sim = Sim::with_idle(seed, 1 + seed as usize % 3);
        sim.corrupt = [0, 200][(seed % 2) as usize];
        for _ in 0..3 {
            for _ in 0..20 {
                (0..sim.rng.usize(0..6)).for_each(|_| sim.work());
                sim.tick(8);
            }
            let corrupt = std::mem::take(&mut sim.corrupt);
            (0..10).for_each(|_| sim.tick(0));
            let union = sim.union();
            assert!(sim.idle().toy.all.is_empty(), "it has no index");
            sim.replace_workers();
            sim.corrupt = corrupt;
            (0..80).for_each(|_| sim.tick(0));
            sim.check_matches(&union, seed);
            // For the next round: what is handed over is in the index alone.
            let workers = sim.vms.iter_mut().filter(|vm| !vm.idle);
            workers.for_each(|vm| vm.toy.all.extend(&union));
        }
    }
}

#[test]
fn only_a_vm_that_has_taken_in_much_keeps_an_archive() {
    let mut sim = Sim::new(1, 2);
    (0..50).for_each(|_| sim.tick(0));
    sim.vms.sort_by_key(|vm| vm.peers.workers.own());
    sim.vms[0].idle = true;
    let mut placed = 0;
    while sim.idle().peers.handover.archive().is_none() {
        let known = sim.idle().toy.index.entries();
        assert!(known < MIN_TAKEN_IN, "it still has an index");
        sim.vms.sort_by_key(|vm| vm.peers.workers.own());
        for number in placed..placed + 3_000 {
            sim.vms[1].toy.add(run(0, 1), &[number], 0);
            sim.vms[1].toy.learnt.append(run(0, 1), &[number], 0);
        }
        placed += 3_000;
        sim.tick(0);
        sim.tick(0);
    }
    assert_eq!(sim.idle().toy.index.entries(), 0);
    // What was in its index is in the archive.
    sim.replace_workers();
    (0..80).for_each(|_| sim.tick(0));
    let worker = sim.vms.iter().find(|vm| !vm.idle).unwrap();
    assert_eq!(worker.toy.index.entries() as u64, placed);
}

#[test]
fn a_vm_that_begins_to_serve_receives_the_index_of_the_others() {
    for seed in 0..20 {
        let mut sim = Sim::with_idle(seed, 2);
        for _ in 0..20 {
            (0..5).for_each(|_| sim.work());
            sim.tick(0);
        }
        sim.idle().idle = false;
        // It learns from its own requests meanwhile.
        for _ in 0..20 {
            (0..5).for_each(|_| sim.work());
            sim.tick(0);
        }
        (0..80).for_each(|_| sim.tick(0));
        let union = sim.union();
        sim.check_matches(&union, seed);
    }
}

#[test]
fn a_worker_sends_its_index_rather_than_another_vm_its_archive() {
    let mut sim = Sim::with_idle(1, 1);
    // Blocks that were not published.
    for vm in sim.vms.iter_mut().filter(|vm| !vm.idle) {
        (0..1_000).for_each(|number| drop(vm.toy.add(run(0, 0), &[number], 0)));
    }
    sim.start();
    (0..50).for_each(|_| sim.tick(0));
    for vm in sim.vms.iter().filter(|vm| !vm.idle) {
        assert_eq!(vm.toy.index.entries(), 1_000);
    }
}

/// The runs of an archive, and how many pieces there were.
fn list(archive: &Archive) -> (Vec<(Placement, Vec<u64>)>, usize) {
    let (mut number, mut runs) = (0, Vec::new());
    while let Some((piece, next)) = archive.piece_from(number) {
        number = next;
        let mut sealed = crate::codec::Writer::default();
        sealed.append(piece);
        let value = sealed.seal();
        let mut reader = crate::codec::Reader::open(&value).unwrap();
        let mut take = |placement: Placement, hashes: &mut dyn Iterator<Item = u64>| {
            runs.push((placement, hashes.collect::<Vec<_>>()));
        };
        while crate::journal::read_run(&mut reader, &mut take).is_some() {}
    }
    (runs, number)
}

#[test]
fn a_binding_behind_a_segment_that_is_nearly_full_is_archived_whole() {
    let mut sim = Sim::with_idle(1, 1);
    let worker = sim.vms.iter_mut().find(|vm| !vm.idle).unwrap();
    let blocks: Vec<u64> = (1..SEGMENT_HASHES as u64).collect();
    let learnt = &mut worker.toy.learnt;
    learnt.append_run(run(0, 1), &blocks, 0..blocks.len());
    let (state, slot, tag) = (StateId(63), 1, 101);
    let binding = Placement::Binding(Binding { state, slot, tag });
    learnt.append_run(binding, &[1 << 40, 3], 0..2);
    (0..2).for_each(|_| sim.tick(0));
    let (runs, _) = list(sim.idle().peers.handover.archive().unwrap());
    let expected = [(run(0, 1), blocks), (binding, vec![1 << 40, 3])];
    assert_eq!(runs, expected);
}

/// Indexes that are full within minutes, beside an archive that would grow for hours.
#[test]
fn an_archive_takes_no_more_than_its_indexes_can_hold() {
    let mut toy = Toy::default();
    let mut archive = Archive::of_index(&mut toy);
    let prompt: Vec<u64> = (0..PIECE_HASHES as u64).collect();
    for (capacity, bound) in [(500, 2), (4 * PIECE_HASHES, 79)] {
        toy.capacity = capacity;
        archive.set_bound(&toy);
        (0..100).for_each(|_| archive.append(run(0, 2), &prompt));
        let (runs, _) = list(&archive);
        assert_eq!(runs.len(), bound);
    }
    // Endpoints have left.
    toy.capacity = 0;
    archive.set_bound(&toy);
    assert_eq!(list(&archive).0.len(), 2);
}

#[test]
fn an_archive_is_bounded_and_keeps_the_latest_runs_in_order() {
    let mut toy = Toy::default();
    toy.add(run(0, 1), &[5, 6], 0);
    let mut archive = Archive::of_index(&mut toy);
    assert_eq!(toy.index.entries(), 0);
    let refuted = Placement::Blocks(PlacedBlocks {
        evidence: Evidence::Refuted,
        producer: 2,
        slot: 3,
        tag: 103,
    });
    archive.append(refuted, &[7]);
    let expected = vec![(run(0, 1), vec![5, 6]), (refuted, vec![7])];
    assert_eq!(list(&archive).0, expected);
    // A long run is cut, and a quarter of 64 MiB holds two million hashes.
    let all: Vec<u64> = (0..20 * PIECE_HASHES as u64).collect();
    for _ in 0..20 {
        archive.append(run(0, 2), &all);
    }
    let (runs, pieces) = list(&archive);
    assert!(pieces > 400);
    let hashes: Vec<u64> = runs.into_iter().flat_map(|(_, hashes)| hashes).collect();
    assert!((2_000_000..=2 << 20).contains(&hashes.len()));
    assert!(hashes.ends_with(&all));
}
