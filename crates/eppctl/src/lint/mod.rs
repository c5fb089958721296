//! `eppctl lint`: what in Envoy's and Istio's configuration breaks a picker in practice.
//!
//! One file a rule, each with a document that has its fault and one that has not.

mod admin_open;
mod body_unread;
mod callout_clusters;
mod circuit_breakers;
mod client_destination;
mod edge_buffers;
mod fail_closed;
mod header_passed_up;
mod header_removed_early;
mod no_override_host;
mod original_dst_open;
mod plugin_config;
mod read_body;
mod routing;
mod site;
mod status_page;
mod subset_clusters;
mod unowned_override_host;
mod vm_id;

use std::io::{self, Write};

use clap::Args;
use epp_wasm::config;
use epp_wasm::document::Path;
use serde::Serialize;

use crate::input::read_text;
use crate::output::{styled, Misuse, Output, Report, Verdict, FAINT, GOOD, STRONG, WARNING};
use site::Site;

/// Find what breaks in practice in Envoy bootstraps, listeners and Istio manifests.
#[derive(Args)]
#[command(after_help = "Examples:
  eppctl lint envoy/envoy.yaml
  eppctl lint envoy/istio/*.yaml -o json
  curl -s http://127.0.0.1:9901/config_dump | eppctl lint -

Exit codes: 0 nothing found, 1 something found, 2 a file cannot be read.")]
pub struct Lint {
    /// Envoy's or Istio's YAML, several documents in one file or not; - is standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
}

/// Something that breaks.
pub struct Rule {
    /// Its name.
    pub name: &'static str,
    /// Why it matters.
    pub why: &'static str,
    /// What to do.
    pub fix: &'static str,
    /// Looks for it.
    pub check: fn(&Site<'_>) -> Vec<Fault>,
}

/// Where it was found, and what.
pub struct Fault {
    /// Where in the document.
    pub path: Path,
    /// Lines below that place, for texts inside the document.
    pub below: usize,
    /// What was found.
    pub what: String,
}

impl Fault {
    /// A fault at a place.
    pub fn at(path: &Path, what: impl Into<String>) -> Self {
        Self {
            path: path.clone(),
            below: 0,
            what: what.into(),
        }
    }
}

const RULES: [&Rule; 17] = [
    &plugin_config::RULE,
    &body_unread::RULE,
    &read_body::RULE,
    &fail_closed::RULE,
    &vm_id::RULE,
    &header_passed_up::RULE,
    &header_removed_early::RULE,
    &no_override_host::RULE,
    &client_destination::RULE,
    &unowned_override_host::RULE,
    &subset_clusters::RULE,
    &original_dst_open::RULE,
    &callout_clusters::RULE,
    &edge_buffers::RULE,
    &circuit_breakers::RULE,
    &admin_open::RULE,
    &status_page::RULE,
];

/// A fault as it is told.
#[derive(Serialize)]
struct Finding {
    file: String,
    line: Option<usize>,
    path: String,
    rule: &'static str,
    found: String,
    why: &'static str,
    fix: &'static str,
}

#[derive(Serialize)]
#[serde(transparent)]
struct Findings(Vec<Finding>, #[serde(skip)] usize);

impl Lint {
    /// Lints all files, in order.
    pub fn run(&self, output: &mut Output) -> Result<Verdict, Misuse> {
        let mut findings = Findings(Vec::new(), 0);
        for file in &self.files {
            let Findings(more, pickers) = lint(file, &read_text(file)?)?;
            findings.0.extend(more);
            findings.1 += pickers;
        }
        output.print(&findings)?;
        Ok(match findings.0.is_empty() {
            true => Verdict::Fine,
            false => Verdict::Findings,
        })
    }
}

/// Lints a file; also how many pickers are in it.
fn lint(file: &str, text: &str) -> Result<Findings, Misuse> {
    let (mut findings, mut pickers) = (Vec::new(), 0);
    for (above, document) in documents(text) {
        let node = config::parse(&document).map_err(|rejected| {
            let first = rejected.errors.first().map(ToString::to_string);
            let first = first.unwrap_or_default();
            Misuse::new(format!(
                "{file}: the document from line {} on: {first}; give YAML or JSON",
                above + 1
            ))
        })?;
        let site = Site::of(&node);
        if site::text(&node, "kind") == "EndpointPickerConfig" {
            return Err(Misuse::new(format!(
                "{file}: an EndpointPickerConfig, which `eppctl check` reads; lint reads Envoy's and Istio's \
                 configuration around it"
            )));
        }
        pickers += site.pickers.len();
        if site.is_camel_case() {
            return Err(Misuse::new(format!(
                "{file}: its fields are in lowerCamelCase (typedConfig), which would not be looked at; give \
                 Envoy's own names (typed_config), as /config_dump of its admin interface has them"
            )));
        }
        for rule in RULES {
            findings.extend((rule.check)(&site).into_iter().map(|fault| {
                Finding {
                    file: file.to_owned(),
                    line: config::line_of(&document, &fault.path)
                        .map(|(line, _)| above + line + fault.below),
                    path: fault.path.to_string(),
                    rule: rule.name,
                    found: fault.what,
                    why: rule.why,
                    fix: rule.fix,
                }
            }));
        }
    }
    Ok(Findings(findings, pickers))
}

/// The documents of a file, each with the number of lines above it.
fn documents(text: &str) -> Vec<(usize, String)> {
    let mut documents = vec![(0, String::new())];
    for (number, line) in text.lines().enumerate() {
        if line.trim_end() == "---" {
            documents.push((number + 1, String::new()));
        } else if let Some((_, document)) = documents.last_mut() {
            document.push_str(line);
            document.push('\n');
        }
    }
    let blank = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
    documents.retain(|(_, document)| !document.lines().all(blank));
    documents
}

impl Report for Findings {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        for finding in &self.0 {
            let line = finding
                .line
                .map(|line| format!("{line}:"))
                .unwrap_or_default();
            let place = format!("{}:{line}{}", finding.file, finding.path);
            let rule = styled(FAINT, format!("[{}]", finding.rule));
            writeln!(
                out,
                "{}: {} {rule}",
                styled(STRONG, place),
                styled(WARNING, &finding.found)
            )?;
            writeln!(out, "  why: {}", finding.why)?;
            writeln!(out, "  fix: {}\n", finding.fix)?;
        }
        let pickers = match self.1 {
            0 => "no filter with an EndpointPickerConfig in here".to_owned(),
            1 => "one filter with its EndpointPickerConfig looked at".to_owned(),
            several => format!("{several} filters with an EndpointPickerConfig looked at"),
        };
        writeln!(out, "{}", styled(FAINT, pickers))?;
        match self.0.len() {
            0 => writeln!(out, "{}", styled(GOOD, "nothing found")),
            1 => writeln!(out, "1 finding"),
            several => writeln!(out, "{several} findings"),
        }
    }
}

/// What a rule finds in a document.
#[cfg(test)]
fn found(rule: &Rule, text: &str) -> Vec<String> {
    let node = config::parse(text).unwrap();
    let faults = (rule.check)(&Site::of(&node));
    faults
        .iter()
        .map(|fault| format!("{}: {}", fault.path, fault.what))
        .collect()
}

/// Asserts that a rule finds something in the demo's bootstrap with `right` replaced by `wrong`,
/// and nothing in the bootstrap as it is.
#[cfg(test)]
fn finds(rule: &Rule, right: &str, wrong: &str) {
    let bootstrap = include_str!("../../../../envoy/envoy.yaml");
    assert!(bootstrap.contains(right), "{right}");
    assert_eq!(found(rule, bootstrap), Vec::<String>::new());
    let faulty = bootstrap.replace(right, wrong);
    assert!(!found(rule, &faulty).is_empty(), "{faulty}");
}
