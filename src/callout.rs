//! Callouts, with which Envoy makes the picker's fetches.

use std::borrow::Cow;
use std::ops::Range;

use super::abi::{self, Buffer, Map};
use epp_core::body::{BodyView, OutOfMemory};
use epp_core::config::Plan;
use epp_core::picker::{Fetch, FetchError, Fetched};
use epp_core::plugins::Discovery;
use epp_envoy::{callouts, clusters, survey};

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
            (Fetch::Metrics { address }, _) => Ok(Self {
                cluster: plan.metrics_cluster(),
                path: plan.source.path.clone(),
                address: callouts::metrics_address(plan, address),
                destination_header: Some(&plan.settings.destination_header),
            }),
        }
    }

    /// Makes the callout, which is given up after this many milliseconds. Returns its token.
    pub fn begin(&self, timeout: u64) -> Result<u32, FetchError> {
        abi::http_call(self.cluster, &self.headers(), timeout).map_err(|status| match status {
            abi::BAD_ARGUMENT => FetchError::WrongCluster,
            _ => FetchError::Unsent,
        })
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
    /// Returns why the response is none to read, unless its status is 200. Envoy gives no headers where the stream was
    /// reset; its own responses, which say what happened, are never 200.
    pub fn check(&mut self, headers: usize) -> Result<(), FetchError> {
        if headers == 0 {
            return Err(FetchError::Reset);
        }
        let status = abi::header(Map::Callout, ":status").ok().flatten();
        let status = status.as_deref().unwrap_or_default();
        match status {
            b"200" => Ok(()),
            _ => {
                let text = self.read(0..callouts::REASON_BYTES.min(self.size));
                Err(callouts::error(status, &text.unwrap_or_default()))
            }
        }
    }

    /// Returns what this plan's fetch has brought.
    pub fn fetched(&mut self, plan: &Plan, fetch: &Fetch) -> Result<Fetched<'_>, FetchError> {
        match (fetch, &plan.discovery) {
            (Fetch::Members, Discovery::EnvoyCluster(discovery)) => {
                let page = self
                    .read(self.available())
                    .map_err(|_| FetchError::TooLarge)?;
                let members = clusters::members(&page, discovery, plan.needs.labels);
                members.map(Fetched::Members)
            }
            (Fetch::Survey { missing }, Discovery::EnvoyCluster(discovery)) => {
                let page = self.read(0..self.size.min(survey::MAX_BYTES));
                let page = page.map_err(|_| FetchError::TooLarge)?;
                Ok(Fetched::Survey(survey::read(&page, discovery, *missing)))
            }
            (Fetch::Members | Fetch::Survey { .. }, Discovery::Static(_)) => {
                Err(FetchError::Unsent)
            }
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
