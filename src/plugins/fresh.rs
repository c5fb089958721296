//! How metric scorers treat endpoints whose metrics cannot be trusted.

use crate::scheduling::{Cycle, Endpoint, Rung, Slot};

/// Scores each candidate by a value read off its metrics.
///
/// The Endpoint Picker takes a pod that was never scraped for an idle one, so that a dead or new
/// pod attracts everything. Here an endpoint without a fresh value is neutral: it gets the mean
/// score of those that have one; when nobody has, all get 0 and the other scorers decide. Where too
/// few have one to be the measure of the others ([`Rung::Own`]), nobody's counts.
pub fn score_fresh(
    cycle: &Cycle<'_>,
    candidates: &[Slot],
    scores: &mut [f64],
    value: impl Fn(&Endpoint) -> Option<f64>,
    score: impl Fn(f64) -> f64,
) {
    match cycle.pool.rung {
        Rung::Full => score_known(cycle, candidates, scores, value, score),
        Rung::Own => scores.fill(0.0),
    }
}

fn score_known(
    cycle: &Cycle<'_>,
    candidates: &[Slot],
    scores: &mut [f64],
    value: impl Fn(&Endpoint) -> Option<f64>,
    score: impl Fn(f64) -> f64,
) {
    for (slot, place) in candidates.iter().zip(scores.iter_mut()) {
        *place = cycle
            .pool
            .get(*slot)
            .and_then(&value)
            .map_or(f64::NAN, &score);
    }
    neutralise(scores);
}

/// Scores by where a value lies between the smallest and the largest of all candidates: the
/// smallest gets 1, the largest 0; all get 1 where they are equal. Where too few metrics are fresh
/// ([`Rung::Own`]) the requests that this Envoy has in flight stand for the value.
pub fn score_least(
    cycle: &Cycle<'_>,
    candidates: &[Slot],
    scores: &mut [f64],
    value: impl Fn(&Endpoint) -> Option<f64>,
) {
    match cycle.pool.rung {
        Rung::Full => score_span(cycle, candidates, scores, value),
        Rung::Own => {
            let own = |endpoint: &Endpoint| Some(f64::from(endpoint.requests));
            score_span(cycle, candidates, scores, own);
        }
    }
}

fn score_span(
    cycle: &Cycle<'_>,
    candidates: &[Slot],
    scores: &mut [f64],
    value: impl Fn(&Endpoint) -> Option<f64>,
) {
    let mut least = f64::INFINITY;
    let mut most = f64::NEG_INFINITY;
    for (slot, place) in candidates.iter().zip(scores.iter_mut()) {
        let value = cycle.pool.get(*slot).and_then(&value).unwrap_or(f64::NAN);
        *place = value;
        // f64::min and max are calls in wasm; a value that is no number is neither.
        if value < least {
            least = value;
        }
        if value > most {
            most = value;
        }
    }
    let range = most - least;
    for place in scores.iter_mut().filter(|place| !place.is_nan()) {
        *place = if range > 0.0 {
            (most - *place) / range
        } else {
            1.0
        };
    }
    neutralise(scores);
}

/// Gives those without a score, which are no numbers yet, the mean of the others.
fn neutralise(scores: &mut [f64]) {
    let mut known = 0_u32;
    let mut sum = 0.0;
    for score in scores.iter().filter(|score| !score.is_nan()) {
        sum += score;
        known += 1;
    }
    if known as usize == scores.len() {
        return;
    }
    let neutral = if known == 0 {
        0.0
    } else {
        sum / f64::from(known)
    };
    for place in scores.iter_mut().filter(|place| place.is_nan()) {
        *place = neutral;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduling::{Metrics, Request};
    use crate::testing::{pool, waiting};

    #[test]
    fn where_too_few_are_fresh_requests_in_flight_decide() {
        let mut pool = pool([waiting(9.0), waiting(0.0), Metrics::default()]);
        pool.rung = Rung::Own;
        for (slot, requests) in [(0, 1), (1, 3), (2, 2)] {
            pool.get_mut(Slot(slot)).unwrap().requests = requests;
        }
        let candidates: Vec<Slot> = (0..3).map(Slot).collect();
        let cycle = Cycle {
            pool: &pool,
            request: Request::default(),
        };
        let mut scores = [9.0; 3];
        let value = |endpoint: &Endpoint| endpoint.metrics.waiting;
        score_least(&cycle, &candidates, &mut scores, value);
        assert_eq!(scores, [1.0, 0.0, 0.5]);
        score_fresh(&cycle, &candidates, &mut scores, value, |_| 1.0);
        assert_eq!(scores, [0.0; 3]);
    }
}
