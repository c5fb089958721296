//! What it is worth that all workers of an Envoy decide as one, and what telling each other costs.
//!
//! `value case NAME` plays a multi-turn workload through a real Envoy with four workers over eight
//! simulated pods; `value cost` simulates the workers' clocks natively, for as many as no machine
//! of ours has cores for. docs/workers.md has both tables.

mod cost;
mod lookup;
mod workload;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

type Trouble = Box<dyn std::error::Error>;

/// What sharing between workers is worth, and what it costs.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Plays the workload through one way of balancing, and prints its row.
    #[command(
        after_help = "Example: make wasm envoy && cargo run --release -p value -- case shared"
    )]
    Case {
        /// Which one.
        #[arg(value_enum)]
        balance: workload::Balance,
        /// Seconds.
        #[arg(long, default_value_t = 40)]
        seconds: u64,
        /// Conversations at a time.
        #[arg(long, default_value_t = 64)]
        users: usize,
        /// Envoy's workers.
        #[arg(long, default_value_t = 4)]
        workers: usize,
    },
    /// Prints what sharing costs at 1, 4 and 16 workers and 1,000 requests a second.
    Cost,
    /// Prints how long a prompt of 256 blocks takes to be looked up, natively.
    Lookup,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Case {
            balance,
            seconds,
            users,
            workers,
        } => workload::run(balance, seconds, users, workers),
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
