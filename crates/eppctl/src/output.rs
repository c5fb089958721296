//! How commands print, and how the program ends.

#![allow(
    dead_code,
    reason = "all of the palette is used once all commands are there"
)]

use std::fmt;
use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use clap::ValueEnum;
use serde::Serialize;

/// How results are printed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON value.
    Json,
    /// One YAML document.
    Yaml,
}

/// How a command that could do its work ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Nothing to complain of: exit code 0.
    Fine,
    /// Something was found: exit code 1.
    Findings,
}

/// Why a command could not do its work, and what to do about it: exit code 2.
#[derive(Debug)]
pub struct Misuse(String);

impl Misuse {
    /// What is wrong and what to do next: one sentence, no final stop.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    /// Tells it on standard error.
    pub fn print(&self) {
        let (red, end) = (ERROR.render(), ERROR.render_reset());
        anstream::eprintln!("{red}eppctl:{end} {}", self.0);
    }
}

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<io::Error> for Misuse {
    fn from(error: io::Error) -> Self {
        Self(format!("cannot write the result: {error}"))
    }
}

/// What went wrong.
pub const ERROR: Style = AnsiColor::Red.on_default().bold();
/// What may go wrong.
pub const WARNING: Style = AnsiColor::Yellow.on_default().bold();
/// What is well.
pub const GOOD: Style = AnsiColor::Green.on_default().bold();
/// Headings and names.
pub const STRONG: Style = Style::new().bold();
/// What matters less.
pub const FAINT: Style = Style::new().dimmed();

/// A text in a style; what is no terminal gets the text alone.
pub fn styled(style: Style, text: impl fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}

/// A result: its fields are what JSON and YAML show.
pub trait Report: Serialize {
    /// The result for people. Styles may be used: they are dropped where no terminal reads.
    fn text(&self, out: &mut dyn Write) -> io::Result<()>;
}

/// Where results go.
pub struct Output {
    format: Format,
    out: anstream::AutoStream<io::StdoutLock<'static>>,
}

impl Output {
    /// Prints to standard output.
    pub fn new(format: Format) -> Self {
        let out = anstream::AutoStream::auto(io::stdout().lock());
        Self { format, out }
    }

    /// Prints a result. A reader that has seen enough (`| head`) is no error.
    pub fn print(&mut self, report: &impl Report) -> Result<(), Misuse> {
        let printed = match self.format {
            Format::Text => report.text(&mut self.out),
            Format::Json => {
                let text = serde_json::to_string_pretty(report).map_err(io::Error::other)?;
                writeln!(self.out, "{text}")
            }
            Format::Yaml => {
                let text = serde_yaml::to_string(report).map_err(io::Error::other)?;
                write!(self.out, "{text}")
            }
        };
        match printed.and_then(|()| self.out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => Ok(other?),
        }
    }
}
