//! The EndpointPickerConfigs under test.

use std::fs;

use crate::BoxError;

/// An EndpointPickerConfig under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// A prompt window of 256 × 64 bytes.
    ShortWindow,
    /// The plan with `requests: ofCluster`, for a listener that also has routes to other clusters.
    OfCluster,
    /// llm-d-router's prompt window of 131,072 tokens.
    LongWindow,
}

/// The listener has routes to the pool only, as in `envoy/production/`: the filter does not ask Envoy for the
/// route of each request.
const POOL_ONLY: &str = "\n- {type: envoy-proxy, parameters: {requests: all}}\nschedulingProfiles:";

impl Plan {
    /// Returns what a table says of the plan.
    pub fn name(self) -> &'static str {
        match self {
            Self::ShortWindow => "prompt window of 16 KB",
            Self::OfCluster => "prompt window of 16 KB, `requests: ofCluster`",
            Self::LongWindow => "prompt window of 512 KB",
        }
    }

    /// Returns the document for the filter.
    pub fn text(self) -> Result<String, BoxError> {
        let text = self.document()?;
        Ok(match self {
            Self::OfCluster => text,
            Self::ShortWindow | Self::LongWindow => {
                text.replacen("\nschedulingProfiles:", POOL_ONLY, 1)
            }
        })
    }

    /// Returns the document without settings that only this filter has.
    pub fn document(self) -> Result<String, BoxError> {
        let file = match self {
            Self::ShortWindow | Self::OfCluster => "examples/full.yaml",
            Self::LongWindow => "benches/envoy/long-window.yaml",
        };
        fs::read_to_string(file).map_err(|error| format!("{file}: {error}").into())
    }
}
