//! Measures the cost of the filter in Envoy beside plain Envoy, a filter that does nothing, and an Endpoint
//! Picker over ext_proc; and what balancing is worth to the model servers, beside Envoy's own balancers
//! (`balancing`).
//!
//! Envoy is pinned to core 0, and this program (load, and model servers that respond at once) to core 1 by
//! `make bench`. Compare differences within one run: machines drift.
//!
//! The program starts processes and uses the network of this machine; it sees the filter from outside.
//! `native-benches` measures the core alone.

mod balancing;
mod bodies;
mod bootstrap;
mod compare;
mod cpu;
mod envoy;
mod idle;
mod load;
mod machine;
mod measure;
mod paced;
mod picker;
mod plan;
mod process;
mod report;
mod result;
mod sink;
mod statistics;
mod suite;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use serde::Serialize;

type BoxError = Box<dyn std::error::Error>;

/// Measures the filter beside plain Envoy, a no-op filter and the Endpoint Picker, in turns.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A quick look at some cases under one load.
    #[command(
        after_help = "Example: make module compare ARGS='--sizes 4 --endpoints 10 --with module,gate'"
    )]
    Compare(compare::Compare),
    /// The published run, written as JSON (EPP=PATH in the environment adds the Endpoint Picker).
    #[command(after_help = "Example: EPP=/usr/local/bin/epp make bench")]
    Suite {
        /// Where to write it.
        #[arg(long, default_value = "docs/benchmarks/run.json")]
        out: PathBuf,
        /// Slices per case.
        #[arg(long, default_value_t = suite::SLICES)]
        slices: usize,
        /// Milliseconds of a slice.
        #[arg(long, default_value_t = suite::SLICE_MS)]
        slice_ms: u64,
        /// Only the groups whose name contains this.
        #[arg(long)]
        only: Option<String>,
    },
    /// What balancers are worth to the model servers, written as JSON (EPP as above).
    #[command(
        after_help = "Example: EPP=/usr/local/bin/epp make balancing ARGS='--only multi-turn'"
    )]
    Balancing {
        /// Where to write it.
        #[arg(long, default_value = "docs/benchmarks/balancing.json")]
        out: PathBuf,
        /// Seconds that each load is measured.
        #[arg(long, default_value_t = 30.0)]
        seconds: f64,
        /// Seconds that each load is played before.
        #[arg(long, default_value_t = 15.0)]
        warm_up: f64,
        /// Only the workloads whose name contains this.
        #[arg(long)]
        only: Option<String>,
    },
    /// Writes docs/benchmarks.md and its plots from the runs' JSON.
    Report {
        /// The folder of docs, with the runs in its folder `benchmarks`.
        #[arg(long, default_value = "docs")]
        docs: PathBuf,
    },
}

fn main() -> ExitCode {
    let started = Instant::now();
    match run(Cli::parse()) {
        Ok(()) => {
            eprintln!("» took {} s", started.elapsed().as_secs());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<(), BoxError> {
    // The runtime polls sockets at every turn, because an open loop spins until the next request is due.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .event_interval(1)
        .build()?;
    match cli.command {
        Command::Compare(args) => runtime.block_on(compare::run(&args)),
        Command::Suite {
            out,
            slices,
            slice_ms,
            only,
        } => {
            let turns = measure::Turns {
                slices,
                length: Duration::from_millis(slice_ms),
            };
            let options = suite::Options {
                turns,
                picker: picker(),
                only,
            };
            write(&out, &runtime.block_on(suite::run(&options))?)
        }
        Command::Balancing {
            out,
            seconds,
            warm_up,
            only,
        } => {
            let options = balancing::Options {
                warm_up: Duration::from_secs_f64(warm_up),
                length: Duration::from_secs_f64(seconds),
                picker: picker(),
                only,
            };
            write(&out, &balancing::run(&runtime, &options)?)
        }
        Command::Report { docs } => report::write(&docs),
    }
}

/// Returns the path of an Endpoint Picker's binary, if one is given.
fn picker() -> Option<String> {
    let picker = std::env::var("EPP").ok().filter(|path| !path.is_empty());
    if picker.is_none() {
        eprintln!("» without an Endpoint Picker: EPP=PATH names a binary");
    }
    picker
}

/// Writes the JSON of a run.
fn write(out: &Path, run: &impl Serialize) -> Result<(), BoxError> {
    if let Some(folder) = out.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(out, serde_json::to_string_pretty(run)? + "\n")?;
    eprintln!("» {}", out.display());
    Ok(())
}
