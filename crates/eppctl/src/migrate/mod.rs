//! `eppctl migrate`: makes the configuration of epp-wasm from that of an Endpoint Picker.

mod apply;
mod chart;
mod choose;
mod cluster;
mod document;
mod engine;
mod flags;
mod objectives;
mod release;
mod sources;
mod target;
mod values;

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;

use clap::Args;
use epp_core::config;
use epp_core::plugins::Discovery;
use serde::Serialize;
use serde_json::Value;

pub use flags::table as flag_table;

use crate::check::wait_limit;
use crate::convert::inline_endpoints;
use crate::input::read_text;
use crate::lint::profiles_without_endpoints;
use crate::output::{Error, ExitStatus, Output, Report};
use apply::{Clusters, Line, Migration, Outcome};
use choose::{choose, Chosen};
use cluster::Cluster;
use sources::Sources;

/// Make the configuration of epp-wasm from that of an Endpoint Picker: Helm values, manifests, flags.
#[derive(Args)]
#[command(after_help = "Examples:
  eppctl migrate --cluster pool tests/migrate/router-values.yaml
  # the pods of two Envoy clusters, with their roles:
  eppctl migrate --cluster decode,llm-d.ai/role=decode \\
    --cluster prefill,llm-d.ai/role=prefill tests/migrate/llmisvc.yaml
  # everything of one Endpoint Picker, and the result in a folder:
  eppctl migrate --cluster pool --write . \\
    tests/migrate/configmap.yaml tests/migrate/deployment.yaml
  kubectl get cm,deploy epp -o yaml | eppctl migrate --cluster pool -

Reads Helm values of the charts inferencepool, llm-d-router and llm-d-modelservice, ConfigMaps, \
Deployments, InferencePools, InferenceObjectives and LLMInferenceServices, alone or in lists, and plain \
documents. All files together describe one Endpoint Picker and its pool, whatever poolRef objectives have; \
of a setting that is there twice the last one counts.

Prints the EndpointPickerConfig for the filter, below comments that say of each flag and value where it \
went, or why nothing takes its place.

Exit status: 0 done, 1 the comments list something to do or the result does not load, 2 there is \
no document, or a file cannot be read, does not parse, or would be replaced.")]
pub struct Migrate {
    /// Files in YAML or JSON that configure one Endpoint Picker; - is standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// The Envoy cluster whose members are the pool's pods, and the labels that they have; can be repeated. Without one the result does not load.
    #[arg(long = "cluster", value_name = "NAME[,LABEL=VALUE…]")]
    clusters: Vec<Cluster>,
    /// The Envoy cluster through which metrics are fetched, if they have a port or TLS of their own.
    #[arg(long, value_name = "NAME")]
    metrics_cluster: Option<String>,
    /// Migrate the document of this name, the key of a ConfigMap or of pluginsCustomConfig, instead of the one in force.
    #[arg(long, value_name = "NAME")]
    document: Option<String>,
    /// Write the document to endpoint-picker-config.yaml in this folder, where no file may have that name, and print the comments only.
    #[arg(long, value_name = "FOLDER")]
    write: Option<PathBuf>,
}

/// The file that `--write` writes.
const FILE: &str = "endpoint-picker-config.yaml";

/// What to do about labels that no endpoint has.
const NO_LABELS: &str = "profiles look for labels of endpoints, and no cluster gives any: --cluster NAME,LABEL=VALUE does";

/// The result.
#[derive(Serialize)]
struct Migrated {
    /// Where the document was found.
    source: String,
    settings: Vec<Line>,
    /// Why the result does not load.
    errors: Vec<String>,
    /// Where decisions may differ from the Endpoint Picker's.
    approximations: Vec<String>,
    document: Value,
    #[serde(skip)]
    is_written: bool,
}

impl Migrate {
    /// Migrates, prints, and writes the result if asked to.
    pub fn run(self, output: &mut Output) -> Result<ExitStatus, Error> {
        let mut files = Vec::new();
        for file in &self.files {
            files.push((file.clone(), read_text(file)?));
        }
        let sources = Sources::of(&files).map_err(Error::new)?;
        let mut chosen = choose(&files, &sources, self.document.as_deref()).map_err(Error::new)?;
        let Chosen {
            document, folder, ..
        } = &mut chosen;
        // Its notes are on the conversion of documents.
        inline_endpoints(document, folder, &mut Vec::new()).map_err(Error::new)?;
        let clusters = Clusters {
            pool: self.clusters,
            metrics: self.metrics_cluster,
        };
        let migration = Migration::of(&chosen, &sources, &clusters);
        let mut migrated = Migrated::of(chosen.source, migration);
        if let Some(folder) = &self.write {
            migrated.write(folder)?;
        }
        output.print(&migrated)?;
        Ok(migrated.status())
    }
}

