//! `eppctl lint`: finds mistakes in the configuration around a picker, of Envoy and its control planes.
//!
//! Each rule is a file, with tests of a configuration that has the fault and of one that does not.

mod admin_cluster;
mod admin_open;
mod body_unread;
mod bootstrap_patch;
mod callout_clusters;
mod circuit_breakers;
mod client_destination;
mod dump;
mod edge_buffers;
mod edge_windows;
mod envoy_version;
mod exchange;
mod ext_proc_removed;
mod fail_closed;
mod files;
mod gateway;
mod header_passed_up;
mod header_removed_early;
mod locality_weights;
mod merged_gateways;
mod metrics_port;
mod no_override_host;
mod normal;
mod not_recognised;
mod original_dst_open;
mod patches;
mod picker;
mod plugin_config;
mod pool;
mod prefill_unused;
mod prefix_twice;
mod prometheus_disabled;
mod quantity;
mod queue_bytes;
mod queue_timeout;
mod read_body;
mod refused_update;
mod report;
mod roles_without_endpoints;
mod route_timeout;
mod router_patched_twice;
mod routing;
mod same_name;
mod service_routing;
mod several_gateways;
mod several_services;
mod sglang_loads;
mod site;
mod source;
mod stats_tags;
mod status_page;
mod subset_clusters;
mod unmatched_patch;
mod unowned_override_host;
mod unrouted;
mod vm_id;

use clap::Args;
use epp_core::config::value::problem::Step;
use epp_core::config::value::{Node, Path};

use crate::admin::Admin;
use crate::output::{Error, ExitStatus, Output};
pub use dump::{received_filters, ReceivedFilter};
use files::Files;
use report::Finding;
pub use report::Findings;
pub use roles_without_endpoints::profiles_without_endpoints;
use site::Site;
use source::Document;

