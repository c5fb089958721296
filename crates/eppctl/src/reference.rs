//! `eppctl reference`: the configuration reference, made of the plugins' files and of what they read.

use std::fmt::Write as _;
use std::io::{self, Write};

use clap::Args;
use epp_core::document::nearest::nearest;
use epp_core::plugins::{self, PluginType, Standing};
use serde::Serialize;

use crate::output::{Misuse, Output, Report, Verdict};
use crate::page::{holds, name_of, questions, written, Block, Page, Row};

/// Print what plugin types do: parameters with defaults, formula, an example.
#[derive(Args)]
#[command(after_help = "Examples:
  eppctl reference prefix-cache-scorer
  eppctl reference > docs/configuration.md")]
pub struct Reference {
    /// Plugin types; all where none is named.
    #[arg(value_name = "TYPE")]
    types: Vec<String>,
}

#[derive(Serialize)]
#[serde(transparent)]
struct Printed(String);

const HEAD: &str = "# Configuration reference

What can stand in the `plugins` of an `EndpointPickerConfig`, under which `type`, with which
`parameters`. Durations are written as `200ms`, `5s` or `1m30s`. Unknown parameters are errors.

Written by `make generate` from the plugins' own files under `crates/epp-core/src/plugins/` and from what they read:
change those. The same as a JSON Schema, for editors: [`schema.json`](schema.json). One plugin in the
terminal: `eppctl reference TYPE`.
";

impl Reference {
    /// Prints the reference, of all plugins or of those named.
    pub fn run(&self, output: &mut Output) -> Result<Verdict, Misuse> {
        let mut text = String::new();
        if self.types.is_empty() {
            text.push_str(HEAD);
            for kind in plugins::KINDS {
                let title = kind.name.replace('_', " ");
                // Writing to a String cannot fail.
                let _ = write!(text, "\n## {title}\n\n{}\n", kind.about.trim());
                for (plugin, source) in kind.plugins {
                    let _ = write!(text, "\n{}", section(plugin, source));
                }
            }
        }
        for name in &self.types {
            let mut all = plugins::KINDS.iter().flat_map(|kind| kind.plugins);
            let (plugin, source) = all
                .find(|(plugin, _)| plugin.name == name)
                .ok_or_else(|| unknown(name))?;
            text.push_str(&section(plugin, source));
        }
        output.print(&Printed(text))?;
        Ok(Verdict::Fine)
    }
}

fn unknown(name: &str) -> Misuse {
    let names: Vec<&str> = plugins::TYPES.iter().map(|plugin| plugin.name).collect();
    let hint = match (
        epp_core::config::elsewhere(name),
        nearest(name, names.iter().copied()),
    ) {
        (Some(known), _) => format!("the Endpoint Picker knows it; here: {}", known.why),
        (None, Some(near)) => format!("did you mean {near}?"),
        (None, None) => format!("there are: {}", names.join(", ")),
    };
    Misuse::new(format!("{name}: no plugin type; {hint}"))
}

/// How something stands to the Endpoint Picker's, in words.
pub fn standing(standing: Standing) -> String {
    match standing {
        Standing::Same => "works as in the EPP".to_owned(),
        Standing::Approximated(how) => format!("approximated: {how}"),
        Standing::NoEffect(why) => format!("no effect here: {why}"),
        Standing::Ours(what) => format!("ours: {what}"),
    }
}

fn section(plugin: &PluginType, source: &str) -> String {
    let mut text = format!("### `{}`\n\n", plugin.name);
    for block in Page::of(source).blocks {
        match block {
            Block::Text(block) => text.push_str(&block),
            Block::Table(rows) => table(&mut text, plugin, &rows),
        }
    }
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "\nBeside the Endpoint Picker: {}.",
        standing(plugin.parity.plugin)
    );
    text
}

fn table(text: &mut String, plugin: &PluginType, rows: &[Row]) {
    text.push_str("| name | holds | default | meaning |\n|---|---|---|---|\n");
    let questions = questions(plugin);
    for row in rows {
        for name in &row.names {
            let question = questions.iter().find(|question| name_of(question) == *name);
            let kind = question
                .map(|question| holds(&question.kind))
                .unwrap_or_default();
            let default = question.and_then(|question| question.default.as_ref());
            let default = match default {
                Some(value) if row.default != "–" => format!("`{}`", written(value)),
                _ => row.default.clone(),
            };
            let mut meaning = row.meaning.clone();
            let own = plugin.parity.of_parameter(name);
            if own != plugin.parity.plugin {
                let gap = if meaning.is_empty() { "" } else { "; " };
                let _ = write!(meaning, "{gap}{}", standing(own));
            }
            let _ = writeln!(text, "| `{name}` | {kind} | {default} | {meaning} |");
        }
    }
}

impl Report for Printed {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        write!(out, "{}", self.0)
    }
}
