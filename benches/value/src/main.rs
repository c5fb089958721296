//! What it costs that all workers of an Envoy decide as one.
//!
//! `value cost` simulates the workers' clocks natively, for as many as no machine of ours has cores
//! for; `value lookup` times look-ups. docs/workers.md has both tables.

mod cost;
mod lookup;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

type Trouble = Box<dyn std::error::Error>;

/// What sharing between workers costs.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Prints what sharing costs at 1, 4 and 16 workers and 1,000 requests a second.
    Cost,
    /// Prints how long a prompt of 256 blocks takes to be looked up, natively.
    Lookup,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Cost => cost::run(),
        Command::Lookup => {
            lookup::run();
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            eprintln!("value: {trouble}");
            ExitCode::FAILURE
        }
    }
}
