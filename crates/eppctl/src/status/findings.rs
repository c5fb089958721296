//! Findings of one Envoy, from three sources: the filter, its configuration, and Envoy's statistics.

use std::collections::BTreeMap;

use epp_core::findings::{Finding, Severity};
use epp_core::metrics::definitions;
use serde::{Serialize, Serializer};

use super::envoy::Hosts;
use super::pools::{ejected, freshness};
use super::series::Statistics;
use super::updates;
use crate::lint::{Findings, ReceivedFilter};

/// Something that an operator should know.
#[derive(Debug, Serialize)]
pub struct StatusFinding {
    /// How bad it is.
    #[serde(serialize_with = "name")]
    pub severity: Severity,
    /// Its id: of a finding of the filter, or of a rule of lint.
    pub id: String,
    /// The pool, if it is one pool's.
    pub pool: Option<String>,
    /// The particulars: endpoints, or a place in the configuration.
    pub place: Option<String>,
    /// What is wrong.
    pub cause: String,
    /// What to do.
    pub remedy: String,
}

fn name<S: Serializer>(severity: &Severity, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(severity.name())
}

impl StatusFinding {
    /// Returns whether something is wrong: a note is no fault.
    pub fn is_fault(&self) -> bool {
        self.severity != Severity::Note
    }
}

/// Returns the findings that the filter reports.
pub fn reported(statistics: &Statistics<'_>, hosts: Option<&Hosts>) -> Vec<StatusFinding> {
    let mut open: Vec<_> = statistics.findings().into_iter().collect();
    // As in the catalogue: causes come before what they lead to.
    open.sort_by_cached_key(|(_, id)| {
        Finding::from_id(id).map_or((1, None), |finding| (0, Some(finding)))
    });
    let open = open.into_iter();
    open.map(|(pool, id)| match Finding::from_id(&id) {
        Some(finding) => StatusFinding {
            severity: finding.severity(),
            place: place(finding, statistics, hosts, &pool),
            cause: finding.cause().to_owned(),
            remedy: finding.remedy().to_owned(),
            pool: Some(pool),
            id,
        },
        None => StatusFinding {
            severity: Severity::Degraded,
            place: None,
            cause: "The filter reports a finding that this eppctl does not know.".to_owned(),
            remedy: "Use the eppctl of the module's version, or look at the status page."
                .to_owned(),
            pool: Some(pool),
            id,
        },
    })
    .collect()
}

/// Returns what a finding is about, where other statistics say so.
fn place(
    finding: Finding,
    statistics: &Statistics<'_>,
    hosts: Option<&Hosts>,
    pool: &str,
) -> Option<String> {
    let counts = |family, label| {
        let counts = statistics.by(family, pool, label).into_iter();
        counts
            .map(|(name, count)| format!("{name} ({count})"))
            .collect()
    };
    let places = match finding {
        Finding::EndpointsEjected | Finding::EndpointHung => ejected(statistics, pool),
        Finding::EndpointsUnhealthy => match hosts {
            Some(hosts) => hosts.unhealthy(pool).to_vec(),
            None => return Some(HOSTS_UNKNOWN.to_owned()),
        },
        Finding::RequestsLeftAlone => counts(definitions::LEFT_ALONE.name(), "route_cluster"),
        Finding::RequestsRefused => counts(definitions::REQUEST_ERRORS.name(), "error_code"),
        Finding::RequestsUnrouted => counts(definitions::FALLBACKS.name(), "error_code"),
        Finding::MetricsStale | Finding::OwnCounts | Finding::PollsFail => {
            let endpoints = freshness(statistics, hosts, pool).into_iter();
            let endpoints = endpoints.filter(|(_, freshness)| *freshness < 2.0);
            let mut places: Vec<String> = endpoints.map(|(address, _)| address).collect();
            for address in places.iter_mut().take(SHOWN) {
                *address = with_poll_errors(statistics, pool, address);
            }
            places
        }
        _ => Vec::new(),
    };
    few(&places)
}

