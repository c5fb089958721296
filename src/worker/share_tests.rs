//! Simulated VMs that share one Envoy's data, crash, come late, and read what is torn.

use std::collections::{BTreeMap, HashSet};

use super::*;
use crate::worker::Local;

const SERVES: Now = Now {
    serves: true,
    stirred: false,
    watched: false,
};

/// What one VM knows, without any bound.
#[derive(Debug, Default, Clone)]
struct Toy {
    known: BTreeMap<(u8, u32), Vec<u64>>,
    all: HashSet<(u32, u64)>,
    own: BTreeMap<u32, SlotLoad>,
    others: BTreeMap<u32, (u32, u64)>,
}

impl Toy {
    fn add(&mut self, run: Run, hash: u64) {
        if self.all.insert((run.slot, hash)) {
            let list = self.known.entry((run.producer, run.slot));
            list.or_default().push(hash);
        }
    }
}

impl Known for Toy {
    fn list(&self, number: usize, hashes: &mut Vec<u64>) -> Option<Run> {
        let ((producer, slot), list) = self.known.iter().nth(number)?;
        hashes.extend(list);
        Some(run(*producer, *slot))
    }
}

impl Knowledge for Toy {
    fn cut(&self) -> u64 {
        1
    }

    fn place(&mut self, run: Run, prompt: &[u64], from: usize) {
        prompt[from..].iter().for_each(|hash| self.add(run, *hash));
    }

    fn in_flight(&self, loads: &mut Vec<SlotLoad>) {
        loads.extend(self.own.values().filter(|load| load.requests > 0));
    }

    fn others_in_flight(&mut self, others: &mut dyn Iterator<Item = &[SlotLoad]>) {
        self.others.clear();
        for load in others.flatten() {
            let sum = self.others.entry(load.slot).or_default();
            sum.0 += load.requests;
            sum.1 += load.tokens;
        }
    }
}

fn run(producer: u8, slot: u32) -> Run {
    Run {
        producer,
        slot,
        tag: slot + 100,
    }
}

/// Shared data of which one read in so many is torn.
struct Faulty<'a> {
    memory: &'a mut Local,
    rng: &'a mut fastrand::Rng,
    torn: u32,
}

impl SharedData for Faulty<'_> {
    fn get(&mut self, key: &str) -> Option<(Vec<u8>, u32)> {
        let (mut value, version) = self.memory.get(key)?;
        if self.torn > 0 && self.rng.u32(0..self.torn) == 0 && !value.is_empty() {
            if self.rng.bool() {
                value.truncate(self.rng.usize(0..value.len()));
            } else {
                let place = self.rng.usize(0..value.len());
                value[place] ^= 1 << self.rng.u32(0..8);
            }
        }
        Some((value, version))
    }

    fn set(&mut self, key: &str, value: &[u8], cas: Option<u32>) -> bool {
        self.memory.set(key, value, cas)
    }
}

struct Vm {
    share: Share,
    toy: Toy,
    late: u32,
}

struct Sim {
    memory: Local,
    rng: fastrand::Rng,
    vms: Vec<Vm>,
    torn: u32,
    foreign: u64,
    started: u64,
}

impl Sim {
    fn new(seed: u64, vms: usize) -> Self {
        let mut sim = Self {
            memory: Local::default(),
            rng: fastrand::Rng::with_seed(seed),
            vms: Vec::new(),
            torn: 0,
            foreign: 0,
            started: 0,
        };
        (0..vms).for_each(|_| sim.start());
        sim
    }

    fn start(&mut self) {
        self.started += 1;
        self.vms.push(Vm {
            share: Share::new("base", self.started * 1_000),
            toy: Toy::default(),
            late: 0,
        });
    }

