//! The readers of what the workers share.
//!
//! The checksum that tells a torn value is put on here: the fuzzer cannot guess it, another version
//! of the module could write anything.

use epp_core::config;
use epp_core::endpoints::store::{Member, Store as Endpoints};
use epp_core::picker::learnt::{Evidence, LearntLog, Placement};
use epp_core::picker::load::EndpointLoad;
use epp_core::picker::meter::Unmetered;
use epp_core::picker::Picker;
use epp_core::scheduling::Slot;
use epp_core::time::Timestamp;
use epp_sync::handover::Known;
use epp_sync::seats::Seats;
use epp_sync::share::{Knowledge, Now, Share};
use epp_sync::{report, snapshot, InProcess, Sharing, Store};
use xxhash_rust::xxh64::xxh64;

/// What every value of ours begins with.
const MAGIC: &[u8] = b"epp1";

/// Seats that are looked at, segments of a journal that are read, and hashes handed over in a tick.
const SEATS: usize = 256;
const SEGMENTS: usize = 16;
const PER_TICK: usize = 131_072;

/// Whatever the others wrote is taken over as they meant it or left alone.
pub fn shared(input: &[u8]) {
    assert_eq!(snapshot::unpack_members(input), None, "not sealed");
    let mut value = [MAGIC, input].concat();
    let checksum = xxh64(&value, 0);
    value.extend_from_slice(&checksum.to_le_bytes());
    check_members(&value);
    check_metrics(&value);
    check_share(&value);
    check_picker(&value);
    check_page(&value);
}

/// Shared data that has the same value everywhere.
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
    let Some(mut members) = snapshot::unpack_members(value) else {
        return;
    };
    let mut store = Endpoints::default();
    for (slot, member) in &members {
        store.set_member(*slot, member);
    }
    // Of those that claim one slot the last has it.
    members.reverse();
    members.sort_by_key(|(slot, _)| *slot);
    members.dedup_by_key(|(slot, _)| *slot);
    let again = snapshot::unpack_members(&snapshot::pack_members(&store, 1));
    assert_eq!(again, Some(members));
}

/// Four endpoints.
fn store() -> Endpoints {
    let mut store = Endpoints::default();
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
    let mut one = store();
    if snapshot::apply_metrics(value, &mut one, |slot| assert!(slot.0 < 4)).is_none() {
        return;
    }
    let packed = snapshot::pack_metrics(&one, 1);
    let mut other = store();
    assert_eq!(
        snapshot::apply_metrics(&packed, &mut other, |_| {}),
        Some(())
    );
    assert_eq!(snapshot::pack_metrics(&other, 1), packed);
}

/// Counts what it is told.
#[derive(Default)]
struct Told {
    hashes: usize,
    loads: usize,
    learnt: LearntLog,
}

impl Known for Told {
    fn list(&self, number: usize, hashes: &mut Vec<u64>) -> Option<Placement> {
        hashes.push(1);
        let (evidence, producer, slot, tag) = (Evidence::Proven, 0, 0, 0);
        (number == 0).then_some(Placement {
            evidence,
            producer,
            slot,
            tag,
        })
    }
}

impl Knowledge for Told {
    fn cut(&self) -> u64 {
        1
    }

    fn learnt(&mut self) -> &mut LearntLog {
        &mut self.learnt
    }

    fn place(&mut self, _: u32, _: Placement, prompt: &[u64], from: usize) {
        self.hashes += prompt.len().saturating_sub(from);
    }

    fn expect_loose_blocks(&mut self, _: bool) {}

    fn held(&self) -> u32 {
        0
    }

    fn in_flight(&self, _: &mut Vec<EndpointLoad>) {}

    fn others_in_flight(&mut self, others: &mut dyn Iterator<Item = &[EndpointLoad]>) {
        self.loads = others.map(<[EndpointLoad]>::len).sum();
    }
}

fn check_share(value: &[u8]) {
    let mut share = Share::new("base", 1);
    let (mut foreign, mut told) = (0, Told::default());
    let now = Now {
        serves: true,
        stirred: true,
    };
    for _ in 0..3 {
        let host = &mut Host(value);
        share.exchange(now, host, &mut foreign, &mut told);
    }
    // Every seat, every segment and every piece is the same value.
    let in_one = value.len() / size_of::<u64>();
    assert!(told.hashes <= in_one * 3 * (SEATS * SEGMENTS + PER_TICK));
    assert!(told.loads <= in_one * SEATS);
}

/// A picker takes over what it can use of such a value, whatever it stands for.
fn check_picker(value: &[u8]) {
    let plan = config::load("").unwrap().plan;
    let mut sharing = Sharing::new("epp", plan.cluster(), 1);
    let mut picker = Picker::new(plan, 1, Box::new(Unmetered));
    let mut host = Host(value);
    let members = snapshot::unpack_members(value).unwrap_or_default();
    let now = Timestamp::from_nanos(1_000_000_000);
    sharing.join(&mut picker, &mut host, now);
    for _ in 0..2 {
        sharing.before_tick(&mut picker, &mut host);
        picker.tick(now);
        sharing.after_tick(&mut picker, &mut host, now);
        assert!(picker.pool().len() <= members.len());
    }
}

/// Shared data with one pool and one seat, where all else is the same value.
struct Audience<'v> {
    own: InProcess,
    value: &'v [u8],
}

impl Store for Audience<'_> {
    fn get(&mut self, key: &str) -> Option<(Vec<u8>, u32)> {
        let own = self.own.get(key);
        own.or_else(|| Some((self.value.to_vec(), 1)))
    }

    fn set(&mut self, key: &str, value: &[u8], cas: Option<u32>) -> bool {
        self.own.set(key, value, cas)
    }
}

/// The page is whole whatever it is told, and shows nothing as anything but text.
fn check_page(value: &[u8]) {
    let base = report::base("epp", "pool");
    let mut own = InProcess::default();
    report::enlist(&base, &mut own);
    // One value is posted at all seats but the first, and told of all.
    Seats::new(base, 1).sit(&mut own);
    let page = status_page::page(&mut Audience { own, value }, 1_000);
    assert!(page.starts_with("<!DOCTYPE html><html") && page.ends_with("</html>"));
    assert!(!page.contains("<script"));
}
