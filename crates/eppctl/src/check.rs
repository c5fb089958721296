//! `eppctl check`: the loader's word on documents.

use std::io::{self, Write};

use clap::Args;
use epp_core::config::{self, Plan};
use epp_core::document::{Path, Problem, Problems};
use serde::Serialize;
use serde_json::Value;

use crate::defaults::written_out;
use crate::embedded::{documents, Document};
use crate::era::{self, Era};
use crate::excerpt::{render, Source, Told};
use crate::input::read;
use crate::output::{styled, Misuse, Output, Report, Verdict, ERROR, FAINT, GOOD, STRONG, WARNING};
use crate::standings::{as_written, in_force, others, Field, Plugin};
use crate::unread::unread;

/// Say whether documents load, with every problem and warning, and what they come to.
#[derive(Args)]
#[command(after_help = "Examples:
  eppctl check examples/seed.yaml
  eppctl check --era today examples/seed.yaml  # would it load there?
  eppctl check --print-defaults examples/seed.yaml  # nothing left out
  eppctl check -o json examples/*.yaml
  kubectl get configmap epp -o yaml | eppctl check -
  eppctl check values.yaml  # Helm values with a document inside

A file may be a document, or have any number of them inside, as mappings or texts: a ConfigMap, Helm
values, an LLMInferenceService, a container's arguments, several YAML documents. Each is checked and
named, and lines are the file's.

Exit codes: 0 all load, 1 at least one does not, 2 a file cannot be read.")]
pub struct Check {
    /// Documents, or files with documents inside, YAML or JSON; - is standard input.
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
    /// Where in the file the document is; empty where it is the file.
    place: String,
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
            let bytes = match read(file) {
                Ok(bytes) => bytes,
                Err(misuse) => {
                    unread = Err(misuse);
                    continue;
                }
            };
            for (checked, plan) in check(file, &bytes, self.era) {
                if let Some(plan) = plan.filter(|_| self.print_defaults) {
                    output.print(&Defaults(written_out(&plan)))?;
                }
                all.0.push(checked);
            }
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

/// Checks all documents of a file.
fn check(file: &str, bytes: &[u8], era: Option<Era>) -> Vec<(Checked, Option<Plan>)> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(_) => {
            let rejected = config::load_bytes(bytes).map(|_| Vec::new());
            let errors = rejected.unwrap_or_else(|rejected| rejected.errors);
            return vec![(Checked::refused(file, &errors), None)];
        }
    };
    let documents = match documents(text) {
        Ok(documents) => documents,
        Err(none) => {
            let mut problems = Problems::default();
            problems.error(&Path::default(), none);
            return vec![(Checked::refused(file, &problems.errors), None)];
        }
    };
    let documents = documents.iter();
    documents
        .map(|document| check_document(file, text, document, era))
        .collect()
}

fn check_document(
    file: &str,
    text: &str,
    document: &Document,
    era: Option<Era>,
) -> (Checked, Option<Plan>) {
    let (plan, mut errors, mut warnings) = match config::load(&document.text) {
        Ok(loaded) => (Some(loaded.plan), Vec::new(), loaded.warnings),
        Err(rejected) => (None, rejected.errors, rejected.warnings),
    };
    for problems in [&mut errors, &mut warnings] {
        document.locate(problems);
        // In the file's order; what has no place comes last.
        problems.sort_by_key(|problem| problem.location.unwrap_or((usize::MAX, 0)));
    }
    let told = |problems: &[Problem]| problems.iter().map(Told::from).collect();
    let (errors, warnings): (Vec<Told>, Vec<Told>) = (told(&errors), told(&warnings));
    let tree = era::tree(&document.text);
    let plugins = match (&plan, &tree) {
        (Some(plan), _) => in_force(plan),
        (None, Some(tree)) => as_written(tree, &errors),
        (None, None) => Vec::new(),
    };
    let era = era.zip(tree).map(|(era, tree)| of_era(era, &tree));
    let checked = Checked {
        file: file.to_owned(),
        place: document.place.clone(),
        loads: plan.is_some(),
        summary: plan.as_ref().map(Plan::summary),
        fields: others(&errors, &warnings)
            .into_iter()
            .chain(plan.iter().flat_map(unread))
            .collect(),
        errors,
        warnings,
        plugins,
        era,
        text: text.to_owned(),
    };
    (checked, plan)
}

fn of_era(era: Era, tree: &epp_core::document::Node) -> OfEra {
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
    /// What is not looked at any further.
    fn refused(file: &str, errors: &[Problem]) -> Self {
        Self {
            file: file.to_owned(),
            place: String::new(),
            loads: false,
            summary: None,
            errors: errors.iter().map(Told::from).collect(),
            warnings: Vec::new(),
            plugins: Vec::new(),
            fields: Vec::new(),
            era: None,
            text: String::new(),
        }
    }

    fn tell(&self, out: &mut dyn Write) -> io::Result<()> {
        let source = Source {
            file: &self.file,
            place: &self.place,
            text: &self.text,
        };
        for warning in &self.warnings {
            writeln!(out, "{}\n", render(&source, warning, false))?;
        }
        for error in &self.errors {
            writeln!(out, "{}\n", render(&source, error, true))?;
        }
        let file = source.name();
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
