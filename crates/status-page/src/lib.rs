//! The status page: the state and the latest decisions of the pickers of one Envoy.
//!
//! A VM that does nothing else renders it, so that a failure of the page does not affect requests. Rendering
//! sends a heartbeat, on which the pickers report their state ([`epp_sync::report`]); the page shows the
//! reports and the other shared data. The crate may use `epp-core` and `epp-sync`, and no host.

mod columns;
mod html;
mod serving;
mod verdict;

pub use serving::{Request, Response};

use std::time::Duration;

use epp_core::endpoints::store::EndpointStore;
use epp_core::findings::{printable, Condition};
use epp_core::picker::peers::EndpointLoad;
use epp_core::picker::status::{Candidate, Legend, RecentDecision, Status};
use epp_core::scheduling::Slot;
use epp_core::time::{Clock, Timestamp};
use epp_sync::presence::{self, Record};
use epp_sync::report::{self, PlanReport, Report};
use epp_sync::shared::{Shared, Traffic};
use epp_sync::{findings, snapshot, Store, BUILD};

/// Seconds after which a browser loads the page again.
pub const REFRESH: u32 = 2;

/// Decisions that the page shows, of all workers together: a screen or two.
const DECISIONS: usize = 50;

/// Bytes of the name of the pickers' build that are shown.
const MAX_BUILD_BYTES: usize = 200;

/// A report older than this, in milliseconds, was made for an earlier visit of the page: pickers report
/// every 500 ms while it is open.
const REPORT_EXPIRES: u64 = 5_000;

/// A pool as its pickers report it.
#[derive(Debug, Default)]
struct Pool {
    plugin: String,
    cluster: String,
    plan: Option<PlanReport>,
    store: EndpointStore,
    vms: Vec<Vm>,
    /// What is wrong with it, the worst first.
    open: Vec<Condition>,
}

/// One VM: a worker's, or the main thread's.
#[derive(Debug, Default)]
struct Vm {
    worker: u32,
    record: Record,
    /// Its latest report; none where it has not reported since the page was opened.
    report: Option<Report>,
}

/// What all VMs say of one endpoint.
#[derive(Debug, Clone, Copy, Default)]
struct Totals<'a> {
    /// Requests in flight.
    requests: u32,
    /// Tokens in flight.
    tokens: u64,
    /// How often it was picked.
    picks: i64,
    /// Why it may not be picked, and for how long already.
    obstacle: Option<&'a str>,
    /// Why its last metrics page could not be read, if it could not.
    poll_error: Option<&'a str>,
}

/// A decision, its VM's worker slot, and what it refers to.
#[derive(Debug, Clone, Copy)]
struct Decided<'a> {
    worker: u32,
    shown: &'a RecentDecision,
    legend: Option<&'a Legend>,
}

/// Returns the page as of `now`, in milliseconds since 1970, and asks the pickers to report. `build` is that of the
/// module which serves the page.
pub fn page(store: &mut dyn Store, now: u64, build: &str) -> String {
    let mut traffic = Traffic::default();
    let other = store.get(BUILD).map(|(pickers, _)| pickers);
    let other = other.filter(|pickers| *pickers != *build.as_bytes());
    let other = other.map(|pickers| printable(&String::from_utf8_lossy(&pickers), MAX_BUILD_BYTES));
    let shared = &mut Shared::new(store, &mut traffic);
    let bases = report::watch(shared);
    let pools = bases
        .iter()
        .filter_map(|base| Pool::read(base, shared, now));
    let pools: Vec<Pool> = pools.filter(Pool::is_reported).collect();
    html::page(&pools, now, build, other.as_deref())
}

