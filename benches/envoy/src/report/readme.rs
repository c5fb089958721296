//! The table of costs in README.md; the rest of that page is written by hand.

use super::{bars, tables::is_short};
use crate::result::{Case, Run, Spread};

/// Returns the table with its name.
pub fn tables(run: &Run) -> [(&'static str, String); 1] {
    [("costs", costs(run))]
}

fn costs(run: &Run) -> String {
    let machine = &run.machine;
    let mut table = format!(
        "| what it costs | measured on {}{} |\n|---|---|\n",
        machine.date,
        if is_short(run) { ", a short run" } else { "" }
    );
    for (what, measured) in rows(run) {
        table += &format!(
            "| {what} | {} |\n",
            measured.unwrap_or_else(|| "–".to_owned())
        );
    }
    table
}

fn rows(run: &Run) -> [(&'static str, Option<String>); 6] {
    let case = |group: &str, name: &str| {
        let cell = run
            .cells
            .iter()
            .find(|cell| cell.group == group && cell.kilobytes == 4)?;
        cell.cases.iter().find(|case: &&Case| case.name == name)
    };
    let cpu = |name| case("base", name).map(|case| case.cpu_us.both.median);
    let latency = |name| case("concurrency 1", name).map(|case| case.p50_us.median);
    let idle = run
        .idle
        .iter()
        .find(|row| (row.endpoints, row.interval_ms) == (100, 200));
    let starts = run.footprint.iter().filter(|row| row.name == "epp-wasm");
    let starts = Spread::of(starts.filter_map(|row| row.start_on_all_ms)).median;
    [
        (
            "Envoy's CPU for a request of 4 KB, 100 endpoints",
            cpu("epp-wasm")
                .zip(cpu("plain"))
                .map(|(own, plain)| format!("{own:.0} µs, without the filter {plain:.0} µs")),
        ),
        (
            "latency added to a request of 4 KB, one at a time (median)",
            latency("epp-wasm")
                .zip(latency("plain"))
                .map(|(own, plain)| format!("{:.0} µs", own - plain)),
        ),
        (
            "latency of a request of 4 KB, 2,000 requests/s (99th percentile)",
            tail(run, "epp-wasm")
                .zip(tail(run, "plain"))
                .map(|(own, plain)| format!("{own:.1} ms, without the filter {plain:.1} ms")),
        ),
        (
            "Envoy without requests, 100 endpoints, at rest, polled every 2 s",
            idle.map(|row| format!("{:.1} % of a core", row.cores * 100.0)),
        ),
        (
            "start of Envoy on two cores, until it listens (median)",
            (!starts.is_nan()).then(|| format!("{starts:.0} ms")),
        ),
        ("bars of the benchmark that it holds", Some(bars::held(run))),
    ]
}

/// Returns the 99th percentile of a case at a fixed rate, in milliseconds.
fn tail(run: &Run, name: &str) -> Option<f64> {
    let mut paced = run.paced.iter();
    let paced = paced.find(|paced| (paced.kilobytes, paced.rate) == (4, 2_000))?;
    let case = paced.cases.iter().find(|case| case.name == name)?;
    Some(case.p99_us.median / 1e3)
}
