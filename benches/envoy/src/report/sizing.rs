//! The tables of docs/sizing.md; the rest of that page is written by hand.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::tables::is_short;
use crate::result::{Case, Cell, Cpu, Footprint, Idle, Run};

/// Returns the tables with their names.
pub fn tables(run: &Run) -> [(&'static str, String); 3] {
    [
        ("cpu", cpu(run)),
        ("polling", polling(&run.idle)),
        ("memory", footprint(&run.footprint)),
    ]
}

/// The line that says what the figures of a table are of.
fn source(run: &Run) -> String {
    let machine = &run.machine;
    format!(
        "Measured on {}{} with commit {} on {} × {}, Envoy {}.\n\n",
        machine.date,
        if is_short(run) {
            ", in a short run,"
        } else {
            ""
        },
        machine.commit,
        machine.cores,
        machine.processor,
        machine.envoy
    )
}

/// CPU per request by body size, for prompts that the index knows and for new ones.
fn cpu(run: &Run) -> String {
    let mut table = source(run)
        + "| body | prompts | plain Envoy, µs of CPU | with the wasm module: worker + others | more | requests/s of one worker with it \
           | with the dynamic module: worker + others | more |\n|--:|--|--:|--:|--:|--:|--:|--:|\n";
    let mut cells: Vec<&Cell> = run.cells.iter().collect();
    cells.retain(|cell| ["base", "cold prompts"].contains(&cell.group.as_str()));
    cells.sort_by_key(|cell| cell.kilobytes);
    for cell in cells {
        let case = |name: &str| cell.cases.iter().find(|case| case.name == name);
        let (Some(plain), Some(wasm)) = (case("plain"), case("epp-wasm")) else {
            continue;
        };
        let prompts = match cell.prompts.as_str() {
            "cold" => "new",
            _ => "known",
        };
        let module = case("module").map_or_else(|| "– | –".to_owned(), with);
        // Writing to a String cannot fail.
        let _ = writeln!(
            table,
            "| {} KB | {prompts} | {:.0} | {} | {:.0} | {module} |",
            cell.kilobytes,
            plain.cpu_us.both.median,
            with(wasm),
            wasm.per_second.median,
        );
    }
    table
}

/// Two cells: a case's CPU, and how much more it is than plain Envoy's.
fn with(case: &Case) -> String {
    let Cpu { worker, others, .. } = case.cpu_us;
    let more = case.beside.get("plain").map(|more| more.both.median);
    format!(
        "{:.0} + {:.0} | {:.0}",
        worker.median,
        others.median,
        more.unwrap_or(f64::NAN)
    )
}

/// The share of a core that polling takes, by endpoints and interval.
fn polling(rows: &[Idle]) -> String {
    let mut intervals: Vec<u64> = rows.iter().map(|row| row.interval_ms).collect();
    intervals.sort_unstable();
    intervals.dedup();
    let heads = intervals
        .iter()
        .map(|interval| format!(" every {interval} ms |"));
    let mut table = format!("| endpoints |{}\n|--:|", heads.collect::<String>());
    table += &"--:|".repeat(intervals.len());
    table.push('\n');
    let mut by_endpoints: BTreeMap<usize, BTreeMap<u64, f64>> = BTreeMap::new();
    for row in rows {
        let intervals = by_endpoints.entry(row.endpoints).or_default();
        intervals.insert(row.interval_ms, row.cores);
    }
    for (endpoints, cores) in by_endpoints {
        let cells = intervals.iter().map(|interval| match cores.get(interval) {
            Some(cores) => format!(" {:.1} % |", cores * 100.0),
            None => " – |".to_owned(),
        });
        // Writing to a String cannot fail.
        let _ = writeln!(table, "| {endpoints} |{}", cells.collect::<String>());
    }
    table
}

/// Memory and start, the range over all loads.
fn footprint(rows: &[Footprint]) -> String {
    let mut settings: Vec<(usize, usize)> = rows
        .iter()
        .map(|row| (row.endpoints, row.workers))
        .collect();
    settings.sort_unstable();
    settings.dedup();
    let mut table =
        "| endpoints | workers | plain Envoy, MiB | with the wasm module | with the dynamic module | plain Envoy, ms until it listens \
         | with the wasm module | with the dynamic module |\n|--:|--:|--:|--:|--:|--:|--:|--:|\n"
            .to_owned();
    for (endpoints, workers) in settings {
        let range = |name: &str, of: fn(&Footprint) -> f64| {
            let own = rows.iter().filter(|row| {
                row.name == name && (row.endpoints, row.workers) == (endpoints, workers)
            });
            let values = own.map(of);
            let (least, most) = values.fold((f64::INFINITY, 0.0_f64), |(least, most), value| {
                (least.min(value), most.max(value))
            });
            match format!("{least:.0}") == format!("{most:.0}") {
                _ if least > most => "–".to_owned(),
                true => format!("{least:.0}"),
                false => format!("{least:.0}–{most:.0}"),
            }
        };
        // Unpinned, as Envoys run, if it was measured.
        let start = |row: &Footprint| row.start_on_all_ms.unwrap_or(row.start_ms);
        // Writing to a String cannot fail.
        let _ = writeln!(
            table,
            "| {endpoints} | {workers} | {} | {} | {} | {} | {} | {} |",
            range("plain", |row| row.resident_mib),
            range("epp-wasm", |row| row.resident_mib),
            range("module", |row| row.resident_mib),
            range("plain", start),
            range("epp-wasm", start),
            range("module", start)
        );
    }
    table
}
