//! What a run came to, as it is written to one JSON file.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::client::{Answer, Taken};
use crate::result::Machine;

/// A whole run on one machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Run {
    /// Where and with what.
    pub machine: Machine,
    /// The machine's load over five minutes before it began: what else ran.
    pub load_average: f64,
    /// The model servers.
    pub pool: Pool,
    /// Seconds of each load that are not counted.
    pub warm_up_seconds: f64,
    /// Seconds of each load that are.
    pub seconds: f64,
    /// The loads.
    pub cells: Vec<Cell>,
}

/// The simulated model servers of one case, and the Envoy before them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Pool {
    /// How many.
    pub pods: usize,
    /// Envoy's workers.
    pub workers: usize,
    /// Prompt tokens that a pod computes in a second, one prompt after the other.
    pub prefill_rate: f64,
    /// Requests that a pod answers at a time.
    pub max_running: usize,
    /// Blocks of 16 tokens of a pod's cache.
    pub cache_blocks: usize,
    /// Milliseconds until the first token besides computing.
    pub base_latency_ms: u64,
    /// Milliseconds for each further token.
    pub token_ms: u64,
}

/// One load on all cases.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Cell {
    /// The workload.
    pub workload: String,
    /// Requests a second that clients send.
    pub rate: f64,
    /// Share of the machine's cores that was busy, with all cases and whatever else ran.
    pub busy: f64,
    /// What became of it.
    pub cases: Vec<Outcome>,
}

/// What became of one load with one way of balancing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    /// The case.
    pub name: String,
    /// Requests sent while it was measured.
    pub sent: usize,
    /// Of them, those without a whole answer of status 200.
    pub failed: usize,
    /// Whole answers a second while it was measured.
    pub per_second: f64,
    /// Share of the prompts' tokens that were in the cache.
    pub cached: f64,
    /// Time to the first token in milliseconds, of requests sent while it was measured.
    pub p50_ms: f64,
    /// The same.
    pub p90_ms: f64,
    /// The same.
    pub p99_ms: f64,
}

impl Outcome {
    /// Of these answers, as far as they are of the time after the warm-up.
    pub fn of(name: String, answers: &[Answer], warm_up: Duration, length: Duration) -> Self {
        let measured = |at: Duration| at >= warm_up && at < warm_up + length;
        let sent: Vec<&Answer> = answers.iter().filter(|one| measured(one.sent)).collect();
        let taken: Vec<&Taken> = sent.iter().filter_map(|one| one.taken.as_ref()).collect();
        let whole = |one: &&Answer| one.taken.is_some() && measured(one.sent + one.took);
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
            per_second: answers.iter().filter(whole).count() as f64 / length.as_secs_f64(),
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
    fn what_was_sent_while_measured_counts_and_what_came_while_measured_is_throughput() {
        let seconds = Duration::from_secs;
        let answer = |sent, took, first: Option<u64>| Answer {
            sent: seconds(sent),
            took: seconds(took),
            taken: first.map(|first| Taken {
                first_token: seconds(first),
                prompt: 10,
                cached: 5,
            }),
        };
        let answers = [
            answer(1, 1, Some(9)),
            answer(1, 5, Some(9)),
            answer(5, 2, Some(1)),
            answer(6, 9, Some(3)),
            answer(7, 1, None),
        ];
        let outcome = Outcome::of("a".to_owned(), &answers, seconds(5), seconds(5));
        assert_eq!((outcome.sent, outcome.failed), (3, 1));
        // One of the warm-up that came late, and the first one measured.
        assert_eq!(outcome.per_second, 0.4);
        assert_eq!((outcome.cached, outcome.p50_ms), (0.5, 3_000.0));
    }
}
