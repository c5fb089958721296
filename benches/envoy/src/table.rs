//! The result as rows: medians over the slices, and ratios within the run.

use std::time::Duration;

use crate::envoy::Proxy;
use crate::load::Taken;

/// One slice of one case.
#[derive(Clone, Copy)]
pub struct Slice {
    per_second: f64,
    cpu_micros: f64,
    p50: u64,
    p99: u64,
    failed: u64,
}

impl Slice {
    /// From what was taken and the CPU that Envoy spent on it.
    pub fn new(taken: Taken, cpu: Duration) -> Self {
        let answered = taken.answered.max(1) as f64;
        Self {
            per_second: taken.answered as f64 / taken.elapsed.as_secs_f64(),
            cpu_micros: cpu.as_secs_f64() * 1e6 / answered,
            p50: taken.latency.value_at_quantile(0.5),
            p99: taken.latency.value_at_quantile(0.99),
            failed: taken.failed,
        }
    }
}

/// The table's head.
pub fn head() {
    println!(
        "| KB | case | req/s | of plain | of noop | Envoy CPU µs/req | p50 µs | p99 µs | failed |"
    );
    println!("|--|--|--|--|--|--|--|--|--|");
}

/// The rows of one body size; the ratio of two cases is the median of the slices' ratios.
pub fn rows(kilobytes: usize, proxies: &[Proxy], rows: &[Vec<Slice>]) {
    let of = |name: &str| {
        let at = proxies.iter().position(|proxy| proxy.name == name);
        at.and_then(|at| rows.get(at))
    };
    for (proxy, row) in proxies.iter().zip(rows) {
        let ratio = |other: Option<&Vec<Slice>>| {
            let Some(other) = other else {
                return "–".to_owned();
            };
            let pairs = row.iter().zip(other);
            let ratio = median(pairs.map(|(own, other)| own.per_second / other.per_second));
            format!("{ratio:.2}")
        };
        let figure = |of: fn(&Slice) -> f64| median(row.iter().map(of));
        println!(
            "| {kilobytes} | {} | {:.0} | {} | {} | {:.1} | {:.0} | {:.0} | {} |",
            proxy.name,
            figure(|slice| slice.per_second),
            ratio(of("plain")),
            ratio(of("noop")),
            figure(|slice| slice.cpu_micros),
            figure(|slice| slice.p50 as f64),
            figure(|slice| slice.p99 as f64),
            row.iter().map(|slice| slice.failed).sum::<u64>(),
        );
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
