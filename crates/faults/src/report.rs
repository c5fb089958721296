//! The table, and the page that it stands in.

use std::fs;
use std::process::Command;
use std::time::Duration;

use envoytest::proxy::path_of;

use crate::rows::Row;
use crate::verdict::Measured;

/// What is written by hand: how to read the table, and what an operator has to set.
const FRAME: &str = include_str!("frame.md");

/// A row that was played; the error is what it panicked with.
pub struct Played {
    /// The row.
    pub row: Row,
    /// What it came to.
    pub measured: Result<Measured, String>,
}

impl Played {
    /// Whether the bar holds.
    pub fn holds(&self) -> bool {
        let measured = self.measured.as_ref();
        measured.is_ok_and(|measured| measured.misses.is_empty())
    }

    /// In one line, with the evidence where the bar is missed.
    pub fn summary(&self) -> String {
        match &self.measured {
            Err(panic) => format!("MISSED: {panic}"),
            Ok(measured) => {
                let verdict = match measured.misses.is_empty() {
                    true => "holds".to_owned(),
                    false => format!("MISSED: {}", measured.misses.join("; ")),
                };
                format!(
                    "{} sent, {} failed, {} cut, as before after {}: {verdict}{}",
                    measured.sent,
                    measured.failed,
                    measured.cut,
                    time(measured.recovery),
                    notes(measured),
                )
            }
        }
    }

    fn line(&self) -> String {
        let row = &self.row;
        let figures = match &self.measured {
            Err(panic) => format!("| – | – | – | – | – | **missed**: {panic} "),
            Ok(measured) => {
                let verdict = match measured.misses.is_empty() {
                    true => "holds".to_owned(),
                    false => format!("**missed**: {}", measured.misses.join("; ")),
                };
                format!(
                    "| {} | {} | {} | {} | {} | {verdict}{} ",
                    measured.sent,
                    measured.failed,
                    measured.cut,
                    measured.who,
                    time(measured.recovery),
                    notes(measured),
                )
            }
        };
        format!(
            "| **{}**: {} {figures}| {} |\n",
            row.name, row.what, row.epp
        )
    }
}

fn notes(measured: &Measured) -> String {
    measured
        .notes
        .iter()
        .map(|note| format!("; {note}"))
        .collect()
}

fn time(recovery: Option<Duration>) -> String {
    match recovery {
        Some(Duration::ZERO) => "no dip".to_owned(),
        Some(time) => format!("{:.2} s", time.as_secs_f64()),
        None => "not".to_owned(),
    }
}

/// The page.
pub fn page(played: &[Played], took: Duration) -> String {
    let mut table = "| what breaks | sent | failed | cut | may be lost | as before after | bar | the Endpoint Picker |\n|--|--|--|--|--|--|--|--|\n".to_owned();
    played.iter().for_each(|row| table += &row.line());
    let facts = format!(
        "{}, {} rows in {:.0} s",
        machine(),
        played.len(),
        took.as_secs_f64()
    );
    FRAME
        .replace("{table}", table.trim_end())
        .replace("{facts}", &facts)
}

/// Where and when.
fn machine() -> String {
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
    let envoy = told(&path_of("ENVOY").to_string_lossy(), &["--version"]);
    let envoy = envoy.split('/').nth(1).unwrap_or_default();
    let module = fs::metadata(path_of("EPP_WASM")).map_or(0, |data| data.len() >> 10);
    format!(
        "{}, {cpus} × {}, {:.0} GB, Linux {}, load average {load}, Envoy {envoy}, module of {module} KiB at commit {}",
        told("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
        value("/proc/cpuinfo", "model name"),
        kilobytes / f64::from(1 << 20),
        read("/proc/sys/kernel/osrelease").trim(),
        told("git", &["rev-parse", "--short", "HEAD"]),
    )
}

/// What a program prints, empty where it is missing.
fn told(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| output.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    text.trim_start_matches("envoy  version: ").to_owned()
}