/// Find mistakes around a picker in the configuration of Envoy, Istio, Envoy Gateway and Higress.
#[derive(Args)]
#[command(after_help = "Examples:
  eppctl lint envoy/envoy.yaml
  eppctl lint envoy/istio/*.yaml -o json
  eppctl lint --summary envoy/production
  eppctl lint -o sarif envoy/production > lint.sarif
  eppctl lint --envoy http://127.0.0.1:9901
  curl -s http://127.0.0.1:9901/config_dump | eppctl lint -

All files of a run are checked together: a patch in one file applies to the filter in another. If \
several bootstraps are given, each is checked by itself. Settings that must be in a file that was not \
given are listed as not seen; they are not findings. In a folder, files that lint does not read are \
left out.

Exit status: 0 no findings, 1 findings, 2 a file cannot be read, or there is nothing that lint reads.")]
pub struct Lint {
    /// Files in YAML or JSON, each with one or more documents; folders, with the .yaml, .yml and .json files in and below them; - is standard input.
    #[arg(required_unless_present = "envoy", value_name = "FILE|FOLDER")]
    files: Vec<String>,
    /// Check the configuration of a running Envoy, as its admin interface has it: http://HOST:PORT, HOST:PORT, unix:PATH, or the path of a socket.
    #[arg(long, value_name = "ADMIN-URL")]
    envoy: Option<Admin>,
    /// Print numbers of findings by rule instead of the findings.
    #[arg(long)]
    summary: bool,
}

/// A lint rule.
pub struct Rule {
    /// The name, as reported and documented.
    pub name: &'static str,
    /// What it finds, for the documentation.
    pub finds: &'static str,
    /// Why the fault matters.
    pub why: &'static str,
    /// How to fix it.
    pub fix: &'static str,
    /// Returns the rule's faults in the files of a run.
    pub check: fn(&Site<'_>) -> Vec<Fault>,
}

/// A violation of a rule.
pub struct Fault {
    /// The path in the documents.
    pub path: Path,
    /// Lines to add to the path's line, for a fault inside a block of text.
    pub below: usize,
    /// What was found.
    pub what: String,
    /// True for a setting that is missing here and that another file may have.
    pub not_seen: bool,
    /// Why it matters, if it differs from the rule's `why`.
    pub why: Option<&'static str>,
    /// How to fix it, if it differs from the rule's `fix`.
    pub fix: Option<String>,
}

impl Fault {
    /// Creates a fault at a path.
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

    /// Replaces the rule's `why`.
    pub fn because(self, why: &'static str) -> Self {
        Self {
            why: Some(why),
            ..self
        }
    }

    /// Replaces the rule's `fix`.
    pub fn fixed_by(self, fix: impl Into<String>) -> Self {
        Self {
            fix: Some(fix.into()),
            ..self
        }
    }

    /// Creates a note that no file of the run has a setting that this path needs.
    pub fn not_seen(path: &Path, what: impl Into<String>) -> Self {
        Self {
            not_seen: true,
            ..Self::at(path, what)
        }
    }
}

const RULES: [&Rule; 43] = [
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
    &service_routing::RULE,
    &subset_clusters::RULE,
    &several_services::RULE,
    &roles_without_endpoints::RULE,
    &prefill_unused::RULE,
    &prefix_twice::RULE,
    &several_gateways::RULE,
    &same_name::RULE,
    &router_patched_twice::RULE,
    &locality_weights::RULE,
    &ext_proc_removed::RULE,
    &bootstrap_patch::RULE,
    &unmatched_patch::RULE,
    &merged_gateways::RULE,
    &original_dst_open::RULE,
    &callout_clusters::RULE,
    &metrics_port::RULE,
    &sglang_loads::RULE,
    &admin_cluster::RULE,
    &prometheus_disabled::RULE,
    &unrouted::RULE,
    &edge_buffers::RULE,
    &edge_windows::RULE,
    &route_timeout::RULE,
    &queue_timeout::RULE,
    &queue_bytes::RULE,
    &circuit_breakers::RULE,
    &admin_open::RULE,
    &status_page::RULE,
    &stats_tags::RULE,
    &refused_update::RULE,
    &envoy_version::RULE,
];

impl Lint {
    /// Lints all files, in order.
    pub fn run(&self, output: &mut Output) -> Result<ExitStatus, Error> {
        let mut files = Files::read(&self.files)?;
        if let Some(admin) = &self.envoy {
            files.add(&admin.to_string(), &config_dump(admin)?)?;
        }
        let findings = findings_in(files)?;
        match self.summary {
            true => output.print(&findings.summary())?,
            false => output.print(&findings)?,
        }
        Ok(match findings.findings.is_empty() {
            true => ExitStatus::Ok,
            false => ExitStatus::Findings,
        })
    }
}

/// Returns the configuration of a running Envoy.
fn config_dump(admin: &Admin) -> Result<String, Error> {
    let dump = admin.get("/config_dump")?;
    Ok(String::from_utf8_lossy(&dump).into_owned())
}

/// Returns what lint finds in a config dump, whose origin is called `name`.
pub fn findings_in_dump(name: &str, dump: &str) -> Result<Findings, Error> {
    let mut files = Files::default();
    files.add(name, dump)?;
    findings_in(files)
}

/// Returns all findings, in the order of the files.
fn findings_in(files: Files) -> Result<Findings, Error> {
    let recognised = files.documents.iter().any(Document::is_recognised);
    let left_out = files.left_out.iter().map(|one| one.file.clone());
    let all: Vec<String> = files.names.iter().cloned().chain(left_out).collect();
    let mut findings = Findings {
        files: files.names.len(),
        left_out: files.left_out,
        findings: files.unreadable,
        ..Findings::default()
    };
    for documents in groups(files.documents) {
        findings.add(&documents);
    }
    if !recognised && findings.findings.is_empty() {
        return Err(Error::new(format!(
            "{}: nothing that lint reads: expected the configuration of Envoy, or objects of Istio, Envoy \
             Gateway, Gateway API or Higress",
            all.join(", ")
        )));
    }
    let place = |finding: &Finding| {
        let file = files.names.iter().position(|name| *name == finding.file);
        (file, finding.line)
    };
    findings.findings.sort_by_key(place);
    findings.not_seen.sort_by_key(place);
    Ok(findings)
}

/// Groups documents by the Envoy that they configure.
///
/// If there are several bootstraps, each is an Envoy of its own. The objects of control planes form
/// one group.
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
    /// Adds the findings of all rules in one group of documents.
    fn add(&mut self, documents: &[Document]) {
        let nodes: Vec<Node> = documents
            .iter()
            .map(|document| document.node.clone())
            .collect();
        let site = Site::of(&nodes);
        self.filters += site.pickers.len();
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

/// Returns a fault as a finding, located in its file.
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
        fix: fault.fix.unwrap_or_else(|| rule.fix.to_owned()),
    })
}

/// Returns a rule's findings in documents that belong together; notes begin with "not seen".
#[cfg(test)]
fn found(rule: &Rule, text: &str) -> Vec<String> {
    let faults = faults(rule, text).into_iter();
    faults.map(|(found, _)| found).collect()
}

/// Returns the findings, each with its fix.
#[cfg(test)]
fn faults(rule: &Rule, text: &str) -> Vec<(String, String)> {
    let documents = source::documents("-", text).unwrap();
    let nodes: Vec<Node> = documents
        .iter()
        .map(|document| document.node.clone())
        .collect();
    let site = Site::of(&nodes);
    let faults = (rule.check)(&site).into_iter().map(|fault| {
        let prefix = if fault.not_seen { "not seen: " } else { "" };
        let finding = finding(&documents, rule, fault).unwrap();
        let found = format!("{prefix}{}: {}", finding.path, finding.found);
        (found, finding.fix)
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
        let rows: Vec<&str> = section
            .lines()
            .filter(|line| line.starts_with("| `"))
            .collect();
        let expected = RULES.map(|rule| format!("| `{}` | {} |", rule.name, rule.finds));
        assert_eq!(rows, expected);
    }
}
