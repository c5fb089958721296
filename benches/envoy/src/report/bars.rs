//! The project's own bars, and whether a run meets them.

use std::fmt::Write;

use crate::result::{Case, Cell, Inside, Run};

/// A bar in one setting.
struct Bar {
    what: &'static str,
    setting: String,
    wanted: String,
    measured: String,
    held: bool,
}

/// Returns a table of all bars.
pub fn table(run: &Run) -> String {
    let mut text =
        "\n## The bars\n\n| bar | setting | wanted | measured | held |\n|--|--|--:|--:|--|\n"
            .to_owned();
    let bars = run.cells.iter().filter_map(throughput);
    let bars = bars.chain(run.cells.iter().filter_map(latency));
    let bars = bars.chain(run.inside.iter().filter_map(decision));
    for bar in bars.chain(fixed(run)) {
        let held = if bar.held { "yes" } else { "**no**" };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {held} |",
            bar.what, bar.setting, bar.wanted, bar.measured
        );
    }
    text
}

/// The least share of the no-op filter's requests per second.
fn throughput(cell: &Cell) -> Option<Bar> {
    let bar = match cell.group.as_str() {
        "base" | "cold prompts" | "model first" | "model first, cold prompts" => 0.90,
        "long prompt window" => 0.80,
        _ => return None,
    };
    let ratio = case(cell, "epp-wasm")?.of_noop?.median;
    Some(Bar {
        what: "requests/s, of the no-op filter's",
        setting: format!("{}, {} KB", cell.group, cell.kilobytes),
        wanted: format!("≥ {bar:.2}"),
        measured: format!("{ratio:.2}"),
        held: ratio >= bar,
    })
}

/// The most that the filter may add to the median latency, in microseconds. With 100 concurrent requests
/// that is a hundredth of the 675 ms that a real Endpoint Picker added on such a machine.
fn latency(cell: &Cell) -> Option<Bar> {
    let bar = match (cell.group.as_str(), cell.kilobytes) {
        ("concurrency 1", 4) => 100.0,
        ("concurrency 1", 220) => 150.0,
        ("concurrency 100", 220) => 6_750.0,
        _ => return None,
    };
    let (plain, own) = (case(cell, "plain")?, case(cell, "epp-wasm")?);
    let added = own.p50_us.median - plain.p50_us.median;
    Some(Bar {
        what: "added median latency",
        setting: format!("{}, {} KB", cell.group, cell.kilobytes),
        wanted: format!("< {bar:.0} µs"),
        measured: format!("{added:.0} µs"),
        held: added < bar,
    })
}

/// The longest decision in the module: look-up and schedule.
fn decision(row: &Inside) -> Option<Bar> {
    let bar = match row.group.as_str() {
        "base" => 5.0,
        "1,000 endpoints" => 50.0,
        _ => return None,
    };
    let median = row.schedule.p50_us + row.look_up.p50_us;
    Some(Bar {
        what: "median decision in wasm, look-up and schedule",
        setting: format!("{} endpoints", row.endpoints),
        wanted: format!("< {bar:.0} µs"),
        measured: format!("{median:.1} µs"),
        held: median < bar,
    })
}

/// The bars that do not depend on the load.
fn fixed(run: &Run) -> Vec<Bar> {
    let polling = run.idle.iter();
    let polling = polling.filter(|row| (row.endpoints, row.interval_ms) == (100, 200));
    let polling = polling.map(|row| Bar {
        what: "polling, of a core",
        setting: "100 endpoints every 200 ms".to_owned(),
        wanted: "< 5 %".to_owned(),
        measured: format!("{:.1} %", row.cores * 100.0),
        held: row.cores < 0.05,
    });
    let ours = || run.footprint.iter().filter(|one| one.name == "epp-wasm");
    let alone = ours().filter(|one| one.workers == 1);
    let starts = [
        start("on one core", alone.map(|one| one.start_ms)),
        start("on all cores", ours().filter_map(|one| one.start_on_all_ms)),
    ];
    let bytes = run.machine.module_bytes;
    let size = Bar {
        what: "module",
        setting: "the wasm file".to_owned(),
        wanted: "< 1,150,000 B".to_owned(),
        measured: format!("{},{:03} B", bytes / 1_000, bytes % 1_000),
        held: bytes < 1_150_000,
    };
    let starts = starts.into_iter().flatten();
    polling.chain([size]).chain(starts).collect()
}

/// Returns the bar of the slowest start, if there is one.
fn start(cores: &str, all: impl Iterator<Item = f64>) -> Option<Bar> {
    let slowest = all.reduce(f64::max)?;
    Some(Bar {
        what: "start until Envoy listens",
        setting: format!("{cores}, the slowest of the run"),
        wanted: "< 500 ms".to_owned(),
        measured: format!("{slowest:.0} ms"),
        held: slowest < 500.0,
    })
}

fn case<'a>(cell: &'a Cell, name: &str) -> Option<&'a Case> {
    cell.cases.iter().find(|case| case.name == name)
}
