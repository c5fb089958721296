//! What waits in one VM's queues, as the others hear of it.

use super::peers::Peers;
use super::presence::{self, Presence, Record, MISSED_HEARTBEATS};
use super::shared::{Shared, Traffic};
use super::{InProcess, Store};
use epp_core::picker::peers::{Backlog, WaitingBand, MAX_SAMPLED_FLOWS, MAX_WAITING_BANDS};
use epp_core::picker::peers::{EndpointLoad, IndexPeer, LearntLog, Placement};

/// A picker that only queues.
#[derive(Default)]
struct Queueing {
    own: Backlog,
    others: Vec<Backlog>,
    /// How often it was told of the others.
    looks: usize,
    learnt: LearntLog,
}

impl IndexPeer for Queueing {
    fn fingerprint(&self) -> u64 {
        1
    }

    fn learnt(&mut self) -> &mut LearntLog {
        &mut self.learnt
    }

    fn learn(&mut self, _: u32, _: Placement, _: &[u64], _: usize) {}

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

    fn own_waiting(&self) -> Backlog {
        self.own.clone()
    }

    fn set_peer_waiting(&mut self, others: &mut dyn Iterator<Item = &Backlog>) {
        let waiting = others.filter(|other| !other.bands.is_empty());
        self.others = waiting.cloned().collect();
        self.looks += 1;
    }
}

struct Vm {
    peers: Peers,
    picker: Queueing,
}

impl Vm {
    fn new(own: u64) -> Self {
        Self {
            peers: Peers::new("base", own),
            picker: Queueing::default(),
        }
    }

    fn tick(&mut self, store: &mut dyn Store) {
        let mut traffic = Traffic::default();
        let shared = &mut Shared::new(store, &mut traffic);
        self.peers.tick(true, false, shared, &mut self.picker);
    }

    fn exchange(&mut self, store: &mut dyn Store) {
        let mut traffic = Traffic::default();
        let shared = &mut Shared::new(store, &mut traffic);
        self.peers.exchange_in_flight(shared, &mut self.picker);
    }
}

fn band(priority: i32, requests: u32) -> WaitingBand {
    WaitingBand {
        priority,
        requests,
        bytes: 100,
    }
}

/// What waits in a picker: these bands, and two flows of the highest.
fn backlog(bands: &[WaitingBand]) -> Backlog {
    Backlog {
        bands: bands.to_vec(),
        flows: 2,
        sample: vec![5, 9],
    }
}

/// Two VMs that know each other.
fn two(memory: &mut InProcess) -> [Vm; 2] {
    let mut vms = [Vm::new(1), Vm::new(2)];
    for _ in 0..3 {
        vms.iter_mut().for_each(|vm| vm.tick(memory));
    }
    vms
}

#[test]
fn what_waits_is_known_to_the_others_after_one_exchange_between_ticks() {
    let mut memory = InProcess::default();
    let [mut one, mut other] = two(&mut memory);
    one.picker.own = backlog(&[band(7, 3), band(-1, 1)]);
    one.exchange(&mut memory);
    other.exchange(&mut memory);
    assert_eq!(other.picker.others, [one.picker.own.clone()]);
    one.picker.own = Backlog::default();
    one.exchange(&mut memory);
    let looks = other.picker.looks;
    other.exchange(&mut memory);
    assert_eq!(other.picker.others, []);
    other.exchange(&mut memory);
    assert_eq!(other.picker.looks, looks + 2, "without news, too");
}

#[test]
fn what_waited_in_a_vm_that_is_gone_counts_no_more_after_a_second() {
    let mut memory = InProcess::default();
    let [mut one, mut other] = two(&mut memory);
    one.picker.own = backlog(&[band(7, 3)]);
    one.tick(&mut memory);
    for _ in 0..MISSED_HEARTBEATS {
        other.tick(&mut memory);
        assert_eq!(other.picker.others, [backlog(&[band(7, 3)])]);
    }
    other.tick(&mut memory);
    assert_eq!(other.picker.others, []);
}

#[test]
fn a_record_of_more_than_a_picker_can_have_is_not_ours() {
    let mut memory = InProcess::default();
    let [_, mut other] = two(&mut memory);
    let key = presence::key("base", 0);
    let cases = [
        (MAX_WAITING_BANDS, 0, 0, true),
        (MAX_WAITING_BANDS + 1, 0, 0, false),
        (1, MAX_SAMPLED_FLOWS, MAX_SAMPLED_FLOWS, true),
        (1, MAX_SAMPLED_FLOWS, MAX_SAMPLED_FLOWS + 1, false),
        (1, 2, 3, false),
        (1, 1_088, 1, true),
        (1, 1_089, 1, false),
    ];
    for (bands, flows, sample, known) in cases {
        let bands: Vec<WaitingBand> = (0..bands)
            .rev()
            .map(|priority| band(priority as i32, 1))
            .collect();
        let waiting = Backlog {
            bands,
            flows: flows as u32,
            sample: (0..sample as u32).collect(),
        };
        let record = Record {
            owner: 1,
            heartbeat: 100,
            presence: Presence {
                waiting: waiting.clone(),
                ..Presence::default()
            },
        };
        let mut traffic = Traffic::default();
        Shared::new(&mut memory, &mut traffic).put(&key, &record, None);
        other.picker.others.clear();
        other.tick(&mut memory);
        assert_eq!(other.picker.others == [waiting], known, "{flows} {sample}");
    }
}
