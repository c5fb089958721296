//! VMs that Envoy destroys once others have their place.

use super::*;
use epp_core::picker::peers::LearntLog;

/// Hashes that take two ticks to be read.
const HASHES: u64 = 200_000;

impl Vm {
    fn leave(mut self, store: &mut dyn Store) {
        let shared = &mut Shared::new(store, &mut self.traffic);
        self.peers.leave(shared, &mut self.toy);
    }
}

impl Sim {
    /// Returns one with VMs of which the first knows so many hashes, and which expect no index.
    fn knowing(hashes: u64, vms: usize) -> Self {
        let mut sim = Self::new(1, vms);
        (0..50).for_each(|_| sim.tick(0));
        sim.vms.sort_by_key(|vm| vm.peers.workers.own());
        for number in 0..hashes {
            let slot = (number % u64::from(SLOTS)) as u32;
            sim.vms[0].toy.add(run(0, slot), &[number], 0);
        }
        sim
    }

    /// Envoy destroys the oldest VM.
    fn leave(&mut self) {
        self.vms.sort_by_key(|vm| vm.peers.workers.own());
        self.vms.remove(0).leave(&mut self.memory);
    }

    /// Checks that all VMs get as many hashes, and that nothing else stays.
    fn check_newcomers(&mut self, hashes: u64) {
        let requests = |vm: &Vm| vm.peers.handover.is_requesting();
        let over = (0..60).any(|_| {
            self.tick(0);
            !self.vms.iter().any(requests)
        });
        assert!(over, "they still request an index");
        for vm in &self.vms {
            let count = |number| {
                let mut taken = Vec::new();
                vm.toy.index_list(number, &mut taken);
                taken.len() as u64
            };
            assert_eq!((0..SLOTS as usize).map(count).sum::<u64>(), hashes);
        }
        (0..50).for_each(|_| self.tick(0));
        assert!(self.memory.size() < 30_000, "{}", self.memory.size());
    }
}

#[test]
fn the_last_vm_leaves_its_index_to_those_that_start_later() {
    let mut sim = Sim::knowing(HASHES, 1);
    sim.leave();
    assert!(sim.memory.size() as u64 > 8 * HASHES);
    (0..2).for_each(|_| sim.start());
    sim.check_newcomers(HASHES);
}

#[test]
fn a_vm_that_is_not_the_last_leaves_nothing() {
    let index = |sim: &Sim| {
        let mut values = sim.memory.values();
        values.retain(|(key, _)| key.starts_with("base/index"));
        values
    };
    let mut sim = Sim::knowing(1_000, 2);
    let before = index(&sim);
    sim.leave();
    assert_eq!(index(&sim), before);
    // Nor does one that has only started, as the one in which Envoy tries a configuration.
    sim.start();
    let newcomer = sim.vms.pop();
    newcomer.unwrap().leave(&mut sim.memory);
    assert_eq!(index(&sim), before);
}

#[test]
fn vms_that_have_begun_to_request_get_it_as_well() {
    // One that starts before the others leave: after no tick, and in the middle of a handover.
    for ticks in [0, 1, 4] {
        let mut sim = Sim::knowing(HASHES, 1);
        sim.start();
        (0..ticks).for_each(|_| sim.tick(0));
        sim.leave();
        sim.start();
        sim.check_newcomers(HASHES);
    }
}

#[test]
fn of_vms_that_leave_at_the_same_time_one_leaves_its_index() {
    let mut sim = Sim::knowing(0, 2);
    for vm in &mut sim.vms {
        (0..1_000).for_each(|number| drop(vm.toy.add(run(0, 0), &[number], 0)));
        let shared = &mut Shared::new(&mut sim.memory, &mut vm.traffic);
        vm.peers.workers.leave(shared);
    }
    (0..2).for_each(|_| sim.leave());
    sim.start();
    sim.check_newcomers(1_000);
}

/// An index of 1.5 million hashes.
struct Large(Toy);

impl IndexPeer for Large {
    fn index_list(&self, number: usize, hashes: &mut Vec<u64>) -> Option<Placement> {
        hashes.extend(0..100_000);
        (number < 15).then(|| run(0, number as u32))
    }

    fn fingerprint(&self) -> u64 {
        self.0.fingerprint()
    }

    fn learnt(&mut self) -> &mut LearntLog {
        self.0.learnt()
    }

    fn learn(&mut self, _: u32, _: Placement, _: &[u64], _: usize) {}

    fn allow_gaps(&mut self, _: bool) {}

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
fn of_two_vms_that_find_no_other_one_writes() {
    let (mut memory, mut traffic) = (InProcess::default(), Traffic::default());
    let shared = &mut Shared::new(&mut memory, &mut traffic);
    let mut last = [1, 2].map(|own| Handover::new("base", own));
    // Both have looked before either has written.
    let version = last[0].version(shared);
    let left = last.each_mut().map(|handover| {
        handover.leave_behind(version, &Large(Toy::default()), shared);
        handover.version(shared)
    });
    assert!(left[0] > version);
    assert_eq!(left[0], left[1]);
}

#[test]
fn a_request_that_two_donors_answer_in_turns_is_cancelled() {
    let (mut memory, mut traffic) = (InProcess::default(), Traffic::default());
    let shared = &mut Shared::new(&mut memory, &mut traffic);
    let (mut newcomer, mut donors) = (
        Handover::new("base", 3),
        [1 << 32, 2 << 32].map(|own| Handover::new("base", own)),
    );
    // One tick more: it is cancelled in the tick after.
    for tick in 0..crate::handover::MAX_BEGINNINGS + 2 {
        assert!(newcomer.is_requesting(), "{tick}");
        // Each sees that the other has begun, and begins again.
        donors[tick as usize % 2].send(&[3], &Large(Toy::default()), shared);
        newcomer.receive(1, shared, &mut |_, run| run.for_each(drop));
    }
    assert!(!newcomer.is_requesting());
}

/// It takes longer to read than a VM waits for others that know an index.
#[test]
fn a_large_index_is_read_to_its_end() {
    let (mut memory, mut traffic) = (InProcess::default(), Traffic::default());
    let shared = &mut Shared::new(&mut memory, &mut traffic);
    Handover::new("base", 1).leave_behind(None, &Large(Toy::default()), shared);
    let (mut newcomer, mut hashes) = (Handover::new("base", 2), 0);
    let ticks = (0..30).take_while(|_| {
        let mut take = |_, run: &mut dyn Iterator<Item = u64>| hashes += run.count();
        newcomer.receive(1, shared, &mut take);
        newcomer.observe_donor(false);
        newcomer.is_requesting()
    });
    assert!(ticks.count() > 10);
    assert_eq!(hashes, 1_500_000);
}
