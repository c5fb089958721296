//! `eppctl check`: the loader's word on documents.

use std::io::{self, Write};

use clap::Args;
use epp_wasm::config::{self, Plan};
use epp_wasm::document::Problem;
use serde::Serialize;
use serde_json::Value;

use crate::defaults::written_out;
use crate::era::{self, Era};
use crate::excerpt::{render, Told};
use crate::input::read;
use crate::output::{styled, Misuse, Output, Report, Verdict, ERROR, FAINT, GOOD, STRONG, WARNING};
use crate::standings::{as_written, in_force, others, Field, Plugin};

/// Say whether documents load, with every problem and warning, and what they come to.
#[derive(Args)]
#[command(after_help = "Examples:
  eppctl check examples/seed.yaml
  eppctl check --era today examples/seed.yaml  # would it load there?
  eppctl check --print-defaults examples/seed.yaml  # nothing left out
  eppctl check -o json examples/*.yaml
  kubectl get configmap epp -o jsonpath='{.data.config}' | eppctl check -

Exit codes: 0 all load, 1 at least one does not, 2 a file cannot be read.")]
pub struct Check {
    /// Documents, YAML or JSON; - is standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// Also say whether this Endpoint Picker would accept them (no: exit code 1).
    #[arg(long, value_enum)]
    era: Option<Era>,
    /// Print each document that loads as it is in force, defaults written out, instead of the report.
    #[arg(long)]
    print_defaults: bool,
}

/// What the loader says of one file.
#[derive(Serialize)]
struct Checked {
    file: String,
    loads: bool,
    summary: Option<String>,
    errors: Vec<Told>,
    warnings: Vec<Told>,
    plugins: Vec<Plugin>,
    /// What else of the document is refused or has no effect.
    fields: Vec<Field>,
    era: Option<OfEra>,
    #[serde(skip)]
    text: String,
}

/// What an Endpoint Picker would say of it.
#[derive(Serialize)]
struct OfEra {
    name: &'static str,
    accepts: bool,
    refused: Vec<String>,
    ignored: Vec<String>,
}

#[derive(Serialize)]
#[serde(transparent)]
struct AllChecked(Vec<Checked>);

/// A document with its defaults.
#[derive(Serialize)]
#[serde(transparent)]
struct Defaults(Value);

impl Report for Defaults {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let text = serde_yaml::to_string(&self.0).map_err(io::Error::other)?;
        write!(out, "{text}")
    }
}

impl Check {
    /// Checks all files, in order.
    pub fn run(&self, output: &mut Output) -> Result<Verdict, Misuse> {
        let mut all = AllChecked(Vec::new());
        let mut unread = Ok(());
        for file in &self.files {
            let (checked, plan) = match read(file) {
                Ok(bytes) => check(file, &bytes, self.era),
                Err(misuse) => {
                    unread = Err(misuse);
                    continue;
                }
            };
            match plan {
                Some(plan) if self.print_defaults => output.print(&Defaults(written_out(&plan)))?,
                _ => {}
            }
            all.0.push(checked);
        }
        let fine =
            |checked: &Checked| checked.loads && checked.era.as_ref().is_none_or(|era| era.accepts);
        let verdict = match all.0.iter().all(fine) {
            true => Verdict::Fine,
            false => Verdict::Findings,
        };
        if self.print_defaults {
            // What cannot be printed is told.
            all.0.retain(|checked| !checked.loads);
        }
        if !self.print_defaults || !all.0.is_empty() {
            output.print(&all)?;
        }
        unread?;
        Ok(verdict)
    }
}

fn check(file: &str, bytes: &[u8], era: Option<Era>) -> (Checked, Option<Plan>) {
    let (plan, errors, warnings) = match config::load_bytes(bytes) {
        Ok(loaded) => (Some(loaded.plan), Vec::new(), loaded.warnings),
        Err(rejected) => (None, rejected.errors, rejected.warnings),
    };
    let text = String::from_utf8_lossy(bytes).into_owned();
    let told = |problems: &[Problem]| problems.iter().map(Told::from).collect();
    let (errors, warnings): (Vec<Told>, Vec<Told>) = (told(&errors), told(&warnings));
    let tree = era::tree(&text);
    let plugins = match (&plan, &tree) {
        (Some(plan), _) => in_force(plan),
        (None, Some(tree)) => as_written(tree, &errors),
        (None, None) => Vec::new(),
    };
    let era = era.zip(tree).map(|(era, tree)| of_era(era, &tree));
    let checked = Checked {
        file: file.to_owned(),
        loads: plan.is_some(),
        summary: plan.as_ref().map(Plan::summary),
        fields: others(&errors, &warnings),
        errors,
        warnings,
        plugins,
        era,
        text,
    };
    (checked, plan)
}

fn of_era(era: Era, tree: &epp_wasm::document::Node) -> OfEra {
    let word = era::word(era, tree);
    OfEra {
        name: match era {
            Era::Seed => "Gateway API Inference Extension v1.0",
            Era::Today => "llm-d-router (August 2026)",
        },
        accepts: word.refused.is_empty(),
        refused: word.refused,
        ignored: word.ignored,
    }
}

impl Report for AllChecked {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        self.0.iter().try_for_each(|checked| checked.tell(out))
    }
}

impl Checked {
    fn tell(&self, out: &mut dyn Write) -> io::Result<()> {
        let file = &self.file;
        for warning in &self.warnings {
            writeln!(out, "{}\n", render(file, &self.text, warning, false))?;
        }
        for error in &self.errors {
            writeln!(out, "{}\n", render(file, &self.text, error, true))?;
        }
        match &self.summary {
            Some(summary) => writeln!(out, "{file}: {}: {summary}", styled(GOOD, "loads"))?,
            None => writeln!(out, "{file}: {}", styled(ERROR, "does not load"))?,
        }
        for plugin in &self.plugins {
            let name = styled(STRONG, &plugin.name);
            writeln!(out, "  {name}  {}", shown(&plugin.standing))?;
            for parameter in &plugin.parameters {
                let value = format!("{}: {}", parameter.name, parameter.value);
                let own = match parameter.standing == plugin.standing {
                    true => String::new(),
                    false => format!("  {}", shown(&parameter.standing)),
                };
                writeln!(out, "    {}{own}", styled(FAINT, value))?;
            }
        }
        for field in &self.fields {
            let name = styled(STRONG, &field.name);
            writeln!(out, "  {name}  {}", shown(&field.standing))?;
        }
        let Some(era) = &self.era else {
            return Ok(());
        };
        match era.accepts {
            true => writeln!(out, "  {} would {}", era.name, styled(GOOD, "accept it"))?,
            false => writeln!(out, "  {} would {}", era.name, styled(ERROR, "refuse it"))?,
        }
        for reason in &era.refused {
            writeln!(out, "    {reason}")?;
        }
        for ignored in &era.ignored {
            writeln!(out, "    {}: {ignored}", styled(WARNING, "note"))?;
        }
        Ok(())
    }
}

/// A standing, in red where it says no.
fn shown(standing: &str) -> String {
    match standing.starts_with("refused") {
        true => styled(ERROR, standing),
        false => standing.to_owned(),
    }
}
