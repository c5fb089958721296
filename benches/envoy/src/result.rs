//! What a run came to, as it is written to one JSON file.

use serde::{Deserialize, Serialize};

/// A whole run on one machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Run {
    /// Where and with what.
    pub machine: Machine,
    /// Closed loops.
    pub cells: Vec<Cell>,
    /// Open loops at a fixed rate.
    pub paced: Vec<Paced>,
    /// What keeping metrics fresh costs.
    pub idle: Vec<Idle>,
    /// Memory, size and start.
    pub footprint: Vec<Footprint>,
    /// What happens inside the module, by its own clock.
    pub inside: Vec<Inside>,
}

/// Facts about the machine and the programs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Machine {
    /// Day of the run.
    pub date: String,
    /// The processor's name.
    pub processor: String,
    /// Its cores.
    pub cores: usize,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// The kernel's release.
    pub kernel: String,
    /// Envoy's version.
    pub envoy: String,
    /// The commit under test, with a + where the tree had changes.
    pub commit: String,
    /// Size of the module in bytes.
    pub module_bytes: u64,
    /// The Endpoint Picker beside it, where one was given.
    pub epp: Option<String>,
}

/// Median, quartiles.
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
    /// Of these values; NaN of none.
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

/// One setting, measured over all its cases in turn.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Cell {
    /// What it is about: the table that it belongs to.
    pub group: String,
    /// The configuration's name.
    pub plan: String,
    /// Endpoints in the pool.
    pub endpoints: usize,
    /// Envoy's workers.
    pub workers: usize,
    /// Requests under way at a time.
    pub concurrency: usize,
    /// Size of a body in KB.
    pub kilobytes: usize,
    /// Order of the keys: `messages-first` or `model-first`.
    pub order: String,
    /// `warm` or `cold`.
    pub prompts: String,
    /// Slices per case.
    pub slices: usize,
    /// Milliseconds of a slice.
    pub slice_ms: u64,
    /// The cases.
    pub cases: Vec<Case>,
}

/// One case of a cell.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Case {
    /// `plain`, `noop`, `epp-wasm`, `ring-hash` or `epp`.
    pub name: String,
    /// Requests per second.
    pub per_second: Spread,
    /// The same divided by that of plain Envoy's slice in the same turn.
    pub of_plain: Option<Spread>,
    /// The same divided by that of the no-op filter's slice in the same turn.
    pub of_noop: Option<Spread>,
    /// Envoy's CPU per request in microseconds.
    pub envoy_us: Spread,
    /// The Endpoint Picker's CPU per request in microseconds.
    pub picker_us: Option<Spread>,
    /// Latency in microseconds.
    pub p50_us: Spread,
    /// Latency in microseconds.
    pub p90_us: Spread,
    /// Latency in microseconds.
    pub p99_us: Spread,
    /// Requests that were not answered with 200.
    pub failed: u64,
}

/// An open loop at a fixed rate: latency counts from when a request was due.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Paced {
    /// Size of a body in KB.
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
    /// Cores that Envoy is busy with, filter and polling included.
    pub cores: f64,
    /// Pages per second.
    pub pages: f64,
    /// Bytes of pages per second.
    pub bytes: f64,
    /// Age of the data in use in milliseconds: median over endpoints.
    pub age_ms: f64,
    /// The oldest one.
    pub oldest_ms: f64,
    /// Cores that the Endpoint Picker takes for the same, where one was given.
    pub picker_cores: Option<f64>,
}

/// What a case takes without being asked for anything.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Footprint {
    /// The case.
    pub name: String,
    /// Endpoints in the pool.
    pub endpoints: usize,
    /// Workers.
    pub workers: usize,
    /// Milliseconds until it listened, on one core where it has one worker.
    pub start_ms: f64,
    /// The same on all of the machine's cores. Runs before 2026-11-26 have none.
    #[serde(default)]
    pub start_on_all_ms: Option<f64>,
    /// Resident memory in MiB after the load.
    pub resident_mib: f64,
}

/// Times that the filter took itself and exported, over all of a group's load.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Inside {
    /// The group.
    pub group: String,
    /// Endpoints in the pool.
    pub endpoints: usize,
    /// Of the schedule: filters, scorers, picker.
    pub schedule: Quantiles,
    /// Of the prefix look-up.
    pub look_up: Quantiles,
}

/// Quantiles in microseconds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Quantiles {
    /// The median.
    pub p50_us: f64,
    /// The nineteenth of twenty.
    pub p95_us: f64,
    /// Of how many.
    pub count: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_the_median_and_the_quartiles() {
        let spread = Spread::of([5.0, 1.0, 3.0, 2.0, 4.0]);
        assert_eq!((spread.low, spread.median, spread.high), (2.0, 3.0, 4.0));
        assert!(Spread::of([]).median.is_nan());
    }
}
