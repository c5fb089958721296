//! The command line of epp-wasm, on the same core as the filter.

mod check;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Looks at EndpointPickerConfig documents as the filter does.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Say whether documents load, with every problem and warning, and what they come to.
    #[command(after_help = "Examples:
  eppctl check examples/seed.yaml
  kubectl get configmap epp -o jsonpath='{.data.config}' | eppctl check -

Exit codes: 0 all load, 1 at least one does not, 2 a file cannot be read.")]
    Check(check::Check),
}

fn main() -> ExitCode {
    match Args::parse().command {
        Command::Check(check) => check.run(),
    }
}
