//! The reports of the VMs for the status page, while it is open.
//!
//! The page is rendered by a VM of its own, which shares nothing but the store with the pickers. Each time
//! that it is requested it sends a heartbeat under a separate key. Each picker's sharing reads that with each
//! tick, and while it changes publishes a [`Report`] beside its presence twice a second, and the plan in force
//! where it polls. Nothing is recorded or published while the page is closed.

use epp_core::picker::status::{PlanSummary, Status};
use serde::{Deserialize, Serialize};

use crate::shared::Shared;
use crate::ROOT;

/// Ticks without a heartbeat of the page after which it counts as closed: ten seconds at 50 ms. It sends one
/// every two.
const OPEN_TICKS: u32 = 200;

/// Pools that are listed; bounds the list across listener updates.
const MAX_POOLS: usize = 64;

/// Returns the keys under which the pool of this plugin and cluster shares.
pub fn base(plugin: &str, cluster: &str) -> String {
    // A slash ends a part of the key, so that no name can imitate another's key.
    let part = |text: &str| text.replace('%', "%25").replace('/', "%2F");
    format!("{ROOT}/{}/{}", part(plugin), part(cluster))
}

/// Returns the plugin and cluster of the pool that shares under these keys.
pub fn named(base: &str) -> Option<(String, String)> {
    let part = |text: &str| text.replace("%2F", "/").replace("%25", "%");
    let rest = base.strip_prefix(ROOT)?.strip_prefix('/')?;
    let (plugin, cluster) = rest.split_once('/')?;
    Some((part(plugin), part(cluster)))
}

fn watched() -> String {
    format!("{ROOT}/watched")
}

fn pools() -> String {
    format!("{ROOT}/pools")
}

/// One VM's view of whether the status page is open.
#[derive(Debug, Default)]
pub struct Audience {
    /// Version of the page's heartbeat that was read last.
    seen: Option<u32>,
    /// Ticks for which it still counts.
    left: u32,
}

impl Audience {
    /// Returns whether the page is open.
    pub fn is_open(&self) -> bool {
        self.left > 0
    }

    /// Looks for the page's heartbeat, once a tick.
    pub fn tick(&mut self, shared: &mut Shared<'_>) {
        self.left = self.left.saturating_sub(1);
        let version = shared.bytes(&watched()).map_or(0, |(_, version)| version);
        // What stood there when this VM began may be long ago.
        let before = self.seen.replace(version);
        if before.is_some_and(|before| before != version) {
            self.left = OPEN_TICKS;
        }
    }
}

/// The report of one VM.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Report {
    /// The VM's number, which its presence has as well.
    pub owner: u64,
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// Identifies its plan.
    pub plan: u64,
    /// Its picker's state.
    pub status: Status,
}

/// The plan in force.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PlanReport {
    /// Identifies it.
    pub id: u64,
    /// Its content.
    pub summary: PlanSummary,
}

/// Sends the page's heartbeat, and returns the keys of the pools that there are.
pub fn watch(shared: &mut Shared<'_>) -> Vec<String> {
    shared.put(&watched(), &(), None);
    listed(shared).0
}

fn listed(shared: &mut Shared<'_>) -> (Vec<String>, Option<u32>) {
    let is_sound = |listed: &Vec<String>| listed.len() <= MAX_POOLS;
    let (listed, version) = shared.get(&pools(), is_sound);
    (listed.value().unwrap_or_default(), version)
}

/// Puts a pool on the page's list.
pub fn list_pool(base: &str, shared: &mut Shared<'_>) {
    let (mut listed, version) = listed(shared);
    if listed.iter().any(|known| known == base) {
        return;
    }
    listed.push(base.to_owned());
    let former = listed.len().saturating_sub(MAX_POOLS);
    listed.drain(..former);
    // Where another VM was quicker, the next report does it.
    shared.put(&pools(), &listed, version);
}

/// Publishes the report of the VM in the worker slot under this key.
pub fn publish(worker: &str, report: &Report, shared: &mut Shared<'_>) {
    shared.put(&format!("{worker}/report"), report, None);
}

/// Returns what the VM in the worker slot under this key has reported.
pub fn read(worker: &str, shared: &mut Shared<'_>) -> Option<Report> {
    let (report, _) = shared.get(&format!("{worker}/report"), |_| true);
    report.value()
}

/// Publishes the plan in force.
pub fn publish_plan(base: &str, plan: &PlanReport, shared: &mut Shared<'_>) {
    shared.put(&format!("{base}/plan"), plan, None);
}

/// Returns the plan in force, as it was published.
pub fn plan(base: &str, shared: &mut Shared<'_>) -> Option<PlanReport> {
    shared.get(&format!("{base}/plan"), |_| true).0.value()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::Traffic;
    use crate::InProcess;

    fn with<T>(memory: &mut InProcess, act: impl FnOnce(&mut Shared<'_>) -> T) -> T {
        act(&mut Shared::new(memory, &mut Traffic::default()))
    }

    #[test]
    fn the_page_is_open_until_its_heartbeats_are_missed() {
        let mut memory = InProcess::default();
        let mut audience = Audience::default();
        with(&mut memory, watch);
        with(&mut memory, |shared| audience.tick(shared));
        assert!(!audience.is_open(), "that may have been long ago");
        with(&mut memory, watch);
        for _ in 0..OPEN_TICKS {
            with(&mut memory, |shared| audience.tick(shared));
            assert!(audience.is_open());
        }
        with(&mut memory, |shared| audience.tick(shared));
        assert!(!audience.is_open());
    }

    #[test]
    fn a_first_visit_is_noticed_by_vms_that_were_there() {
        let mut memory = InProcess::default();
        let mut audience = Audience::default();
        with(&mut memory, |shared| audience.tick(shared));
        with(&mut memory, watch);
        with(&mut memory, |shared| audience.tick(shared));
        assert!(audience.is_open());
    }

    #[test]
    fn pools_are_listed_once_and_not_without_end() {
        let mut memory = InProcess::default();
        for number in 0..MAX_POOLS + 3 {
            let base = base("epp", &format!("pool-{number}"));
            with(&mut memory, |shared| list_pool(&base, shared));
            with(&mut memory, |shared| list_pool(&base, shared));
        }
        let listed = with(&mut memory, watch);
        assert_eq!(listed.len(), MAX_POOLS);
        assert_eq!(listed[0], base("epp", "pool-3"));
    }

    #[test]
    fn names_come_back_from_keys() {
        for (plugin, cluster) in [("epp", "pool"), ("a/b%2Fc", "outbound|8000||x/y"), ("", "")] {
            let named = named(&base(plugin, cluster));
            assert_eq!(named, Some((plugin.to_owned(), cluster.to_owned())));
        }
    }

    #[test]
    fn a_corrupt_report_is_not_read() {
        let mut memory = InProcess::default();
        let report = Report {
            owner: u64::MAX,
            ..Report::default()
        };
        with(&mut memory, |shared| publish("worker", &report, shared));
        let read = |memory: &mut InProcess| with(memory, |shared| read("worker", shared));
        assert_eq!(read(&mut memory), Some(report));
        memory.corrupt("worker/report");
        assert_eq!(read(&mut memory), None);
    }
}
