//! The page: tables, and text with the settings.

use std::fmt::Write;

use super::bars;
use crate::result::{Case, Cell, Footprint, Idle, Inside, Machine, Paced, Run, Spread};

/// The head of a table of cases.
pub const CASES_HEAD: &str =
    "| KB | case | req/s | of plain | of no-op | Envoy CPU µs/req | picker CPU µs/req | p50 µs | p90 µs | p99 µs | failed |
|--:|--|--:|--:|--:|--:|--:|--:|--:|--:|--:|";

/// Returns a row of a table of cases.
pub fn case_row(kilobytes: usize, case: &Case) -> String {
    let ratio = |spread: Option<Spread>| {
        spread.map_or_else(
            || "–".to_owned(),
            |s| format!("{:.2} ({:.2}–{:.2})", s.median, s.low, s.high),
        )
    };
    let picker = case
        .picker_us
        .map_or_else(|| "–".to_owned(), |spread| format!("{:.0}", spread.median));
    format!(
        "| {kilobytes} | {} | {:.0} | {} | {} | {:.1} | {picker} | {:.0} | {:.0} | {:.0} | {} |",
        case.name,
        case.per_second.median,
        ratio(case.of_plain),
        ratio(case.of_noop),
        case.envoy_us.median,
        case.p50_us.median,
        case.p90_us.median,
        case.p99_us.median,
        case.failed,
    )
}

/// Returns the whole page.
pub fn page(run: &Run) -> String {
    let mut page = "# Benchmarks

The cost of the filter (`epp-wasm`), compared with the same Envoy without a filter (`plain`), with a
filter that does nothing in all callbacks (`noop`), with Envoy's ring hash, and with the Endpoint Picker over
ext_proc (`epp`). `make bench-report` makes this page and its plots from [one run](benchmarks/run.json).
`make bench` makes a run; `EPP=path make bench` includes an Endpoint Picker's binary of your own.

"
    .to_owned();
    page += &machine(&run.machine);
    page += METHOD;
    page += &bars::table(run);
    page += "\n![Requests per second of plain Envoy's](benchmarks/ratio.svg)\n";
    page += "\n![Envoy's CPU per request](benchmarks/cpu.svg)\n";
    page += &cells(&run.cells);
    page += &paced(&run.paced);
    page += &idle(&run.idle);
    page += &footprint(&run.footprint);
    page += &inside(&run.inside);
    page
}

const METHOD: &str = "
## How it is measured

Envoy runs with one worker on core 0. The load and the model servers, which respond at once, run on core 1. An
Endpoint Picker shares core 1 with them, so its requests per second are pessimistic; compare its CPU per request.
The requests are chat completions with 64 prompts in rotation, which share a third of their text. *Cold* prompts
differ from their first words on and are never repeated. The configuration scores prefix, queue, KV-cache
utilization and LoRA. The cases take turns in short slices, forwards and backwards; Envoys that are not being
measured are stopped by a signal. Figures are medians over the slices; ratios are medians over the ratios of each
turn, with quartiles. CPU is that of all threads of the process, including polling.
";

fn machine(machine: &Machine) -> String {
    let picker = machine
        .epp
        .as_ref()
        .map_or_else(|| "not in this run".to_owned(), |path| format!("`{path}`"));
    format!(
        "| | |\n|--|--|\n| date | {} |\n| commit | {} |\n| processor | {} × {} |\n| memory | {} MiB |\n\
         | kernel | {} |\n| Envoy | {} |\n| module | {} KiB |\n| Endpoint Picker | {picker} |\n",
        machine.date,
        machine.commit,
        machine.cores,
        machine.processor,
        machine.memory_mib,
        machine.kernel,
        machine.envoy,
        machine.module_bytes / 1024,
    )
}

fn cells(cells: &[Cell]) -> String {
    let mut text = String::new();
    let mut group = "";
    for cell in cells {
        if cell.group != group {
            group = &cell.group;
            // Writing to a String cannot fail.
            let _ = write!(
                text,
                "\n## {}\n\n{} endpoints, {} worker(s), {} concurrent requests, {}, {} prompts, {}; \
                 {} slices of {} ms per case.\n\n{CASES_HEAD}\n",
                title(group),
                cell.endpoints,
                cell.workers,
                cell.concurrency,
                cell.order,
                cell.prompts,
                cell.plan,
                cell.slices,
                cell.slice_ms,
            );
        }
        for case in &cell.cases {
            text += &case_row(cell.kilobytes, case);
            text.push('\n');
        }
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
         includes Envoy and the module; a plain Envoy takes 0.1–0.2 % of a core.\n\n![Idle cost](benchmarks/idle.svg)\n\n| endpoints | interval ms | of a core | pages/s | \
         MB/s | age ms, median | age ms, oldest | Endpoint Picker, of a core |\n\
         |--:|--:|--:|--:|--:|--:|--:|--:|\n"
        .to_owned();
    for row in rows {
        let picker = row
            .picker_cores
            .map(|cores| format!("{:.1} %", cores * 100.0));
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| {} | {} | {:.1} % | {:.0} | {:.1} | {:.0} | {:.0} | {} |",
            row.endpoints,
            row.interval_ms,
            row.cores * 100.0,
            row.pages,
            row.bytes / 1e6,
            row.age_ms,
            row.oldest_ms,
            picker.unwrap_or_else(|| "–".to_owned()),
        );
    }
    text
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
    let mut text = "\n## Inside the module\n\nThe time of the filter itself in Envoy's V8 in µs, from the histograms that it exports (it times a \
         part of all decisions and look-ups), interpolated within buckets as Prometheus does. A schedule runs \
         filters, scorers and picker; a look-up matches the part of the prompt in one part of a body.\n\n| load | endpoints | schedule p50 | p95 | timed | \
         look-up p50 | p95 | timed |\n|--|--:|--:|--:|--:|--:|--:|--:|\n"
        .to_owned();
    for row in rows {
        let (schedule, look_up) = (row.schedule, row.look_up);
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| {} | {} | {:.1} | {:.1} | {} | {:.1} | {:.1} | {} |",
            row.group,
            row.endpoints,
            schedule.p50_us,
            schedule.p95_us,
            schedule.count,
            look_up.p50_us,
            look_up.p95_us,
            look_up.count
        );
    }
    text
}
