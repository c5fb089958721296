//! The labels that metrics have.
//!
//! Each metric of the catalogue has one type of labels, so that it cannot be counted under a label that its
//! readers do not expect. Values that are a closed set are an enum,
//! except for the codes of errors and the names of callbacks, which are those of the Endpoint Picker and of proxy-wasm.

use crate::endpoints::fetch_error::FetchError;
use crate::endpoints::outlier::Reason;
use crate::findings::Finding;
use crate::scheduling::{Declined, Stage, Stages};

/// The labels of a metric, beside the pool.
pub trait Labels: Copy {
    /// Their names.
    const NAMES: &'static [&'static str];

    /// Whether the metric is a pool's, so that the pool is a label, too.
    const OF_POOL: bool = true;

    /// Returns their values, in the order of the names; `None` where a label is left out.
    fn values(&self) -> impl IntoIterator<Item = Option<&str>>;
}

/// A metric that has only the pool.
#[derive(Debug, Clone, Copy)]
pub struct NoLabels;

impl Labels for NoLabels {
    const NAMES: &'static [&'static str] = &[];

    fn values(&self) -> impl IntoIterator<Item = Option<&str>> {
        []
    }
}

/// A metric that has no label: it is no pool's.
#[derive(Debug, Clone, Copy)]
pub struct NoPool;

impl Labels for NoPool {
    const NAMES: &'static [&'static str] = &[];
    const OF_POOL: bool = false;

    fn values(&self) -> impl IntoIterator<Item = Option<&str>> {
        []
    }
}

/// The address of an endpoint.
#[derive(Debug, Clone, Copy)]
pub struct Endpoint<'a>(pub &'a str);

impl Labels for Endpoint<'_> {
    const NAMES: &'static [&'static str] = &["endpoint_name"];

    fn values(&self) -> impl IntoIterator<Item = Option<&str>> {
        [Some(self.0)]
    }
}

/// An endpoint, and why its metrics page could not be read.
#[derive(Debug, Clone, Copy)]
pub struct PollError<'a> {
    /// Its address.
    pub endpoint: &'a str,
    /// Why its page could not be read.
    pub reason: FetchError,
}

impl Labels for PollError<'_> {
    const NAMES: &'static [&'static str] = &["endpoint_name", "reason"];

    fn values(&self) -> impl IntoIterator<Item = Option<&str>> {
        [Some(self.endpoint), Some(self.reason.name())]
    }
}

/// The cluster that a route leads to.
#[derive(Debug, Clone, Copy)]
pub struct RouteCluster<'a>(pub &'a str);

impl Labels for RouteCluster<'_> {
    const NAMES: &'static [&'static str] = &["route_cluster"];

    fn values(&self) -> impl IntoIterator<Item = Option<&str>> {
        [Some(self.0)]
    }
}

/// The endpoint that was picked. The Endpoint Picker counts failed picks under another status; here they are
/// counted as errors or fallbacks.
#[derive(Debug, Clone, Copy)]
pub struct Picked<'a>(pub &'a str);

impl Labels for Picked<'_> {
    const NAMES: &'static [&'static str] = &["status", "endpoint_name"];

    fn values(&self) -> impl IntoIterator<Item = Option<&str>> {
        [Some("success"), Some(self.0)]
    }
}

/// An endpoint, and why it is ejected.
#[derive(Debug, Clone, Copy)]
pub struct Ejection<'a> {
    /// Its address.
    pub endpoint: &'a str,
    /// Why it is ejected.
    pub reason: Reason,
}

impl Labels for Ejection<'_> {
    const NAMES: &'static [&'static str] = &["endpoint_name", "reason"];

    fn values(&self) -> impl IntoIterator<Item = Option<&str>> {
        [Some(self.endpoint), Some(self.reason.name())]
    }
}

/// A model at an endpoint, or a model at all endpoints together.
#[derive(Debug, Clone, Copy)]
pub struct Model<'a> {
    /// The address of the endpoint.
    pub endpoint: Option<&'a str>,
    /// The model's name.
    pub name: &'a str,
}

impl Labels for Model<'_> {
    const NAMES: &'static [&'static str] = &["endpoint_name", "model_name"];

    fn values(&self) -> impl IntoIterator<Item = Option<&str>> {
        [self.endpoint, Some(self.name)]
    }
}

/// A finding, by its id.
#[derive(Debug, Clone, Copy)]
pub struct Found(pub Finding);

impl Labels for Found {
    const NAMES: &'static [&'static str] = &["finding"];

    fn values(&self) -> impl IntoIterator<Item = Option<&str>> {
        [Some(self.0.id())]
    }
}

