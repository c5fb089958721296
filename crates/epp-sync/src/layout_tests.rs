//! The layouts of what is shared, pinned to the version that stands in its keys: a module that runs
//! beside this one, as during an upgrade, takes what it finds under the same keys for its own.

use xxhash_rust::xxh64::xxh64;

use super::handover::{Handover, Known};
use super::journal::Journal;
use super::lease::Lease;
use super::report::{self, PlanReport, Report};
use super::seats::{Post, Seats};
use super::{secret, snapshot, InProcess, Store};
use epp_core::endpoints::store::{Member, Store as Endpoints};
use epp_core::picker::learnt::{Evidence, LearntLog, Placement};
use epp_core::picker::load::EndpointLoad;
use epp_core::picker::status::{
    Candidate, Legend, PlanSummary, PluginSummary, RecentDecision, Status,
};
use epp_core::prefix::key::Secret;
use epp_core::scheduling::Metrics;
use epp_core::scheduling::Slot;

const RUN: Placement = Placement {
    evidence: Evidence::Sent,
    producer: 1,
    slot: 2,
    tag: 3,
};

/// One list of three hashes.
struct One;

impl Known for One {
    fn list(&self, number: usize, hashes: &mut Vec<u64>) -> Option<Placement> {
        hashes.extend([7, 8, 9]);
        (number == 0).then_some(RUN)
    }
}

/// One value of each kind.
fn values() -> Vec<u8> {
    let mut host = InProcess::default();
    let mut seats = Seats::new("b".to_owned(), 5);
    assert!(seats.sit(&mut host));
    let post = Post {
        cut: 6,
        asks: true,
        serves: true,
        written: 1,
        held: 7,
        loads: vec![EndpointLoad {
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
    let mut log = LearntLog::default();
    log.keep(true);
    // Of the second prompt what stands before is told, too.
    log.note(RUN, &[1, 2], 0);
    log.note(RUN, &[1, 2], 1);
    log.note(RUN, &[16, 3, 4], 2);
    // And what is said of them.
    for word in [Evidence::Proven, Evidence::Refuted] {
        log.note(
            Placement {
                evidence: word,
                ..RUN
            },
            &[5],
            0,
        );
    }
    journal.write(0, &mut log, &mut host);
    secret::agree("b", &Secret::from(1), &mut host, &mut 0);
    Handover::new("b".to_owned(), 5).give(&[9], 6, &One, &mut host);
    assert!(Lease::new("b/lease".to_owned(), 5).tick(&mut host));
    let mut store = Endpoints::default();
    let member = Member {
        name: "p".to_owned(),
        address: "a:1".to_owned(),
        labels: vec![("n".to_owned(), "v".to_owned())],
        available: true,
    };
    store.set_member(Slot(0), &member);
    store.set_metrics(Slot(0), waiting_metrics(), false, 1_000);
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

fn waiting_metrics() -> Metrics {
    Metrics {
        waiting: Some(3.0),
        ..Metrics::default()
    }
}

/// What the status page reads: written by the order of its fields.
fn page(host: &mut InProcess) {
    let decision = RecentDecision {
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
    let status = Status {
        picks: vec![(1, 2)],
        ejected: vec![(3, "a".to_owned())],
        legends: vec![Legend {
            filters: vec!["f".to_owned()],
            scorers: vec![("s".to_owned(), 2.0)],
        }],
        decisions: vec![decision],
        ..Status::default()
    };
    let report = Report {
        owner: 5,
        at: 6,
        plan: 7,
        status,
    };
    report::post("b/seat/0", &report, host);
    let plan = PlanReport {
        id: 1,
        summary: PlanSummary {
            summary: "s".to_owned(),
            staleness: 2,
            plugins: vec![PluginSummary::default()],
        },
    };
    report::tell_plan("b", &plan, host);
}

#[test]
fn what_is_shared_is_laid_out_as_its_version_says() {
    assert_eq!(
        (super::ROOT, xxh64(&values(), 0)),
        ("epp-wasm/4", 1_201_253_282_287_778_825),
        "other bytes than before: raise the number in ROOT, and put both in here"
    );
}
