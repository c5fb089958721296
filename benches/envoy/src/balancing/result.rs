//! The results of a run, as in its JSON file.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::client::{Response, Taken};
use crate::result::Machine;

/// A whole run on one machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Run {
    /// The machine and the programs.
    pub machine: Machine,
    /// The load average before the run.
    pub load_average: f64,
    /// The model servers.
    pub pool: Pool,
    /// Seconds of each load before it is measured.
    pub warm_up_seconds: f64,
    /// Seconds of each load that are measured.
    pub seconds: f64,
    /// The loads.
    pub cells: Vec<Cell>,
}

/// The simulated model servers of a case, and its Envoy.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Pool {
    /// The number of pods.
    pub pods: usize,
    /// Envoy's workers.
    pub workers: usize,
    /// Prompt tokens that a pod computes per second, one prompt after the other.
    pub prefill_rate: f64,
    /// The most requests that a pod serves at a time.
    pub max_running: usize,
    /// Blocks of 16 tokens in a pod's cache.
    pub cache_blocks: usize,
    /// Milliseconds until the first token, besides computing.
    pub base_latency_ms: u64,
    /// Milliseconds for each further token.
    pub token_ms: u64,
}

/// A load on all cases.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Cell {
    /// The workload.
    pub workload: String,
    /// Requests per second that clients send.
    pub rate: f64,
    /// The share of the machine's cores that was busy, with all cases and everything else.
    pub busy: f64,
    /// The results of the cases.
    pub cases: Vec<Outcome>,
}

/// The result of a load with one case.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    /// The case.
    pub name: String,
    /// Requests sent while the load was measured.
    pub sent: usize,
    /// Requests without a whole response of status 200.
    pub failed: usize,
    /// Whole responses per second while the load was measured.
    pub per_second: f64,
    /// The share of the prompts' tokens that were cached.
    pub cached: f64,
    /// The median time to the first token in milliseconds, of requests sent while the load was measured.
    pub p50_ms: f64,
    /// The 90th percentile of the same.
    pub p90_ms: f64,
    /// The 99th percentile of the same.
    pub p99_ms: f64,
}

impl Outcome {
    /// Computes the result from the responses to requests after the warm-up.
    pub fn of(name: String, responses: &[Response], warm_up: Duration, length: Duration) -> Self {
        let measured = |at: Duration| at >= warm_up && at < warm_up + length;
        let sent: Vec<&Response> = responses.iter().filter(|one| measured(one.sent)).collect();
        let taken: Vec<&Taken> = sent.iter().filter_map(|one| one.taken.as_ref()).collect();
        let whole = |one: &&Response| one.taken.is_some() && measured(one.sent + one.took);
        let sum = |of: fn(&Taken) -> u64| taken.iter().map(|one| of(one)).sum::<u64>() as f64;
        let mut times: Vec<f64> = taken
            .iter()
            .map(|one| one.first_token.as_secs_f64() * 1e3)
            .collect();
        times.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = times.len().saturating_sub(1) as f64 * share;
            let time = times.get(place.round() as usize);
            (time.copied().unwrap_or_default() * 10.0).round() / 10.0
        };
        Self {
            name,
            sent: sent.len(),
            failed: sent.len() - taken.len(),
            per_second: responses.iter().filter(whole).count() as f64 / length.as_secs_f64(),
            cached: sum(|one| one.cached) / sum(|one| one.prompt).max(1.0),
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_count_by_when_they_were_sent_and_throughput_by_when_they_completed() {
        let seconds = Duration::from_secs;
        let response = |sent, took, first: Option<u64>| Response {
            sent: seconds(sent),
            took: seconds(took),
            taken: first.map(|first| Taken {
                first_token: seconds(first),
                prompt: 10,
                cached: 5,
            }),
        };
        let responses = [
            response(1, 1, Some(9)),
            response(1, 5, Some(9)),
            response(5, 2, Some(1)),
            response(6, 9, Some(3)),
            response(7, 1, None),
        ];
        let outcome = Outcome::of("a".to_owned(), &responses, seconds(5), seconds(5));
        assert_eq!((outcome.sent, outcome.failed), (3, 1));
        // One of the warm-up that came late, and the first one measured.
        assert_eq!(outcome.per_second, 0.4);
        assert_eq!((outcome.cached, outcome.p50_ms), (0.5, 3_000.0));
    }
}