/// The build of the module, and the host that runs it.
#[derive(Debug, Clone, Copy)]
pub struct Build<'a> {
    /// The module's version.
    pub version: &'a str,
    /// The commit that it was built from.
    pub commit: &'a str,
    /// The digest of the module.
    pub digest: &'a str,
    /// Envoy's version.
    pub envoy: &'a str,
    /// Whether the module was tested with that.
    pub tested: bool,
}

impl Labels for Build<'_> {
    const NAMES: &'static [&'static str] = &["version", "commit", "digest", "envoy", "tested"];
    const OF_POOL: bool = false;

    fn values(&self) -> impl IntoIterator<Item = Option<&str>> {
        let tested = if self.tested { "yes" } else { "no" };
        [self.version, self.commit, self.digest, self.envoy, tested].map(Some)
    }
}

/// The canonical name of an error.
#[derive(Debug, Clone, Copy)]
pub struct ErrorCode(pub &'static str);

impl Labels for ErrorCode {
    const NAMES: &'static [&'static str] = &["error_code"];

    fn values(&self) -> impl IntoIterator<Item = Option<&str>> {
        [Some(self.0)]
    }
}

/// A callback of the host's.
#[derive(Debug, Clone, Copy)]
pub struct Callback<'a>(pub &'a str);

impl Labels for Callback<'_> {
    const NAMES: &'static [&'static str] = &["callback"];

    fn values(&self) -> impl IntoIterator<Item = Option<&str>> {
        [Some(self.0)]
    }
}

/// Why a request was decided before its body had been read as far as the decision wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForcedRelease {
    /// More requests were held than `maxHeld` allows.
    Held,
    /// The body did not arrive within `bodyTimeout`, or the host does not show it.
    Timeout,
    /// The body is longer than what may be read before a decision.
    Bytes,
    /// A part that comes first in the prompt came late in the body, and cannot be read again.
    Order,
    /// The readers of all requests kept as much memory as they may.
    Memory,
}

impl Labels for ForcedRelease {
    const NAMES: &'static [&'static str] = &["reason"];

    fn values(&self) -> impl IntoIterator<Item = Option<&str>> {
        let reason = match self {
            Self::Held => "held",
            Self::Timeout => "timeout",
            Self::Bytes => "bytes",
            Self::Order => "order",
            Self::Memory => "memory",
        };
        [Some(reason)]
    }
}

/// The parts of a request that other endpoints than its primary one do, and why none computes the prompt if none does,
/// or that none was found that encodes its media.
#[derive(Debug, Clone, Copy)]
pub struct Disaggregated<'a>(pub &'a Stages);

impl Labels for Disaggregated<'_> {
    const NAMES: &'static [&'static str] = &["decision_type", "reason"];

    fn values(&self) -> impl IntoIterator<Item = Option<&str>> {
        let Stages { prefill, encode } = self.0;
        let kind = match (encode.picked(), prefill.picked()) {
            (None, None) => "decode-only",
            (None, Some(_)) => "prefill-decode",
            (Some(_), None) => "encode-decode",
            (Some(_), Some(_)) => "encode-prefill-decode",
        };
        let no_encoder = matches!(encode, Stage::NoEndpoint(_));
        let reason = match prefill {
            Stage::NoEndpoint(_) if no_encoder => Some("no-endpoints"),
            _ if no_encoder => Some("no-encode-endpoint"),
            Stage::Picked(_) => None,
            Stage::NoProfile => Some("no-profile"),
            Stage::NoEndpoint(_) => Some("no-endpoint"),
            Stage::Declined(declined) => Some(match declined {
                Declined::NoDecider => "no-decider",
                Declined::TurnedOff => "turned-off",
                Declined::NoPrimary => "no-primary",
                Declined::Short { .. } => "short",
                Declined::Cached { .. } => "cached",
                Declined::NoMedia => "no-media",
            }),
        };
        [Some(kind), reason]
    }
}

/// Why no endpoint was ejected for failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suppression {
    /// A prompt failed at two endpoints and was served by none.
    Prompt,
    /// More than half of the endpoints would have been ejected.
    Majority,
}

impl Labels for Suppression {
    const NAMES: &'static [&'static str] = &["reason"];

    fn values(&self) -> impl IntoIterator<Item = Option<&str>> {
        let reason = match self {
            Self::Prompt => "prompt",
            Self::Majority => "majority",
        };
        [Some(reason)]
    }
}

