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
    let mut known = 0;
    for (slot, place) in candidates.iter().zip(scores.iter_mut()) {
        *place = match cycle.pool.get(*slot).and_then(&value) {
            Some(value) => {
                known += 1;
                score(value)
            }
            None => f64::NAN,
        };
    }
    neutralise(scores, known);
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
    let mut known = 0;
    for (slot, place) in candidates.iter().zip(scores.iter_mut()) {
        let Some(value) = cycle.pool.get(*slot).and_then(&value) else {
            *place = f64::NAN;
            continue;
        };
        known += 1;
        *place = value;
        // f64::min and max are calls in wasm.
        if value < least {
            least = value;
        }
        if value > most {
            most = value;
        }
    }
    let range = most - least;
    if range > 0.0 {
        // What is no number stays none.
        for place in scores.iter_mut() {
            *place = (most - *place) / range;
        }
    } else {
        for place in scores.iter_mut().filter(|place| !place.is_nan()) {
            *place = 1.0;
        }
    }
    neutralise(scores, known);
}

/// Gives those without a score, which are no numbers, the mean of the `known` others.
fn neutralise(scores: &mut [f64], known: usize) {
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
