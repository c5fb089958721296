//! The saturation at which each band stops.

use super::UsageLimit;
use crate::time::{whole_millis, Instant};

/// Opportunities of which turns are kept for later: those of the time between two ticks, so that a band which yields
/// gets no more at once after a pause.
const MAX_KEPT: u64 = 50;

impl UsageLimit {
    /// Returns the ceiling of a band: its priority, its rank among the others, from 0 for the highest, the number of
    /// bands, and the priorities of the highest and the lowest.
    pub fn ceiling(
        &self,
        saturation: f64,
        (priority, rank): (i32, usize),
        bands: usize,
        (highest, lowest): (i32, i32),
    ) -> f64 {
        let below = match bands {
            0 | 1 => 0.0,
            bands => rank as f64 / (bands - 1) as f64,
        };
        match *self {
            Self::Static(ceiling) => ceiling,
            Self::Holdback {
                min,
                max,
                by_value: false,
            } => max - below * (max - min),
            Self::Holdback { max, .. } if highest == lowest => max,
            Self::Holdback { min, max, .. } => {
                let above = |priority: i32| f64::from(priority) - f64::from(lowest);
                min + above(priority) / above(highest) * (max - min)
            }
            Self::SoftReflective => 1.0 - below * saturation,
        }
    }
}

/// The turns of bands that have reached their ceiling and get some opportunities to dispatch all the same
/// ([`UsageLimit::SoftReflective`]).
///
/// There is an opportunity with each attempt, and one for each millisecond between two attempts: the Endpoint Picker
/// attempts it that often.
#[derive(Debug, Default)]
pub struct Turns {
    opportunities: u64,
    last: Option<Instant>,
}

impl Turns {
    /// Counts an attempt to dispatch at this saturation. Returns whether the bands that yield have their turn: one
    /// in as many opportunities as the saturation is times what is left to 1.
    pub fn attempt(&mut self, saturation: f64, now: Instant) -> bool {
        // The lowest band yields from one half on, and none has turns in a full pool.
        if !(0.5..1.0).contains(&saturation) {
            return false;
        }
        let last = self.last.replace(now).unwrap_or(now);
        let passed = whole_millis(now.since(last)).max(1);
        let period = (saturation / (1.0 - saturation)).round().max(1.0) as u64;
        let kept = self.opportunities.saturating_add(passed);
        self.opportunities = kept.min(period.max(MAX_KEPT));
        let open = self.opportunities >= period;
        if open {
            self.opportunities -= period;
        }
        open
    }
}

#[cfg(test)]
#[path = "ceilings_tests.rs"]
mod tests;
