//! The layouts of what is shared, pinned to the version that stands in its keys: a module that runs
//! beside this one, as during an upgrade, takes what it finds under the same keys for its own.

use xxhash_rust::xxh64::xxh64;

use super::handover::{Handover, Known};
use super::journal::{Journal, Run, Word};
use super::lease::Lease;
use super::report::{self, Candidate, Legend, Part, Report, Shown, Told};
use super::seats::{Post, Seats, SlotLoad};
use super::{secret, snapshot, Local, SharedData};
use crate::endpoints::store::{Member, Store};
use crate::prefix::key::Secret;
use crate::scheduling::Slot;
use crate::testing::waiting;

const RUN: Run = Run {
    word: Word::Sent,
    producer: 1,
    slot: 2,
    tag: 3,
};

/// One list of three hashes.
struct One;

impl Known for One {
    fn list(&self, number: usize, hashes: &mut Vec<u64>) -> Option<Run> {
        hashes.extend([7, 8, 9]);
        (number == 0).then_some(RUN)
    }
}

/// One value of each kind.
fn values() -> Vec<u8> {
    let mut host = Local::default();
    let mut seats = Seats::new("b".to_owned(), 5);
    assert!(seats.sit(&mut host));
    let post = Post {
        cut: 6,
        asks: true,
        serves: true,
        written: 1,
        held: 7,
        loads: vec![SlotLoad {
            slot: 1,
            tag: 2,
            requests: 3,
            unseen: 4,
            scraped: 5,
            tokens: 6,
        }],
    };
    seats.post(&post, &mut host);
    let mut journal = Journal::new("b".to_owned(), 5);
    // Of the second prompt what stands before is told, too.
    journal.note(RUN, &[1, 2], 0);
    journal.note(RUN, &[1, 2], 1);
    journal.note(RUN, &[16, 3, 4], 2);
    // And what is said of them.
    for word in [Word::Proven, Word::Refuted] {
        journal.note(Run { word, ..RUN }, &[5], 0);
    }
    journal.write(0, &mut host);
    secret::agree("b", &Secret::from(1), &mut host, &mut 0);
    Handover::new("b".to_owned(), 5).give(&[9], 6, &One, &mut host);
    assert!(Lease::new("b/lease".to_owned(), 5).tick(&mut host));
    let mut store = Store::default();
    let member = Member {
        name: "p".to_owned(),
        address: "a:1".to_owned(),
        labels: vec![("n".to_owned(), "v".to_owned())],
        available: true,
    };
    store.set_member(Slot(0), &member);
    store.set_metrics(Slot(0), waiting(3.0), false, 1_000);
    page(&mut host);
    let keys = [
        "seat/0",
        "seat/0/0",
        "seat/0/report",
        "plan",
        "index",
        "index/0",
        "lease",
        "secret",
    ];
    let mut all = Vec::new();
    for key in keys {
        let (value, _) = host.get(&format!("b/{key}")).unwrap();
        all.extend(value);
    }
    all.extend(snapshot::pack_members(&store, 1));
    all.extend(snapshot::pack_metrics(&store, 1));
    all
}

/// What the status page reads: written by the order of its fields.
fn page(host: &mut Local) {
    let shown = Shown {
        number: 1,
        at: 2,
        model: "m".to_owned(),
        tokens: 3,
        held: Some(0.5),
        early: true,
        legend: 4,
        removed: vec![5],
        candidates: 6,
        picks: 7,
        best: vec![Candidate {
            slot: Some(8),
            sum: 0.25,
            scores: vec![0.75],
        }],
        error: Some("e".to_owned()),
    };
    let report = Report {
        owner: 5,
        picks: vec![(1, 2)],
        avoided: vec![(3, "a".to_owned())],
        legends: vec![Legend {
            filters: vec!["f".to_owned()],
            scorers: vec![("s".to_owned(), 2.0)],
        }],
        decisions: vec![shown],
        ..Report::default()
    };
    report::post("b/seat/0", &report, host);
    let told = Told {
        plan: 1,
        summary: "s".to_owned(),
        staleness: 2,
        parts: vec![Part::default()],
    };
    report::tell_plan("b", &told, host);
}

#[test]
fn what_is_shared_is_laid_out_as_its_version_says() {
    assert_eq!(
        (super::ROOT, xxh64(&values(), 0)),
        ("epp-wasm/3", 940_974_836_648_413_277),
        "other bytes than before: raise the number in ROOT, and put both in here"
    );
}
