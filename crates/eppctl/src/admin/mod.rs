//! A client of Envoy's admin interface.

pub mod statistics;

use std::fmt::Display;
use std::time::{Duration, Instant};

use crate::output::Error;
use statistics::Sample;

/// The timeout of a request: long enough for a busy main thread, short enough for a user.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Bounds a response. A page for a thousand endpoints has a few megabytes.
const MAX_PAGE_BYTES: u64 = 256 << 20;

/// The admin interface, or a listener that exposes its `/stats/prometheus`.
pub struct Admin(String);

impl Admin {
    /// Creates a client for `http://host:port` or `host:port`.
    pub fn at(address: &str) -> Self {
        let address = address.trim_end_matches('/');
        Self(match address.contains("://") {
            true => address.to_owned(),
            false => format!("http://{address}"),
        })
    }

    /// Returns one of its pages.
    pub fn get(&self, path: &str) -> Result<Vec<u8>, Error> {
        get(&format!("{}{path}", self.0)).map_err(|error| self.error(&error))
    }

    /// Returns the filter's statistics.
    pub fn statistics(&self) -> Result<Sample, Error> {
        let page = self.get("/stats/prometheus")?;
        let page = String::from_utf8_lossy(&page);
        // Every Envoy has statistics with this prefix.
        if !page.lines().any(|line| line.starts_with("envoy_")) {
            return Err(self.error(&"this is not an Envoy"));
        }
        let sample = Sample::parse(&page, Instant::now());
        if sample.is_empty() {
            return Err(Error::new(format!(
                "{}: this Envoy has no epp-wasm statistics; check that it loads the filter, that the filter \
                 has been running for a second, and that stats_tags are set as in envoy/envoy.yaml",
                self.0
            )));
        }
        Ok(sample)
    }

    fn error(&self, error: &dyn Display) -> Error {
        Error::new(format!(
            "{}: {error}; expected the address of Envoy's admin interface, such as http://127.0.0.1:9901",
            self.0
        ))
    }
}

/// Returns the body of the response to a GET.
pub fn get(url: &str) -> Result<Vec<u8>, ureq::Error> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(REQUEST_TIMEOUT))
        .build()
        .into();
    let mut response = agent.get(url).call()?;
    response
        .body_mut()
        .with_config()
        .limit(MAX_PAGE_BYTES)
        .read_to_vec()
}
