//! Fetches of a picker, as callouts of Envoy: what to send where, and what a response brings.

use epp_core::config::Plan;
use epp_core::endpoints::loads;
use epp_core::picker::{Fetch, FetchError, Fetched};
use epp_core::plugins::Discovery;
use epp_core::BodyView;

use crate::{callouts, clusters, survey};

/// A callout to make.
#[derive(Debug)]
pub struct Call<'a> {
    /// Through which cluster.
    pub cluster: &'a str,
    path: String,
    /// `:authority`, and where the call is to go.
    address: String,
    /// The header that says where it is to go, where the cluster has more than one member.
    destination_header: Option<&'a str>,
}

impl<'a> Call<'a> {
    /// Returns the callout that fetches this under this plan. Of a plan that lists its members
    /// only pages are fetched.
    pub fn new(plan: &'a Plan, fetch: &Fetch) -> Result<Self, FetchError> {
        match (fetch, &plan.discovery) {
            (Fetch::Members, Discovery::EnvoyCluster(discovery)) => Ok(Self {
                cluster: &discovery.admin_cluster,
                path: callouts::members_path(discovery),
                address: "admin".to_owned(),
                destination_header: None,
            }),
            (Fetch::Survey { missing }, Discovery::EnvoyCluster(discovery)) => Ok(Self {
                cluster: &discovery.admin_cluster,
                path: survey::path(discovery, *missing),
                address: "admin".to_owned(),
                destination_header: None,
            }),
            (Fetch::Members | Fetch::Survey { .. }, Discovery::Static(_)) => {
                Err(FetchError::Unsent)
            }
            (Fetch::Metrics { address }, _) => Ok(Self::page(plan, address, &plan.source.path)),
            (Fetch::Loads { address }, _) => Ok(Self::page(plan, address, loads::PATH)),
        }
    }

    fn page(plan: &'a Plan, address: &str, path: &str) -> Self {
        Self {
            cluster: plan.metrics_cluster(),
            path: path.to_owned(),
            address: callouts::metrics_address(plan, address),
            destination_header: Some(&plan.settings.destination_header),
        }
    }

    /// Returns the call's headers.
    pub fn headers(&self) -> Vec<(&str, &str)> {
        let mut headers = vec![
            (":method", "GET"),
            (":path", self.path.as_str()),
            (":authority", self.address.as_str()),
            ("user-agent", "epp-wasm"),
        ];
        if let Some(header) = self.destination_header {
            headers.push((header, &self.address));
            // What an ORIGINAL_DST cluster reads.
            headers.push(("x-envoy-original-dst-host", &self.address));
        }
        headers
    }
}

/// Returns an error that says why a response cannot be used, unless its status is 200. Envoy's own responses, which say what happened,
/// are never 200.
pub fn check(status: &[u8], body: &mut impl BodyView) -> Result<(), FetchError> {
    if status == b"200" {
        return Ok(());
    }
    let size = body.available().end;
    let text = body.read(0..callouts::REASON_BYTES.min(size));
    Err(callouts::error(status, &text.unwrap_or_default()))
}

/// Returns what this plan's fetch has brought, with this body and status 200.
pub fn fetched<'b>(
    plan: &Plan,
    fetch: &Fetch,
    body: &'b mut impl BodyView,
) -> Result<Fetched<'b>, FetchError> {
    match (fetch, &plan.discovery) {
        (Fetch::Members, Discovery::EnvoyCluster(discovery)) => {
            let page = body.read(body.available());
            let page = page.map_err(|_| FetchError::TooLarge)?;
            let members = clusters::members(&page, discovery, plan.needs.labels);
            members.map(Fetched::Members)
        }
        (Fetch::Survey { missing }, Discovery::EnvoyCluster(discovery)) => {
            let size = body.available().end;
            let page = body.read(0..size.min(survey::MAX_BYTES));
            let page = page.map_err(|_| FetchError::TooLarge)?;
            Ok(Fetched::Survey(survey::read(&page, discovery, *missing)))
        }
        (Fetch::Members | Fetch::Survey { .. }, Discovery::Static(_)) => Err(FetchError::Unsent),
        (Fetch::Metrics { .. } | Fetch::Loads { .. }, _) => Ok(Fetched::Page(body)),
    }
}
