//! `eppctl lint`: what in Envoy's and Istio's configuration breaks a picker in practice.
//!
//! One file a rule, each with a document that has its fault and one that has not.

mod admin_open;
mod body_unread;
mod bootstrap_patch;
mod callout_clusters;
mod circuit_breakers;
mod client_destination;
mod edge_buffers;
mod envoy_version;
mod ext_proc_removed;
mod fail_closed;
mod gateway;
mod header_passed_up;
mod header_removed_early;
mod locality_weights;
mod no_override_host;
mod normal;
mod not_recognised;
mod original_dst_open;
mod patches;
mod picker;
mod plugin_config;
mod pool;
mod quantity;
mod read_body;
mod route_timeout;
mod router_patched_twice;
mod routing;
mod same_name;
mod several_services;
mod site;
mod source;
mod status_page;
mod subset_clusters;
mod unowned_override_host;
mod vm_id;

use std::borrow::Cow;
use std::io::{self, Write};

use clap::Args;
use epp_core::document::problem::Step;
use epp_core::document::{Node, Path};
use serde::Serialize;

use crate::input::read_text;
use crate::output::{styled, Misuse, Output, Report, Verdict, FAINT, GOOD, STRONG, WARNING};
use site::Site;
use source::{documents, Document};

/// Find what breaks in practice in the configuration of Envoy, Istio, Envoy Gateway and Higress.
#[derive(Args)]
#[command(after_help = "Examples:
  eppctl lint envoy/envoy.yaml
  eppctl lint envoy/istio/*.yaml -o json
  curl -s http://127.0.0.1:9901/config_dump | eppctl lint -

All files of a run are looked at together: a patch in one file counts for the filter in another.
Bootstraps are looked at by themselves where several are given. What would have to be in a file that
was not given is reported as not seen, in the text alone, and is not a finding.

Exit codes: 0 nothing found, 1 something found, 2 a file cannot be read.")]
pub struct Lint {
    /// YAML or JSON, several documents in one file or not; - is standard input.
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
    /// Where in the documents.
    pub path: Path,
    /// Lines below that place, for texts inside the document.
    pub below: usize,
    /// What was found.
    pub what: String,
    /// Whether something was looked for that another file may have.
    pub not_seen: bool,
    /// Why it matters, where that is not the rule's reason.
    pub why: Option<&'static str>,
    /// What to do, where that is not what the rule says.
    pub fix: Option<String>,
}

impl Fault {
    /// A fault at a place.
    pub fn at(path: &Path, what: impl Into<String>) -> Self {
        Self {
            path: path.clone(),
            below: 0,
            what: what.into(),
            not_seen: false,
            why: None,
            fix: None,
        }
    }

    /// The same with its own reason.
    pub fn because(self, why: &'static str) -> Self {
        Self {
            why: Some(why),
            ..self
        }
    }

    /// The same with its own fix.
    pub fn fixed_by(self, fix: impl Into<String>) -> Self {
        Self {
            fix: Some(fix.into()),
            ..self
        }
    }

    /// What a place needs and the files of the run do not have.
    pub fn not_seen(path: &Path, what: impl Into<String>) -> Self {
        Self {
            not_seen: true,
            ..Self::at(path, what)
        }
    }
}

const RULES: [&Rule; 26] = [
    &not_recognised::RULE,
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
    &several_services::RULE,
    &same_name::RULE,
    &router_patched_twice::RULE,
    &locality_weights::RULE,
    &ext_proc_removed::RULE,
    &bootstrap_patch::RULE,
    &original_dst_open::RULE,
    &callout_clusters::RULE,
    &edge_buffers::RULE,
    &route_timeout::RULE,
    &circuit_breakers::RULE,
    &admin_open::RULE,
    &status_page::RULE,
    &envoy_version::RULE,
];

/// A fault as it is reported.
#[derive(Serialize)]
struct Finding {
    file: String,
    line: Option<usize>,
    path: String,
    rule: &'static str,
    found: String,
    why: &'static str,
    fix: Cow<'static, str>,
}

/// What a run found.
#[derive(Default, Serialize)]
#[serde(transparent)]
struct Findings {
    findings: Vec<Finding>,
    /// What other files may have.
    #[serde(skip)]
    not_seen: Vec<Finding>,
    /// How many pickers were looked at.
    #[serde(skip)]
    pickers: usize,
}

impl Lint {
    /// Lints all files, in order.
    pub fn run(&self, output: &mut Output) -> Result<Verdict, Misuse> {
        let mut all = Vec::new();
        for file in &self.files {
            all.extend(read(file, &read_text(file)?)?);
        }
        let mut findings = Findings::default();
        for documents in groups(all) {
            findings.add(&documents);
        }
        // In the order of the files, whichever documents were looked at together.
        let place = |finding: &Finding| {
            let file = self.files.iter().position(|file| *file == finding.file);
            (file, finding.line)
        };
        findings.findings.sort_by_key(place);
        findings.not_seen.sort_by_key(place);
        output.print(&findings)?;
        Ok(match findings.findings.is_empty() {
            true => Verdict::Fine,
            false => Verdict::Findings,
        })
    }
}

/// Returns the documents of a file.
fn read(file: &str, text: &str) -> Result<Vec<Document>, Misuse> {
    let documents = documents(file, text)?;
    let is_picker_config = |document: &Document| normal::is_picker_config(&document.node);
    if documents.iter().any(is_picker_config) {
        return Err(Misuse::new(format!(
            "{file}: an EndpointPickerConfig, which `eppctl check` reads; lint reads the configuration of Envoy \
             and of its control planes around it"
        )));
    }
    Ok(documents)
}

/// Returns the documents that configure one Envoy together.
///
/// Of several bootstraps each is an Envoy of its own. What configures an Envoy through a control
/// plane belongs together.
fn groups(documents: Vec<Document>) -> Vec<Vec<Document>> {
    if documents
        .iter()
        .filter(|document| document.is_whole())
        .count()
        <= 1
    {
        return vec![documents];
    }
    let (whole, parts): (Vec<_>, Vec<_>) = documents.into_iter().partition(Document::is_whole);
    let whole = whole.into_iter().map(|document| vec![document]);
    whole.chain(std::iter::once(parts)).collect()
}

impl Findings {
    /// Adds what all rules find in documents that belong together.
    fn add(&mut self, documents: &[Document]) {
        let nodes: Vec<Node> = documents
            .iter()
            .map(|document| document.node.clone())
            .collect();
        let site = Site::of(&nodes);
        self.pickers += site.pickers.len();
        for rule in RULES {
            for fault in (rule.check)(&site) {
                let not_seen = fault.not_seen;
                let Some(finding) = finding(documents, rule, fault) else {
                    continue;
                };
                match not_seen {
                    true => self.not_seen.push(finding),
                    false => self.findings.push(finding),
                }
            }
        }
    }
}

/// Returns a fault with its place in its file.
fn finding(documents: &[Document], rule: &Rule, fault: Fault) -> Option<Finding> {
    let (first, steps) = fault.path.steps().split_first()?;
    let Step::Index(index) = first else {
        return None;
    };
    let document = documents.get(*index)?;
    let (path, line) = document.place(steps, fault.below);
    Some(Finding {
        file: document.file.clone(),
        line,
        path,
        rule: rule.name,
        found: fault.what,
        why: fault.why.unwrap_or(rule.why),
        fix: fault.fix.map_or(Cow::Borrowed(rule.fix), Cow::Owned),
    })
}

impl Finding {
    fn text(&self, out: &mut dyn Write, prefix: &str) -> io::Result<()> {
        let line = self.line.map(|line| format!("{line}:")).unwrap_or_default();
        let place = format!("{}:{line}{}", self.file, self.path);
        let rule = styled(FAINT, format!("[{}]", self.rule));
        writeln!(
            out,
            "{}: {prefix}{} {rule}",
            styled(STRONG, place),
            styled(WARNING, &self.found)
        )?;
        writeln!(out, "  why: {}", self.why)?;
        writeln!(out, "  fix: {}\n", self.fix)
    }
}

impl Report for Findings {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        for finding in &self.findings {
            finding.text(out, "")?;
        }
        for finding in &self.not_seen {
            finding.text(out, "not seen: ")?;
        }
        let pickers = match self.pickers {
            0 => "no filter with an EndpointPickerConfig in here".to_owned(),
            1 => "one filter with its EndpointPickerConfig looked at".to_owned(),
            several => format!("{several} filters with an EndpointPickerConfig looked at"),
        };
        writeln!(out, "{}", styled(FAINT, pickers))?;
        match self.findings.len() {
            0 => writeln!(out, "{}", styled(GOOD, "nothing found")),
            1 => writeln!(out, "1 finding"),
            several => writeln!(out, "{several} findings"),
        }
    }
}

/// What a rule finds in documents that belong together; what it does not see begins with "not seen".
#[cfg(test)]
fn found(rule: &Rule, text: &str) -> Vec<String> {
    let faults = faults(rule, text).into_iter();
    faults.map(|(found, _)| found).collect()
}

/// The same, each with its fix.
#[cfg(test)]
fn faults(rule: &Rule, text: &str) -> Vec<(String, String)> {
    let documents = documents("-", text).unwrap();
    let nodes: Vec<Node> = documents
        .iter()
        .map(|document| document.node.clone())
        .collect();
    let site = Site::of(&nodes);
    let faults = (rule.check)(&site).into_iter().map(|fault| {
        let prefix = if fault.not_seen { "not seen: " } else { "" };
        let finding = finding(&documents, rule, fault).unwrap();
        let found = format!("{prefix}{}: {}", finding.path, finding.found);
        (found, finding.fix.into_owned())
    });
    faults.collect()
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

#[cfg(test)]
mod tests {
    use super::RULES;

    #[test]
    fn every_rule_has_its_row_in_the_operations_guide() {
        let guide = include_str!("../../../../docs/operations.md");
        let section = guide.split("## What lint looks for").nth(1).unwrap();
        let section = section.split("\n## ").next().unwrap();
        let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
        let rows: Vec<&str> = rows.filter_map(|row| row.split('`').next()).collect();
        let names: Vec<&str> = RULES.iter().map(|rule| rule.name).collect();
        assert_eq!(rows, names);
    }
}
