//! The page: tables, and text with the settings.

use std::fmt::Write;

use super::{bars, cases};
use crate::result::{Bucket, Case, Cell, Footprint, Idle, Inside, Paced, Quantiles, Run, Spread};
use crate::suite::{SLICES, SLICE_MS};

/// Returns the whole page.
pub fn page(run: &Run) -> String {
    let mut page = "# Benchmarks

The cost of the filter, as a wasm module (`epp-wasm`) and as a dynamic module (`module`), compared with the same Envoy
without a filter (`plain`), with one that follows a header of the client's as it follows the filter's (`override-host`), with
a wasm filter that does nothing in all callbacks (`noop`), with Envoy's ring hash, and, where a run has one, with an Endpoint Picker
over ext_proc (`epp`). `make bench-report` makes this page and its plots from [one run](benchmarks/run.json). `make bench` makes a
run; `EPP=path make bench` includes an Endpoint Picker's binary of your own. `make compare` shows the main rows in two
minutes.

"
    .to_owned();
    page += &machine(run);
    page += &short(run);
    page += METHOD;
    page += &bars::section(run);
    page += "\n![CPU per request, beside plain Envoy](benchmarks/added.svg)\n";
    page += "\n![Envoy's CPU per request](benchmarks/cpu.svg)\n";
    page += &cells(&run.cells);
    page += &paced(&run.paced);
    page += &idle(&run.idle);
    page += &footprint(&run.footprint);
    page += &inside(&run.inside);
    page
}

/// Returns the number and length of a run's slices if they are fewer or shorter than those of the published runs.
fn shortest(run: &Run) -> Option<(usize, u64)> {
    let lengths = run.cells.iter().map(|cell| (cell.slices, cell.slice_ms));
    let measured = |(slices, length): &(usize, u64)| *slices as u64 * length;
    lengths
        .min_by_key(measured)
        .filter(|length| measured(length) < SLICES as u64 * SLICE_MS)
}

/// Whether a run has shorter or fewer slices than the published ones.
pub fn is_short(run: &Run) -> bool {
    shortest(run).is_some()
}

/// Returns a warning about a short run.
fn short(run: &Run) -> String {
    match shortest(run) {
        Some((slices, length)) => format!(
            "\n**This is a short run**, of {slices} slices of {length} ms for each case instead of {SLICES} of {SLICE_MS} ms; \
             the quartiles show how far its figures can be trusted.\n"
        ),
        None => String::new(),
    }
}

const METHOD: &str = "
## How it is measured

Envoy runs with one worker on core 0. The load and the model servers, which respond at once, run on core 1. An
Endpoint Picker shares core 1 with them, so its requests per second are pessimistic; compare its CPU per request.
The requests are chat completions with 64 prompts in rotation, which share a third of their text. *Cold* prompts
differ from their first words on and are never repeated. The configuration scores prefix, queue, KV-cache
utilization and LoRA. The cases take turns in short slices, forwards and backwards; Envoys that are not being
measured are stopped by a signal. An Envoy that was stopped serves 300 ms of the same load before it is measured, because its first
requests take longer.

CPU is what the kernel counts for Envoy's threads, in nanoseconds, divided by the requests of the slice: that of the
workers, which serve requests, + that of all other threads, the main thread with its polls foremost. *Beside* another case is the
difference to that case's CPU in the same turn: of the workers, of the others, and in parentheses the quartiles of the sum.
All figures are medians over the slices. Polls take the same time each second, so the more requests there are, the less each pays for
polls. `override-host` is what choosing an endpoint by a header costs in Envoy itself, and `noop` what
any wasm filter costs; the rest of the filter's difference is its own.
";

fn machine(run: &Run) -> String {
    let machine = &run.machine;
    let picker = machine
        .epp
        .as_ref()
        .map_or_else(|| "not in this run".to_owned(), |path| format!("`{path}`"));
    format!(
        "| | |\n|--|--|\n| date | {} |\n| commit | {} |\n| processor | {}, {} cores |\n| memory | {} MiB |\n\
         | load average before the run | {:.1} |\n\
         | kernel | {} |\n| Envoy | {} |\n| module | {} KiB |\n| Endpoint Picker | {picker} |\n",
        machine.date,
        machine.commit,
        machine.processor,
        machine.cores,
        machine.memory_mib,
        run.load_average,
        machine.kernel,
        machine.envoy,
        machine.module_bytes / 1024,
    )
}

