//! The treatment of endpoints without fresh metrics by metric scorers.
//!
//! NaN represents a missing value: never read, or read too long ago. It passes through all
//! arithmetic here, so that a missing value gives a missing score, and is replaced last: an endpoint
//! without a score gets the mean of those that have one, or 0 where none has. (`Option<f64>` would double
//! the arrays that each decision runs through.)

use crate::scheduling::{Cycle, DecisionMode, Endpoint, Slot};

/// Returns a value read off the metrics of the endpoint in a slot; NaN if it is missing.
pub fn fresh(cycle: &Cycle<'_>, slot: Slot, value: impl Fn(&Endpoint) -> Option<f64>) -> f64 {
    let endpoint = cycle.pool.get(slot);
    let value = endpoint.and_then(|endpoint| endpoint.fresh(value(endpoint)));
    value.unwrap_or(f64::NAN)
}

/// Scores each candidate by a value read off its metrics.
///
/// The Endpoint Picker takes a pod that was never scraped for an idle one, so that a dead or new
/// pod attracts everything. Here an endpoint without a fresh value is neutral. Where too few have one
/// to compare the others with ([`DecisionMode::LocalOnly`]), all get 0 and the other scorers decide.
pub fn score_fresh(
    cycle: &Cycle<'_>,
    candidates: &[Slot],
    scores: &mut [f64],
    value: impl Fn(&Endpoint) -> Option<f64>,
    score: impl Fn(f64) -> f64,
) {
    match cycle.pool.mode {
        DecisionMode::Metrics => score_known(cycle, candidates, scores, value, score),
        DecisionMode::LocalOnly => scores.fill(0.0),
    }
}

fn score_known(
    cycle: &Cycle<'_>,
    candidates: &[Slot],
    scores: &mut [f64],
    value: impl Fn(&Endpoint) -> Option<f64>,
    score: impl Fn(f64) -> f64,
) {
    let value = |slot| fresh(cycle, slot, &value);
    score_each(candidates, scores, value, score);
}

/// Returns the requests waiting at the endpoint in a slot, with those that its metrics cannot show yet; NaN if
/// missing. Where too few metrics are fresh ([`DecisionMode::LocalOnly`]) the number of requests that this Envoy has
/// in flight replaces it.
pub fn queue(cycle: &Cycle<'_>, slot: Slot) -> f64 {
    match cycle.pool.mode {
        DecisionMode::Metrics => {
            let queue = cycle.pool.snapshot().queues.get(slot.index()).copied();
            queue.unwrap_or(f64::NAN)
        }
        DecisionMode::LocalOnly => f64::from(cycle.pool.load(slot).requests),
    }
}

/// Scores each candidate by a value, NaN if missing.
pub fn score_each(
    candidates: &[Slot],
    scores: &mut [f64],
    value: impl Fn(Slot) -> f64,
    score: impl Fn(f64) -> f64,
) {
    let mut known = 0;
    for (slot, place) in candidates.iter().zip(scores.iter_mut()) {
        let value = value(*slot);
        known += usize::from(!value.is_nan());
        // A scorer's function need not handle NaN.
        *place = if value.is_nan() { value } else { score(value) };
    }
    neutralise(scores, known);
}

/// Scores by where a value lies between the smallest and the largest of all candidates: the
/// smallest gets 1, the largest 0; all get 1 where they are equal. Where too few metrics are fresh
/// ([`DecisionMode::LocalOnly`]) the number of requests that this Envoy has in flight replaces the value.
pub fn score_lower_is_better(
    cycle: &Cycle<'_>,
    candidates: &[Slot],
    scores: &mut [f64],
    value: impl Fn(Slot) -> f64,
) {
    match cycle.pool.mode {
        DecisionMode::Metrics => score_span(candidates, scores, value),
        DecisionMode::LocalOnly => {
            let own = |slot| f64::from(cycle.pool.load(slot).requests);
            score_span(candidates, scores, own);
        }
    }
}

fn score_span(candidates: &[Slot], scores: &mut [f64], value: impl Fn(Slot) -> f64) {
    for (slot, place) in candidates.iter().zip(scores.iter_mut()) {
        *place = value(*slot);
    }
    let (least, most) = extremes(scores);
    let range = most - least;
    let mut known = 0;
    for place in scores.iter_mut() {
        known += usize::from(!place.is_nan());
        // NaN stays NaN.
        *place = if range > 0.0 {
            (most - *place) / range
        } else if place.is_nan() {
            *place
        } else {
            1.0
        };
    }
    neutralise(scores, known);
}

/// The smallest and the largest of the values that are numbers, several at a time; f64::min and max
/// are calls in wasm.
pub fn extremes(values: &[f64]) -> (f64, f64) {
    const LANES: usize = 4;
    let lower = |least: f64, value: f64| if value < least { value } else { least };
    let higher = |most: f64, value: f64| if value > most { value } else { most };
    let mut least = [f64::INFINITY; LANES];
    let mut most = [f64::NEG_INFINITY; LANES];
    let mut rest = values;
    while let Some((lanes, after)) = rest.split_first_chunk::<LANES>() {
        for ((least, most), value) in least.iter_mut().zip(&mut most).zip(lanes) {
            (*least, *most) = (lower(*least, *value), higher(*most, *value));
        }
        rest = after;
    }
    let all = |lanes: [f64; LANES]| lanes.into_iter().chain(rest.iter().copied());
    (
        all(least).fold(f64::INFINITY, lower),
        all(most).fold(f64::NEG_INFINITY, higher),
    )
}

/// Gives each missing score the mean of the `known` others.
pub fn neutralise(scores: &mut [f64], known: usize) {
    if known == scores.len() {
        return;
    }
    let have = scores.iter().filter(|score| !score.is_nan());
    let neutral = if known == 0 {
        0.0
    } else {
        have.sum::<f64>() / known as f64
    };
    for place in scores.iter_mut().filter(|place| place.is_nan()) {
        *place = neutral;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduling::{InFlight, Metrics, RequestView};
    use crate::testing::{pool, waiting};

    #[test]
    fn where_too_few_are_fresh_requests_in_flight_decide() {
        let mut pool = pool([waiting(9.0), waiting(0.0), Metrics::default()]);
        pool.mode = DecisionMode::LocalOnly;
        for (slot, requests) in [(0, 1), (1, 3), (2, 2)] {
            let load = InFlight {
                requests,
                ..InFlight::default()
            };
            pool.set_load(Slot(slot), load);
        }
        let candidates: Vec<Slot> = (0..3).map(Slot).collect();
        let cycle = Cycle::new(&pool, RequestView::default());
        let mut scores = [9.0; 3];
        let value = |endpoint: &Endpoint| endpoint.metrics.waiting;
        score_lower_is_better(&cycle, &candidates, &mut scores, |slot| {
            fresh(&cycle, slot, value)
        });
        assert_eq!(scores, [1.0, 0.0, 0.5]);
        score_fresh(&cycle, &candidates, &mut scores, value, |_| 1.0);
        assert_eq!(scores, [0.0; 3]);
    }
}
