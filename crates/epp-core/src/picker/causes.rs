//! Conditions of findings whose cause is a configuration: of clusters, of the admin interface, of metrics pages, of routes.

use super::verdict::Met;
use super::Picker;
use crate::endpoints::discovery::Survey;
use crate::endpoints::fetch_error::FetchError;
use crate::findings::Finding;
use crate::plugins::Discovery;

/// Requests that pass to other clusters before that is a finding: a few of them may be health checks of a gateway that
/// has just started.
pub(super) const MIN_ELSEWHERE: u64 = 10;

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

    /// Adds why metrics pages cannot be fetched or read.
    pub(super) fn poll_conditions(&self, met: &mut Met) {
        let monitor = &self.dispatcher.endpoints.monitor;
        let (mut failing, mut unknown, mut all) = (Vec::new(), 0, 0);
        for (slot, endpoint) in monitor.store.pool.iter() {
            all += 1;
            let failures = monitor.store.condition(slot).failures;
            let error = monitor.poll_error(slot);
            let Some(error) = error.filter(|_| failures >= MIN_FAILURES) else {
                continue;
            };
            unknown += usize::from(error == FetchError::WrongCluster);
            failing.push(format!("{} ({})", endpoint.address, error.text()));
        }
        if unknown > 0 {
            let cluster = self.plan().metrics_cluster();
            let detail = format_args!("Envoy has no cluster {cluster:?}");
            met.add(Finding::MetricsClusterUnknown, detail);
        }
        if failing.len() > unknown {
            met.add_endpoints(Finding::PollsFail, &failing, all);
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
