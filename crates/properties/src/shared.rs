//! Properties of the readers of data that workers share.
//!
//! The properties add the checksum, which the fuzzer cannot guess: another version of the module could write any
//! value with a valid one.

use epp_core::config;
use epp_core::endpoints::store::{EndpointStore, Member};
use epp_core::picker::peers::{Backlog, EndpointLoad, IndexPeer, MAX_WAITING_BANDS};
use epp_core::picker::peers::{Evidence, LearntLog, PlacedBlocks, Placement};
use epp_core::picker::Picker;
use epp_core::scheduling::Slot;
use epp_core::time::Timestamp;
use epp_sync::codec::MARK;
use epp_sync::peers::Peers;
use epp_sync::presence::WorkerSlots;
use epp_sync::shared::{Shared, Traffic};
use epp_sync::{report, snapshot, InProcess, Sharing, Store};
use xxhash_rust::xxh64::xxh64;

/// Worker slots that are read.
const WORKERS: usize = 256;
/// Segments of a journal that are read.
const SEGMENTS: usize = 16;
/// Hashes that a handover transfers in a tick.
const PER_TICK: usize = 131_072;

/// Asserts that each reader takes over a value, or rejects it without effect.
pub fn shared(input: &[u8]) {
    assert_eq!(snapshot::decode_members(input), None, "not sealed");
    let mut value = [MARK.as_slice(), input].concat();
    let checksum = xxh64(&value, 0);
    value.extend_from_slice(&checksum.to_le_bytes());
    check_members(&value);
    check_metrics(&value);
    check_peers(&value);
    check_picker(&value);
    check_page(&value);
}

/// A store with the same value under each key.
struct Host<'v>(&'v [u8]);

impl Store for Host<'_> {
    fn get(&mut self, _: &str) -> Option<(Vec<u8>, u32)> {
        Some((self.0.to_vec(), 1))
    }

    fn set(&mut self, _: &str, _: &[u8], _: Option<u32>) -> bool {
        true
    }
}

fn check_members(value: &[u8]) {
    let Some(mut members) = snapshot::decode_members(value) else {
        return;
    };
    let mut store = EndpointStore::default();
    for (slot, member) in &members {
        store.set_member(*slot, member);
    }
    // Of those that claim one slot the last has it.
    members.reverse();
    members.sort_by_key(|(slot, _)| *slot);
    members.dedup_by_key(|(slot, _)| *slot);
    let again = snapshot::decode_members(&snapshot::encode_members(&store));
    assert_eq!(again, Some(members));
}

/// Returns a pool of four endpoints.
fn store() -> EndpointStore {
    let mut store = EndpointStore::default();
    for slot in 0..4 {
        let member = Member {
            name: slot.to_string(),
            ..Member::default()
        };
        store.set_member(Slot(slot), &member);
    }
    store
}

fn check_metrics(value: &[u8]) {
    let Some(metrics) = snapshot::decode_metrics(value) else {
        return;
    };
    let mut one = store();
    let newer = one.adopt_metrics(metrics);
    assert!(newer.iter().all(|slot| slot.0 < 4));
    let encoded = snapshot::encode_metrics(&one);
    let mut other = store();
    let again = snapshot::decode_metrics(&encoded).expect("it was just encoded");
    other.adopt_metrics(again);
    assert_eq!(snapshot::encode_metrics(&other), encoded);
}

/// Counts the entries that it receives.
#[derive(Default)]
struct Counted {
    hashes: usize,
    loads: usize,
    bands: usize,
    learnt: LearntLog,
}

impl IndexPeer for Counted {
    fn fingerprint(&self) -> u64 {
        1
    }

    fn learnt(&mut self) -> &mut LearntLog {
        &mut self.learnt
    }

    fn learn(&mut self, _: u32, _: Placement, prompt: &[u64], from: usize) {
        self.hashes += prompt.len().saturating_sub(from);
    }

    fn allow_gaps(&mut self, _: bool) {}

    fn index_list(&self, number: usize, hashes: &mut Vec<u64>) -> Option<Placement> {
        hashes.push(1);
        let (evidence, producer, slot, tag) = (Evidence::Proven, 0, 0, 0);
        (number == 0).then_some(Placement::Blocks(PlacedBlocks {
            evidence,
            producer,
            slot,
            tag,
        }))
    }

    fn clear_index(&mut self) {}

    fn max_index_bytes(&self) -> usize {
        64 << 20
    }

    fn held(&self) -> u32 {
        0
    }

    fn own_loads(&self, _: &mut Vec<EndpointLoad>) {}

    fn set_peer_loads(&mut self, others: &mut dyn Iterator<Item = &[EndpointLoad]>) {
        self.loads = others.map(<[EndpointLoad]>::len).sum();
    }

    fn set_peer_waiting(&mut self, others: &mut dyn Iterator<Item = &Backlog>) {
        self.bands = 0;
        for other in others {
            self.bands += other.bands.len();
            assert!(other.is_sound());
        }
    }
}

fn check_peers(value: &[u8]) {
    let mut peers = Peers::new("base", 1);
    let (mut traffic, mut counted) = (Traffic::default(), Counted::default());
    for _ in 0..3 {
        let host = &mut Host(value);
        let shared = &mut Shared::new(host, &mut traffic);
        peers.tick(true, true, shared, &mut counted);
    }
    // Every worker slot, every segment and every piece is the same value. A load has six bytes at least.
    let in_one = value.len() / size_of::<u64>();
    assert!(counted.hashes <= in_one * 3 * (WORKERS * SEGMENTS + PER_TICK));
    assert!(counted.loads <= value.len() / 6 * WORKERS);
    assert!(counted.bands <= MAX_WAITING_BANDS * WORKERS);
}

/// Asserts that a picker survives such a value under any key.
fn check_picker(value: &[u8]) {
    let plan = config::load("").unwrap().plan;
    let mut sharing = Sharing::new("epp", plan.cluster(), 1);
    let mut picker = Picker::new(plan, 1);
    let mut host = Host(value);
    let members = snapshot::decode_members(value).unwrap_or_default();
    let now = Timestamp::from_nanos(1_000_000_000);
    sharing.join(&mut picker, &mut host, now);
    for _ in 0..2 {
        sharing.before_tick(&mut picker, &mut host);
        picker.tick(now);
        sharing.after_tick(&mut picker, &mut host, now);
        assert!(picker.pool().len() <= members.len());
    }
}

/// A store with one pool and one worker slot; all other keys have the same value.
struct Page<'v> {
    own: InProcess,
    value: &'v [u8],
}

impl Store for Page<'_> {
    fn get(&mut self, key: &str) -> Option<(Vec<u8>, u32)> {
        let own = self.own.get(key);
        own.or_else(|| Some((self.value.to_vec(), 1)))
    }

    fn set(&mut self, key: &str, value: &[u8], cas: Option<u32>) -> bool {
        self.own.set(key, value, cas)
    }
}

/// Asserts that the status page is well-formed whatever reports contain, and shows it as text.
fn check_page(value: &[u8]) {
    let base = report::base("epp", "pool");
    let mut own = InProcess::default();
    let mut traffic = Traffic::default();
    let shared = &mut Shared::new(&mut own, &mut traffic);
    report::list_pool(&base, shared);
    // One value stands in all worker slots but the first, and beside all of them.
    WorkerSlots::new(base, 1).register(shared);
    let page = status_page::page(&mut Page { own, value }, 1_000, "b");
    assert!(page.starts_with("<!DOCTYPE html><html") && page.ends_with("</html>"));
    assert!(!page.contains("<script"));
}
