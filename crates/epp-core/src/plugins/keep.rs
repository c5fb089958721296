//! What filters share: how candidates are kept, and which metrics count.

use crate::scheduling::{Cycle, DecisionMode, Endpoint, Slot};

/// Keeps the candidates that pass, or all of them if none passes and `all_if_none`.
pub fn keep(
    cycle: &Cycle<'_>,
    candidates: &mut Vec<Slot>,
    all_if_none: bool,
    passes: &dyn Fn(Slot, &Endpoint) -> bool,
) {
    let passes = |slot: &Slot| {
        let endpoint = cycle.pool.get(*slot);
        endpoint.is_some_and(|endpoint| passes(*slot, endpoint))
    };
    // Nothing is changed before it is known that one passes, so that no copy is needed.
    if !all_if_none || candidates.iter().any(passes) {
        candidates.retain(passes);
    }
}

/// Returns a metric of an endpoint for a threshold: 0 where it is missing, as in the Endpoint Picker, or cannot be
/// trusted.
pub fn metric(cycle: &Cycle<'_>, endpoint: &Endpoint, value: Option<f64>) -> f64 {
    match cycle.pool.mode {
        DecisionMode::Metrics => endpoint.fresh(value).unwrap_or(0.0),
        DecisionMode::LocalOnly => 0.0,
    }
}
