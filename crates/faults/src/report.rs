//! The results of the rows and the page that shows them. The results are kept in docs/faults/run.json, so
//! that a row that takes an hour and those that take a minute need not come from one run.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use envoy_harness::host::Host;
use envoy_harness::path_of;

use crate::rows::{self, Row};
use crate::verdict::Measured;

/// The page around the table: how to read it, and what an operator has to set.
const PAGE: &str = include_str!("frame.md");

/// The result of each row when it was last played, by name.
#[derive(Default)]
pub struct Results(BTreeMap<String, Measured>);

impl Results {
    /// Reads a file of results; there are none if it does not exist.
    pub fn read(file: &Path) -> io::Result<Self> {
        match fs::read(file) {
            Ok(text) => Ok(Self(serde_json::from_slice(&text)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Writes a file of results.
    pub fn write(&self, file: &Path) -> io::Result<()> {
        let mut text = serde_json::to_string_pretty(&self.0)?;
        text.push('\n');
        fs::write(file, text)
    }

    /// Replaces the result of a row.
    pub fn insert(&mut self, row: &Row, measured: Measured) {
        self.0.insert(row.name.to_owned(), measured);
    }

    /// Replaces the results of all rows that another has.
    pub fn merge(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Returns the page, in Markdown.
    pub fn page(&self) -> String {
        let mut table = "| what breaks | sent | failed | cut | may be lost | as before after | bar | the Endpoint Picker |\n|--|--|--|--|--|--|--|--|\n".to_owned();
        let mut runs: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for row in rows::all() {
            let Some(measured) = self.0.get(row.name) else {
                continue;
            };
            table += &line(&row, measured);
            runs.entry(&measured.run).or_default().push(row.name);
        }
        let facts: String = runs
            .iter()
            .map(|(run, rows)| format!("- {run}: {}\n", rows.join(", ")))
            .collect();
        PAGE.replace("{short}", &rows::SHORT.len().to_string())
            .replace("{table}", table.trim_end())
            .replace("{facts}", facts.trim_end())
    }
}

/// Returns a result in one line, with the reasons if it misses its bar.
pub fn summary(measured: &Measured) -> String {
    format!(
        "{} sent, {} failed, {} cut, as before after {}: {}",
        measured.sent,
        measured.failed,
        measured.cut,
        time(measured.recovery_ms),
        verdict(measured, "MISSED"),
    )
}

fn line(row: &Row, measured: &Measured) -> String {
    format!(
        "| **{}**: {} | {} | {} | {} | {} | {} | {} | {} |\n",
        row.name,
        row.what,
        measured.sent,
        measured.failed,
        measured.cut,
        measured.who,
        time(measured.recovery_ms),
        verdict(measured, "**missed**"),
        row.epp,
    )
}

fn verdict(measured: &Measured, missed: &str) -> String {
    let mut text = match measured.holds() {
        true => "holds".to_owned(),
        false => {
            let misses = measured.misses.iter().chain(&measured.late);
            let misses: Vec<&str> = misses.map(String::as_str).collect();
            format!("{missed}: {}", misses.join("; "))
        }
    };
    for note in &measured.notes {
        text += &format!("; {note}");
    }
    text
}

fn time(recovery_ms: Option<u64>) -> String {
    match recovery_ms {
        Some(0) => "no dip".to_owned(),
        Some(ms) => format!("{:.2} s", Duration::from_millis(ms).as_secs_f64()),
        None => "not".to_owned(),
    }
}

/// Returns the facts of a run: time, machine, versions.
pub fn run() -> String {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let value = |file: &str, key: &str| {
        let text = read(file);
        let line = text.lines().find(|line| line.starts_with(key));
        let value = line.and_then(|line| line.split_once(':'));
        value.map_or("?", |(_, value)| value.trim()).to_owned()
    };
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = value("/proc/meminfo", "MemTotal");
    let kilobytes: f64 = memory.trim_end_matches(" kB").parse().unwrap_or_default();
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or_default();
    let envoy = output_of(&path_of("ENVOY").to_string_lossy(), &["--version"]);
    // PATH  version: COMMIT/VERSION/…
    let envoy = envoy.split("version: ").nth(1).unwrap_or_default();
    let envoy = envoy.split('/').nth(1).unwrap_or_default();
    let module = fs::metadata(Host::of_environment().file()).map_or(0, |data| data.len() >> 10);
    format!(
        "{}, {cpus} × {}, {:.0} GB, Linux {}, load average {load} before it began, Envoy {envoy}, module of {module} KiB at commit {}",
        output_of("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
        value("/proc/cpuinfo", "model name"),
        kilobytes / f64::from(1 << 20),
        read("/proc/sys/kernel/osrelease").trim(),
        output_of("git", &["rev-parse", "--short", "HEAD"]),
    )
}

/// Returns what a program prints; empty if it is missing.
fn output_of(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&text).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_docs(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../docs")
            .join(name)
    }

    #[test]
    fn the_page_shows_the_results_of_every_row() {
        let results = Results::read(&in_docs("faults/run.json")).unwrap();
        let page = fs::read_to_string(in_docs("faults.md")).unwrap();
        assert!(
            page == results.page(),
            "docs/faults.md is out of date: run `make faults-report`"
        );
        for row in rows::all() {
            assert!(
                results.0.contains_key(row.name),
                "never played: {}",
                row.name
            );
        }
    }
}
