//! The fault suite: a real Envoy with the real module and load running throughout, while something
//! breaks. Each row says how many requests clients lost and how soon all was as before, and fails
//! where more were lost than may be.
//!
//! `make test-faults` runs it, and writes docs/faults/run.json and the page of it, docs/faults.md.

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

use report::Book;
use rows::{Form, Row};
use verdict::Measured;

/// What breaks, and what clients see of it.
#[derive(Parser)]
struct Args {
    /// Only rows whose names contain this.
    #[arg(long)]
    only: Option<String>,
    /// The long form: a minute of flapping, an hour of soak.
    #[arg(long)]
    long: bool,
    /// The short form, for CI: rows that take seconds, on a machine that is busy.
    #[arg(long, conflicts_with_all = ["long", "keep"])]
    short: bool,
    /// The soak's length; in the short form there is none unless this is given.
    #[arg(long)]
    soak_seconds: Option<u64>,
    /// The file that keeps what rows came to: those that are played now are put into it, the others
    /// stay as they were.
    #[arg(long)]
    keep: Option<PathBuf>,
    /// Plays nothing, and takes these files' rows into that of --keep instead.
    #[arg(long, requires = "keep", num_args = 0..)]
    merge: Option<Vec<PathBuf>>,
    /// The page that is made of what is kept.
    #[arg(long, requires = "keep")]
    page: Option<PathBuf>,
    /// The rows by name, and no more.
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

    /// What is kept, with these rows in it.
    fn write(&self, played: Book) {
        let Some(file) = &self.keep else { return };
        let mut book = Book::read(file).unwrap();
        book.merge(played);
        book.write(file).unwrap();
        if let Some(page) = &self.page {
            std::fs::write(page, book.page()).unwrap();
        }
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(files) = &args.merge {
        let mut book = Book::default();
        files
            .iter()
            .for_each(|file| book.merge(Book::read(file).unwrap()));
        args.write(book);
        return ExitCode::SUCCESS;
    }
    let form = args.form();
    let rows: Vec<Row> = rows::of(&form).filter(|row| args.chosen(row)).collect();
    if args.list {
        rows.iter().for_each(|row| println!("{}", row.name));
        return ExitCode::SUCCESS;
    }
    let (since, run) = (Instant::now(), report::run());
    let (mut book, mut missed) = (Book::default(), Vec::new());
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
        book.keep(row, measured);
    }
    args.write(book);
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

/// Plays a row. One that panics has missed its bar; the others are played all the same.
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
