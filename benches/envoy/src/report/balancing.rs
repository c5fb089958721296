//! The section on the effect of balancing on the model servers.

use std::fmt::Write;

use super::plots::{self, Line, Plot};
use crate::balancing::result::{Cell, Outcome, Run};
use crate::balancing::workload::{Workload, RESPONSE_TOKENS, WORKLOADS};
use crate::BoxError;

/// Width and height of the plot: a square for each workload.
const PLOT_SIZE: (u32, u32) = (1_140, 380);

/// Returns the section.
pub fn section(run: &Run) -> String {
    let pool = &run.pool;
    let machine = &run.machine;
    let mut text = format!(
        "
## The effect on the model servers

The time to the first token (TTFT) that clients see, by load balancer, from [a separate
run](benchmarks/balancing.json): `make balancing`. Each load balancer has an Envoy with {} workers and {} \
simulated pods of its own. A pod computes {:.0} prompt tokens per second, one prompt after the other, \
except those in its cache of {} blocks of 16 tokens. It serves {} requests at a time with {RESPONSE_TOKENS} \
tokens each, {} ms per token after the first {} ms. Conversations begin as a Poisson process, however slow the \
responses are; a later turn waits for the previous response, and each request has a connection of its own. All load \
balancers get the same conversations at the same times, side by side, for {:.0} s after {:.0} s of warm-up. \
Ring hash uses a header that identifies the conversation; least request is Envoy's, with two choices. epp-wasm \
and the Endpoint Picker have the [same configuration](../benches/envoy/balancing.yaml), and fetch metrics every \
200 ms.

Commit {}, {} × {}, Envoy {}; load average before the run {:.1}, cores {} busy.

![p90 of the time to the first token](benchmarks/balancing.svg)
",
        pool.workers,
        pool.pods,
        pool.prefill_rate,
        pool.cache_blocks,
        pool.max_running,
        pool.token_ms,
        pool.base_latency_ms,
        run.seconds,
        run.warm_up_seconds,
        machine.commit,
        machine.cores,
        machine.processor,
        machine.envoy,
        run.load_average,
        busy(&run.cells),
    );
    for workload in &WORKLOADS {
        let cells = run
            .cells
            .iter()
            .filter(|cell| cell.workload == workload.name);
        text += &table(workload, run.seconds, cells);
    }
    text
}

/// Returns the range of the share of busy cores over all cells.
fn busy(cells: &[Cell]) -> String {
    let low = cells.iter().map(|cell| cell.busy).fold(1.0, f64::min);
    let high = cells.iter().map(|cell| cell.busy).fold(0.0, f64::max);
    format!("{:.0} to {:.0} %", low * 100.0, high * 100.0)
}

fn table<'r>(workload: &Workload, seconds: f64, cells: impl Iterator<Item = &'r Cell>) -> String {
    let mut text = format!(
        "\n### {}\n\n{}\n\n| load, req/s | load balancer | sent/s | completed/s | failed | prompt tokens cached | \
         TTFT p50 ms | p90 ms | p99 ms |\n|--:|--|--:|--:|--:|--:|--:|--:|--:|\n",
        super::tables::title(workload.name),
        workload.about
    );
    for cell in cells {
        for case in &cell.cases {
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "| {:.0} | {} | {:.1} | {:.1} | {} | {:.1} % | {:.0} | {:.0} | {:.0} |",
                cell.rate,
                label(&case.name),
                case.sent as f64 / seconds,
                case.per_second,
                case.failed,
                case.cached * 100.0,
                case.p50_ms,
                case.p90_ms,
                case.p99_ms
            );
        }
    }
    text
}

/// A case's name as it reads in a table.
fn label(name: &str) -> &str {
    match name {
        "plain" => "round robin",
        "least-request" => "least request",
        "ring-hash" => "ring hash",
        "alone" => "epp-wasm, `shareState: false`",
        "epp" => "Endpoint Picker",
        other => other,
    }
}

/// The p90 over the load, a panel a workload.
pub fn plot(run: &Run) -> Result<String, BoxError> {
    let plots = WORKLOADS.iter().map(|workload| Plot {
        title: workload.name,
        across: "load, requests per second",
        up: "TTFT p90, ms",
        lines: lines(run, workload.name),
    });
    plots::row(&plots.collect::<Vec<_>>(), PLOT_SIZE)
}

fn lines(run: &Run, workload: &str) -> Vec<Line> {
    let cells: Vec<&Cell> = run
        .cells
        .iter()
        .filter(|cell| cell.workload == workload)
        .collect();
    // The case without sharing is only in the table.
    let cases = cells.first().into_iter().flat_map(|cell| &cell.cases);
    let cases = cases.filter(|case| case.name != "alone");
    let line = |case: &Outcome| {
        let same = |cell: &&Cell| {
            let found = cell.cases.iter().find(|other| other.name == case.name)?;
            Some((cell.rate, found.p90_ms))
        };
        let points = cells.iter().filter_map(same);
        (label(&case.name).to_owned(), points.collect())
    };
    cases.map(line).collect()
}
