//! The saturation detector of the Gateway API Inference Extension before it had detectors as plugins.

use crate::flow::{mean, Partition, SaturationDetector};
use crate::scheduling::{Freshness, Needs, Pool};

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
    fn saturation(&self, pool: &Pool, partition: Partition) -> f64 {
        let full = mean(pool, partition, &|endpoint, _| {
            let metrics = &endpoint.metrics;
            let has_room = endpoint.freshness == Freshness::Fresh
                && metrics.waiting.unwrap_or(0.0) <= self.queue
                && metrics.kv_usage.unwrap_or(0.0) <= self.kv_usage;
            Some(if has_room { 0.0 } else { 1.0 })
        });
        full.map_or(1.0, f64::floor)
    }

    fn needs(&self) -> Needs {
        Needs {
            waiting: true,
            kv_usage: true,
            ..Needs::default()
        }
    }
}
