//! `eppctl manual`: the help of all commands as one page.

use std::io::{self, Write};

use clap::{Args, CommandFactory};
use serde::Serialize;

use crate::output::{Misuse, Output, Report, Verdict};

/// Print the help of all commands as one page of Markdown.
#[derive(Args)]
#[command(after_help = "Examples:
  eppctl manual > docs/eppctl.md")]
pub struct Manual {}

/// Columns of the page's texts.
const WIDTH: usize = 100;

const HEAD: &str = "# eppctl

The command line, on the same core as the filter: `make eppctl` builds `target/release/eppctl`, or call it
through `cargo run --quiet --package eppctl --` from the project's folder. This page is the help of each
command, written by `make generate`; every example in it is run by a test
([`crates/eppctl/tests/help.rs`](../crates/eppctl/tests/help.rs)).
";

#[derive(Serialize)]
#[serde(transparent)]
struct Page(String);

impl Report for Page {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        write!(out, "{}", self.0)
    }
}

impl Manual {
    /// Prints it.
    pub fn run(&self, output: &mut Output) -> Result<Verdict, Misuse> {
        let mut all = crate::Args::command().term_width(WIDTH);
        all.build();
        let mut page = HEAD.to_owned();
        add(&mut page, "eppctl", &mut all);
        for command in all.get_subcommands_mut() {
            let name = format!("eppctl {}", command.get_name());
            // Their help is this, and nothing to read about.
            if name != "eppctl help" {
                add(&mut page, &name, &mut command.clone().term_width(WIDTH));
            }
        }
        output.print(&Page(page))?;
        Ok(Verdict::Fine)
    }
}

fn add(page: &mut String, name: &str, command: &mut clap::Command) {
    let help = command.render_long_help().to_string();
    *page += &format!("\n## `{name}`\n\n```text\n");
    for line in help.trim_end().lines() {
        *page += line.trim_end();
        page.push('\n');
    }
    *page += "```\n";
}
