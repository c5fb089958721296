//! The fault suite: something breaks while a real Envoy with the real module serves a load. Each row
//! measures how many requests clients lost and how soon responses were as before, and fails if it misses
//! its bar.
//!
//! `make test-faults` runs it and writes the results, docs/faults/run.json, and their page,
//! docs/faults.md.
//!
//! The program starts processes and uses the network of this machine only (`envoy-harness`,
//! `fake-model-server`); it sees the filter from outside, as clients and operators do.

// A test fails loudly.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod attack;
mod clock;
mod gate;
mod load;
mod others;
mod report;
mod rows;
mod stage;
mod verdict;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;

use report::Results;
use rows::{Form, Row};
use verdict::Measured;

/// Breaks things around and inside an Envoy with the module, and measures what clients see of it.
#[derive(Parser)]
struct Args {
    /// Play only rows whose names contain this.
    #[arg(long)]
    only: Option<String>,
    /// Play the long form: a minute of flapping, an hour of soak.
    #[arg(long)]
    long: bool,
    /// Play the short form, for CI: rows that take seconds, on a busy machine.
    #[arg(long, conflicts_with_all = ["long", "keep"])]
    short: bool,
    /// The length of the soak. Without it, only the long form has a soak.
    #[arg(long)]
    soak_seconds: Option<u64>,
    /// The file with the results of all rows, in which those of the rows that are played now are
    /// replaced.
    #[arg(long)]
    keep: Option<PathBuf>,
    /// Play nothing, and copy the results in these files into that of --keep.
    #[arg(long, requires = "keep", num_args = 0..)]
    merge: Option<Vec<PathBuf>>,
    /// The page to make of the results.
    #[arg(long, requires = "keep")]
    page: Option<PathBuf>,
    /// List the names of the rows, and play none.
    #[arg(long)]
    list: bool,
}

impl Args {
    fn form(&self) -> Form {
        let soak = self.soak_seconds.or(self.long.then_some(3_600));
        Form {
            short: self.short,
            long: self.long,
            soak: soak.map(Duration::from_secs),
        }
    }

    fn chosen(&self, row: &Row) -> bool {
        let named = self.only.as_ref();
        named.is_none_or(|part| row.name.contains(part.as_str()))
    }

    /// Writes the results of these rows into the file, and the page.
    fn write(&self, played: Results) {
        let Some(file) = &self.keep else { return };
        let mut results = Results::read(file).unwrap();
        results.merge(played);
        results.write(file).unwrap();
        if let Some(page) = &self.page {
            std::fs::write(page, results.page()).unwrap();
        }
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(files) = &args.merge {
        let mut results = Results::default();
        files
            .iter()
            .for_each(|file| results.merge(Results::read(file).unwrap()));
        args.write(results);
        return ExitCode::SUCCESS;
    }
    let form = args.form();
    let rows: Vec<Row> = rows::of(&form).filter(|row| args.chosen(row)).collect();
    if args.list {
        rows.iter().for_each(|row| println!("{}", row.name));
        return ExitCode::SUCCESS;
    }
    let (since, run) = (Instant::now(), report::run());
    let (mut results, mut missed) = (Results::default(), Vec::new());
    for row in &rows {
        let mut measured = play(row, &form);
        let holds = |measured: &Measured| match form.short {
            true => measured.misses.is_empty(),
            false => measured.holds(),
        };
        if !holds(&measured) {
            missed.push(row.name);
        }
        measured.run.clone_from(&run);
        results.insert(row, measured);
    }
    args.write(results);
    eprintln!(
        "{} rows in {:.0} s, {} missed their bar: {}",
        rows.len(),
        since.elapsed().as_secs_f64(),
        missed.len(),
        missed.join(", ")
    );
    match missed.is_empty() && !rows.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Plays a row. A row that panics has missed its bar, and does not end the suite.
fn play(row: &Row, form: &Form) -> Measured {
    eprintln!("── {}: {}", row.name, row.what);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (row.play)(form)));
    let measured = outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Measured::panicked(text.unwrap_or_default())
    });
    eprintln!("   {}", report::summary(&measured));
    measured
}
