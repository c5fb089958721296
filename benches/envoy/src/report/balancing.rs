//! The section on what balancers are worth to the model servers.

use std::fmt::Write;

use super::plots::{self, Line, Plot};
use crate::balancing::result::{Cell, Outcome, Run};
use crate::balancing::workload::{Workload, ANSWER_TOKENS, WORKLOADS};
use crate::Trouble;

/// Width and height of the plot: a square a workload.
const SIZE: (u32, u32) = (1_140, 380);

/// The section.
pub fn section(run: &Run) -> String {
    let pool = &run.pool;
    let machine = &run.machine;
    let mut text = format!(
        "
## What it is worth to the model servers

The time to the first token (TTFT) as clients see it, by how requests are balanced, from [a run of its
own](benchmarks/balancing.json): `make balancing`. Each way of balancing has an Envoy with {} workers over {} \
simulated pods of its own. A pod computes {:.0} prompt tokens a second, one prompt after the other, \
less what its cache of {} blocks of 16 tokens holds; it answers {} requests at a time, {ANSWER_TOKENS} \
tokens each, {} ms a token after a first {} ms. Clients come as a Poisson process, however slow answers \
are, and all ways of balancing get the same first requests at the same times, side by side, for {:.0} s after \
{:.0} s of warm-up, each request over a connection of its own; a later turn of a conversation waits for \
the answer before it. Ring hash goes by a header that names the \
conversation, least request is Envoy's, of two. epp-wasm and the Endpoint Picker have the [same \
configuration](../benches/envoy/balancing.yaml), and fetch metrics every 200 ms.

Commit {}, {} × {}, Envoy {}; load average before it {:.1}, cores busy {}.

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

/// From the idlest cell to the busiest.
fn busy(cells: &[Cell]) -> String {
    let low = cells.iter().map(|cell| cell.busy).fold(1.0, f64::min);
    let high = cells.iter().map(|cell| cell.busy).fold(0.0, f64::max);
    format!("{:.0} to {:.0} %", low * 100.0, high * 100.0)
}

fn table<'r>(workload: &Workload, seconds: f64, cells: impl Iterator<Item = &'r Cell>) -> String {
    let mut text = format!(
        "\n### {}\n\n{}\n\n| load, req/s | balanced by | sent/s | answered/s | failed | prompt tokens cached | \
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
pub fn plot(run: &Run) -> Result<String, Trouble> {
    let plots = WORKLOADS.iter().map(|workload| Plot {
        title: workload.name,
        across: "load, requests per second",
        up: "TTFT p90, ms",
        lines: lines(run, workload.name),
    });
    plots::row(&plots.collect::<Vec<_>>(), SIZE)
}

fn lines(run: &Run, workload: &str) -> Vec<Line> {
    let cells: Vec<&Cell> = run
        .cells
        .iter()
        .filter(|cell| cell.workload == workload)
        .collect();
    // Not what workers do alone: that is about sharing.
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
