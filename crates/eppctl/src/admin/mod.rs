//! Asking a running Envoy's admin interface.

pub mod statistics;

use std::fmt::Display;
use std::time::{Duration, Instant};

use crate::output::Misuse;
use statistics::Sample;

/// What does not answer in this time is told, not waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// A page of a thousand endpoints has a few megabytes.
const MAX_PAGE: u64 = 256 << 20;

/// The admin interface, or what passes its `/stats/prometheus` on.
pub struct Admin(String);

impl Admin {
    /// At `http://host:port` or `host:port`.
    pub fn at(address: &str) -> Self {
        let address = address.trim_end_matches('/');
        Self(match address.contains("://") {
            true => address.to_owned(),
            false => format!("http://{address}"),
        })
    }

    /// A page of it.
    pub fn get(&self, path: &str) -> Result<Vec<u8>, Misuse> {
        get(&format!("{}{path}", self.0)).map_err(|error| self.told(&error))
    }

    /// What the filter counts in it.
    pub fn statistics(&self) -> Result<Sample, Misuse> {
        let page = self.get("/stats/prometheus")?;
        let page = String::from_utf8_lossy(&page);
        // Every Envoy has statistics of its own.
        if !page.lines().any(|line| line.starts_with("envoy_")) {
            return Err(self.told(&"what answers is no Envoy"));
        }
        let sample = Sample::parse(&page, Instant::now());
        if sample.is_empty() {
            return Err(Misuse::new(format!(
                "{}: this Envoy has no statistics of epp-wasm; is the filter in it, has it ticked, and \
                 are stats_tags set as in envoy/envoy.yaml?",
                self.0
            )));
        }
        Ok(sample)
    }

    fn told(&self, error: &dyn Display) -> Misuse {
        Misuse::new(format!(
            "{}: {error}; give the address of Envoy's admin interface, as http://127.0.0.1:9901",
            self.0
        ))
    }
}

/// What answers a GET.
pub fn get(url: &str) -> Result<Vec<u8>, ureq::Error> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(PATIENCE))
        .build()
        .into();
    let mut answer = agent.get(url).call()?;
    answer
        .body_mut()
        .with_config()
        .limit(MAX_PAGE)
        .read_to_vec()
}
