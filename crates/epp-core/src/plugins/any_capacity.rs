//! The saturation detector of the Gateway API Inference Extension before it had detectors as plugins.

use crate::flow::SaturationDetector;
use crate::scheduling::{Endpoint, Freshness, InFlight, Needs};

/// Finds a pool full, or not: it is not while an endpoint with fresh metrics has no more than these of both.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AnyCapacity {
    /// Waiting requests.
    pub queue: f64,
    /// KV-cache utilization.
    pub kv_usage: f64,
}

impl Default for AnyCapacity {
    fn default() -> Self {
        Self {
            queue: 5.0,
            kv_usage: 0.8,
        }
    }
}

impl SaturationDetector for AnyCapacity {
    fn value(&self, endpoint: &Endpoint, _: InFlight) -> Option<f64> {
        let metrics = &endpoint.metrics;
        let has_room = endpoint.freshness == Freshness::Fresh
            && metrics.waiting.unwrap_or(0.0) <= self.queue
            && metrics.kv_usage.unwrap_or(0.0) <= self.kv_usage;
        Some(if has_room { 0.0 } else { 1.0 })
    }

    fn saturation_at(&self, mean: f64) -> f64 {
        mean.floor()
    }

    fn needs(&self) -> Needs {
        Needs {
            waiting: true,
            kv_usage: true,
            ..Needs::default()
        }
    }
}
