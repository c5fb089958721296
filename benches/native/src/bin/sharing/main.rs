//! What it costs that all workers of an Envoy decide as one.
//!
//! `sharing cost` simulates the workers' clocks natively, for as many as no machine of ours has cores
//! for; `sharing lookup` times look-ups. docs/workers.md has both tables.

mod cost;
mod lookup;

use std::process::ExitCode;

type Trouble = Box<dyn std::error::Error>;

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
        Err(trouble) => {
            eprintln!("sharing: {trouble}");
            ExitCode::FAILURE
        }
    }
}
