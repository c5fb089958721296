//! Failures of requests, and what they say about the endpoint.

use serde::{Deserialize, Serialize};

use super::OutlierDetector;
use crate::scheduling::Slot;
use crate::time::Timestamp;

/// The reason why an endpoint is ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Reason {
    /// The endpoint refused, reset or timed out, or Envoy retried the request elsewhere after its response.
    #[default]
    Unserved,
    /// The endpoint responds with 5xx.
    Errors,
    /// The endpoint responds with 503.
    Overloaded,
    /// The endpoint sends neither responses nor metrics pages.
    Hung,
}

impl Reason {
    /// All reasons, in the order of their numbers in shared data.
    pub const ALL: [Self; 4] = [Self::Unserved, Self::Errors, Self::Overloaded, Self::Hung];

    /// Returns the reason's name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unserved => "unserved",
            Self::Errors => "errors",
            Self::Overloaded => "overloaded",
            Self::Hung => "hung",
        }
    }
}

/// A request that an endpoint did not serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// How the request failed.
    pub reason: Reason,
    /// Whether the endpoint is surely at fault: no request can cause this failure. The connection was
    /// refused, or another endpoint served the same request. Any other failure may be caused by the
    /// request: a prompt that a server rejects with 500, that makes it close the connection, or that takes
    /// longer than a timeout.
    pub certain: bool,
}

/// The outcome of one request at one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outcome {
    /// The request's number.
    pub request: u32,
    /// The hash of the prompt's first block, which distinguishes prompts; `None` where no prompt was read.
    pub prompt: Option<u64>,
    /// Whether the endpoint served a request with a body. An endpoint whose engine is dead or stands still may still
    /// list its models and reject requests, so that such responses prove little.
    pub served: bool,
    /// How the request failed, if it did.
    pub failure: Option<Failure>,
}

/// Counts of failures that were found to be the fault of requests, not of endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RequestFaults {
    /// Prompts that failed at two endpoints and were served by none.
    pub prompts: u64,
    /// Times that more than half of the endpoints would have been ejected.
    pub majorities: u64,
}

impl OutlierDetector {
    /// Returns since when all requests to an endpoint have failed, if the latest has.
    pub fn failing_since(&self, slot: Slot) -> Option<Timestamp> {
        self.state(slot)?.failing_since()
    }

    /// Returns when the latest request to an endpoint failed, if it did.
    pub fn failed_at(&self, slot: Slot) -> Option<Timestamp> {
        self.state(slot)?.failed_at()
    }
}
