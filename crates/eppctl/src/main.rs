//! The command line of epp-wasm: checks, explains and simulates configurations with the filter's own core, and
//! inspects a running Envoy.
//!
//! Each command is a module with its arguments, their help and `run`, which prints through [`Output`]
//! and returns an [`ExitStatus`] or an [`output::Error`].
//!
//! The program uses `epp-core`, `pool-sim` and `parity`. It reads files and standard input, prints, and sends HTTP
//! requests only to addresses that the user gives.

mod admin;
mod base64;
mod check;
mod completions;
mod convert;
mod defaults;
mod dialect;
mod document_table;
mod embedded;
mod excerpt;
mod explain;
mod findings_reference;
mod input;
mod lint;
mod manual;
mod markdown;
mod metrics;
mod metrics_reference;
mod migrate;
mod output;
mod page;
mod parity;
mod reference;
mod schema;
mod simulate;
mod standings;
mod status;
mod top;
mod type_tables;
mod unread;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use output::{ExitStatus, Format, Output};

/// Checks, explains and simulates EndpointPickerConfig documents, and inspects a running Envoy, with the filter's own code.
#[derive(Parser)]
#[command(version = verify::version(), arg_required_else_help = true, max_term_width = 100, after_help = EXITS)]
struct Args {
    /// Output format.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Text)]
    output: Format,
    #[command(subcommand)]
    command: Command,
}

const EXITS: &str =
    "Exit status: 0 no findings, 1 findings, 2 error (invalid argument, unreadable file, network failure). \
Output is coloured on a terminal only; NO_COLOR=1 turns colours off.";

#[derive(Subcommand)]
enum Command {
    Check(check::Check),
    Completions(completions::Completions),
    Parity(parity::Parity),
    Convert(convert::Convert),
    Explain(explain::Explain),
    Lint(lint::Lint),
    Manual(manual::Manual),
    Metrics(metrics::Metrics),
    Migrate(migrate::Migrate),
    Reference(reference::Reference),
    Schema(schema::Schema),
    Simulate(simulate::Simulate),
    Status(status::Status),
    Top(top::Top),
    Verify(verify::Verify),
}

fn main() -> ExitCode {
    let args = Args::parse();
    let mut output = Output::new(args.output);
    let ended = match args.command {
        Command::Check(check) => check.run(&mut output),
        Command::Completions(completions) => completions.run(),
        Command::Parity(parity) => parity.run(&mut output),
        Command::Convert(convert) => convert.run(&mut output),
        Command::Explain(explain) => explain.run(&mut output),
        Command::Lint(lint) => lint.run(&mut output),
        Command::Manual(manual) => manual.run(&mut output),
        Command::Metrics(metrics) => metrics.run(&mut output),
        Command::Migrate(migrate) => migrate.run(&mut output),
        Command::Reference(reference) => reference.run(&mut output),
        Command::Schema(schema) => schema.run(&mut output),
        Command::Simulate(simulate) => simulate.run(&mut output),
        Command::Status(status) => status.run(&mut output),
        Command::Top(top) => top.run(&mut output),
        Command::Verify(verify) => verify.run(&mut output),
    };
    match ended {
        Ok(ExitStatus::Ok) => ExitCode::SUCCESS,
        Ok(ExitStatus::Findings) => ExitCode::from(1),
        Ok(ExitStatus::Unknown) => ExitCode::from(2),
        Err(error) => {
            error.print();
            ExitCode::from(2)
        }
    }
}
