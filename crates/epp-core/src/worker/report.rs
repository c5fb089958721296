//! What the VMs tell the status page, while somebody looks at it.
//!
//! The page is served by a VM of its own, which shares nothing but shared data with the pickers. Each
//! time that it is asked for it beats under a key of its own. Each picker reads that with each tick, and
//! while it beats posts a [`Report`] beside its seat twice a second, and the plan in force where it
//! polls. Nothing is kept or posted while nobody looks.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::pack::{Reader, Writer};
use super::{SharedData, ROOT};

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
    pub fn tick(&mut self, host: &mut dyn SharedData) {
        self.left = self.left.saturating_sub(1);
        let version = host.get(&watched()).map_or(0, |(_, version)| version);
        // What stood there when this VM began may be long ago.
        let before = self.seen.replace(version);
        if before.is_some_and(|before| before != version) {
            self.left = PATIENCE;
        }
    }
}

/// How far a prefix index has been filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Fill {
    /// (endpoint, block) entries.
    pub entries: u64,
    /// Memory.
    pub bytes: u64,
    /// Bound of the memory.
    pub bound: u64,
    /// Entries dropped for newer ones.
    pub evictions: u64,
}

/// What a VM has counted since it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Decisions.
    pub decided: u64,
    /// Of these, before the body had ended.
    pub early: i64,
    /// Requests refused.
    pub refused: i64,
    /// Requests left to Envoy's fallback policy.
    pub fallbacks: i64,
    /// Requests that another endpoint than the picked one served.
    pub elsewhere: i64,
}

/// Which filters and scorers ran, in order.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Legend {
    /// Names of the filters.
    pub filters: Vec<String>,
    /// Names of the scorers and their weights.
    pub scorers: Vec<(String, f64)>,
}

/// A candidate of a decision.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Candidate {
    /// Its slot; none once its endpoint has left.
    pub slot: Option<u32>,
    /// Its weighted sum.
    pub sum: f32,
    /// What each scorer of the legend gave, not yet clamped or weighted.
    pub scores: Vec<f32>,
}

/// A decision. Nothing of the prompt but its length.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Shown {
    /// The VM's decisions up to this one.
    pub number: u64,
    /// The tick before it, in milliseconds since 1970.
    pub at: u64,
    /// The model asked for; its beginning, where it is long.
    pub model: String,
    /// Tokens of the prompt, as far as it was read.
    pub tokens: usize,
    /// Share of the prompt that the picked endpoint is taken to hold.
    pub held: Option<f32>,
    /// Whether it was made before the body had ended.
    pub early: bool,
    /// Place of its legend in the report.
    pub legend: usize,
    /// How many each filter removed.
    pub removed: Vec<usize>,
    /// How many were scored.
    pub candidates: usize,
    /// How many of the best are picks.
    pub picks: usize,
    /// The best of them, best first.
    pub best: Vec<Candidate>,
    /// Why nobody was picked.
    pub error: Option<String>,
}

/// What a VM tells.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Report {
    /// Whose it is: what is posted at the seat names the same.
    pub owner: u64,
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// Whether it serves requests.
    pub serves: bool,
    /// Whether it polls.
    pub polls: bool,
    /// What it decides by: 2 metrics, 1 what this Envoy knows itself, 0 nothing yet.
    pub rung: u64,
    /// Whether bodies reach it.
    pub reads_bodies: bool,
    /// Tells its plan from others.
    pub plan: u64,
    /// Its memory, in bytes.
    pub memory: u64,
    /// Its prefix index.
    pub index: Fill,
    /// Requests under way, and those of them that are held.
    pub under_way: (usize, usize),
    /// What it has counted.
    pub counts: Counts,
    /// Picks of the endpoint in each slot.
    pub picks: Vec<(u32, i64)>,
    /// Slots of endpoints that are avoided, and why.
    pub avoided: Vec<(u32, String)>,
    /// What the decisions refer to.
    pub legends: Vec<Legend>,
    /// The last decisions, oldest first.
    pub decisions: Vec<Shown>,
}

/// A plugin of the plan in force.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Part {
    /// The profile that it is in; empty for those of the whole.
    pub profile: String,
    /// Its name in the document.
    pub name: String,
    /// Its type.
    pub kind: String,
    /// What its score counts for.
    pub weight: Option<f64>,
    /// Its parameters, given or defaulted.
    pub parameters: String,
}

/// The plan in force.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Told {
    /// Tells it from others.
    pub plan: u64,
    /// In one line.
    pub summary: String,
    /// Age in milliseconds from which on metrics are not trusted.
    pub staleness: u64,
    /// Its plugins.
    pub parts: Vec<Part>,
}

/// Beats for the page, and says which pools there are.
pub fn watch(host: &mut dyn SharedData) -> Vec<String> {
    host.set(&watched(), &Writer::default().seal(), None);
    listed(host).0
}

fn listed(host: &mut dyn SharedData) -> (Vec<String>, Option<u32>) {
    let found = host.get(&pools());
    let version = found.as_ref().map(|(_, version)| *version);
    let listed = found.and_then(|(value, _)| unpack(&value));
    (listed.unwrap_or_default(), version)
}

/// Puts a pool on the page's list.
pub fn enlist(base: &str, host: &mut dyn SharedData) {
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
pub fn post(seat: &str, report: &Report, host: &mut dyn SharedData) {
    host.set(&format!("{seat}/report"), &pack(report), None);
}

/// What was posted at the seat under this key.
pub fn read(seat: &str, host: &mut dyn SharedData) -> Option<Report> {
    unpack(&host.get(&format!("{seat}/report"))?.0)
}

/// Tells the plan in force.
pub fn tell_plan(base: &str, plan: &Told, host: &mut dyn SharedData) {
    host.set(&format!("{base}/plan"), &pack(plan), None);
}

/// The plan that was told.
pub fn plan(base: &str, host: &mut dyn SharedData) -> Option<Told> {
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
    use crate::worker::Local;

    #[test]
    fn an_audience_is_noticed_and_leaves_when_the_beat_stands_still() {
        let mut memory = Local::default();
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
        let mut memory = Local::default();
        let mut audience = Audience::default();
        audience.tick(&mut memory);
        watch(&mut memory);
        audience.tick(&mut memory);
        assert!(audience.is_there());
    }

    #[test]
    fn pools_are_listed_once_and_not_without_end() {
        let mut memory = Local::default();
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
        let mut memory = Local::default();
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
