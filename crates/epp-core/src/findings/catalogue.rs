//! The catalogue: what may be wrong, and what to do about it.

use serde::{Deserialize, Serialize};

use super::event_log::Subject;

/// How bad a finding is, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The pool does not do what it is there for.
    Broken,
    /// The pool decides worse than it could, or with fewer endpoints.
    Degraded,
    /// Nothing is wrong now; an operator should know it.
    Note,
}

impl Severity {
    /// Returns its name on the status page, in log lines and in documents.
    pub fn name(self) -> &'static str {
        match self {
            Self::Broken => "broken",
            Self::Degraded => "degraded",
            Self::Note => "note",
        }
    }
}

/// A finding's line in the catalogue. The module holds all of them: a cause and a remedy are a sentence each, of at
/// most 250 bytes together.
#[derive(Debug)]
struct Entry {
    finding: Finding,
    id: &'static str,
    severity: Severity,
    cause: &'static str,
    remedy: &'static str,
}

/// Defines the findings, and their lines in the order of the enum.
macro_rules! catalogue {
    ($($finding:ident = $id:literal $severity:ident: $cause:literal, $remedy:literal;)+) => {
        /// Something that an operator should know of a pool.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(into = "u8", try_from = "u8")]
        pub enum Finding {
            $(#[doc = $cause] $finding,)+
        }

        static ENTRIES: &[Entry] = &[$(
            Entry {
                finding: Finding::$finding,
                id: $id,
                severity: Severity::$severity,
                cause: $cause,
                remedy: $remedy,
            },
        )+];
    };
}

catalogue! {
    ClusterUnknown = "cluster-unknown" Broken:
        "The configuration names a cluster that Envoy does not have.",
        "Compare `clusters` of the discovery plugin with the names on Envoy's admin page /clusters.";
    AdminNotEnvoy = "admin-not-envoy" Broken:
        "What `adminCluster` leads to responds, but not with Envoy's list of clusters.",
        "Give that cluster the address and port of this Envoy's admin interface.";
    MetricsClusterUnknown = "metrics-cluster-unknown" Broken:
        "Metrics pages are to be fetched through a cluster that Envoy does not have.",
        "Correct the cluster's name in the parameters of metrics-data-source.";
    NoOverrideHost = "no-override-host" Broken:
        "Envoy sends requests to other hosts than the picker names: the cluster ignores the destination header.",
        "Give the cluster the load balancing policy override_host with that header, and all endpoints that are listed.";
    PoolEmpty = "pool-empty" Broken:
        "The pool has no endpoints.",
        "Compare `clusters` of the discovery plugin with the members on Envoy's admin page /clusters.";
    BalancedBlindly = "balanced-blindly" Broken:
        "The pool's members are unknown: requests are left to Envoy's own load balancing or rejected.",
        "Look for a finding about the admin interface, and for one about clusters.";
    GateShut = "gate-shut" Broken:
        "Requests wait, and none is sent: no endpoint has fresh metrics, so the saturation detector treats the pool as full.",
        "Look at the reason for which polls fail, on the status page. `stalenessPolicy: ignore` of the detector sends requests meanwhile.";
    NoPoller = "no-poller" Broken:
        "No worker polls the endpoints' metrics.",
        "Another worker takes over within a second; if this stays, look for errors in Envoy's log.";
    AdminUnreachable = "admin-unreachable" Degraded:
        "Envoy's admin interface does not list the pool's members, so that they are unknown or outdated.",
        "Check that `adminCluster` is a cluster of this Envoy, and that its endpoint is the admin interface.";
    RoutedElsewhere = "routed-elsewhere" Degraded:
        "Endpoints are picked also for requests whose route leads to another cluster.",
        "Route them to the pool's cluster, or remove `requests: all` from envoy-proxy.";
    EndpointsUnhealthy = "endpoints-unhealthy" Degraded:
        "Endpoints get no requests: Envoy reports them as unhealthy or draining.",
        "Look at these model servers; if they are well, at the health checks and outlier_detection of the cluster.";
    EndpointsEjected = "endpoints-ejected" Degraded:
        "Requests fail at endpoints: those are ejected, unless too few others would stay in use.",
        "Look at the model server's log, or at the requests if most endpoints are affected. A probe request that succeeds ends it.";
    EndpointHung = "endpoint-hung" Degraded:
        "An endpoint does not respond to the requests that it was sent.",
        "Restart the model server if its log shows no progress; it is used again once a probe request succeeds.";
    PollsFail = "polls-fail" Degraded:
        "Metrics pages of endpoints cannot be fetched or read.",
        "If one endpoint is affected, look at its model server; if all are, at path, port and TLS settings of metrics-data-source.";
    MetricsStale = "metrics-stale" Degraded:
        "Endpoints have no fresh metrics: metric scorers assume the average of the others.",
        "If polls do not fail either: `interval` of metrics-data-source must be below `stalenessThreshold`; if it is, the worker that polls is overloaded: raise both.";
    OwnCounts = "own-counts" Degraded:
        "Too few endpoints have fresh metrics: decisions are based on this Envoy's own counts.",
        "Look at the reason for which polls fail, on the status page or in llm_d_epp_datalayer_poll_errors_total.";
    BodiesUnread = "bodies-unread" Degraded:
        "Request bodies do not reach the filter: prompts and models make no difference.",
        "Set allow_on_headers_stop_iteration on the filter, or `readBody: never` if this is intended.";
    RequestsRefused = "requests-refused" Degraded:
        "Requests are rejected because no endpoint can be picked.",
        "The latest decisions on the status page have the reason; llm_d_epp_request_error_total counts by error code.";
    RequestsUnrouted = "requests-unrouted" Degraded:
        "Requests are left to Envoy's load balancing because no endpoint can be picked.",
        "The latest decisions on the status page have the reason; epp_wasm_fallback_total counts by error code.";
    QueueFull = "queue-full" Degraded:
        "Requests are rejected because a queue of flow control is at its capacity.",
        "Add model servers, have clients send less, or raise `maxRequests` and `maxBytes` if requests may wait longer.";
    RequestsExpire = "requests-expire" Degraded:
        "Requests expire in the queues of flow control: the pool stays full for longer than they may wait.",
        "Add model servers or have clients send less; if the servers are not busy, the limits of the saturation detector are too low.";
    ConfigurationsDiffer = "configurations-differ" Degraded:
        "Workers use different configurations.",
        "An update is being rolled out, or a worker rejected it: Envoy's log has the reason.";
    MemoryHigh = "memory-high" Degraded:
        "The memory of a worker has grown above 512 MiB; it fails at 1 GiB.",
        "Lower `maxIndexBytes` or `maxHeld`, and restart Envoy: the memory of a worker never shrinks.";
    RequestsLeftAlone = "requests-left-alone" Note:
        "Requests pass the filter, and none of them is routed to the pool's cluster: the filter leaves them alone.",
        "If the pool gets no requests yet, this is expected; else set `clusters` to the cluster that their route names.";
    SeriesBound = "series-bound" Note:
        "So many series were exported that new ones are counted without their labels.",
        "Restart Envoy to forget the series of endpoints that have left.";
    NoCachedTokens = "no-cached-tokens" Note:
        "Responses report their usage without cached tokens, so that hit ratios are not measured.",
        "Start vLLM with --enable-prompt-tokens-details, SGLang with --enable-cache-report.";
    EnvoyUntested = "envoy-untested" Note:
        "The module was not tested with this version of Envoy.",
        "Use a tested version, or run the end-to-end tests with this one.";
    DryRun = "dry-run" Note:
        "Decisions are made and counted, and Envoy's own load balancing routes.",
        "Remove `dryRun` from envoy-proxy to route by the decisions.";
}

/// Its place in the catalogue, in which the pickers of one module exchange it.
impl From<Finding> for u8 {
    fn from(finding: Finding) -> Self {
        finding as Self
    }
}

impl TryFrom<u8> for Finding {
    type Error = &'static str;

    fn try_from(place: u8) -> Result<Self, Self::Error> {
        let entry = ENTRIES.get(usize::from(place));
        entry.map(|entry| entry.finding).ok_or("an unknown finding")
    }
}

impl Finding {
    /// Returns all findings, the worst first.
    pub fn all() -> impl Iterator<Item = Self> {
        ENTRIES.iter().map(|entry| entry.finding)
    }

    /// Returns the finding with this id.
    pub fn from_id(id: &str) -> Option<Self> {
        let mut entries = ENTRIES.iter();
        let found = entries.find(|entry| entry.id == id)?;
        Some(found.finding)
    }

    /// Returns what its lines of the log are about: whether clients can bring it about.
    pub fn subject(self) -> Subject {
        match self {
            Self::RoutedElsewhere
            | Self::EndpointsEjected
            | Self::EndpointHung
            | Self::RequestsRefused
            | Self::RequestsUnrouted
            | Self::QueueFull
            | Self::RequestsExpire
            | Self::RequestsLeftAlone
            | Self::SeriesBound
            | Self::NoCachedTokens => Subject::Requests,
            _ => Subject::Pool,
        }
    }

    fn entry(self) -> Option<&'static Entry> {
        ENTRIES.get(self as usize)
    }

    /// Returns its id, which does not change from release to release: a metric's label, and a word to search for.
    pub fn id(self) -> &'static str {
        self.entry().map_or("", |entry| entry.id)
    }

    /// Returns how bad it is.
    pub fn severity(self) -> Severity {
        self.entry().map_or(Severity::Note, |entry| entry.severity)
    }

    /// Returns what is wrong, in a sentence.
    pub fn cause(self) -> &'static str {
        self.entry().map_or("", |entry| entry.cause)
    }

    /// Returns what to check or to do, in a sentence.
    pub fn remedy(self) -> &'static str {
        self.entry().map_or("", |entry| entry.remedy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_stand_at_the_place_of_their_finding_the_worst_first() {
        for (place, entry) in ENTRIES.iter().enumerate() {
            assert_eq!(entry.finding as usize, place, "{}", entry.id);
            assert_eq!(Finding::from_id(entry.id), Some(entry.finding));
            assert_eq!(entry.finding.id(), entry.id, "no other has this id");
        }
        assert!(ENTRIES.is_sorted_by_key(|entry| entry.severity));
    }

    #[test]
    fn ids_are_labels_and_texts_short_sentences() {
        for entry in ENTRIES {
            let of_id = |letter: char| letter.is_ascii_lowercase() || letter == '-';
            assert!(entry.id.chars().all(of_id), "{}", entry.id);
            assert!(
                entry.cause.len() + entry.remedy.len() <= 250,
                "{}",
                entry.id
            );
            for text in [entry.cause, entry.remedy] {
                assert!(
                    text.ends_with('.') && text.starts_with(char::is_uppercase),
                    "{text}"
                );
            }
        }
    }
}
