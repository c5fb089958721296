//! The settings of flow control.

use std::sync::Arc;
use std::time::Duration;

use super::{Partition, SaturationDetector};
use crate::scheduling::Pool;

/// Flow control of a plan.
#[derive(Debug, Clone)]
pub struct FlowControl {
    /// The requests that may wait in all bands together; `None`: no limit.
    pub max_requests: Option<u64>,
    /// The bytes of their bodies; `None`: no limit.
    pub max_bytes: Option<u64>,
    /// How long a request waits at most; `None`: no limit.
    pub ttl: Option<Duration>,
    /// How long a request waits at most while the pool has no endpoints; `None`: no limit.
    pub empty_pool_ttl: Option<Duration>,
    /// The bands that are always there, the highest priority first.
    pub bands: Vec<BandSpec>,
    /// The template for bands of other priorities.
    pub default_band: BandSpec,
    /// The template for bands of other priorities below 0.
    pub negative_band: BandSpec,
    /// At which saturation each band stops.
    pub usage_limit: UsageLimit,
    /// Measures how full the pool is.
    pub detector: Arc<dyn SaturationDetector>,
    /// The detector's name in the document.
    pub detector_name: String,
    /// Whether sheddable requests in flight are evicted for queued ones of a higher priority.
    pub eviction: bool,
    /// How long it takes until the detector sees that an evicted request has ended.
    pub eviction_grace: Duration,
}

/// Equal but for the detectors, which the plan compares by their parameters.
impl PartialEq for FlowControl {
    fn eq(&self, other: &Self) -> bool {
        self.max_requests == other.max_requests
            && self.max_bytes == other.max_bytes
            && self.ttl == other.ttl
            && self.empty_pool_ttl == other.empty_pool_ttl
            && self.bands == other.bands
            && self.default_band == other.default_band
            && self.negative_band == other.negative_band
            && self.usage_limit == other.usage_limit
            && self.detector_name == other.detector_name
            && self.eviction == other.eviction
            && self.eviction_grace == other.eviction_grace
    }
}

impl FlowControl {
    /// Returns what measures the partition as that full: the detector, or one of those that it combines.
    pub fn fullest(&self, pool: &Pool, partition: Partition) -> &dyn SaturationDetector {
        let mut fullest = &*self.detector;
        loop {
            let parts = fullest.parts().iter();
            let parts = parts.filter(|(_, only)| only.is_none_or(|only| only == partition));
            let measured = parts.map(|(part, _)| (&**part, part.saturation(pool, partition)));
            let most = measured.reduce(|most, next| if next.1 > most.1 { next } else { most });
            let Some((part, _)) = most else {
                return fullest;
            };
            fullest = part;
        }
    }

    /// Returns whether the tokens matter that flows got.
    pub fn counts_tokens(&self) -> bool {
        let bands = self.bands.iter();
        let mut bands = bands.chain([&self.default_band, &self.negative_band]);
        bands.any(|band| matches!(band.fairness, Fairness::ProgramAware(_)))
    }
}

/// The settings of a priority band.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BandSpec {
    /// Its priority.
    pub priority: i32,
    /// The requests that may wait in it; `None`: no limit.
    pub max_requests: Option<u64>,
    /// The bytes of their bodies; `None`: no limit.
    pub max_bytes: Option<u64>,
    /// How long a request waits at most in this band, in place of the limit for all bands; `Some(None)`: no limit.
    pub ttl: Option<Option<Duration>>,
    /// Which request of a flow goes first.
    pub ordering: Ordering,
    /// Which flow is next.
    pub fairness: Fairness,
}

/// Which request of a flow goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ordering {
    /// The one that came first.
    #[default]
    Fcfs,
    /// The one whose time to wait ends first.
    Edf,
    /// The one whose first token is due first.
    SloDeadline,
}

/// Which flow of a band is next.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Fairness {
    /// The one with the request that goes first by the band's ordering.
    #[default]
    GlobalStrict,
    /// Each in turn.
    RoundRobin,
    /// The one that has got least.
    ProgramAware(ProgramAware),
}

/// The parameters of [`Fairness::ProgramAware`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ProgramAware {
    /// Which flow goes first.
    pub strategy: Strategy,
    /// A flow is forgotten when it has been idle for so long; `None`: never.
    pub idle: Option<Duration>,
}

/// Which flow goes first by [`Fairness::ProgramAware`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Strategy {
    /// The one with the least attained service.
    Las {
        /// The weight of the tokens that a flow got.
        service_weight: f64,
        /// The weight of how long its first request has waited.
        wait_weight: f64,
        /// After this time, a token counts half; `None`: it always counts whole.
        half_life: Option<Duration>,
    },
    /// The one from which most requests were dispatched.
    TurnPriority {
        /// What a second counts for which its first request has waited, where a request that was dispatched counts 1.
        time_weight: f64,
        /// A flow that was inactive for longer begins again; `None`: never.
        inactivity: Option<Duration>,
    },
}

/// The saturation at which each band stops, its ceiling.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum UsageLimit {
    /// The same for all bands.
    Static(f64),
    /// Less for lower priorities.
    Holdback {
        /// The ceiling of the lowest band.
        min: f64,
        /// The ceiling of the highest band.
        max: f64,
        /// Whether ceilings between are proportional to the priorities, rather than evenly spaced.
        by_value: bool,
    },
    /// Lower bands yield as the saturation rises, and get fewer turns from there.
    SoftReflective,
}

impl Default for UsageLimit {
    fn default() -> Self {
        Self::Static(1.0)
    }
}
