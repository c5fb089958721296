//! Finds the document that an Endpoint Picker has in force.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use epp_core::config;
use epp_core::config::value::Node;
use serde_json::Value;

use super::chart::{self, Options};
use super::sources::{Setting, Sources};
use super::target::Target;
use crate::embedded::documents;
use crate::schema::value;

/// The document in force.
pub struct Chosen {
    /// It.
    pub document: Value,
    /// Where it was found.
    pub source: String,
    /// The folder of its file.
    pub folder: PathBuf,
    /// Whether it is one that the chart brings itself, with the values that go into it.
    pub is_of_chart: bool,
    /// Documents that were found and are not in force.
    pub unused: Vec<String>,
}

/// A document of a file.
struct Candidate {
    file: String,
    place: String,
    document: Value,
}

impl Candidate {
    /// Returns whether this is the file or the entry of this name.
    fn is_named(&self, name: &str) -> bool {
        let file = Path::new(&self.file).file_name();
        match self.place.as_str() {
            "" => file.is_some_and(|file| file == name),
            place => place == name || place.ends_with(&format!(".{name}")),
        }
    }

    fn source(&self) -> String {
        match self.place.as_str() {
            "" => self.file.clone(),
            place => format!("{}: {place}", self.file),
        }
    }
}

/// Returns the document in force among those of the files, given as names and texts. `wanted` names one.
pub fn choose(
    files: &[(String, String)],
    sources: &Sources,
    wanted: Option<&str>,
) -> Result<Chosen, String> {
    let candidates = candidates(files)?;
    let named = wanted.map(str::to_owned).or_else(|| named(sources));
    let name = named.as_deref();
    let mut matching = candidates
        .iter()
        .filter(|one| name.is_some_and(|name| one.is_named(name)));
    let found = match (matching.next(), candidates.as_slice()) {
        (Some(found), _) => found,
        (None, _) if wanted.is_some() => {
            let wanted = wanted.unwrap_or_default();
            return Err(format!(
                "found no document {wanted}; found: {}",
                listed(&candidates)
            ));
        }
        // A ConfigMap's key can be mounted under another name.
        (None, [only]) if sources.chart.is_none() => only,
        (None, []) => return own(sources, name, &candidates),
        (None, _) if sources.chart.is_some() => return own(sources, name, &candidates),
        (None, _) => {
            let found = listed(&candidates);
            return Err(format!(
                "found several documents; name one with --document: {found}"
            ));
        }
    };
    Ok(chosen(found, &candidates))
}

fn chosen(found: &Candidate, candidates: &[Candidate]) -> Chosen {
    let unused = candidates
        .iter()
        .filter(|one| one.document != found.document);
    let folder = Path::new(&found.file).parent();
    Chosen {
        document: found.document.clone(),
        source: found.source(),
        folder: folder.map(Path::to_path_buf).unwrap_or_default(),
        is_of_chart: false,
        unused: unused.map(Candidate::source).collect(),
    }
}

/// Returns the document that is in force without one in the files: the chart's, or the Endpoint Picker's.
fn own(sources: &Sources, name: Option<&str>, found: &[Candidate]) -> Result<Chosen, String> {
    let elsewhere = match (&sources.config_map, name) {
        (Some(map), _) => Some(format!("the ConfigMap {map}")),
        (None, name) => name.map(str::to_owned),
    };
    let own = match sources.chart {
        Some(chart) => {
            let name = name.unwrap_or(chart::DEFAULT);
            let own = chart::document(chart, name, &options(sources));
            own.map(|document| (document, format!("the chart's own {name}")))
        }
        None => None,
    };
    let (document, source) = match (own, elsewhere) {
        (Some(own), _) => own,
        (None, Some(place)) => {
            return Err(format!(
                "the document is in {place}, which is not among the files: pass it, too"
            ));
        }
        (None, None) if sources.settings.is_empty() => {
            return Err(
                "found no EndpointPickerConfig, and no flags or values of an Endpoint Picker"
                    .to_owned(),
            );
        }
        (None, None) => (
            chart::built_in(),
            "the Endpoint Picker's built-in document".to_owned(),
        ),
    };
    Ok(Chosen {
        document,
        source,
        folder: PathBuf::new(),
        is_of_chart: true,
        unused: found.iter().map(Candidate::source).collect(),
    })
}

/// Returns the documents of the files, without copies of one.
fn candidates(files: &[(String, String)]) -> Result<Vec<Candidate>, String> {
    let mut found: Vec<Candidate> = Vec::new();
    let mut known = HashSet::new();
    for (file, text) in files {
        // A file without one may have flags: that all of it parses is known from the search for settings.
        for document in documents(text).unwrap_or_default() {
            let node = config::parse(&document.text);
            let node = node.map_err(|_| {
                format!("{file}: a document does not parse; `eppctl check {file}` shows where")
            })?;
            // A text may be meant as a document and be none; `check` says so.
            if !matches!(node, Node::Map(_)) {
                continue;
            }
            let candidate = Candidate {
                file: file.clone(),
                place: document.place,
                document: value(&node),
            };
            if known.insert(candidate.document.to_string()) {
                found.push(candidate);
            }
        }
    }
    Ok(found)
}

/// Returns the name of the document that the settings put in force.
fn named(sources: &Sources) -> Option<String> {
    let mut settings = sources.settings.iter().rev();
    let setting = settings.find(|one| match one.target {
        Target::DocumentName => true,
        Target::Document => one.name.to_lowercase().ends_with("file"),
        _ => false,
    })?;
    let Node::String(path) = &setting.value else {
        return None;
    };
    Some(path.rsplit('/').next().unwrap_or(path).to_owned())
}

fn options(sources: &Sources) -> Options {
    let of = |target: Target| {
        sources
            .settings
            .iter()
            .filter(move |one| one.target == target)
    };
    let mut predictors = of(Target::ChartPredictor);
    let parsers = of(Target::ChartParsers).flat_map(|one: &Setting| match &one.value {
        Node::List(names) => names.iter().map(ToString::to_string).collect(),
        name => vec![name.to_string()],
    });
    Options {
        predicts: predictors.any(|one| one.value == Node::Bool(true)),
        parsers: parsers.filter(|name| !name.is_empty()).collect(),
        release: sources.release(),
    }
}

fn listed(candidates: &[Candidate]) -> String {
    let sources: Vec<String> = candidates.iter().map(Candidate::source).collect();
    match sources.as_slice() {
        [] => "none".to_owned(),
        sources => sources.join("; "),
    }
}
