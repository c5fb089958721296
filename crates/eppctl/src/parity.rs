//! `eppctl parity`: recorded decisions of a real Endpoint Picker, decided again.

use std::io::{self, Write};
use std::path::Path;

use clap::Args;
use parity::{replay, Report as Agreements, Scenario};
use serde::Serialize;

use crate::output::{styled, Misuse, Output, Report, Verdict, ERROR, STRONG};

/// Replay recorded decisions of a real Endpoint Picker and say how far ours are the same.
///
/// A scenario is a configuration, what the endpoints' metrics pages say over time, requests, and what
/// an Endpoint Picker decided (tests/parity/recorded/README.md has the format). A decision agrees if
/// the weighted sum of every endpoint and their ranking are the recorded ones; it counts for every
/// plugin that has a part in it.
#[derive(Args)]
#[command(after_help = "Examples:
  eppctl parity tests/parity/recorded
  eppctl parity -o json tests/parity/recorded/s1.json

Exit codes: 0 all agree, 1 at least one does not, 2 a scenario cannot be read.")]
pub struct Parity {
    /// Scenarios, or folders of them.
    #[arg(required = true, value_name = "SCENARIO")]
    scenarios: Vec<String>,
    /// Print the table in Markdown.
    #[arg(long)]
    markdown: bool,
}

#[derive(Serialize)]
struct Table {
    #[serde(flatten)]
    agreements: Agreements,
    #[serde(skip)]
    markdown: bool,
}

impl Parity {
    /// Replays all scenarios.
    pub fn run(&self, output: &mut Output) -> Result<Verdict, Misuse> {
        let mut agreements = Agreements::default();
        for path in &self.scenarios {
            for scenario in read(Path::new(path)).map_err(Misuse::new)? {
                agreements.add(&replay(&scenario).map_err(Misuse::new)?);
            }
        }
        let differs = !agreements.differences.is_empty();
        output.print(&Table {
            agreements,
            markdown: self.markdown,
        })?;
        Ok(match differs {
            true => Verdict::Findings,
            false => Verdict::Fine,
        })
    }
}

fn read(path: &Path) -> Result<Vec<Scenario>, String> {
    if path.is_dir() {
        Scenario::read_folder(path)
    } else {
        Ok(vec![Scenario::read(path)?])
    }
}

impl Report for Table {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.markdown {
            return self.markdown(out);
        }
        for difference in &self.agreements.differences {
            writeln!(out, "{}: {difference}", styled(ERROR, "differs"))?;
        }
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
        Ok(())
    }
}

impl Table {
    fn markdown(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "| plugin | scenarios | decisions | agreeing |")?;
        writeln!(out, "|---|---:|---:|---:|")?;
        for (plugin, agreement) in self.agreements.rows() {
            let (scenarios, decisions) = (agreement.scenarios, agreement.decisions);
            let name = if plugin == "all" {
                "**all**".to_owned()
            } else {
                format!("`{plugin}`")
            };
            let agreeing = agreement.agreeing;
            writeln!(out, "| {name} | {scenarios} | {decisions} | {agreeing} |")?;
        }
        Ok(())
    }
}