/// The place of unhealthy endpoints where `/clusters` is not exposed.
const HOSTS_UNKNOWN: &str =
    "not exposed at this address; `eppctl status unix:/run/envoy/admin.sock` names the endpoints";

/// Places that are shown.
const SHOWN: usize = 5;

/// Returns an endpoint with the reasons for which its polls have failed since the module was loaded, if any have.
fn with_poll_errors(statistics: &Statistics<'_>, pool: &str, address: &str) -> String {
    let errors = statistics.of_pool(definitions::SCRAPE_ERRORS.name(), pool);
    let own =
        errors.filter(|series| series.label("endpoint_name") == address && series.value() > 0.0);
    let reasons: Vec<String> = own
        .map(|series| format!("{} {}", series.label("reason"), series.value()))
        .collect();
    match reasons.is_empty() {
        true => address.to_owned(),
        false => format!(
            "{address} (since the module was loaded: {})",
            reasons.join(", ")
        ),
    }
}

/// Returns the first of several places, and the number of the others.
pub fn few(places: &[String]) -> Option<String> {
    let shown = places
        .iter()
        .take(SHOWN)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    match places.len() {
        0 => None,
        1..=SHOWN => Some(shown),
        all => Some(format!("{shown} and {} more", all - SHOWN)),
    }
}

/// Adds what lint finds in the configuration in force.
///
/// Where the filter has noticed the fault itself, its finding gets the place.
pub fn add_linted(findings: &mut Vec<StatusFinding>, linted: Option<&Findings>) {
    // The first finding of each id: a page may list any number.
    let mut first = BTreeMap::new();
    for (number, known) in findings.iter().enumerate() {
        first.entry(known.id.clone()).or_insert(number);
    }
    for fault in linted.iter().flat_map(|linted| &linted.findings) {
        let place = fault.place();
        let causes = causes(fault.rule).iter();
        let known = causes
            .filter_map(|cause| first.get(cause.id()).copied())
            .min();
        if let Some(known) = known.and_then(|number| findings.get_mut(number)) {
            // As where no route leads to the pool that gets no requests.
            known.severity = known.severity.min(Severity::Degraded);
            known.place = Some(match &known.place {
                Some(more) => format!("{place}; {more}"),
                None => format!("{place}: {}", fault.found),
            });
            continue;
        }
        // The filter knows the version, too.
        if fault.rule == "envoy-version" && first.contains_key(Finding::EnvoyUntested.id()) {
            continue;
        }
        findings.push(StatusFinding {
            severity: severity(fault.rule),
            id: fault.rule.to_owned(),
            pool: None,
            place: Some(place),
            cause: format!("{}: {}.", fault.found, fault.why),
            remedy: format!("{}.", fault.fix),
        });
    }
}

/// Returns how bad a fault is that the filter has not noticed.
///
/// Advice is a note: the filter works, and its own verdict on the status page is the same. A fault that leads to a
/// finding of the filter, which may need requests to notice it, is as bad as that.
fn severity(rule: &str) -> Severity {
    // Envoy forgets the first two when it accepts an update. The last one is why polls fail, in more detail than that
    // finding has.
    if ["refused-update", "plugin-config", "metrics-port"].contains(&rule) {
        return Severity::Degraded;
    }
    let causes = causes(rule).iter().map(|finding| finding.severity());
    causes.min().unwrap_or(Severity::Note)
}

/// Returns the filter's own findings that a fault in its configuration leads to.
fn causes(rule: &str) -> &'static [Finding] {
    match rule {
        "callout-clusters" => &[
            Finding::ClusterUnknown,
            Finding::MetricsClusterUnknown,
            Finding::AdminUnreachable,
        ],
        "admin-cluster" => &[Finding::AdminNotEnvoy, Finding::AdminUnreachable],
        "body-unread" => &[Finding::BodiesUnread],
        "no-override-host" => &[Finding::NoOverrideHost],
        "unrouted" => &[Finding::RequestsLeftAlone, Finding::RoutedElsewhere],
        _ => &[],
    }
}