/// Whether a load report says something of its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportStatus {
    /// Values of it took the place of those of the endpoint's page.
    Used,
    /// No value of it did.
    Unused,
}

impl Labels for ReportStatus {
    const NAMES: &'static [&'static str] = &["status"];

    fn values(&self) -> impl IntoIterator<Item = Option<&str>> {
        let status = match self {
            Self::Used => "used",
            Self::Unused => "unused",
        };
        [Some(status)]
    }
}

/// How a decision of a dry run compares with what the host did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DryRun {
    /// The host sent the request to the endpoint that would have been picked.
    Same,
    /// The host sent it to another endpoint of the pool.
    Other,
    /// No endpoint would have been picked.
    NotPicked,
    /// The host sent it to no endpoint of the pool, or responded itself.
    NotServed,
}

impl Labels for DryRun {
    const NAMES: &'static [&'static str] = &["status"];

    fn values(&self) -> impl IntoIterator<Item = Option<&str>> {
        let status = match self {
            Self::Same => "same",
            Self::Other => "other",
            Self::NotPicked => "none",
            Self::NotServed => "unserved",
        };
        [Some(status)]
    }
}

/// What became of a request that flow control has queued, in the words of the Endpoint Picker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FlowOutcome {
    /// It was sent.
    Dispatched,
    /// As many waited as may.
    RejectedCapacity,
    /// As many waited as may, and the pool had no endpoint.
    RejectedNoEndpoints,
    /// It waited as long as it may.
    EvictedTtl,
    /// It waited as long as it may in a pool without an endpoint.
    EvictedNoEndpoints,
    /// Its client left.
    EvictedContextCancelled,
    /// A dry run would have let it wait.
    WouldWait,
}

impl FlowOutcome {
    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dispatched => "Dispatched",
            Self::RejectedCapacity => "RejectedCapacity",
            Self::RejectedNoEndpoints => "RejectedNoEndpoints",
            Self::EvictedTtl => "EvictedTTL",
            Self::EvictedNoEndpoints => "EvictedNoEndpoints",
            Self::EvictedContextCancelled => "EvictedContextCancelled",
            Self::WouldWait => "WouldWait",
        }
    }
}

/// The priority of a band.
#[derive(Debug, Clone, Copy)]
pub struct Priority<'a>(pub &'a str);

impl Labels for Priority<'_> {
    const NAMES: &'static [&'static str] = &["priority"];

    fn values(&self) -> impl IntoIterator<Item = Option<&str>> {
        [Some(self.0)]
    }
}

/// The priority of a request, and what became of it.
#[derive(Debug, Clone, Copy)]
pub struct Departed<'a> {
    /// The priority.
    pub priority: &'a str,
    /// What became of it.
    pub outcome: FlowOutcome,
}

impl Labels for Departed<'_> {
    const NAMES: &'static [&'static str] = &["priority", "outcome"];

    fn values(&self) -> impl IntoIterator<Item = Option<&str>> {
        [Some(self.priority), Some(self.outcome.name())]
    }
}

/// The priority of a request, what became of it, and its fairness id.
#[derive(Debug, Clone, Copy)]
pub struct Flow<'a> {
    /// The priority.
    pub priority: &'a str,
    /// What became of it.
    pub outcome: FlowOutcome,
    /// Its fairness id.
    pub fairness_id: &'a str,
}

impl Labels for Flow<'_> {
    const NAMES: &'static [&'static str] = &["priority", "outcome", "fairness_id"];

    fn values(&self) -> impl IntoIterator<Item = Option<&str>> {
        [
            Some(self.priority),
            Some(self.outcome.name()),
            Some(self.fairness_id),
        ]
    }
}

/// The endpoints of which a saturation is.
#[derive(Debug, Clone, Copy)]
pub struct SaturationStage(pub &'static str);

impl Labels for SaturationStage {
    const NAMES: &'static [&'static str] = &["stage"];

    fn values(&self) -> impl IntoIterator<Item = Option<&str>> {
        [Some(self.0)]
    }
}

/// The VM that a gauge describes. All workers' VMs set the same gauge: they have much the same load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vm {
    /// The VM of a worker, which serves requests.
    Worker,
    /// The VM of a thread that serves none, as Envoy's main thread.
    Main,
}

impl Labels for Vm {
    const NAMES: &'static [&'static str] = &["vm"];

    fn values(&self) -> impl IntoIterator<Item = Option<&str>> {
        let vm = match self {
            Self::Worker => "worker",
            Self::Main => "main",
        };
        [Some(vm)]
    }
}
