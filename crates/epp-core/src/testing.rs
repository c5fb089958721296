//! Pools for unit tests.

use crate::scheduling::{Cycle, Endpoint, Freshness, Lora, Metrics, Pool, Request, Scorer, Slot};

/// A fresh, available endpoint with these metrics.
pub fn endpoint(name: &str, metrics: Metrics) -> Endpoint {
    Endpoint {
        name: name.to_owned(),
        address: format!("{name}:8000"),
        available: true,
        metrics,
        freshness: Freshness::Fresh,
        ..Endpoint::default()
    }
}

/// A pool of fresh endpoints `p0`, `p1`… with these metrics.
pub fn pool(metrics: impl IntoIterator<Item = Metrics>) -> Pool {
    let mut pool = Pool::default();
    for (index, metrics) in metrics.into_iter().enumerate() {
        pool.set(Slot(index as u32), endpoint(&format!("p{index}"), metrics));
    }
    pool
}

/// Metrics with a waiting count.
pub fn waiting(waiting: f64) -> Metrics {
    Metrics {
        waiting: Some(waiting),
        ..Metrics::default()
    }
}

/// LoRA adapters, active and waiting ones separated by spaces.
pub fn lora(active: &str, waiting: &str, max: u32) -> Lora {
    let split = |text: &str| text.split_whitespace().map(str::to_owned).collect();
    Lora {
        active: split(active),
        waiting: split(waiting),
        max,
    }
}

/// The scores that a scorer gives the pool's endpoints, in slot order.
pub fn scores(scorer: &dyn Scorer, pool: &Pool, request: Request<'_>) -> Vec<f64> {
    let candidates: Vec<Slot> = pool.iter().map(|(slot, _)| slot).collect();
    let mut scores = vec![0.0; candidates.len()];
    let cycle = Cycle { pool, request };
    scorer.score(&cycle, &candidates, &mut scores);
    scores
}

/// Whether two lists of numbers are equal to nine places.
pub fn close(found: &[f64], expected: &[f64]) -> bool {
    found.len() == expected.len()
        && std::iter::zip(found, expected).all(|(found, expected)| (found - expected).abs() < 1e-9)
}
