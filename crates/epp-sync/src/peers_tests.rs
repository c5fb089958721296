//! Simulated VMs that share one Envoy's data, crash, come late, and read corrupt values.

use std::collections::HashSet;

use super::*;
use crate::faulty::Faulty;
use crate::shared::Traffic;
use crate::{InProcess, Store};
use epp_core::picker::peers::{EndpointLoad, Evidence, Placement};
use epp_core::prefix::key::TableKey;

#[path = "peers_archive_tests.rs"]
mod archive;
#[path = "peers_leaving_tests.rs"]
mod leaving;
#[path = "peers_toy.rs"]
mod toy;
use toy::{matched, prompt, run, Toy, HELD, SLOTS};

struct Vm {
    peers: Peers,
    /// Whether it polls and serves no requests.
    idle: bool,
    toy: Toy,
    late: u32,
    traffic: Traffic,
}

impl Vm {
    fn tick(&mut self, store: &mut dyn Store) {
        let shared = &mut Shared::new(store, &mut self.traffic);
        self.peers
            .choose_knowledge(!self.idle, self.idle, &mut self.toy);
        self.peers.tick(!self.idle, false, shared, &mut self.toy);
    }
}

struct Sim {
    memory: InProcess,
    rng: fastrand::Rng,
    vms: Vec<Vm>,
    prompts: Vec<Vec<u64>>,
    capacity: usize,
    corrupt: u32,
    started: u64,
    /// Values that VMs which are gone did not recognise.
    unrecognised: u64,
}

impl Sim {
    fn new(seed: u64, vms: usize) -> Self {
        let mut sim = Self {
            memory: InProcess::default(),
            rng: fastrand::Rng::with_seed(seed),
            vms: Vec::new(),
            prompts: Vec::new(),
            capacity: usize::MAX,
            corrupt: 0,
            started: 0,
            unrecognised: 0,
        };
        (0..vms).for_each(|_| sim.start());
        sim
    }

    fn start(&mut self) {
        self.started += 1;
        self.vms.push(Vm {
            peers: Peers::new("base", self.started * 1_000),
            idle: false,
            traffic: Traffic::default(),
            toy: Toy {
                capacity: self.capacity,
                ..Toy::default()
            },
            late: 0,
        });
    }

    /// A request goes to an endpoint, or one ends.
    fn work(&mut self) {
        let mut vms: Vec<&mut Vm> = self.vms.iter_mut().filter(|vm| !vm.idle).collect();
        let vm = self.rng.usize(0..vms.len());
        let vm = vms.swap_remove(vm);
        let (slot, prompt) = (self.rng.u32(0..SLOTS), prompt(&mut self.rng));
        let tokens = self.rng.u64(0..500);
        // Some of it may leave before the rest has come.
        let part = self.rng.usize(..=prompt.len());
        let run = run(0, slot);
        for (from, to) in [(0, part), (part, prompt.len())] {
            for block in vm.toy.add(run, &prompt[..to], from) {
                vm.toy.learnt.append(run, &prompt, block);
            }
        }
        self.prompts.push(prompt);
        let load = vm.toy.own.entry(slot).or_default();
        load.slot = slot;
        if self.rng.bool() {
            load.requests += 1;
            load.tokens += tokens;
        } else {
            *load = EndpointLoad {
                slot,
                ..EndpointLoad::default()
            };
        }
    }

    /// Each VM ticks once, in any order, unless it is late.
    fn tick(&mut self, lateness: u32) {
        self.rng.shuffle(&mut self.vms);
        for vm in &mut self.vms {
            if lateness > 0 && vm.late == 0 && self.rng.u32(0..20) == 0 {
                vm.late = self.rng.u32(0..lateness);
            }
            if vm.late > 0 {
                vm.late -= 1;
                continue;
            }
            let (memory, rng, corrupt) = (&mut self.memory, &mut self.rng, self.corrupt);
            let mut host = Faulty {
                memory,
                rng,
                corrupt,
            };
            vm.tick(&mut host);
        }
    }

    /// Each VM exchanges its counts in flight once, in any order.
    fn exchange_in_flight(&mut self) {
        self.rng.shuffle(&mut self.vms);
        for vm in self.vms.iter_mut().filter(|vm| vm.late == 0) {
            let (memory, rng, corrupt) = (&mut self.memory, &mut self.rng, self.corrupt);
            let mut host = Faulty {
                memory,
                rng,
                corrupt,
            };
            let shared = &mut Shared::new(&mut host, &mut vm.traffic);
            vm.peers.exchange_in_flight(shared, &mut vm.toy);
        }
    }

