//! The layouts of shared values, pinned to the version in their keys: a module that runs
//! beside this one, as during an upgrade, takes what it finds under the same keys for its own.

use xxhash_rust::xxh64::xxh64;

use epp_core::endpoints::store::{EndpointStore, Member};
use epp_core::findings::{Condition, Finding};
use epp_core::picker::peers::ModelEvidence;
use epp_core::picker::peers::{Backlog, EndpointLoad, WaitingBand};
use epp_core::picker::peers::{Evidence, LearntLog, PlacedBlocks, Placement};
use epp_core::picker::peers::{IndexPeer, ModelNames};
use epp_core::picker::status::{
    Candidate, Legend, PlanSummary, PluginSummary, RecentDecision, Status,
};
use epp_core::prefix::key::Secret;
use epp_core::scheduling::{Health, Metrics, Slot};
use epp_core::time::Timestamp;

use super::delivery::SharedFinding;
use super::ejections::StoredRecord;
use super::findings::{Own, Verdict};
use super::handover::Handover;
use super::journal::Journal;
use super::lease::Lease;
use super::presence::{Presence, WorkerSlots};
use super::report::{self, PlanReport, Report};
use super::shared::{Shared, Traffic};
use super::{models, secret, snapshot, InProcess, Store, BUILD};

const BLOCKS: PlacedBlocks = PlacedBlocks {
    evidence: Evidence::Sent,
    producer: 1,
    slot: 2,
    tag: 3,
};
const RUN: Placement = Placement::Blocks(BLOCKS);

/// One list of three hashes.
struct One;

impl IndexPeer for One {
    fn fingerprint(&self) -> u64 {
        6
    }

    fn learnt(&mut self) -> &mut LearntLog {
        panic!("a handover takes nothing from the log")
    }

    fn learn(&mut self, _: u32, _: Placement, _: &[u64], _: usize) {}

    fn allow_gaps(&mut self, _: bool) {}

