//! `eppctl check`: the loader's word on documents.

use std::io::{self, Write};

use clap::Args;
use epp_wasm::config;
use serde::Serialize;

use crate::input::read;
use crate::output::{styled, Misuse, Output, Report, Verdict, ERROR, GOOD, WARNING};

/// Say whether documents load, with every problem and warning, and what they come to.
#[derive(Args)]
#[command(after_help = "Examples:
  eppctl check examples/seed.yaml
  kubectl get configmap epp -o jsonpath='{.data.config}' | eppctl check -

Exit codes: 0 all load, 1 at least one does not, 2 a file cannot be read.")]
pub struct Check {
    /// Documents, YAML or JSON; - is standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
}

/// What the loader says of one file.
#[derive(Serialize)]
struct Checked {
    file: String,
    loads: bool,
    summary: Option<String>,
    errors: Vec<String>,
    warnings: Vec<String>,
}

#[derive(Serialize)]
#[serde(transparent)]
struct AllChecked(Vec<Checked>);

impl Check {
    /// Checks all files, in order.
    pub fn run(&self, output: &mut Output) -> Result<Verdict, Misuse> {
        let mut all = AllChecked(Vec::new());
        let mut unread = Ok(());
        for file in &self.files {
            match read(file) {
                Ok(bytes) => all.0.push(check(file, &bytes)),
                Err(misuse) => unread = Err(misuse),
            }
        }
        output.print(&all)?;
        unread?;
        Ok(match all.0.iter().all(|checked| checked.loads) {
            true => Verdict::Fine,
            false => Verdict::Findings,
        })
    }
}

fn check(file: &str, bytes: &[u8]) -> Checked {
    let (summary, errors, warnings) = match config::load_bytes(bytes) {
        Ok(loaded) => (Some(loaded.plan.summary()), Vec::new(), loaded.warnings),
        Err(rejected) => (None, rejected.errors, rejected.warnings),
    };
    Checked {
        file: file.to_owned(),
        loads: summary.is_some(),
        summary,
        errors: errors.iter().map(ToString::to_string).collect(),
        warnings: warnings.iter().map(ToString::to_string).collect(),
    }
}

impl Report for AllChecked {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        for Checked {
            file,
            summary,
            errors,
            warnings,
            ..
        } in &self.0
        {
            for warning in warnings {
                writeln!(out, "{file}: {}: {warning}", styled(WARNING, "warning"))?;
            }
            for error in errors {
                writeln!(out, "{file}: {}: {error}", styled(ERROR, "error"))?;
            }
            if let Some(summary) = summary {
                writeln!(out, "{file}: {}: {summary}", styled(GOOD, "loads"))?;
            }
        }
        Ok(())
    }
}