    /// Returns the union of all VMs' indexes.
    fn union(&self) -> HashSet<(u32, u64)> {
        let each = self.vms.iter().flat_map(|vm| &vm.toy.all);
        each.copied().collect()
    }

    /// Each VM matches each prompt as far as what all know together goes, block by block.
    fn check_matches(&self, union: &HashSet<(u32, u64)>, seed: u64) {
        for prompt in self.prompts.iter().step_by(7) {
            let mut expected = vec![0; SLOTS as usize];
            for hash in prompt {
                let has = |slot: &u32| union.contains(&(*slot, *hash));
                let having: Vec<u32> = (0..SLOTS).filter(has).collect();
                if having.is_empty() {
                    break;
                }
                having.iter().for_each(|slot| expected[*slot as usize] += 1);
            }
            for vm in self.vms.iter().filter(|vm| !vm.idle) {
                assert_eq!(matched(&vm.toy.index, prompt), expected, "seed {seed}");
            }
        }
    }

    /// No VM counts a request twice, or forgets one.
    fn check_loads(&self, seed: u64) {
        for (number, vm) in self.vms.iter().enumerate() {
            for slot in 0..SLOTS {
                let others = self.vms.iter().enumerate();
                let others = others.filter(|(other, _)| *other != number);
                let loads = others.filter_map(|(_, other)| other.toy.own.get(&slot));
                let sum = loads.fold((0, 0), |sum, load| {
                    (sum.0 + load.requests, sum.1 + load.tokens)
                });
                let said = vm.toy.others.get(&slot).copied().unwrap_or_default();
                assert_eq!(said, sum, "seed {seed}: slot {slot}");
            }
        }
    }
}

#[test]
fn vms_that_crash_come_late_and_read_corrupt_values_agree_in_the_end() {
    for seed in 0..120 {
        let mut sim = Sim::new(seed, 4);
        sim.corrupt = [0, 200][(seed % 2) as usize];
        let mut since = 0;
        for _ in 0..200 {
            since += 1;
            (0..sim.rng.usize(0..6)).for_each(|_| sim.work());
            // One crashes, and another takes its place; which has a second to receive everything.
            if since > 25 && sim.rng.u32(0..20) == 0 {
                since = 0;
                let gone = sim.rng.usize(0..4);
                sim.unrecognised += sim.vms.swap_remove(gone).traffic.unrecognised;
                sim.start();
            }
            (0..sim.rng.usize(0..3)).for_each(|_| sim.exchange_in_flight());
            sim.tick(8);
        }
        let corrupt = std::mem::take(&mut sim.corrupt);
        let seen = sim.unrecognised > 0 || sim.vms.iter().any(|vm| vm.traffic.unrecognised > 0);
        assert_eq!(corrupt > 0, seen, "seed {seed}");
        // Placements that are not published yet are among them.
        let union = sim.union();
        (0..80).for_each(|_| sim.tick(0));
        for vm in &sim.vms {
            let missing: Vec<_> = union.difference(&vm.toy.all).collect();
            assert!(missing.is_empty(), "seed {seed}: {missing:?}");
        }
        sim.check_matches(&union, seed);
        sim.check_loads(seed);
        for vm in &mut sim.vms {
            assert_eq!(vm.peers.held_by_others(), 3 * u64::from(HELD));
        }
        // Records and journals of the VMs, and a handover's pieces.
        assert!(sim.memory.count() < 12 * 17 + 10, "{}", sim.memory.count());
    }
}

