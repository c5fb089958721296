//! What a run found, as text and as data.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;

use super::exchange;
use super::files::LeftOut;
use crate::output::{styled, Report, FAINT, GOOD, STRONG, WARNING};

/// A fault as it is reported.
#[derive(Serialize)]
pub struct Finding {
    /// The file, as given.
    pub file: String,
    /// Its line in the file.
    pub line: Option<usize>,
    /// Its path in the document.
    pub path: String,
    /// The rule's name.
    pub rule: &'static str,
    /// What was found.
    pub found: String,
    /// Why it matters.
    pub why: &'static str,
    /// How to fix it.
    pub fix: String,
}

/// The result of a run.
#[derive(Default, Serialize)]
pub struct Findings {
    /// The findings, in the order of the files.
    pub findings: Vec<Finding>,
    /// Settings that files outside of this run may have.
    pub not_seen: Vec<Finding>,
    /// The number of filters with an EndpointPickerConfig that were checked.
    pub filters: usize,
    /// The number of files that were checked.
    pub files: usize,
    /// Files of folders that lint does not read.
    pub left_out: Vec<LeftOut>,
}

/// The numbers of a run.
#[derive(Serialize)]
pub struct Summary {
    /// Findings by rule.
    rules: BTreeMap<&'static str, usize>,
    findings: usize,
    not_seen: usize,
    filters: usize,
    files: usize,
    left_out: usize,
}

impl Finding {
    /// Returns its place: file, line and path, as far as there are any.
    pub fn place(&self) -> String {
        let line = self.line.map(|line| format!(":{line}")).unwrap_or_default();
        let path = match &*self.path {
            "" => String::new(),
            path => format!(":{path}"),
        };
        format!("{}{line}{path}", self.file)
    }

    fn text(&self, out: &mut dyn Write, prefix: &str) -> io::Result<()> {
        let rule = styled(FAINT, format!("[{}]", self.rule));
        writeln!(
            out,
            "{}: {prefix}{} {rule}",
            styled(STRONG, self.place()),
            styled(WARNING, &self.found)
        )?;
        writeln!(out, "  why: {}", self.why)?;
        writeln!(out, "  fix: {}\n", self.fix)
    }
}

impl Findings {
    /// Returns the numbers.
    pub fn summary(&self) -> Summary {
        let mut rules = BTreeMap::new();
        for finding in &self.findings {
            *rules.entry(finding.rule).or_default() += 1;
        }
        Summary {
            rules,
            findings: self.findings.len(),
            not_seen: self.not_seen.len(),
            filters: self.filters,
            files: self.files,
            left_out: self.left_out.len(),
        }
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
        for LeftOut { file, why } in &self.left_out {
            writeln!(out, "{}", styled(FAINT, format!("{file}: left out: {why}")))?;
        }
        self.summary().end(out)
    }

    fn sarif(&self) -> Option<serde_json::Value> {
        Some(exchange::sarif(self))
    }

    fn junit(&self) -> Option<String> {
        Some(exchange::junit(self))
    }
}

impl Report for Summary {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        for (rule, count) in &self.rules {
            writeln!(out, "{count:>4} {}", styled(STRONG, rule))?;
        }
        self.end(out)
    }
}

impl Summary {
    /// Writes the last lines: what was checked, and the verdict.
    fn end(&self, out: &mut dyn Write) -> io::Result<()> {
        let filters = match self.filters {
            0 => "found no filter with an EndpointPickerConfig".to_owned(),
            1 => "checked 1 filter with an EndpointPickerConfig".to_owned(),
            several => format!("checked {several} filters with an EndpointPickerConfig"),
        };
        writeln!(out, "{}", styled(FAINT, filters))?;
        match self.findings {
            0 => writeln!(out, "{}", styled(GOOD, "no findings")),
            1 => writeln!(out, "1 finding"),
            several => writeln!(out, "{several} findings"),
        }
    }
}
