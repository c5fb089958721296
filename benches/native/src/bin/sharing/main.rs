//! Measures the cost of sharing between the workers of an Envoy.
//!
//! `sharing cost` simulates the ticks of more workers than the machine has cores; `sharing lookup` times
//! look-ups in the shared index. docs/workers.md has both tables.

mod cost;
mod lookup;

use std::process::ExitCode;

type BoxError = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let done = match std::env::args().nth(1).as_deref() {
        Some("cost") => cost::run(),
        Some("lookup") => {
            lookup::run();
            Ok(())
        }
        _ => Err("usage: sharing cost|lookup".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sharing: {error}");
            ExitCode::FAILURE
        }
    }
}