#[test]
fn full_indexes_stay_bounded_and_hold_no_block_that_was_not_sent() {
    const CAPACITY: usize = 100;
    for seed in 0..30 {
        let mut sim = Sim::new(seed, 0);
        sim.capacity = CAPACITY;
        sim.corrupt = [0, 50][(seed % 2) as usize];
        (0..4).for_each(|_| sim.start());
        for _ in 0..200 {
            (0..sim.rng.usize(0..6)).for_each(|_| sim.work());
            if sim.rng.u32(0..20) == 0 {
                let gone = sim.rng.usize(0..4);
                sim.unrecognised += sim.vms.swap_remove(gone).traffic.unrecognised;
                sim.start();
            }
            // Later than the ring lasts, too: segments get lost.
            sim.tick(40);
        }
        for vm in &sim.vms {
            let index = &vm.toy.index;
            assert!(index.entries() <= CAPACITY * SLOTS as usize);
            for slot in 0..SLOTS {
                let mut held = Vec::new();
                index.list(slot, &mut held);
                assert!(held.len() <= CAPACITY, "seed {seed}");
                let sent = |hash: &u64| vm.toy.all.contains(&(slot, *hash));
                assert!(held.iter().all(sent), "seed {seed}");
                let once: HashSet<&u64> = held.iter().collect();
                assert_eq!(once.len(), held.len(), "seed {seed}: one is there twice");
                // What an endpoint holds is found, whatever of its prompt was lost or dropped.
                let found = |hash: &u64| matched(index, &[*hash])[slot as usize] == 1;
                let all: HashSet<u64> = held.iter().copied().collect();
                for prompt in sim.prompts.iter().step_by(7) {
                    let whole = prompt.iter().take_while(|hash| all.contains(hash));
                    let whole = whole.count() as u32;
                    assert!(matched(index, prompt)[slot as usize] >= whole);
                }
                let lost = |hash: &u64| TableKey::default().is_milestone(*hash) && !found(hash);
                assert!(!held.iter().any(lost), "seed {seed}");
            }
        }
    }
}

#[test]
fn a_placement_arrives_after_one_tick() {
    let mut sim = Sim::new(1, 16);
    (0..3).for_each(|_| sim.tick(0));
    for hash in 0..100 {
        sim.vms[3].toy.add(run(0, 1), &[hash], 0);
        sim.vms[3].toy.learnt.append(run(0, 1), &[hash], 0);
    }
    sim.tick(0);
    // VMs that ticked before the one that publishes read it with their next tick.
    sim.tick(0);
    assert!(sim.vms.iter().all(|vm| vm.toy.all.len() == 100));
}

#[test]
fn a_dead_vm_stops_counting_within_a_second_however_often_others_exchange() {
    for exchanges in [0, 4] {
        let mut sim = Sim::new(1, 3);
        (0..100).for_each(|_| sim.work());
        (0..3).for_each(|_| sim.tick(0));
        sim.check_loads(0);
        sim.vms.pop();
        for _ in 0..=presence::MISSED_HEARTBEATS {
            (0..exchanges).for_each(|_| sim.exchange_in_flight());
            sim.tick(0);
        }
        sim.check_loads(0);
    }
}

#[test]
fn a_dead_vm_whose_slot_another_one_clears_between_two_ticks_stops_counting() {
    let mut sim = Sim::new(1, 3);
    for vm in &mut sim.vms {
        vm.toy.own.entry(0).or_default().requests = 1;
    }
    (0..3).for_each(|_| sim.tick(0));
    sim.check_loads(0);
    sim.vms.pop();
    for _ in 0..=presence::MISSED_HEARTBEATS {
        // The first one clears the slot with its tick, before the second one's.
        sim.vms[0].tick(&mut sim.memory);
        for vm in &mut sim.vms {
            let shared = &mut Shared::new(&mut sim.memory, &mut vm.traffic);
            vm.peers.exchange_in_flight(shared, &mut vm.toy);
        }
        sim.vms[1].tick(&mut sim.memory);
    }
    sim.check_loads(0);
}

#[test]
fn counts_in_flight_are_exchanged_between_ticks() {
    let mut sim = Sim::new(1, 4);
    // A VM without anything in flight anywhere does not exchange between ticks.
    for vm in &mut sim.vms {
        vm.toy.own.entry(0).or_default().requests = 1;
    }
    (0..3).for_each(|_| sim.tick(0));
    for _ in 0..50 {
        sim.work();
        // VMs that read before the one that publishes read it with their next exchange.
        (0..2).for_each(|_| sim.exchange_in_flight());
        sim.check_loads(0);
    }
    // Silence between two ticks does not end a VM.
    (0..200).for_each(|_| sim.exchange_in_flight());
    sim.check_loads(0);
    assert!(sim.vms.iter_mut().all(|vm| vm.peers.sharers() == 4));
}

#[test]
fn a_tick_without_news_moves_next_to_nothing() {
    let mut sim = Sim::new(1, 4);
    for _ in 0..200 {
        (0..20).for_each(|_| sim.work());
        sim.tick(0);
    }
    for vm in &mut sim.vms {
        vm.toy.own.clear();
    }
    (0..60).for_each(|_| sim.tick(0));
    sim.vms
        .iter_mut()
        .for_each(|vm| vm.traffic = Traffic::default());
    sim.tick(0);
    for vm in &mut sim.vms {
        let traffic = vm.traffic;
        assert!(traffic.written < 100, "{traffic:?}");
        assert!(traffic.read < 100 * 5, "{traffic:?}");
    }
}

