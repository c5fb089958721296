//! How full a pool is.

use std::borrow::Cow;

use super::{Partition, SaturationDetector};
use crate::scheduling::{Endpoint, InFlight, Pool, Slot};

/// The saturation of a pool.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Saturation {
    /// That of the endpoints that compute prompts, if any does.
    pub prefill: Option<f64>,
    /// That of the endpoints that generate tokens, if any does.
    pub decode: Option<f64>,
    /// The greater of the two; that of all endpoints where none does either.
    pub effective: f64,
}

impl Saturation {
    /// Measures a pool.
    pub fn of(detector: &dyn SaturationDetector, pool: &Pool) -> Self {
        let serving = serving(pool);
        let part = |partition| {
            let any = serving.iter().any(|slot| is_in(pool, *slot, partition));
            any.then(|| detector.saturation(pool, partition))
        };
        let (prefill, decode) = (part(Partition::Prefill), part(Partition::Decode));
        let effective = match (prefill, decode) {
            (Some(prefill), Some(decode)) => prefill.max(decode),
            (one, other) => one
                .or(other)
                .unwrap_or_else(|| detector.saturation(pool, Partition::All)),
        };
        Self {
            prefill,
            decode,
            effective,
        }
    }
}

/// Returns the mean over the endpoints of a partition, of which those that get `None` are left out: 0 where all are, and
/// `None` where there are no endpoints.
pub fn mean(
    pool: &Pool,
    partition: Partition,
    of: &dyn Fn(&Endpoint, InFlight) -> Option<f64>,
) -> Option<f64> {
    let (mut sum, mut counted, mut all) = (0.0, 0.0_f64, false);
    for slot in serving(pool).iter() {
        let Some(endpoint) = pool.get(*slot).filter(|_| is_in(pool, *slot, partition)) else {
            continue;
        };
        all = true;
        if let Some(value) = of(endpoint, pool.load(*slot)) {
            sum += value;
            counted += 1.0;
        }
    }
    all.then(|| sum / counted.max(1.0))
}

/// Returns the endpoints that get requests: ejected ones only where there are no others.
pub(super) fn serving(pool: &Pool) -> Cow<'_, [Slot]> {
    let candidates = &pool.snapshot().candidates;
    if !candidates.is_empty() {
        return Cow::Borrowed(candidates);
    }
    let available = pool.iter().filter(|(_, endpoint)| endpoint.is_available());
    Cow::Owned(available.map(|(slot, _)| slot).collect())
}

pub(super) fn is_in(pool: &Pool, slot: Slot, partition: Partition) -> bool {
    let stages = pool.stages(slot);
    match partition {
        Partition::All => true,
        Partition::Prefill => stages.prefill,
        Partition::Decode => stages.decode,
    }
}

#[cfg(test)]
#[path = "saturation_tests.rs"]
mod tests;
