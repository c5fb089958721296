//! The result of a run.

use std::ops::Range;

use serde::Serialize;

use crate::bands::{bands, Band};
use crate::pod::Pod;
use crate::trace::Trace;
use crate::SECOND;

/// What became of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Fate {
    /// It has not ended.
    #[default]
    Open,
    /// It got its response.
    Completed,
    /// It was refused at once.
    Shed,
    /// It had waited as long as it may.
    Expired,
    /// Its servers had to abort it.
    Evicted,
}

/// When the parts of a request's response were there; `None` if they never were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// What became of it.
    pub fate: Fate,
    /// It was sent to a server.
    pub sent: Option<u64>,
    /// The first token.
    pub first_token: Option<u64>,
    /// The last one.
    pub end: Option<u64>,
}

/// A distribution of times in milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Distribution {
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
    /// Requests that got no response: no pod could take them, or the policy refused them.
    pub refused: usize,
    /// Requests whose prompt another server computed than the one that responded.
    pub disaggregated: usize,
    /// Time to the first token.
    pub ttft_ms: Distribution,
    /// Time for each further token: of each request, the mean.
    pub token_ms: Distribution,
    /// The share of the prompts' tokens that were cached on the server that computed them.
    pub cached_share: f64,
    /// The busiest server's prefill time over the mean of all servers.
    pub load_spread: f64,
    /// The mean share of the time in which a server computed prompts.
    pub prefill_share: f64,
    /// How much more was offered than the pool could take, as a share of what it could: 0.4 is 40 % above its capacity.
    /// `None` unless waiting requests accumulated.
    pub overload: Option<f64>,
    /// The time at which the last request completed, in seconds.
    pub seconds: f64,
    /// The number of requests in which each server had a part.
    pub by_pod: Vec<u64>,
    /// Every time to first token in milliseconds, in ascending order.
    #[serde(skip)]
    pub ttfts: Vec<f64>,
    /// The result by objective.
    #[serde(skip)]
    pub bands: Vec<Band>,
}

impl Outcome {
    /// Computes the result from the final state.
    pub fn new(trace: &Trace, pods: &[Pod], times: &[Times]) -> Self {
        let all = || trace.requests.iter().zip(times);
        let waits = all().filter_map(|(request, times)| times.first_token?.checked_sub(request.at));
        let ttfts = ascending(waits.map(|wait| wait as f64 / 1e6));
        let gaps = all().filter_map(|(request, times)| {
            let decoding = times.end?.checked_sub(times.first_token?)?;
            let further = request
                .output
                .checked_sub(1)
                .filter(|further| *further > 0)?;
            Some(decoding as f64 / 1e6 / f64::from(further))
        });
        let completed = times.iter().filter(|times| times.fate == Fate::Completed);
        let completed = completed.count();
        let end = times.iter().filter_map(|times| times.end).max();
        let end = end.unwrap_or(0);
        let sum = |of: fn(&Pod) -> u64| pods.iter().map(of).sum::<u64>() as f64;
        let busiest = pods.iter().map(|pod| pod.busy).max().unwrap_or(0) as f64;
        let busy = sum(|pod| pod.busy) / pods.len().max(1) as f64;
        let share = |part: f64, of: f64| if of > 0.0 { part / of } else { 0.0 };
        Self {
            requests: trace.requests.len(),
            completed,
            refused: times.len() - completed,
            disaggregated: 0,
            ttft_ms: distribution(&ttfts),
            token_ms: distribution(&ascending(gaps)),
            cached_share: share(sum(|pod| pod.cached_tokens), sum(|pod| pod.prompt_tokens)),
            load_spread: share(busiest, busy),
            prefill_share: share(busy, end as f64),
            overload: overload(trace, times),
            seconds: end as f64 / SECOND as f64,
            by_pod: pods.iter().map(|pod| pod.requests).collect(),
            ttfts,
            bands: bands(trace, times),
        }
    }
}

/// Requests more that wait at the end of a load than in its middle, below which the pool keeps up with it: as a share
/// of those that arrive meanwhile, and as a number, since a few arrive at once by chance.
const ACCUMULATED: (f64, f64) = (0.05, 20.0);

/// Returns [`Outcome::overload`]. What a pool cannot take waits: in the second half of the load more requests arrive than
/// get their first token. The first half lets the queues of a pool that keeps up settle.
fn overload(trace: &Trace, times: &[Times]) -> Option<f64> {
    let served = trace.requests.iter().zip(times);
    let served = served.filter_map(|(request, times)| Some((request.at, times.first_token?)));
    let half = second_half(trace);
    let (mut arrived, mut begun) = (0.0, 0.0);
    for (arrives, begins) in served {
        arrived += f64::from(half.contains(&arrives));
        begun += f64::from(half.contains(&begins));
    }
    let (share, number) = ACCUMULATED;
    let accumulated = arrived - begun;
    (accumulated > number && accumulated > share * arrived).then(|| accumulated / begun.max(1.0))
}

/// Returns the second half of the time in which requests arrive.
pub fn second_half(trace: &Trace) -> Range<u64> {
    let first = trace.requests.first().map_or(0, |request| request.at);
    let last = trace.requests.last().map_or(0, |request| request.at);
    first.midpoint(last)..last
}

/// Returns values in ascending order.
pub fn ascending(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// Returns the distribution of values in ascending order.
pub fn distribution(ascending: &[f64]) -> Distribution {
    let at = |share: f64| {
        let last = ascending.len().saturating_sub(1);
        let place = (share * last as f64).round() as usize;
        ascending.get(place).copied().unwrap_or(0.0)
    };
    // The empty sum of floats is -0.
    let sum = ascending.iter().fold(0.0, |sum, value| sum + value);
    Distribution {
        mean: sum / ascending.len().max(1) as f64,
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
    }
}
