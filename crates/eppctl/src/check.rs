//! `eppctl check`: loads documents and reports their problems.

use std::io::{self, Write};

use clap::Args;
use epp_core::config::value::{Path, Problem, Problems};
use epp_core::config::{self, Plan};
use serde::Serialize;
use serde_json::Value;

use crate::defaults::written_out;
use crate::dialect::{self, TargetDialect};
use crate::embedded::{documents, Document};
use crate::excerpt::{render, Diagnostic, Source};
use crate::input::read;
use crate::output::{
    styled, Error, ExitStatus, Output, Report, ERROR, FAINT, GOOD, STRONG, WARNING,
};
use crate::standings::{as_written, in_force, others, Field, Plugin};
use crate::unread::unread;

/// Check whether documents load: every error and warning, and the configuration in force.
#[derive(Args)]
#[command(after_help = "Examples:
  eppctl check examples/gie.yaml
  # would llm-d-router load it?
  eppctl check --dialect llm-d examples/gie.yaml
  # does it decide in every case as its Endpoint Picker does?
  eppctl check --strict examples/gie.yaml
  # with every default written out:
  eppctl check --print-defaults examples/gie.yaml
  eppctl check -o json examples/*.yaml
  kubectl get configmap epp -o yaml | eppctl check -
  # Helm values that contain a document:
  eppctl check values.yaml

A file may be a document or contain any number of them, as mappings or as text: a ConfigMap, Helm \
values, an LLMInferenceService, a container's arguments, several YAML documents. Each one is checked \
and named; line numbers refer to the file.

Exit status: 0 all load, 1 at least one does not (or has an approximation, with --strict), 2 a file \
cannot be read.")]
pub struct Check {
    /// Documents, or files that contain documents, in YAML or JSON; - is standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// Also check whether an Endpoint Picker of this dialect would accept them; if not, exit with 1.
    #[arg(long, value_enum)]
    dialect: Option<TargetDialect>,
    /// Also exit with 1 if a document has something that is approximated here, so that decisions may differ from the Endpoint Picker's.
    #[arg(long)]
    strict: bool,
    /// Instead of the report, print each document that loads, with every default written out.
    #[arg(long)]
    print_defaults: bool,
}

/// The result for one document.
#[derive(Serialize)]
struct Checked {
    file: String,
    /// Where the document is in the file; empty if the document is the file.
    place: String,
    loads: bool,
    summary: Option<String>,
    errors: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
    /// Where decisions may differ from the Endpoint Picker's, and why.
    approximations: Vec<String>,
    plugins: Vec<Plugin>,
    /// Fields outside `plugins` that are refused or have no effect.
    fields: Vec<Field>,
    dialect: Option<Acceptance>,
    #[serde(skip)]
    text: String,
}

/// Whether an Endpoint Picker would accept a document.
#[derive(Serialize)]
struct Acceptance {
    name: &'static str,
    accepts: bool,
    refused: Vec<String>,
    ignored: Vec<String>,
}

#[derive(Serialize)]
#[serde(transparent)]
struct AllChecked(Vec<Checked>);

/// A document with its defaults written out.
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
    pub fn run(&self, output: &mut Output) -> Result<ExitStatus, Error> {
        let mut all = AllChecked(Vec::new());
        let mut unread = Ok(());
        for file in &self.files {
            let bytes = match read(file) {
                Ok(bytes) => bytes,
                Err(error) => {
                    unread = Err(error);
                    continue;
                }
            };
            for (checked, plan) in check(file, &bytes, self.dialect) {
                if let Some(plan) = plan.filter(|_| self.print_defaults) {
                    output.print(&Defaults(written_out(&plan)))?;
                }
                all.0.push(checked);
            }
        }
        let accepted = |checked: &Checked| {
            let exact = !self.strict || checked.approximations.is_empty();
            let accepts = checked.dialect.as_ref().is_none_or(|picker| picker.accepts);
            checked.loads && accepts && exact
        };
        let status = match all.0.iter().all(accepted) {
            true => ExitStatus::Ok,
            false => ExitStatus::Findings,
        };
        if self.print_defaults {
            // A document that does not load cannot be printed: report it.
            all.0.retain(|checked| !checked.loads);
        }
        if !self.print_defaults || !all.0.is_empty() {
            output.print(&all)?;
        }
        unread?;
        Ok(status)
    }
}

/// Checks all documents of a file.
fn check(file: &str, bytes: &[u8], dialect: Option<TargetDialect>) -> Vec<(Checked, Option<Plan>)> {
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
        .map(|document| check_document(file, text, document, dialect))
        .collect()
}

fn check_document(
    file: &str,
    text: &str,
    document: &Document,
    dialect: Option<TargetDialect>,
) -> (Checked, Option<Plan>) {
    let (plan, mut errors, mut warnings) = match config::load(&document.text) {
        Ok(loaded) => (Some(loaded.plan), Vec::new(), loaded.warnings),
        Err(rejected) => (None, rejected.errors, rejected.warnings),
    };
    for problems in [&mut errors, &mut warnings] {
        document.locate(problems);
        // In the file's order; problems without a location come last.
        problems.sort_by_key(|problem| problem.location.unwrap_or((usize::MAX, 0)));
    }
    let approximations = warnings.iter().filter(|problem| problem.approximates);
    let approximations = approximations.map(ToString::to_string).collect();
    let errors: Vec<Diagnostic> = errors.iter().map(Diagnostic::from).collect();
    let warnings: Vec<Diagnostic> = warnings.iter().map(Diagnostic::from).collect();
    let tree = dialect::tree(&document.text);
    let plugins = match (&plan, &tree) {
        (Some(plan), _) => in_force(plan),
        (None, Some(tree)) => as_written(tree, &errors),
        (None, None) => Vec::new(),
    };
    let dialect = dialect.zip(tree);
    let dialect = dialect.map(|(dialect, tree)| acceptance(dialect, &tree));
    let checked = Checked {
        file: file.to_owned(),
        place: document.place.clone(),
        loads: plan.is_some(),
        summary: plan.as_ref().map(summary),
        fields: others(&errors, &warnings)
            .into_iter()
            .chain(plan.iter().flat_map(unread))
            .collect(),
        errors,
        warnings,
        approximations,
        plugins,
        dialect,
        text: text.to_owned(),
    };
    (checked, plan)
}

/// Returns what a plan does, and for how long requests wait.
fn summary(plan: &Plan) -> String {
    let mut summary = plan.summary();
    if let (Some(limit), false) = (wait_limit(plan), plan.settings.dry_run) {
        summary.push_str(&limit);
    }
    summary
}

/// Returns how long requests wait, to be added to a sentence, if the plan has flow control.
pub fn wait_limit(plan: &Plan) -> Option<String> {
    Some(match plan.flow.as_ref()?.ttl {
        Some(ttl) => format!(", at most {} s", ttl.as_secs_f64()),
        None => ", without a limit of time".to_owned(),
    })
}

fn acceptance(dialect: TargetDialect, tree: &config::value::Node) -> Acceptance {
    let found = dialect::objections(dialect, tree);
    Acceptance {
        name: match dialect {
            TargetDialect::GieV1 => "Gateway API Inference Extension v1.0",
            TargetDialect::LlmD => "llm-d-router (August 2026)",
        },
        accepts: found.refused.is_empty(),
        refused: found.refused,
        ignored: found.ignored,
    }
}

impl Report for AllChecked {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        self.0.iter().try_for_each(|checked| checked.write(out))
    }
}

impl Checked {
    /// A file in which no document could be found.
    fn refused(file: &str, errors: &[Problem]) -> Self {
        Self {
            file: file.to_owned(),
            place: String::new(),
            loads: false,
            summary: None,
            errors: errors.iter().map(Diagnostic::from).collect(),
            warnings: Vec::new(),
            approximations: Vec::new(),
            plugins: Vec::new(),
            fields: Vec::new(),
            dialect: None,
            text: String::new(),
        }
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
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
        if !self.approximations.is_empty() {
            let count = self.approximations.len();
            let verdict = styled(WARNING, "decisions may differ from the Endpoint Picker's");
            writeln!(out, "  {verdict}: {count} approximated, see the warnings")?;
        }
        let Some(picker) = &self.dialect else {
            return Ok(());
        };
        let verdict = match picker.accepts {
            true => styled(GOOD, "accept it"),
            false => styled(ERROR, "refuse it"),
        };
        writeln!(out, "  {} would {verdict}", picker.name)?;
        for reason in &picker.refused {
            writeln!(out, "    {reason}")?;
        }
        for ignored in &picker.ignored {
            writeln!(out, "    {}: {ignored}", styled(WARNING, "note"))?;
        }
        Ok(())
    }
}

/// Returns a plugin's or field's standing, in red if it is refused.
fn shown(standing: &str) -> String {
    match standing.starts_with("refused") {
        true => styled(ERROR, standing),
        false => standing.to_owned(),
    }
}