#[test]
fn a_new_vm_has_the_whole_index_within_a_second_and_the_pieces_are_removed() {
    let mut sim = Sim::new(1, 2);
    for number in 0..400_000_u64 {
        let slot = (number % u64::from(SLOTS)) as u32;
        sim.vms[0].toy.add(run(0, slot), &[number], 0);
    }
    // Both ask when they start, and neither gives.
    (0..50).for_each(|_| sim.tick(0));
    let before = sim.memory.size();
    assert!(before < 2_000, "{before}");
    sim.start();
    let asks = |sim: &Sim| sim.vms.iter().any(|vm| vm.peers.handover.is_requesting());
    let ticks = (1..30).find(|_| {
        sim.tick(0);
        for (key, value) in sim.memory.values() {
            let sealed = value.is_empty() || crate::codec::Reader::open(&value).is_some();
            assert!(sealed, "{key}");
        }
        !asks(&sim)
    });
    // 4 ticks for this many, and a few for the request.
    assert!(ticks.is_some_and(|ticks| ticks <= 10), "{ticks:?}");
    let mut vms = sim.vms.iter();
    let newcomer = vms.find(|vm| vm.peers.workers.own() == 3_000).unwrap();
    let giver = sim.vms.iter().max_by_key(|vm| vm.toy.index.entries());
    for number in 0..SLOTS as usize {
        let (mut given, mut taken) = (Vec::new(), Vec::new());
        giver.unwrap().toy.index_list(number, &mut given);
        newcomer.toy.index_list(number, &mut taken);
        assert_eq!(given.len(), 80_000);
        assert!(given == taken, "in the same order");
    }
    (0..50).for_each(|_| sim.tick(0));
    let after = sim.memory.size();
    assert!(after < before + 20_000, "{after}");
}

#[test]
fn neighbours_under_other_names_do_not_disturb() {
    let mut memory = InProcess::default();
    memory.set("base/worker/0", b"another plugin's", None);
    memory.set("base/index", b"another plugin's", None);
    let mut vms: Vec<Vm> = ["base", "base", "base2", "base/worker"]
        .iter()
        .zip(1..)
        .map(|(base, own)| Vm {
            peers: Peers::new(base, own),
            idle: false,
            toy: Toy::default(),
            late: 0,
            traffic: Traffic::default(),
        })
        .collect();
    for tick in 0..60 {
        for (number, vm) in vms.iter_mut().enumerate() {
            let run = run(0, number as u32);
            vm.toy.add(run, &[tick], 0);
            vm.toy.learnt.append(run, &[tick], 0);
            vm.tick(&mut memory);
        }
    }
    let known = |toy: &Toy| {
        let slots: HashSet<u32> = toy.all.iter().map(|(slot, _)| *slot).collect();
        slots.len()
    };
    assert_eq!([0, 1, 2, 3].map(|vm| known(&vms[vm].toy)), [2, 2, 1, 1]);
    let unrecognised = [0, 2].map(|vm| vms[vm].traffic.unrecognised);
    assert!(
        unrecognised[0] > 0 && unrecognised[1] == 0,
        "{unrecognised:?}"
    );
}

/// The journal that another writer claims to have, with segments that are corrupt.
#[test]
fn a_journal_of_the_greatest_length_is_read_to_its_end() {
    let mut sim = Sim::new(3, 1);
    let fingerprint = sim.vms[0].toy.fingerprint();
    for number in 0..16 {
        let key = format!("{}/{number}", presence::key("base", 1));
        assert!(sim.memory.set(&key, b"corrupt", None));
    }
    for heartbeat in 0..40 {
        let record = presence::Record {
            owner: 9,
            heartbeat,
            presence: Presence {
                fingerprint: Some(fingerprint),
                segments: u64::MAX,
                ..Presence::default()
            },
        };
        let mut traffic = Traffic::default();
        let shared = &mut Shared::new(&mut sim.memory, &mut traffic);
        assert!(shared.put(&presence::key("base", 1), &record, None));
        sim.vms[0].tick(&mut sim.memory);
    }
    let read: Vec<u64> = sim.vms[0]
        .peers
        .workers
        .others()
        .map(|(_, peer)| peer.read)
        .collect();
    assert_eq!(read, [u64::MAX]);
    assert!(sim.vms[0].traffic.unrecognised < 40);
}
