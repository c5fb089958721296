//! A picker's report to a status page: its state, and its last decisions with what led to them. Nothing of a prompt but
//! its length.

use serde::{Deserialize, Serialize};

/// The basis of a picker's decisions, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub enum DecisionBasis {
    /// Nothing yet: the endpoints are not known.
    #[default]
    Nothing,
    /// This proxy's own counts.
    OwnCounts,
    /// The endpoints' metrics.
    Metrics,
}

/// The fill of the prefix indexes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct IndexFill {
    /// (endpoint, block) entries.
    pub entries: u64,
    /// Memory in bytes.
    pub bytes: u64,
    /// Bound of the memory in bytes.
    pub bound: u64,
    /// Entries dropped for newer ones.
    pub evictions: u64,
}

/// A picker's counters since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Decisions.
    pub decided: u64,
    /// Decisions before the body had ended.
    pub early: i64,
    /// Requests refused.
    pub refused: i64,
    /// Requests left to the proxy's fallback policy, once the endpoints were discovered.
    pub fallbacks: i64,
    /// Requests that another endpoint than the picked one served.
    pub elsewhere: i64,
    /// Requests that passed the filter and were not the pool's.
    pub left_alone: u64,
}

/// The filters and scorers that ran, in order.
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
    /// The score of each scorer of the legend, not yet clamped or weighted.
    pub scores: Vec<f32>,
}

/// A decision.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RecentDecision {
    /// The picker's decisions up to this one.
    pub number: u64,
    /// When it was made, in milliseconds since 1970.
    pub at: u64,
    /// The requested model; only its beginning if it is long.
    pub model: String,
    /// Tokens of the prompt, as far as it was read.
    pub tokens: usize,
    /// Share of the prompt that the picked endpoint is expected to hold.
    pub cached_share: Option<f32>,
    /// Whether it was made before the body had ended.
    pub early: bool,
    /// Index of its legend in the status.
    pub legend: usize,
    /// How many candidates each filter removed.
    pub removed: Vec<usize>,
    /// How many were scored.
    pub candidates: usize,
    /// How many of the best are picks.
    pub picks: usize,
    /// The best of them, best first.
    pub best: Vec<Candidate>,
    /// The parts of the request that other endpoints may do: which do, or why none does.
    pub parts: Vec<String>,
    /// Why no endpoint was picked.
    pub error: Option<String>,
}

/// The state of one picker.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Status {
    /// Whether it serves requests.
    pub serves: bool,
    /// Whether it polls.
    pub polls: bool,
    /// The basis of its decisions.
    pub decision_basis: DecisionBasis,
    /// Whether bodies reach it.
    pub reads_bodies: bool,
    /// Memory of its VM, in bytes.
    pub memory: u64,
    /// Its prefix indexes.
    pub index: IndexFill,
    /// Requests under way, and those of them that are held.
    pub under_way: (usize, usize),
    /// How full the pool is and why requests wait, and then what waits in each band, as sentences; nothing without flow
    /// control.
    pub flow: Vec<String>,
    /// Its counters.
    pub counts: Counts,
    /// Picks of the endpoint in each slot.
    pub picks: Vec<(u32, i64)>,
    /// Slots of endpoints whose last metrics page could not be read, and why, if it polls.
    pub poll_errors: Vec<(u32, String)>,
    /// Slots of endpoints that may not be picked, why, and for how long already, if it polls.
    pub obstacles: Vec<(u32, String)>,
    /// The legends that the decisions refer to.
    pub legends: Vec<Legend>,
    /// The last decisions, oldest first.
    pub decisions: Vec<RecentDecision>,
}

/// A plugin of the plan in force.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PluginSummary {
    /// The profile that it is in; empty for those in no profile.
    pub profile: String,
    /// Its name in the document.
    pub name: String,
    /// Its type.
    pub kind: String,
    /// The weight of its score.
    pub weight: Option<f64>,
    /// Its parameters, given or defaulted.
    pub parameters: String,
}

/// The plan in force.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PlanSummary {
    /// In one line.
    pub summary: String,
    /// Age in milliseconds from which on metrics are not trusted.
    pub staleness: u64,
    /// Its plugins.
    pub plugins: Vec<PluginSummary>,
    /// Where decisions may differ from the Endpoint Picker's, and why.
    pub approximations: Vec<String>,
}
