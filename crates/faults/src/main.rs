//! The fault suite: a real Envoy with the real module and load running throughout, while something
//! breaks. Each row says how many requests clients lost and how soon all was as before, and fails
//! where more were lost than may be.
//!
//! `make test-faults` runs it and writes docs/faults.md.

// A test fails loudly.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod clock;
mod gate;
mod load;
mod report;
mod rows;
mod stage;
mod verdict;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;

/// What breaks, and what clients see of it.
#[derive(Parser)]
struct Args {
    /// Only rows whose names contain this.
    #[arg(long)]
    only: Option<String>,
    /// The long form: a minute of flapping, an hour of soak.
    #[arg(long)]
    long: bool,
    /// The soak's length; in the short form there is none unless this is given.
    #[arg(long)]
    soak_seconds: Option<u64>,
    /// The file that the table goes to.
    #[arg(long)]
    write: Option<PathBuf>,
    /// The rows by name, and no more.
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let soak = args.soak_seconds.or(args.long.then_some(3_600));
    let form = rows::Form {
        long: args.long,
        soak: soak.map(Duration::from_secs),
    };
    let chosen = |row: &rows::Row| {
        let named = args.only.as_ref();
        named.is_none_or(|part| row.name.contains(part.as_str()))
    };
    let rows: Vec<rows::Row> = rows::all(&form).into_iter().filter(chosen).collect();
    if args.list {
        rows.iter().for_each(|row| println!("{}", row.name));
        return ExitCode::SUCCESS;
    }
    let since = Instant::now();
    let played: Vec<report::Played> = rows.into_iter().map(|row| play(row, &form)).collect();
    if let Some(file) = &args.write {
        std::fs::write(file, report::page(&played, since.elapsed())).unwrap();
        eprintln!("wrote {}", file.display());
    }
    let missed: Vec<&str> = played
        .iter()
        .filter(|played| !played.holds())
        .map(|played| played.row.name)
        .collect();
    eprintln!(
        "{} rows in {:.0} s, {} missed their bar: {}",
        played.len(),
        since.elapsed().as_secs_f64(),
        missed.len(),
        missed.join(", ")
    );
    match missed.is_empty() && !played.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Plays a row. One that panics has missed its bar; the others are played all the same.
fn play(row: rows::Row, form: &rows::Form) -> report::Played {
    eprintln!("── {}: {}", row.name, row.what);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (row.play)(form)));
    let played = report::Played {
        row,
        measured: outcome.map_err(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                .unwrap_or_default()
        }),
    };
    eprintln!("   {}", played.summary());
    played
}
