//! The table, and the page that it stands in: figures are kept in docs/faults/run.json, so that a row
//! of an hour and those of a minute need not be of one run, and the page is made of them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use envoy_harness::path_of;

use crate::rows::{self, Row};
use crate::verdict::Measured;

/// What is written by hand: how to read the table, and what an operator has to set.
const FRAME: &str = include_str!("frame.md");

/// What each row came to when it was last played.
#[derive(Default)]
pub struct Book(BTreeMap<String, Measured>);

impl Book {
    /// What this file keeps; nothing yet where there is none.
    pub fn read(file: &Path) -> io::Result<Self> {
        match fs::read(file) {
            Ok(text) => Ok(Self(serde_json::from_slice(&text)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Into this file.
    pub fn write(&self, file: &Path) -> io::Result<()> {
        let mut text = serde_json::to_string_pretty(&self.0)?;
        text.push('\n');
        fs::write(file, text)
    }

    /// What a row came to.
    pub fn keep(&mut self, row: &Row, measured: Measured) {
        self.0.insert(row.name.to_owned(), measured);
    }

    /// What another book has takes the place of what this one had.
    pub fn merge(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// The page.
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
        FRAME
            .replace("{short}", &rows::SHORT.len().to_string())
            .replace("{table}", table.trim_end())
            .replace("{facts}", facts.trim_end())
    }
}

/// A row in one line, with the evidence where the bar is missed.
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

/// Where, when and of what a run is.
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
    let module = fs::metadata(path_of("EPP_WASM")).map_or(0, |data| data.len() >> 10);
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
    fn the_page_is_made_of_what_was_measured() {
        let book = Book::read(&in_docs("faults/run.json")).unwrap();
        let page = fs::read_to_string(in_docs("faults.md")).unwrap();
        assert!(
            page == book.page(),
            "docs/faults.md: call `make faults-report`"
        );
        for row in rows::all() {
            assert!(book.0.contains_key(row.name), "never run: {}", row.name);
        }
    }
}