/// Adds what Envoy's statistics say of the filter. `received`: filters that Envoy has received by ECDS. If they are known,
/// so is the configuration in force, and with it whether the last update of a listener was refused.
pub fn add_seen(
    findings: &mut Vec<StatusFinding>,
    statistics: &Statistics<'_>,
    received: Option<&[ReceivedFilter]>,
) {
    if statistics.is_empty() {
        findings.push(seen(
            Severity::Broken,
            "filter-not-running",
            None,
            "The configuration has the filter, and the filter has no statistics: its VM did not start, or it refused its configuration.",
            "Envoy's log has the reason: look for lines of the component wasm or dynamic_modules.",
        ));
    } else if statistics.pools().is_empty() {
        findings.push(seen(
            Severity::Degraded,
            "labels-missing",
            None,
            "The filter's statistics have no labels: dashboards and alerts find nothing in them.",
            "Set stats_config.stats_tags as in envoy/production/static.yaml.",
        ));
    }
    findings.extend(updates::refused(statistics, received));
    findings.extend(past(statistics, received.is_some()));
}

/// What the counter of refused updates of listeners ends with.
const LISTENERS: &str = "listener_manager_lds_update_rejected";

/// Returns what has happened since Envoy started. A counter does not say whether it is over: it is taken for a fault,
/// unless the configuration in force says that it is over.
fn past(statistics: &Statistics<'_>, dumped: bool) -> Vec<StatusFinding> {
    let mut failures = statistics.ending(&[
        "_vm_reload_success",
        "_vm_reload_failure",
        "_remote_load_fetch_failures",
    ]);
    failures.extend(statistics.of(definitions::CAUGHT_PANICS.name()));
    let mut updates =
        statistics.ending(&["_update_rejected", "_config_reject", "_config_conflict"]);
    updates.retain(|series| !series.family.starts_with(updates::PREFIX));
    // Envoy's dump says of listeners alone that the last update was refused: the finding refused-update is that fault.
    let (listeners, others): (Vec<_>, Vec<_>) = updates
        .into_iter()
        .partition(|series| dumped && series.family.ends_with(LISTENERS));
    let filters = match dumped {
        true => Severity::Note,
        false => Severity::Degraded,
    };
    let events = [
        (
            "updates-refused",
            Severity::Degraded,
            others,
            "Envoy has refused updates of its configuration since it started, and it cannot be told whether the last one is in force.",
            "Envoy's log has the reasons. It is over if the log has no refusal after the last update. Of listeners it can be told where /config_dump is exposed. The counter stays until Envoy restarts.",
        ),
        (
            "updates-refused",
            Severity::Note,
            listeners,
            "Envoy has refused updates of listeners since it started.",
            "Envoy's log has the reasons. It is over where there is no finding refused-update. The counter stays until Envoy restarts.",
        ),
        (
            "configurations-refused",
            filters,
            statistics.of(definitions::REJECTED_CONFIGURATIONS.name()).collect(),
            "The filter has refused configurations since Envoy started.",
            "Envoy's log has the reasons; `eppctl check` finds them in the document. The counter stays until Envoy restarts.",
        ),
        (
            "module-failed",
            Severity::Degraded,
            failures,
            "The module has failed since Envoy started, and was restarted or continued, or could not be loaded.",
            "Envoy's log has the reason. A panic or a trap is a defect: please report it. The counter stays until Envoy restarts.",
        ),
    ];
    let events = events
        .into_iter()
        .filter_map(|(id, severity, series, cause, remedy)| {
            let counted = series.into_iter().filter(|series| series.value() > 0.0);
            let counted: Vec<String> = counted
                .map(|series| format!("{} {}", series.family, series.value()))
                .collect();
            Some(seen(severity, id, Some(few(&counted)?), cause, remedy))
        });
    events.collect()
}

/// Returns a finding of Envoy's statistics.
pub fn seen(
    severity: Severity,
    id: &str,
    place: Option<String>,
    cause: &str,
    remedy: &str,
) -> StatusFinding {
    StatusFinding {
        severity,
        id: id.to_owned(),
        pool: None,
        place,
        cause: cause.to_owned(),
        remedy: remedy.to_owned(),
    }
}