impl Pool {
    fn read(base: &str, shared: &mut Shared<'_>, now: u64) -> Option<Self> {
        let (plugin, cluster) = report::named(base)?;
        let vms = presence::published(base, shared).into_iter();
        let vms = vms.map(|(worker, record)| {
            let report = report::read(&presence::key(base, worker), shared);
            let own = |report: &Report| report.owner == record.owner;
            let news = |report: &Report| now.saturating_sub(report.at) < REPORT_EXPIRES;
            let report = report.filter(own).filter(news);
            Vm {
                worker,
                record,
                report,
            }
        });
        let vms = vms.collect();
        let plan = report::plan(base, shared);
        let verdict = findings::verdict(base, shared).unwrap_or_default();
        let mut store = EndpointStore::default();
        let mut read = |part| Some(shared.bytes(&format!("{base}/{part}"))?.0);
        let members = read("members").and_then(|value| snapshot::decode_members(&value));
        for (slot, member) in members.into_iter().flatten() {
            store.set_member(slot, &member);
        }
        // A value that is corrupt now has been replaced by the next refresh.
        let metrics = read("metrics").and_then(|value| snapshot::decode_metrics(&value));
        store.adopt_metrics(metrics.unwrap_or_default());
        let staleness = plan.as_ref().map_or(0, |plan| plan.summary.staleness);
        let staleness = Duration::from_millis(staleness);
        store.refresh(&Clock::starting_at(Timestamp::from_millis(now)), staleness);
        Some(Self {
            plugin,
            cluster,
            plan,
            store,
            vms,
            open: verdict.open,
        })
    }

    /// Returns whether a picker has reported on the pool lately.
    fn is_reported(&self) -> bool {
        self.reports().next().is_some()
    }

    fn reports(&self) -> impl Iterator<Item = &Report> {
        self.vms.iter().filter_map(|vm| vm.report.as_ref())
    }

    fn statuses(&self) -> impl Iterator<Item = &Status> {
        self.reports().map(|report| &report.status)
    }

    /// Returns what all VMs say of the endpoint in each slot. For all endpoints at once: an endpoint's part is found
    /// only by looking at every VM's list.
    fn totals(&self) -> Vec<Totals<'_>> {
        let mut all = vec![Totals::default(); self.store.pool.width()];
        let loads = self.vms.iter().flat_map(|vm| &vm.record.presence.loads);
        for load in loads.filter(|load| self.is_there(load)) {
            if let Some(totals) = all.get_mut(load.slot as usize) {
                totals.requests = totals.requests.saturating_add(load.requests);
                totals.tokens = totals.tokens.saturating_add(load.tokens);
            }
        }
        for status in self.statuses() {
            for (slot, picks) in &status.picks {
                if let Some(totals) = all.get_mut(*slot as usize) {
                    totals.picks = totals.picks.saturating_add(*picks);
                }
            }
            for (slot, reason) in &status.poll_errors {
                if let Some(totals) = all.get_mut(*slot as usize) {
                    totals.poll_error.get_or_insert(reason);
                }
            }
            for (slot, reason) in &status.obstacles {
                if let Some(totals) = all.get_mut(*slot as usize) {
                    totals.obstacle.get_or_insert(reason);
                }
            }
        }
        all
    }

    /// Returns whether the endpoint of a load is still in its slot.
    fn is_there(&self, load: &EndpointLoad) -> bool {
        let endpoint = self.store.pool.get(Slot(load.slot));
        endpoint.is_some_and(|endpoint| endpoint.tag() == load.tag)
    }

    /// The last decisions of all VMs, the last one first.
    fn decisions(&self) -> Vec<Decided<'_>> {
        let mut decisions: Vec<Decided<'_>> = self
            .vms
            .iter()
            .filter_map(|vm| Some((vm.worker, &vm.report.as_ref()?.status)))
            .flat_map(|(worker, status)| {
                status.decisions.iter().map(move |shown| Decided {
                    worker,
                    shown,
                    legend: status.legends.get(shown.legend),
                })
            })
            .collect();
        decisions.sort_by_key(|decided| {
            let shown = decided.shown;
            std::cmp::Reverse((shown.at, shown.number, decided.worker))
        });
        decisions.truncate(DECISIONS);
        decisions
    }

    /// The address of the endpoint in a slot.
    fn address(&self, slot: u32) -> Option<&str> {
        let endpoint = self.store.pool.get(Slot(slot))?;
        Some(&endpoint.address)
    }

    fn named(&self, candidate: &Candidate) -> &str {
        let address = candidate.slot.and_then(|slot| self.address(slot));
        address.unwrap_or("(gone)")
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