    fn index_list(&self, number: usize, hashes: &mut Vec<u64>) -> Option<Placement> {
        hashes.extend([7, 8, 9]);
        (number == 0).then_some(RUN)
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

fn presence() -> Presence {
    Presence {
        fingerprint: Some(6),
        requests_index: true,
        serves: true,
        segments: 1,
        held: 7,
        loads: vec![EndpointLoad {
            slot: 1,
            tag: 2,
            requests: 3,
            unseen: 4,
            scraped: 5,
            tokens: 6,
            needs_page: true,
        }],
        waiting: Backlog {
            bands: vec![WaitingBand {
                priority: -7,
                requests: 8,
                bytes: 9,
            }],
            flows: 10,
            sample: vec![11],
        },
    }
}

fn log() -> LearntLog {
    let mut log = LearntLog::default();
    log.set_enabled(true);
    // The blocks before those of the second prompt are published, too.
    log.append(RUN, &[1, 2], 0);
    log.append(RUN, &[1, 2], 1);
    log.append(RUN, &[16, 3, 4], 2);
    // And what else is known of them.
    for evidence in [Evidence::Proven, Evidence::Refuted] {
        let placement = Placement::Blocks(PlacedBlocks { evidence, ..BLOCKS });
        log.append(placement, &[5], 0);
    }
    log
}

fn endpoints() -> EndpointStore {
    let mut endpoints = EndpointStore::default();
    let member = Member {
        name: "p".to_owned(),
        address: "a:1".to_owned(),
        labels: vec![("n".to_owned(), "v".to_owned())],
        health: Health::Healthy,
    };
    endpoints.set_member(Slot(0), &member);
    endpoints.set_metrics(
        Slot(0),
        waiting_metrics(),
        false,
        Timestamp::from_millis(1_000),
    );
    endpoints
}

/// One value of each kind.
fn values() -> Vec<u8> {
    let mut store = InProcess::default();
    let mut traffic = Traffic::default();
    let shared = &mut Shared::new(&mut store, &mut traffic);
    let mut workers = WorkerSlots::new("b".to_owned(), 5);
    assert!(workers.register(shared));
    workers.publish(&presence(), shared);
    Journal::new("b".to_owned(), 5).write(0, &mut log(), shared);
    secret::agree("b", &Secret::from(1), shared);
    Handover::new("b", 5).send(&[9], &One, shared);
    assert!(Lease::new("b/lease".to_owned(), 5).tick(shared));
    SharedFinding::new("b/delivery".to_owned()).exchange(Some(true), shared);
    let mut names = ModelNames::default();
    let name = ("m", ModelEvidence::Listed);
    assert!(models::admit("b/models", name, (&mut names, 1), shared));
    shared.put(
        "b/ejections",
        &[(Slot(1), StoredRecord::default())][..],
        None,
    );
    shared.set("b/members", &snapshot::encode_members(&endpoints()), None);
    shared.set("b/metrics", &snapshot::encode_metrics(&endpoints()), None);
    page(shared);
    let keys = [
        "worker/0",
        "worker/0/0",
        "worker/0/findings",
        "worker/0/report",
        "findings",
        "plan",
        "index",
        "index/0",
        "lease",
        "secret",
        "delivery",
        "models",
        "ejections",
        "members",
        "metrics",
    ];
    let values = keys.map(|key| store.get(&format!("b/{key}")).unwrap().0);
    values.concat()
}

fn waiting_metrics() -> Metrics {
    Metrics {
        waiting: Some(3.0),
        ..Metrics::default()
    }
}

/// Writes the values that the status page reads, encoded in the order of their fields.
fn page(shared: &mut Shared<'_>) {
    let decision = RecentDecision {
        number: 1,
        at: 2,
        model: "m".to_owned(),
        tokens: 3,
        cached_share: Some(0.5),
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
        parts: vec!["q".to_owned()],
        error: Some("e".to_owned()),
    };
    let status = Status {
        picks: vec![(1, 2)],
        obstacles: vec![(3, "a".to_owned())],
        flow: vec!["w".to_owned()],
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
    report::publish("b/worker/0", &report, shared);
    let plan = PlanReport {
        id: 1,
        summary: PlanSummary {
            summary: "s".to_owned(),
            staleness: 2,
            plugins: vec![PluginSummary::default()],
            approximations: vec!["a".to_owned()],
        },
    };
    report::publish_plan("b", &plan, shared);
    let conditions = vec![Condition::new(Finding::MemoryHigh, "d")];
    let own = Own {
        owner: 8,
        plan: 9,
        conditions: conditions.clone(),
    };
    shared.put("b/worker/0/findings", &own, None);
    shared.put("b/findings", &Verdict { open: conditions }, None);
}

#[test]
fn shared_values_have_the_layout_of_their_version() {
    assert_eq!(
        (super::ROOT, xxh64(&values(), 0)),
        ("epp-wasm/16", 16_587_103_064_374_595_350),
        "other bytes than before: raise the number in ROOT, and put both in here"
    );
}

/// Returns the keys in the first column of the table of keys, sorted.
fn documented_keys(text: &str) -> Vec<&str> {
    let table = text.split_once("| key |").unwrap().1;
    let rows = table
        .lines()
        .skip(2)
        .map(|line| line.trim_start_matches("//! "));
    let rows = rows.take_while(|line| line.starts_with('|'));
    let cells = rows.map(|row| row.split('|').nth(1).unwrap());
    let mut keys: Vec<&str> = cells
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect();
    keys.sort_unstable();
    keys
}

#[test]
fn docs_workers_lists_the_keys_that_this_crate_documents() {
    let (page, crate_doc) = (
        include_str!("../../../docs/workers.md"),
        include_str!("lib.rs"),
    );
    let keys = documented_keys(page);
    assert!(
        keys.contains(&"announced") && keys.contains(&"worker/N"),
        "{keys:?}"
    );
    assert_eq!(keys, documented_keys(crate_doc));
    for key in ["epp-wasm/VERSION/watched", "epp-wasm/VERSION/pools"] {
        assert!(page.contains(key) && crate_doc.contains(key), "{key}");
    }
    assert!(page.contains(BUILD));
}
