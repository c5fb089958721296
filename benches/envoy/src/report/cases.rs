//! The table of cases in one setting, for the page and for the terminal.

use std::fmt::Write;

use crate::result::{Case, Cell, Cpu, Spread};

/// The cases that a table has a column of differences for, with its title. The filter itself is one where a run has other
/// cases of the filter.
const BESIDE: [(&str, &str); 4] = [
    ("plain", "beside plain"),
    ("override-host", "beside override-host"),
    ("noop", "beside noop"),
    ("epp-wasm", "beside epp-wasm"),
];

/// The cases that have no column beside the filter: they are there to compare the filter to.
const NOT_OF_THE_FILTER: [&str; 6] = [
    "plain",
    "override-host",
    "noop",
    "least-request",
    "ring-hash",
    "epp",
];

/// A column: its title, and its cell for a case.
type Column = (&'static str, Box<dyn Fn(&Case) -> String>);

/// Returns the columns of a table of these cases. A short one has only the median of the latency.
fn columns(cases: &[&Case], is_short: bool) -> Vec<Column> {
    let mut columns: Vec<Column> = vec![
        ("case", Box::new(|case| case.name.clone())),
        (
            "req/s",
            Box::new(|case| format!("{:.0}", case.per_second.median)),
        ),
        (
            "CPU µs",
            Box::new(|case| {
                let Cpu { worker, others, .. } = case.cpu_us;
                format!("{:.1} + {:.1}", worker.median, others.median)
            }),
        ),
    ];
    for (name, title) in BESIDE {
        let has = |case: &&Case| case.beside.contains_key(name) && is_compared(case, name);
        if cases.iter().any(has) {
            columns.push((
                title,
                Box::new(move |case| {
                    let shown = case.beside.get(name).filter(|_| is_compared(case, name));
                    shown.map_or_else(dash, difference)
                }),
            ));
        }
    }
    if cases.iter().any(|case| case.picker_us.is_some()) {
        columns.push((
            "picker CPU µs",
            Box::new(|case| {
                case.picker_us
                    .map_or_else(dash, |spread| format!("{:.0}", spread.median))
            }),
        ));
    }
    columns.push(median("p50 µs", |case| case.p50_us));
    if !is_short {
        columns.push(median("p90 µs", |case| case.p90_us));
        columns.push(median("p99 µs", |case| case.p99_us));
    }
    columns.push(("failed", Box::new(|case| case.failed.to_string())));
    columns
}

fn median(title: &'static str, of: fn(&Case) -> Spread) -> Column {
    let cell = move |case: &Case| format!("{:.0}", of(case).median);
    (title, Box::new(cell))
}

/// Whether the column of differences to a reference has a cell for this case.
fn is_compared(case: &Case, reference: &str) -> bool {
    match reference {
        "epp-wasm" => !NOT_OF_THE_FILTER.contains(&case.name.as_str()),
        _ => case.name != "plain",
    }
}

fn dash() -> String {
    "–".to_owned()
}

/// Returns a difference: of the workers, of the other threads, and the quartiles of the sum.
pub fn difference(cpu: &Cpu) -> String {
    format!(
        "{:+.1} {:+.1} ({:.1} to {:.1})",
        cpu.worker.median, cpu.others.median, cpu.both.low, cpu.both.high
    )
}

/// Returns the rows of a table, the first of which has the titles.
fn rows(cases: &[&Case], is_short: bool) -> Vec<Vec<String>> {
    let columns = columns(cases, is_short);
    let titles = columns.iter().map(|(title, _)| (*title).to_owned());
    let row = |case: &&Case| columns.iter().map(|(_, cell)| cell(case)).collect();
    std::iter::once(titles.collect())
        .chain(cases.iter().map(row))
        .collect()
}

/// Returns a table in Markdown: the cases of all settings of a group, which differ in the size of bodies.
pub fn markdown(cells: &[&Cell]) -> String {
    let in_cell = |cell: &&'_ Cell| {
        cell.cases
            .iter()
            .map(|_| cell.kilobytes.to_string())
            .collect()
    };
    let sizes = cells
        .iter()
        .flat_map(|cell| -> Vec<String> { in_cell(cell) });
    let sizes = std::iter::once("KB".to_owned()).chain(sizes);
    let cases: Vec<&Case> = cells.iter().flat_map(|cell| &cell.cases).collect();
    let mut text = String::new();
    for (size, row) in sizes.zip(rows(&cases, false)) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "| {size} | {} |", row.join(" | "));
        if text.lines().count() == 1 {
            let _ = writeln!(text, "|--:|--|{}", "--:|".repeat(row.len() - 1));
        }
    }
    text
}

