//! The results of a run, as in its JSON file.

use std::collections::BTreeMap;
use std::fmt;

use epp_core::metrics::definitions::DECISION_TIME;
use serde::{Deserialize, Serialize};

/// A whole run on one machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Run {
    /// The machine and the programs.
    pub machine: Machine,
    /// The load average before the run.
    pub load_average: f64,
    /// Closed loops.
    pub cells: Vec<Cell>,
    /// Open loops at a fixed rate.
    pub paced: Vec<Paced>,
    /// The cost of keeping metrics fresh.
    pub idle: Vec<Idle>,
    /// Memory, size and start.
    pub footprint: Vec<Footprint>,
    /// Times inside the module, by its own clock.
    pub inside: Vec<Inside>,
}

/// Facts about the machine and the programs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Machine {
    /// The day of the run.
    pub date: String,
    /// The processor's name.
    pub processor: String,
    /// The number of cores.
    pub cores: usize,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// The kernel's release.
    pub kernel: String,
    /// Envoy's version.
    pub envoy: String,
    /// The commit under test, with a + if the tree had changes.
    pub commit: String,
    /// The size of the module in bytes.
    pub module_bytes: u64,
    /// The file name of the Endpoint Picker, if there was one.
    pub epp: Option<String>,
}

/// A median with its quartiles.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The lower quartile.
    pub low: f64,
    /// The upper quartile.
    pub high: f64,
}

impl Spread {
    /// Computes the median and quartiles of some values; NaN if there are none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let last = values.len().saturating_sub(1);
        let at = |quarter: usize| {
            let place = (last * quarter + 2) / 4;
            values.get(place).copied().unwrap_or(f64::NAN)
        };
        Self {
            median: at(2),
            low: at(1),
            high: at(3),
        }
    }
}

/// CPU per request in microseconds, or a difference of it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Cpu {
    /// Of Envoy's workers.
    pub worker: Spread,
    /// Of all its other threads.
    pub others: Spread,
    /// The sum of both.
    pub both: Spread,
}

/// A setting with all its cases.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Cell {
    /// The group: the table in which it is shown.
    pub group: String,
    /// The name of the configuration.
    pub plan: String,
    /// Endpoints in the pool.
    pub endpoints: usize,
    /// Envoy's workers.
    pub workers: usize,
    /// Concurrent requests.
    pub concurrency: usize,
    /// The size of a body in KB.
    pub kilobytes: usize,
    /// The order of the keys: `messages-first` or `model-first`.
    pub order: String,
    /// The prompts: `warm` or `cold`.
    pub prompts: String,
    /// Slices per case.
    pub slices: usize,
    /// Milliseconds of a slice.
    pub slice_ms: u64,
    /// The cases.
    pub cases: Vec<Case>,
}

/// A case in one setting.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Case {
    /// The name, as on the command line of `bench compare`.
    pub name: String,
    /// Requests per second.
    pub per_second: Spread,
    /// Envoy's CPU per request.
    pub cpu_us: Cpu,
    /// How much more that is than another case's in the same turn, by the other case's name.
    pub beside: BTreeMap<String, Cpu>,
    /// The Endpoint Picker's CPU per request in microseconds.
    pub picker_us: Option<Spread>,
    /// The median latency in microseconds.
    pub p50_us: Spread,
    /// The 90th percentile of the latency in microseconds.
    pub p90_us: Spread,
    /// The 99th percentile of the latency in microseconds.
    pub p99_us: Spread,
    /// Requests without a response of status 200.
    pub failed: u64,
}

/// An open loop at a fixed rate: latency counts from the time at which a request was due.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Paced {
    /// The size of a body in KB.
    pub kilobytes: usize,
    /// Endpoints in the pool.
    pub endpoints: usize,
    /// Requests per second.
    pub rate: u64,
    /// The cases.
    pub cases: Vec<Case>,
}

/// Envoy with the filter and no requests.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Idle {
    /// Endpoints in the pool.
    pub endpoints: usize,
    /// The polling interval in milliseconds.
    pub interval_ms: u64,
    /// Busy cores of Envoy, including the filter and polling.
    pub cores: f64,
    /// Busy cores of plain Envoy, if it was measured.
    pub plain_cores: Option<f64>,
    /// Pages per second.
    pub pages: f64,
    /// Bytes of pages per second.
    pub bytes: f64,
    /// The median age of the endpoints' metrics in milliseconds.
    pub age_ms: f64,
    /// The age of the oldest metrics in milliseconds.
    pub oldest_ms: f64,
    /// Busy cores of the Endpoint Picker for the same, if there was one.
    pub picker_cores: Option<f64>,
}

/// Memory and start of a case.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Footprint {
    /// The group.
    pub group: String,
    /// The case.
    pub name: String,
    /// Endpoints in the pool.
    pub endpoints: usize,
    /// Workers.
    pub workers: usize,
    /// Milliseconds from the start until it listened; on one core if it has one worker.
    pub start_ms: f64,
    /// The start time on all cores of the machine, if it has one worker.
    pub start_on_all_ms: Option<f64>,
    /// Resident memory after the load, in MiB.
    pub resident_mib: f64,
}

/// Times that the filter measured and exported during the load of a group.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Inside {
    /// The group.
    pub group: String,
    /// Endpoints in the pool.
    pub endpoints: usize,
    /// Times of the events in which requests were decided, if any was timed.
    pub schedule: Option<Quantiles>,
    /// Times of the prefix look-ups before, if any was timed.
    pub look_up: Option<Quantiles>,
}

/// Quantiles in microseconds, as Prometheus computes them: interpolated within a bucket of the histogram. No more is known of
/// them than the [`Bucket`].
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Quantiles {
    /// The median.
    pub p50_us: f64,
    /// The nineteenth of twenty.
    pub p95_us: f64,
    /// The number of measured values.
    pub count: u64,
}

/// A bucket of the histograms of decisions and look-ups, or of the sum of both: its bounds in microseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bucket {
    /// Its values are greater than this.
    pub low: f64,
    /// Its values are no greater than this.
    pub high: f64,
}

impl Bucket {
    /// Returns the bucket in which a quantile was interpolated.
    pub fn of(quantile_us: f64) -> Self {
        let mut low = 0.0;
        for bound in DECISION_TIME.bounds() {
            let high = (bound * 1e6).round();
            if quantile_us <= high {
                return Self { low, high };
            }
            low = high;
        }
        let high = f64::INFINITY;
        Self { low, high }
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} to {}", self.low, self.high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_quantile_its_bucket_is_known() {
        let shown = [0.5, 1.0, 35.2, 50.0, 50.1, 2e5].map(|us| Bucket::of(us).to_string());
        let expected = [
            "0 to 1",
            "0 to 1",
            "20 to 50",
            "20 to 50",
            "50 to 100",
            "100000 to inf",
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_spread_is_the_median_and_the_quartiles() {
        let spread = Spread::of([5.0, 1.0, 3.0, 2.0, 4.0]);
        assert_eq!((spread.low, spread.median, spread.high), (2.0, 3.0, 4.0));
        assert!(Spread::of([]).median.is_nan());
    }
}