impl Migrated {
    fn of(source: String, migration: Migration<'_>) -> Self {
        let Migration {
            document, lines, ..
        } = migration;
        let mut migrated = Self {
            source,
            settings: lines,
            errors: Vec::new(),
            approximations: Vec::new(),
            document: document.0,
            is_written: false,
        };
        match config::load(&migrated.document.to_string()) {
            Ok(loaded) => {
                let warnings = loaded.warnings.iter();
                let approximations = warnings.filter(|warning| warning.approximates);
                let approximations =
                    approximations.map(|one| format!("{}: {}", one.path, one.message));
                migrated.approximations = approximations.collect();
                migrated
                    .settings
                    .extend(wait_limit(&loaded.plan).map(|limit| Line {
                        setting: "flow control".to_owned(),
                        value: String::new(),
                        place: migrated.source.clone(),
                        outcome: Outcome::Moved,
                        what: format!("requests wait while the pool is full{limit}"),
                    }));
                let missing = missing_labels(&loaded.plan).into_iter();
                migrated.settings.extend(missing.map(|what| Line {
                    setting: "labels".to_owned(),
                    value: String::new(),
                    place: migrated.source.clone(),
                    outcome: Outcome::ToDo,
                    what,
                }));
            }
            Err(rejected) => {
                // Its lines are not those of a file.
                let errors = rejected.errors.into_iter();
                let errors = errors.map(|error| format!("{}: {}", error.path, error.message));
                migrated.errors = errors.collect();
            }
        }
        migrated.settings.sort_by_key(|line| match line.outcome {
            Outcome::ToDo => 0,
            Outcome::Moved => 1,
            Outcome::NotNeeded => 2,
        });
        migrated
    }

    fn status(&self) -> ExitStatus {
        let open = self
            .settings
            .iter()
            .any(|line| line.outcome == Outcome::ToDo);
        match open || !self.errors.is_empty() {
            true => ExitStatus::Findings,
            false => ExitStatus::Ok,
        }
    }

    fn write(&mut self, folder: &PathBuf) -> Result<(), Error> {
        let file = folder.join(FILE);
        let failed = |error: io::Error| Error::new(format!("{}: {error}", file.display()));
        let mut text = Vec::new();
        self.text(&mut text)?;
        std::fs::create_dir_all(folder).map_err(failed)?;
        // What is there may have been edited.
        let created = File::create_new(&file);
        let mut created = created.map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => Error::new(format!(
                "{}: exists, and is not replaced: move it away, or name another folder",
                file.display()
            )),
            _ => failed(error),
        })?;
        created.write_all(&text).map_err(failed)?;
        self.is_written = true;
        Ok(())
    }

    fn part(&self, out: &mut dyn Write, title: &str, outcome: Outcome) -> io::Result<()> {
        let mut lines = self
            .settings
            .iter()
            .filter(|line| line.outcome == outcome)
            .peekable();
        if lines.peek().is_some() {
            writeln!(out, "#\n# {title}")?;
        }
        for line in lines {
            let value = match line.value.as_str() {
                "" => String::new(),
                value => format!(" = {value}"),
            };
            let line = format!("{}{value}: {}", line.setting, line.what);
            writeln!(out, "#   {}", one_line(&line))?;
        }
        Ok(())
    }
}

impl Report for Migrated {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "# From {}.", one_line(&self.source))?;
        self.part(out, "To do:", Outcome::ToDo)?;
        self.part(out, "Moved:", Outcome::Moved)?;
        self.part(out, "Not needed:", Outcome::NotNeeded)?;
        for (title, lines) in [
            ("Does not load:", &self.errors),
            ("Decides differently:", &self.approximations),
        ] {
            if !lines.is_empty() {
                writeln!(out, "#\n# {title}")?;
            }
            for line in lines {
                writeln!(out, "#   {}", one_line(line))?;
            }
        }
        if self.is_written {
            return Ok(());
        }
        let text = serde_yaml::to_string(&self.document).map_err(io::Error::other)?;
        write!(out, "{text}")
    }
}

/// Returns a text without line breaks and control characters: what was found in a file must not end a comment.
fn one_line(text: &str) -> String {
    let text = text.replace(|sign: char| sign.is_control(), " ");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Returns what is to be done about labels that the profiles look for and no endpoint has.
fn missing_labels(plan: &config::Plan) -> Vec<String> {
    if let Discovery::EnvoyCluster(discovery) = &plan.discovery {
        let mut clusters = discovery.clusters.iter();
        if plan.needs.labels && clusters.all(|cluster| cluster.labels.is_empty()) {
            return vec![NO_LABELS.to_owned()];
        }
    }
    let profiles = profiles_without_endpoints(plan).into_iter();
    profiles
        .map(|profile| format!("{profile}; --cluster NAME,LABEL=VALUE names a cluster with them"))
        .collect()
}