/// Returns a table for the terminal: the first column to the left, the others to the right.
pub fn aligned(cases: &[Case]) -> String {
    let rows = rows(&cases.iter().collect::<Vec<_>>(), true);
    let width = |at: usize| {
        let cells = rows.iter().filter_map(|row| row.get(at));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let mut text = String::new();
    for row in &rows {
        for (at, cell) in row.iter().enumerate() {
            let width = width(at);
            // Writing to a String cannot fail.
            let _ = match at {
                0 => write!(text, "  {cell:width$}"),
                _ => write!(text, "  {cell:>width$}"),
            };
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
pub mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn spread(median: f64) -> Spread {
        Spread::of([-2.0, -1.0, 0.0, 1.0, 2.0].map(|more| median + more))
    }

    /// CPU per request of these medians, with quartiles of 1 below and above.
    pub fn cpu(worker: f64, others: f64) -> Cpu {
        Cpu {
            worker: spread(worker),
            others: spread(others),
            both: spread(worker + others),
        }
    }

    /// A case with some differences.
    pub fn case(name: &str, own: Cpu, beside: &[(&str, Cpu)]) -> Case {
        let beside = beside.iter().map(|(name, cpu)| ((*name).to_owned(), *cpu));
        Case {
            name: name.to_owned(),
            per_second: spread(9_000.0),
            cpu_us: own,
            beside: beside.collect::<BTreeMap<_, _>>(),
            picker_us: None,
            p50_us: spread(100.0),
            p90_us: spread(200.0),
            p99_us: spread(300.0),
            failed: 0,
        }
    }

    /// A setting of a group.
    pub fn cell(group: &str, kilobytes: usize, cases: Vec<Case>) -> Cell {
        Cell {
            group: group.to_owned(),
            plan: String::new(),
            endpoints: 100,
            workers: 1,
            concurrency: 16,
            kilobytes,
            order: "messages-first".to_owned(),
            prompts: "warm".to_owned(),
            slices: 12,
            slice_ms: 500,
            cases,
        }
    }

    #[test]
    fn a_table_has_a_column_for_each_reference_of_the_run() {
        let cases = [
            case("plain", cpu(34.0, 0.1), &[("epp-wasm", cpu(-20.0, -2.0))]),
            case("epp-wasm", cpu(54.0, 2.1), &[("plain", cpu(20.0, 2.0))]),
        ];
        let expected = "\
| KB | case | req/s | CPU µs | beside plain | p50 µs | p90 µs | p99 µs | failed |
|--:|--|--:|--:|--:|--:|--:|--:|--:|
| 4 | plain | 9000 | 34.0 + 0.1 | – | 100 | 200 | 300 | 0 |
| 4 | epp-wasm | 9000 | 54.0 + 2.1 | +20.0 +2.0 (21.0 to 23.0) | 100 | 200 | 300 | 0 |
";
        assert_eq!(markdown(&[&cell("base", 4, cases.to_vec())]), expected);
    }

    #[test]
    fn another_case_of_the_filter_is_compared_to_the_filter() {
        let cases = [
            case("epp-wasm", cpu(54.0, 2.0), &[]),
            case("gate", cpu(57.0, 2.0), &[("epp-wasm", cpu(3.0, 0.0))]),
        ];
        let table = aligned(&cases);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(
            lines[0].split_whitespace().collect::<Vec<_>>()[4..6],
            ["beside", "epp-wasm"]
        );
        assert!(lines[2].contains("+3.0 +0.0 (2.0 to 4.0)"), "{table}");
        // All lines end in the same column.
        let widths: Vec<usize> = lines.iter().map(|line| line.chars().count()).collect();
        assert_eq!(widths, [widths[0]; 3]);
    }
}
