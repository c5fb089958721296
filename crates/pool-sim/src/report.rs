//! The result of a run.

use serde::Serialize;

use crate::pod::Pod;
use crate::trace::Trace;
use crate::SECOND;

/// Times in milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Times {
    /// The mean.
    pub mean: f64,
    /// The median.
    pub p50: f64,
    /// The 90th percentile.
    pub p90: f64,
    /// The 99th percentile.
    pub p99: f64,
}

/// The result of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Outcome {
    /// Requests of the trace.
    pub requests: usize,
    /// Requests that completed.
    pub completed: usize,
    /// Requests that no pod could take.
    pub refused: usize,
    /// Time to the first token.
    pub ttft_ms: Times,
    /// The share of the prompts' tokens that were cached on the chosen server.
    pub cached_share: f64,
    /// The busiest server's prefill time over the mean of all servers.
    pub load_spread: f64,
    /// The mean share of the time in which a server computed prompts.
    pub prefill_share: f64,
    /// The time at which the last request completed, in seconds.
    pub seconds: f64,
    /// The number of requests of each server.
    pub by_pod: Vec<u64>,
    /// Every time to first token in milliseconds, in ascending order.
    #[serde(skip)]
    pub ttfts: Vec<f64>,
}

impl Outcome {
    /// Computes the result from the final state.
    pub fn new(
        trace: &Trace,
        pods: &[Pod],
        first_token: &[Option<u64>],
        refused: usize,
        end: u64,
    ) -> Self {
        let waits = trace.requests.iter().zip(first_token);
        let waits = waits.filter_map(|(request, first)| Some((*first)?.saturating_sub(request.at)));
        let mut ttfts: Vec<f64> = waits.map(|wait| wait as f64 / 1e6).collect();
        ttfts.sort_by(f64::total_cmp);
        let sum = |of: fn(&Pod) -> u64| pods.iter().map(of).sum::<u64>() as f64;
        let busiest = pods.iter().map(|pod| pod.busy).max().unwrap_or(0) as f64;
        let busy = sum(|pod| pod.busy) / pods.len().max(1) as f64;
        let share = |part: f64, of: f64| if of > 0.0 { part / of } else { 0.0 };
        Self {
            requests: trace.requests.len(),
            completed: ttfts.len(),
            refused,
            ttft_ms: times(&ttfts),
            cached_share: share(sum(|pod| pod.cached_tokens), sum(|pod| pod.prompt_tokens)),
            load_spread: share(busiest, busy),
            prefill_share: share(busy, end as f64),
            seconds: end as f64 / SECOND as f64,
            by_pod: pods.iter().map(|pod| pod.requests).collect(),
            ttfts,
        }
    }
}

fn times(ascending: &[f64]) -> Times {
    let at = |share: f64| {
        let last = ascending.len().saturating_sub(1);
        let place = (share * last as f64).round() as usize;
        ascending.get(place).copied().unwrap_or(0.0)
    };
    let sum: f64 = ascending.iter().sum();
    Times {
        mean: sum / ascending.len().max(1) as f64,
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
    }
}
