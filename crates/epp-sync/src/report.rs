//! What the VMs tell the status page, while somebody looks at it.
//!
//! The page is served by a VM of its own, which shares nothing but shared data with the pickers. Each
//! time that it is asked for it beats under a key of its own. Each picker reads that with each tick, and
//! while it beats posts a [`Report`] beside its seat twice a second, and the plan in force where it
//! polls. Nothing is kept or posted while nobody looks.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use epp_core::picker::status::{PlanSummary, Status};
use xxhash_rust::xxh64::xxh64;

use super::pack::{Reader, Writer};
use super::{Store, ROOT};

/// Ticks without a beat after which nobody looks any more: ten seconds at 50 ms, of which the page
/// beats each two.
const PATIENCE: u32 = 200;

/// Pools that are told of; a listener that is changed for ever must not make the list grow for ever.
const POOLS: usize = 64;

/// Under which keys the pool of this plugin and cluster shares.
pub fn base(plugin: &str, cluster: &str) -> String {
    // A slash ends a part of the key, so that no name can imitate another's key.
    let part = |text: &str| text.replace('%', "%25").replace('/', "%2F");
    format!("{ROOT}/{}/{}", part(plugin), part(cluster))
}

/// The plugin and cluster of the pool that shares under these keys.
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

/// Whether somebody looks at the status page, to one picker.
#[derive(Debug, Default)]
pub struct Audience {
    /// Version of the beat that was read last.
    seen: Option<u32>,
    /// Ticks for which it still counts.
    left: u32,
}

impl Audience {
    /// Whether somebody looks.
    pub fn is_there(&self) -> bool {
        self.left > 0
    }

    /// One tick.
    pub fn tick(&mut self, host: &mut dyn Store) {
        self.left = self.left.saturating_sub(1);
        let version = host.get(&watched()).map_or(0, |(_, version)| version);
        // What stood there when this VM began may be long ago.
        let before = self.seen.replace(version);
        if before.is_some_and(|before| before != version) {
            self.left = PATIENCE;
        }
    }
}

/// What one picker reports.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Report {
    /// Whose it is: the presence record names the same.
    pub owner: u64,
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// Identifies its plan.
    pub plan: u64,
    /// Its state.
    pub status: Status,
}

/// The plan in force.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PlanReport {
    /// Identifies it.
    pub id: u64,
    /// What it is made of.
    pub summary: PlanSummary,
}

impl PlanReport {
    /// Returns the report of a plan; equal plans have equal numbers in all VMs.
    pub fn new(summary: PlanSummary) -> Self {
        let id = xxh64(&postcard::to_allocvec(&summary).unwrap_or_default(), 0);
        Self { id, summary }
    }
}

/// Beats for the page, and says which pools there are.
pub fn watch(host: &mut dyn Store) -> Vec<String> {
    host.set(&watched(), &Writer::default().seal(), None);
    listed(host).0
}

fn listed(host: &mut dyn Store) -> (Vec<String>, Option<u32>) {
    let found = host.get(&pools());
    let version = found.as_ref().map(|(_, version)| *version);
    let listed = found.and_then(|(value, _)| unpack(&value));
    (listed.unwrap_or_default(), version)
}

/// Puts a pool on the page's list.
pub fn enlist(base: &str, host: &mut dyn Store) {
    let (mut listed, version) = listed(host);
    if listed.iter().any(|known| known == base) {
        return;
    }
    listed.push(base.to_owned());
    let former = listed.len().saturating_sub(POOLS);
    listed.drain(..former);
    // Where another one was quicker, the next report does it.
    host.set(&pools(), &pack(&listed), version);
}

/// Posts a report at the seat under this key.
pub fn post(seat: &str, report: &Report, host: &mut dyn Store) {
    host.set(&format!("{seat}/report"), &pack(report), None);
}

/// What was posted at the seat under this key.
pub fn read(seat: &str, host: &mut dyn Store) -> Option<Report> {
    unpack(&host.get(&format!("{seat}/report"))?.0)
}

/// Tells the plan in force.
pub fn tell_plan(base: &str, plan: &PlanReport, host: &mut dyn Store) {
    host.set(&format!("{base}/plan"), &pack(plan), None);
}

/// The plan that was told.
pub fn plan(base: &str, host: &mut dyn Store) -> Option<PlanReport> {
    unpack(&host.get(&format!("{base}/plan"))?.0)
}

fn pack<T: Serialize>(value: &T) -> Vec<u8> {
    let mut writer = Writer::default();
    // Plain data in memory: it cannot fail.
    writer.rest(&postcard::to_allocvec(value).unwrap_or_default());
    writer.seal()
}

fn unpack<T: DeserializeOwned>(value: &[u8]) -> Option<T> {
    postcard::from_bytes(Reader::open(value)?.rest()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::InProcess;

    #[test]
    fn an_audience_is_noticed_and_leaves_when_the_beat_stands_still() {
        let mut memory = InProcess::default();
        let mut audience = Audience::default();
        watch(&mut memory);
        audience.tick(&mut memory);
        assert!(!audience.is_there(), "that may have been long ago");
        watch(&mut memory);
        for _ in 0..PATIENCE {
            audience.tick(&mut memory);
            assert!(audience.is_there());
        }
        audience.tick(&mut memory);
        assert!(!audience.is_there());
    }

    #[test]
    fn a_first_look_is_noticed_by_those_who_were_there() {
        let mut memory = InProcess::default();
        let mut audience = Audience::default();
        audience.tick(&mut memory);
        watch(&mut memory);
        audience.tick(&mut memory);
        assert!(audience.is_there());
    }

    #[test]
    fn pools_are_listed_once_and_not_without_end() {
        let mut memory = InProcess::default();
        for number in 0..POOLS + 3 {
            enlist(&base("epp", &format!("pool-{number}")), &mut memory);
            enlist(&base("epp", &format!("pool-{number}")), &mut memory);
        }
        let listed = watch(&mut memory);
        assert_eq!(listed.len(), POOLS);
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
    fn what_is_torn_is_not_read() {
        let mut memory = InProcess::default();
        let report = Report {
            owner: u64::MAX,
            ..Report::default()
        };
        post("seat", &report, &mut memory);
        assert_eq!(read("seat", &mut memory), Some(report));
        memory.tear("seat/report");
        assert_eq!(read("seat", &mut memory), None);
    }
}
