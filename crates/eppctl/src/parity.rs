//! `eppctl parity`: replays recorded decisions of a real Endpoint Picker.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use parity::report::Agreement;
use parity::{replay, Held, Report as Agreements, Scenario, Section};
use serde::Serialize;

use crate::markdown::{insert, Inserted};
use crate::output::{styled, Error, ExitStatus, Output, Report, ERROR, STRONG};

/// Replay recorded decisions of a real Endpoint Picker and report where epp-wasm differs.
///
/// A scenario consists of a configuration, the endpoints' metrics over time, requests, and the
/// decisions of an Endpoint Picker (format: tests/parity/recorded/README.md and
/// tests/parity/catalogue/README.md). A decision agrees if the weighted sum of every endpoint, their
/// ranking and the headers equal the recorded ones, or the local reply does; it counts for every
/// plugin involved. Files under tests/vectors/reference contain cases from the Endpoint Picker's own
/// tests; they are run and counted by section.
#[derive(Args)]
#[command(after_help = "Examples:
  eppctl parity tests/parity/recorded
  eppctl parity -o json tests/parity/recorded/s1.json
  eppctl parity --into docs/parity.md \\
    tests/parity/recorded tests/parity/catalogue tests/vectors/reference

Exit status: 0 all agree, 1 at least one does not, 2 a scenario cannot be read.")]
pub struct Parity {
    /// Scenarios, sections of tests, or directories of them.
    #[arg(required = true, value_name = "SCENARIO")]
    scenarios: Vec<PathBuf>,
    /// Insert the tables into a Markdown file, between its lines <!-- eppctl parity: … --> and <!-- end -->.
    #[arg(long, value_name = "FILE")]
    into: Option<PathBuf>,
}

#[derive(Default, Serialize)]
struct Tables {
    #[serde(flatten)]
    agreements: Agreements,
    sections: Vec<Held>,
}

impl Parity {
    /// Replays all scenarios and runs all cases.
    pub fn run(&self, output: &mut Output) -> Result<ExitStatus, Error> {
        let mut tables = Tables::default();
        for path in &self.scenarios {
            for file in files(path).map_err(Error::new)? {
                tables.add(&file).map_err(Error::new)?;
            }
        }
        if let Some(file) = &self.into {
            tables.put_into(file).map_err(Error::new)?;
        }
        output.print(&tables)?;
        let sections = &tables.sections;
        let held = sections.iter().all(|section| section.failures.is_empty());
        Ok(match held && tables.agreements.differences.is_empty() {
            true => ExitStatus::Ok,
            false => ExitStatus::Findings,
        })
    }
}

/// Returns the file itself, or a directory's JSON files in numeric order (s2 before s10).
fn files(path: &Path) -> Result<Vec<PathBuf>, String> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path);
    let entries = entries.map_err(|error| format!("{}: {error}", path.display()))?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let json = paths.filter(|path| path.extension().is_some_and(|end| end == "json"));
    let mut files: Vec<PathBuf> = json.collect();
    files.sort_by_key(|file| (file.as_os_str().len(), file.clone()));
    Ok(files)
}

impl Tables {
    fn add(&mut self, file: &Path) -> Result<(), String> {
        let scenario = match Section::read(file) {
            Ok(section) => {
                self.sections.push(section.run());
                self.sections.sort_by_key(|held| number(&held.section));
                return Ok(());
            }
            Err(_) => Scenario::read(file)?,
        };
        self.agreements.add(&replay(&scenario));
        Ok(())
    }

    /// Replaces the tables of a Markdown file.
    fn put_into(&self, file: &Path) -> Result<(), String> {
        let tables = [
            ("decisions", self.decisions()),
            ("families", self.families()),
            ("tests", self.tests()),
        ];
        let tables = tables.map(|(table, rows)| Inserted {
            marker: format!("<!-- eppctl parity: {table} -->"),
            rows,
        });
        insert(file, &tables)
    }

    fn decisions(&self) -> String {
        let mut table =
            "| plugin | scenarios | decisions | agreeing |\n|---|---:|---:|---:|\n".to_owned();
        for (plugin, agreement) in self.agreements.rows() {
            let (scenarios, decisions) = (agreement.scenarios, agreement.decisions);
            let name = match plugin {
                "all" => "**all**".to_owned(),
                plugin => format!("`{plugin}`"),
            };
            let agreeing = agreement.agreeing;
            table += &format!("| {name} | {scenarios} | {decisions} | {agreeing} |\n");
        }
        table
    }

    fn families(&self) -> String {
        let mut table = "| family | scenarios | decisions | agreeing | waited in a queue | agreeing |\n|---|---:|---:|---:|---:|---:|\n".to_owned();
        for (family, agreement) in &self.agreements.families {
            let Agreement {
                scenarios,
                decisions,
                agreeing,
                waiting,
                waiting_agreeing,
            } = agreement;
            table += &format!(
                "| {family} | {scenarios} | {decisions} | {agreeing} | {waiting} | {waiting_agreeing} |\n"
            );
        }
        table
    }

    fn tests(&self) -> String {
        let mut table =
            "| section | cases in the reference (about) | run as data | pass | other cases |\n\
                         |---|---:|---:|---:|---|\n"
                .to_owned();
        for held in &self.sections {
            table += &format!(
                "| {} | {} | {} | {} | {} |\n",
                held.section, held.reference, held.run, held.held, held.rest
            );
        }
        table
    }
}

/// Returns the last number of a section, so that §11.10 sorts after §11.8.
fn number(section: &str) -> u32 {
    let digits = section.split_whitespace().next().unwrap_or_default();
    let digits = digits.rsplit('.').next().unwrap_or_default();
    digits.parse().unwrap_or(0)
}

impl Report for Tables {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        for difference in &self.agreements.differences {
            writeln!(out, "{}: {difference}", styled(ERROR, "differs"))?;
        }
        if self.agreements.all.scenarios > 0 {
            let head = format!(
                "{:32} {:>9} {:>9} {:>8}",
                "plugin", "scenarios", "decisions", "agreeing"
            );
            writeln!(out, "{}", styled(STRONG, head))?;
            for (plugin, agreement) in self.agreements.rows() {
                let (scenarios, decisions) = (agreement.scenarios, agreement.decisions);
                let agreeing = agreement.agreeing;
                writeln!(
                    out,
                    "{plugin:32} {scenarios:>9} {decisions:>9} {agreeing:>8}"
                )?;
            }
        }
        if !self.sections.is_empty() {
            let head = format!("{:32} {:>9} {:>9} {:>8}", "section", "about", "run", "pass");
            writeln!(out, "{}", styled(STRONG, head))?;
        }
        for held in &self.sections {
            let (section, reference) = (&held.section, held.reference);
            let (run, holds) = (held.run, held.held);
            writeln!(out, "{section:32} {reference:>9} {run:>9} {holds:>8}")?;
            for failure in &held.failures {
                writeln!(out, "  {}: {failure}", styled(ERROR, "fails"))?;
            }
        }
        Ok(())
    }
}
