//! The page: prose that names the settings, and tables.

use std::fmt::Write;

use super::bars;
use crate::result::{Case, Cell, Footprint, Idle, Inside, Machine, Paced, Run, Spread};

/// Head of a table of cases.
pub const CASES_HEAD: &str =
    "| KB | case | req/s | of plain | of no-op | Envoy CPU µs/req | picker CPU µs/req | p50 µs | p90 µs | p99 µs | failed |
|--:|--|--:|--:|--:|--:|--:|--:|--:|--:|--:|";

/// A row of a table of cases.
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

/// The whole page.
pub fn page(run: &Run) -> String {
    let mut page = "# Benchmarks

What the filter costs, beside the same Envoy without it (`plain`), with a filter that is called for
everything and does nothing (`noop`), with Envoy's ring hash, and beside the Endpoint Picker over
ext_proc (`epp`). This page and its plots are made from [one run](benchmarks/run.json) by
`make bench-report`; `make bench` makes a run, and `EPP=path make bench` adds an Endpoint Picker's
binary of your own.

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

Envoy with one worker on core 0; the load and the model servers, which answer at once, on core 1 (an
Endpoint Picker shares core 1 with them: its requests/s are pessimistic, its CPU per request is the
fair column). Chat completions, 64 prompts in rotation that share a third of their text; *cold* ones
differ from their first words on and are never repeated. The full plan: prefix, queue, KV-cache
utilization, LoRA. The cases take turns in short slices, forwards and backwards, and those that are not
measured are stopped by signal; figures are medians over the slices, ratios medians over the turns' ratios with their
quartiles. CPU is that of all of the process's threads, polling included.
";

fn machine(machine: &Machine) -> String {
    let picker = machine.epp.as_ref().map_or_else(
        || "none beside it in this run".to_owned(),
        |path| format!("`{path}`"),
    );
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
                "\n## {}\n\n{} endpoints, {} worker(s), {} requests under way, {}, {} prompts, {}; \
                 {} slices of {} ms a case.\n\n{CASES_HEAD}\n",
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

/// A name as a title.
pub fn title(name: &str) -> String {
    let mut letters = name.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string());
    first.unwrap_or_default() + letters.as_str()
}

fn paced(runs: &[Paced]) -> String {
    let mut text = "\n## At a fixed rate\n\nAn open loop: latency counts from when a request was due. \
         The added columns are over plain Envoy.\n\n| KB | req/s | case | p50 µs | p90 µs | p99 µs | \
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
    let mut text = "\n## Idle\n\nKeeping metrics fresh while nobody asks for anything: pages of 50 KB, \
         captured from vLLM 0.32. Envoy's share and the module's are one figure; a plain Envoy takes \
         0.1–0.2 % of a core.\n\n![Idle cost](benchmarks/idle.svg)\n\n| endpoints | interval ms | of a core | pages/s | \
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
        "\n## Memory and start\n\nResident memory of the whole Envoy after the load; start until \
         it listens: on the one core of one worker, and on all of the machine's, as an Envoy that \
         nobody pins.\n\n| endpoints | workers | case | MiB | start ms | on all cores |\n\
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
    let mut text = "\n## Inside the module\n\nWhat the filter itself takes in Envoy's V8, by the \
         histograms that it exports (a part of all decisions and look-ups is timed), in µs, \
         interpolated within their buckets as Prometheus does. A schedule is filters, scorers and picker; a look-up is of what one part \
         of a body brought of the prompt.\n\n| load | endpoints | schedule p50 | p95 | timed | \
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
