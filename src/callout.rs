//! Callouts, with which Envoy makes the picker's fetches.

use std::borrow::Cow;
use std::ops::Range;

use super::abi::{self, Buffer};
use epp_core::body::{BodyView, OutOfMemory};
use epp_core::config::Plan;
use epp_core::picker::{Fetch, FetchError, Fetched};
use epp_core::plugins::Discovery;
use epp_envoy::{callouts, clusters};

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
    /// Returns the callout that fetches this under this plan; `None` for the members of a plan that lists them.
    pub fn new(plan: &'a Plan, fetch: &Fetch) -> Option<Self> {
        match (fetch, &plan.discovery) {
            (Fetch::Members, Discovery::EnvoyCluster(discovery)) => Some(Self {
                cluster: &discovery.admin_cluster,
                path: callouts::members_path(discovery),
                address: "admin".to_owned(),
                destination_header: None,
            }),
            (Fetch::Members, Discovery::Static(_)) => None,
            (Fetch::Metrics { address }, _) => Some(Self {
                cluster: callouts::metrics_cluster(plan),
                path: plan.source.path.clone(),
                address: callouts::metrics_address(plan, address),
                destination_header: Some(&plan.settings.destination_header),
            }),
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

/// The body of the current callout's response.
#[derive(Debug)]
pub struct CalloutBody {
    /// Its length.
    pub size: usize,
}

impl CalloutBody {
    /// Returns what this plan's fetch has brought.
    pub fn fetched(&mut self, plan: &Plan, fetch: &Fetch) -> Result<Fetched<'_>, FetchError> {
        match (fetch, &plan.discovery) {
            (Fetch::Members, Discovery::EnvoyCluster(discovery)) => {
                let page = self.read(self.available()).map_err(|_| FetchError)?;
                let members = clusters::members(&page, discovery, plan.needs.labels);
                members.map(Fetched::Members).ok_or(FetchError)
            }
            (Fetch::Members, Discovery::Static(_)) => Err(FetchError),
            (Fetch::Metrics { .. }, _) => Ok(Fetched::Page(self)),
        }
    }
}

impl BodyView for CalloutBody {
    fn available(&self) -> Range<usize> {
        0..self.size
    }

    fn read(&mut self, range: Range<usize>) -> Result<Cow<'_, [u8]>, OutOfMemory> {
        match abi::buffer(Buffer::CalloutBody, range.start, range.len()) {
            Ok(bytes) => Ok(Cow::Owned(bytes.unwrap_or_default())),
            Err(_) => Err(OutOfMemory),
        }
    }

    fn ended(&self) -> bool {
        true
    }
}