fn cells(cells: &[Cell]) -> String {
    let mut text = String::new();
    for group in cells.chunk_by(|one, next| one.group == next.group) {
        let Some(first) = group.first() else { continue };
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "\n## {}\n\n{} endpoints, {} worker(s), {} concurrent requests, {}, {} prompts, {}; \
             {} slices of {} ms per case.\n\n{}",
            title(&first.group),
            first.endpoints,
            first.workers,
            first.concurrency,
            first.order,
            first.prompts,
            first.plan,
            first.slices,
            first.slice_ms,
            cases::markdown(&group.iter().collect::<Vec<_>>()),
        );
    }
    text
}

/// Returns a name with a capital letter.
pub fn title(name: &str) -> String {
    let mut letters = name.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string());
    first.unwrap_or_default() + letters.as_str()
}

fn paced(runs: &[Paced]) -> String {
    let mut text = "\n## At a fixed rate\n\nAn open loop: latency counts from the time at which a request was due. \
         The *added* columns are differences to plain Envoy.\n\n| KB | req/s | case | p50 µs | p90 µs | p99 µs | \
         added p50 | added p90 | added p99 | failed |\n|--:|--:|--|--:|--:|--:|--:|--:|--:|--:|\n"
        .to_owned();
    for run in runs {
        let plain = run.cases.iter().find(|case| case.name == "plain");
        for case in &run.cases {
            let added = |of: fn(&Case) -> Spread| {
                plain.map_or(f64::NAN, |plain| of(case).median - of(plain).median)
            };
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "| {} | {} | {} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {} |",
                run.kilobytes,
                run.rate,
                case.name,
                case.p50_us.median,
                case.p90_us.median,
                case.p99_us.median,
                added(|case| case.p50_us),
                added(|case| case.p90_us),
                added(|case| case.p99_us),
                case.failed,
            );
        }
    }
    text
}

fn idle(rows: &[Idle]) -> String {
    let mut text = "\n## Idle\n\nThe cost of polling metrics without requests: pages of 50 KB, captured from vLLM 0.32. The figure \
         includes Envoy itself.\n\n![Idle cost](benchmarks/idle.svg)\n\n| endpoints | interval ms | of a core | plain Envoy | pages/s | \
         MB/s | age ms, median | age ms, oldest | Endpoint Picker, of a core |\n\
         |--:|--:|--:|--:|--:|--:|--:|--:|--:|\n"
        .to_owned();
    for row in rows {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| {} | {} | {:.1} % | {} | {:.0} | {:.1} | {:.0} | {:.0} | {} |",
            row.endpoints,
            row.interval_ms,
            row.cores * 100.0,
            share(row.plain_cores),
            row.pages,
            row.bytes / 1e6,
            row.age_ms,
            row.oldest_ms,
            share(row.picker_cores),
        );
    }
    text
}

/// Returns a share of a core in percent.
fn share(cores: Option<f64>) -> String {
    cores.map_or_else(|| "–".to_owned(), |cores| format!("{:.1} %", cores * 100.0))
}

fn footprint(rows: &[Footprint]) -> String {
    let mut text =
        "\n## Memory and start\n\nResident memory of the whole Envoy after the load, and the time from its start until \
         it listens: on one core for one worker, and on all cores, as for an Envoy that is not pinned.\n\n| endpoints | workers | case | MiB | start ms | on all cores |\n\
         |--:|--:|--|--:|--:|--:|\n"
            .to_owned();
    for row in rows {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| {} | {} | {} | {:.0} | {:.0} | {} |",
            row.endpoints,
            row.workers,
            row.name,
            row.resident_mib,
            row.start_ms,
            row.start_on_all_ms
                .map_or_else(|| "–".to_owned(), |ms| format!("{ms:.0}"))
        );
    }
    text
}

fn inside(rows: &[Inside]) -> String {
    let mut text = "\n## Inside the module\n\nThe time of the wasm module itself in Envoy's V8 in µs, from the histograms that it exports (it times a \
         part of all decisions and look-ups). Only the bucket of a quantile is known; the bounds are the Endpoint Picker's. The mean is \
         unknown: the sums are in whole seconds. A decision is the event that allowed it: a look-up, filters, scorers \
         and picker. Look-ups before it, in earlier parts of a body, count apart.\n\n\
         | load | endpoints | decision p50 | p95 | timed | look-up p50 | p95 | timed |\n|--|--:|--:|--:|--:|--:|--:|--:|\n"
        .to_owned();
    for row in rows {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} |",
            row.group,
            row.endpoints,
            quantiles(row.schedule),
            quantiles(row.look_up)
        );
    }
    text
}

/// Three cells.
fn quantiles(times: Option<Quantiles>) -> String {
    times.map_or_else(
        || "– | – | 0".to_owned(),
        |times| {
            let [p50, p95] = [times.p50_us, times.p95_us].map(Bucket::of);
            format!("{p50} | {p95} | {}", times.count)
        },
    )
}