    /// A request goes to an endpoint, or one ends.
    fn work(&mut self) {
        let vm = self.rng.usize(0..self.vms.len());
        let (slot, hash) = (self.rng.u32(0..5), self.rng.u64(0..500));
        let vm = &mut self.vms[vm];
        let run = run(0, slot);
        vm.toy.add(run, hash);
        vm.share.note(run, &[hash], 0);
        let load = vm.toy.own.entry(slot).or_default();
        load.slot = slot;
        if self.rng.bool() {
            load.requests += 1;
            load.tokens += hash;
        } else {
            *load = SlotLoad {
                slot,
                ..SlotLoad::default()
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
            let mut host = Faulty {
                memory: &mut self.memory,
                rng: &mut self.rng,
                torn: self.torn,
            };
            let foreign = &mut self.foreign;
            vm.share.exchange(SERVES, &mut host, foreign, &mut vm.toy);
        }
    }

    /// What all VMs know together.
    fn union(&self) -> HashSet<(u32, u64)> {
        let each = self.vms.iter().flat_map(|vm| &vm.toy.all);
        each.copied().collect()
    }

    /// Nobody counts a request twice, or forgets one.
    fn check_loads(&self, seed: u64) {
        for (number, vm) in self.vms.iter().enumerate() {
            for slot in 0..5 {
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
fn vms_that_crash_come_late_and_read_torn_values_agree_in_the_end() {
    for seed in 0..300 {
        let mut sim = Sim::new(seed, 4);
        sim.torn = [0, 200][(seed % 2) as usize];
        let mut since = 0;
        for _ in 0..400 {
            since += 1;
            (0..sim.rng.usize(0..6)).for_each(|_| sim.work());
            // One crashes, and another takes its place; which is given a second to hear all.
            if since > 25 && sim.rng.u32(0..20) == 0 {
                since = 0;
                let gone = sim.rng.usize(0..4);
                sim.vms.swap_remove(gone);
                sim.start();
            }
            sim.tick(8);
        }
        let torn = std::mem::take(&mut sim.torn);
        assert_eq!(torn > 0, sim.foreign > 0, "seed {seed}");
        // What was placed and not told yet is among it.
        let union = sim.union();
        (0..80).for_each(|_| sim.tick(0));
        for vm in &sim.vms {
            let missing: Vec<_> = union.difference(&vm.toy.all).collect();
            assert!(missing.is_empty(), "seed {seed}: {missing:?}");
        }
        sim.check_loads(seed);
        // Seats and their rings, and a handover's pieces.
        assert!(sim.memory.count() < 12 * 17 + 10, "{}", sim.memory.count());
    }
}

#[test]
fn a_placement_is_known_after_one_tick() {
    let mut sim = Sim::new(1, 16);
    (0..3).for_each(|_| sim.tick(0));
    for hash in 0..100 {
        sim.vms[3].toy.add(run(0, 1), hash);
        sim.vms[3].share.note(run(0, 1), &[hash], 0);
    }
    sim.tick(0);
    // Those that ticked before the one that tells hear of it with their next tick.
    sim.tick(0);
    assert!(sim.vms.iter().all(|vm| vm.toy.all.len() == 100));
}

#[test]
fn a_dead_vm_stops_counting_within_a_second() {
    let mut sim = Sim::new(1, 3);
    (0..100).for_each(|_| sim.work());
    (0..3).for_each(|_| sim.tick(0));
    sim.check_loads(0);
    sim.vms.pop();
    (0..=seats::PATIENCE).for_each(|_| sim.tick(0));
    sim.check_loads(0);
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
    sim.vms.iter_mut().for_each(|vm| {
        vm.share.take_traffic();
    });
    sim.tick(0);
    for vm in &mut sim.vms {
        let traffic = vm.share.take_traffic();
        assert!(traffic.written < 100, "{traffic:?}");
        assert!(traffic.read < 100 * 5, "{traffic:?}");
    }
}

#[test]
fn a_newcomer_knows_a_whole_index_within_a_second_and_the_pieces_go() {
    let mut sim = Sim::new(1, 2);
    for number in 0..400_000_u64 {
        let list = sim.vms[0].toy.known.entry((0, (number % 40) as u32));
        list.or_default().push(number);
    }
    // Both ask when they start, and neither gives.
    (0..50).for_each(|_| sim.tick(0));
    let before = sim.memory.size();
    assert!(before < 2_000, "{before}");
    sim.start();
    let asks = |sim: &Sim| sim.vms.iter().any(|vm| vm.share.handover.asks());
    let ticks = (1..30).find(|_| {
        sim.tick(0);
        !asks(&sim)
    });
    // 4 ticks for so many, and a few to ask.
    assert!(ticks.is_some_and(|ticks| ticks <= 10), "{ticks:?}");
    let newcomer = sim
        .vms
        .iter()
        .find(|vm| vm.share.seats.own() == 3_000)
        .unwrap();
    let giver = sim.vms.iter().max_by_key(|vm| vm.toy.known.len()).unwrap();
    assert_eq!(newcomer.toy.known, giver.toy.known, "in the same order");
    (0..50).for_each(|_| sim.tick(0));
    let after = sim.memory.size();
    assert!(after < before + 20_000, "{after}");
}

#[test]
fn neighbours_under_other_names_do_not_disturb() {
    let mut memory = Local::default();
    memory.set("base/seat/0", b"a stranger's", None);
    memory.set("base/index", b"a stranger's", None);
    let mut vms: Vec<(Share, Toy)> = ["base", "base", "base2", "base/seat"]
        .iter()
        .zip(1..)
        .map(|(base, own)| (Share::new(base, own), Toy::default()))
        .collect();
    let mut foreign = [0; 4];
    for tick in 0..60 {
        for (number, (share, toy)) in vms.iter_mut().enumerate() {
            let run = run(0, number as u32);
            toy.add(run, tick);
            share.note(run, &[tick], 0);
            share.exchange(SERVES, &mut memory, &mut foreign[number], toy);
        }
    }
    assert_eq!(vms[0].1.known.len(), 2);
    assert_eq!(vms[1].1.known.len(), 2);
    assert_eq!(vms[2].1.known.len(), 1);
    assert_eq!(vms[3].1.known.len(), 1);
    assert!(foreign[0] > 0 && foreign[2] == 0, "{foreign:?}");
}
