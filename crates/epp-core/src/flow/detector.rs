//! What measures how full a pool is.

use std::fmt::Debug;
use std::sync::Arc;

use super::mean;
use crate::scheduling::{Endpoint, InFlight, Needs, Pool};

/// The endpoints of a pool that do one kind of work, by their role label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Partition {
    /// All of them.
    All,
    /// Those that do prefills.
    Prefill,
    /// Those that decode.
    Decode,
}

/// A detector among several, with the partition that it is restricted to.
pub type Part = (Arc<dyn SaturationDetector>, Option<Partition>);

/// Measures how full a pool is. Implementations are plugins.
///
/// The saturation of a partition is derived from the mean over its endpoints, so that it can be kept up to date while
/// requests come and go at one endpoint or another ([`super::Meter`]).
pub trait SaturationDetector: Debug + Send + Sync {
    /// Returns what an endpoint counts for; `None` leaves it out. Sums of these are exact where all are whole numbers, or
    /// rounded by [`rounded`].
    fn value(&self, endpoint: &Endpoint, load: InFlight) -> Option<f64>;

    /// Returns the saturation of endpoints whose values have this mean: 0 where they are idle, 1 where they are full; it
    /// may exceed 1.
    fn saturation_at(&self, mean: f64) -> f64;

    /// Returns the detectors of which this one takes the maximum; empty where it measures by itself.
    fn parts(&self) -> &[Part] {
        &[]
    }

    /// Returns what it reads.
    fn needs(&self) -> Needs;
}

impl dyn SaturationDetector + '_ {
    /// Returns the saturation of the endpoints of a partition. It is 1 where there are none.
    pub fn saturation(&self, pool: &Pool, partition: Partition) -> f64 {
        if self.parts().is_empty() {
            let mean = mean(pool, partition, &|endpoint, load| {
                self.value(endpoint, load)
            });
            return mean.map_or(1.0, |mean| self.saturation_at(mean));
        }
        let parts = self.parts().iter();
        let measuring = parts.filter(|(_, only)| {
            partition == Partition::All || only.is_none_or(|only| only == partition)
        });
        let saturations = measuring.map(|(part, _)| part.saturation(pool, partition));
        saturations.fold(0.0, f64::max)
    }
}

/// Rounds a value so that the sum over thousands of endpoints is exact, whatever the order in which values are added and
/// subtracted.
pub fn rounded(value: f64) -> f64 {
    const PARTS: f64 = (1_u64 << 30) as f64;
    (value * PARTS).round() / PARTS
}
