//! Conditions of findings whose cause is a configuration: of clusters, of the admin interface, of metrics pages, of routes;
//! and those of single endpoints.

use std::time::Duration;

use super::status::DecisionBasis;
use super::verdict::Met;
use super::Picker;
use crate::endpoints::discovery::Survey;
use crate::endpoints::fetch_error::FetchError;
use crate::endpoints::outlier::Reason;
use crate::findings::Finding;
use crate::plugins::Discovery;
use crate::scheduling::Freshness;

/// Requests that pass to other clusters before that is a finding: a few of them may be health checks of a gateway that
/// has just started.
pub(super) const MIN_ELSEWHERE: u64 = 10;

/// For this long after its start, a VM does not find that the admin interface cannot be reached: while an Envoy starts or
/// loads another module, its main thread responds late. Shorter than it takes for a finding to close, so that one which
/// another VM has opened stays open.
const STARTING: Duration = Duration::from_secs(4);

/// Pages of an endpoint that could not be read in a row, before that is a finding: a single one may be lost.
const MIN_FAILURES: u32 = 2;

impl Picker {
    /// Adds what is wrong with discovery.
    pub(super) fn discovery_conditions(&self, met: &mut Met) {
        let found = &self.dispatcher.endpoints.monitor.found;
        let (Discovery::EnvoyCluster(discovery), Some(last)) =
            (&self.plan().discovery, found.lasting())
        else {
            return;
        };
        let admin = &discovery.admin_cluster;
        let (missing, survey) = match last {
            Ok(0) => return,
            Ok(missing) => (missing, found.survey()),
            Err(FetchError::NotListed) => (u32::MAX, found.survey()),
            Err(_) if self.is_starting() => return,
            Err(FetchError::WrongCluster) => {
                let detail = format_args!("Envoy has no cluster {admin:?}");
                return met.add(Finding::AdminUnreachable, detail);
            }
            Err(error @ (FetchError::NotAPage | FetchError::Status(..500))) => {
                let detail = format_args!("cluster {admin:?}: {}", error.text());
                return met.add(Finding::AdminNotEnvoy, detail);
            }
            Err(error) => {
                let detail = format_args!("cluster {admin:?}: {}", error.text());
                return met.add(Finding::AdminUnreachable, detail);
            }
        };
        let names = (0..u32::BITS).zip(discovery.names());
        let names = names.filter(|(bit, _)| missing >> bit & 1 == 1);
        let names: Vec<&str> = names.map(|(_, name)| name).collect();
        let names = names.join(", ");
        match survey {
            Some(Survey::None) => met.add(
                Finding::AdminNotEnvoy,
                format_args!("cluster {admin:?}: an empty page"),
            ),
            Some(Survey::Foreign) => met.add(
                Finding::AdminNotEnvoy,
                format_args!("cluster {admin:?}: the page of another Envoy"),
            ),
            Some(Survey::Own(similar)) if !similar.is_empty() => {
                let similar = similar.join(", ");
                let detail = format_args!("no cluster {names}; there are {similar}");
                met.add(Finding::ClusterUnknown, detail);
            }
            Some(Survey::Own(_)) | None => {
                met.add(Finding::ClusterUnknown, format_args!("no cluster {names}"));
            }
        }
    }

    fn is_starting(&self) -> bool {
        let now = self.dispatcher.clock.now();
        let begun = self.dispatcher.endpoints.monitor.begun();
        begun.is_none_or(|begun| now.since(begun) < STARTING)
    }

    /// Adds what is wrong with endpoints, each under the first finding that applies: it is the cause of the others.
    pub(super) fn endpoint_conditions(&self, all: usize, met: &mut Met) {
        let endpoints = &self.dispatcher.endpoints;
        let monitor = &endpoints.monitor;
        let (mut unhealthy, mut ejected, mut hung) = (vec![], vec![], vec![]);
        let (mut failing, mut stale) = (vec![], vec![]);
        let (mut fresh, mut unknown) = (0, false);
        for (slot, endpoint) in endpoints.pool().iter() {
            let is_fresh = endpoint.freshness == Freshness::Fresh || !monitor.scrapes();
            fresh += usize::from(is_fresh);
            let failures = monitor.store.condition(slot).failures;
            let error = monitor.poll_error(slot);
            let error = error.filter(|_| failures >= MIN_FAILURES);
            unknown |= error == Some(FetchError::WrongCluster);
            let address = &endpoint.address;
            if !endpoint.is_available() {
                unhealthy.push(format!("{address} ({})", endpoint.health.name()));
            } else if let Some(reason) = monitor.outliers.reason(slot) {
                let used = match monitor.outliers.is_in_use(slot) {
                    true => ", still in use",
                    false => "",
                };
                let text = format!("{address} ({}{used})", reason.name());
                match reason {
                    Reason::Hung => hung.push(text),
                    _ => ejected.push(text),
                }
            } else if let Some(error) = error {
                failing.push(format!("{address} ({})", error.text()));
            } else if !is_fresh {
                stale.push(address.to_string());
            }
        }
        let polls_matter = !failing.is_empty() || !stale.is_empty();
        if unknown {
            let cluster = self.plan().metrics_cluster();
            let detail = format_args!("Envoy has no cluster {cluster:?}");
            met.add(Finding::MetricsClusterUnknown, detail);
            failing.clear();
        }
        met.add_endpoints(Finding::EndpointsUnhealthy, &unhealthy, all);
        met.add_endpoints(Finding::EndpointsEjected, &ejected, all);
        met.add_endpoints(Finding::EndpointHung, &hung, all);
        met.add_endpoints(Finding::PollsFail, &failing, all);
        met.add_endpoints(Finding::MetricsStale, &stale, all);
        // Where endpoints get no requests, their metrics make no difference.
        if endpoints.decision_basis() == DecisionBasis::OwnCounts && polls_matter {
            let detail = format_args!("{fresh} of {all} endpoints have fresh metrics");
            met.add(Finding::OwnCounts, detail);
        }
    }

    /// Adds what is wrong with the ways of requests, as far as this picker sees it.
    pub(super) fn route_conditions(&self, met: &mut Met) {
        let plan = self.plan();
        if self.dispatcher.endpoints.override_check.is_ignored() {
            let (cluster, header) = (plan.cluster(), &plan.settings.destination_header);
            let detail = format_args!("cluster {cluster}, header {header}");
            met.add(Finding::NoOverrideHost, detail);
        }
        let counted = &self.dispatcher.statistics.left_alone;
        let serves = self.serves || self.sharing.statistics.others_serve;
        if !serves && counted.total() >= MIN_ELSEWHERE {
            let (total, clusters) = (counted.total(), counted.clusters());
            let detail = format_args!(
                "{total} requests go to {clusters}, none to {}",
                plan.cluster()
            );
            met.add(Finding::RequestsLeftAlone, detail);
        }
    }
}

#[cfg(test)]
#[path = "causes_tests.rs"]
mod tests;
