//! Output formats, styles and exit statuses shared by all commands.

use std::fmt;
use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use clap::ValueEnum;
use epp_core::findings::is_invisible;
use serde::Serialize;

/// The format of results.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Human-readable text.
    Text,
    /// One JSON value.
    Json,
    /// One YAML document.
    Yaml,
    /// SARIF 2.1.0, for code scanning: of `lint` only.
    Sarif,
    /// JUnit XML, for the test reports of CI: of `lint` only.
    Junit,
}

/// The exit status of a command that completed; one that failed returns an [`Error`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExitStatus {
    /// No findings: exit status 0.
    Ok,
    /// Exit status 1: at least one finding.
    Findings,
    /// Exit status 2: it cannot be said.
    Unknown,
}

/// The reason why a command failed, and what to do about it: exit status 2.
///
/// Covers invalid arguments, files that cannot be read or written, and network failures.
#[derive(Debug)]
pub struct Error(String);

impl Error {
    /// Creates an error from one sentence, without a final stop, that says what failed and what to do.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    /// Prints the error to standard error.
    pub fn print(&self) {
        let (red, end) = (ERROR.render(), ERROR.render_reset());
        anstream::eprintln!("{red}eppctl:{end} {}", printable(&self.0));
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self(format!("cannot write the result: {error}"))
    }
}

/// Errors.
pub const ERROR: Style = AnsiColor::Red.on_default().bold();
/// Warnings.
pub const WARNING: Style = AnsiColor::Yellow.on_default().bold();
/// Success.
pub const GOOD: Style = AnsiColor::Green.on_default().bold();
/// Headings and names.
pub const STRONG: Style = Style::new().bold();
/// Secondary text.
pub const FAINT: Style = Style::new().dimmed();

/// Returns text wrapped in a style; the output stream strips the style unless it is a terminal.
pub fn styled(style: Style, text: impl fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}

/// A result. JSON and YAML show its fields.
pub trait Report: Serialize {
    /// Writes the human-readable form. Styles are stripped unless the output is a terminal.
    fn text(&self, out: &mut dyn Write) -> io::Result<()>;

    /// Returns it as SARIF, if it has that form.
    fn sarif(&self) -> Option<serde_json::Value> {
        None
    }

    /// Returns it as JUnit XML, if it has that form.
    fn junit(&self) -> Option<String> {
        None
    }
}

/// Returns a text without what moves a terminal's cursor, renames its window or reverses its letters: names in files, in
/// metrics and on Envoy's pages may be anybody's.
fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        let style = style_of(rest);
        let harmless = !letter.is_control() || matches!(letter, '\n' | '\t');
        let length = style.map_or(letter.len_utf8(), str::len);
        match style {
            Some(style) => printable.push_str(style),
            None if harmless && !is_invisible(letter) => printable.push(letter),
            None => printable.push(char::REPLACEMENT_CHARACTER),
        }
        rest = rest.get(length..).unwrap_or_default();
    }
    printable
}

/// Returns the colour or weight that a text begins with, as this tool writes them; what hides letters is none.
fn style_of(text: &str) -> Option<&str> {
    let parameters = text.strip_prefix("\u{1b}[")?;
    let length = parameters.find(|letter: char| !(letter.is_ascii_digit() || letter == ';'))?;
    let (parameters, rest) = parameters.split_at_checked(length)?;
    let hides = parameters.split(';').any(|parameter| parameter == "8");
    let is_style = rest.starts_with('m') && !hides;
    text.get(.."\u{1b}[m".len() + length).filter(|_| is_style)
}

fn of_lint(format: &str) -> Error {
    Error::new(format!(
        "--output {format} is for the findings of `eppctl lint`; use text, json or yaml"
    ))
}

/// The destination of results.
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

    /// Prints a result. A closed pipe (`| head`) is not an error.
    pub fn print(&mut self, report: &impl Report) -> Result<(), Error> {
        let printed = match self.format {
            Format::Text => self.text(report),
            Format::Json => self.json(report),
            Format::Yaml => {
                let text = serde_yaml::to_string(report).map_err(io::Error::other)?;
                write!(self.out, "{text}")
            }
            Format::Sarif => {
                let report = report.sarif().ok_or_else(|| of_lint("sarif"))?;
                self.json(&report)
            }
            Format::Junit => {
                let report = report.junit().ok_or_else(|| of_lint("junit"))?;
                write!(self.out, "{report}")
            }
        };
        match printed.and_then(|()| self.out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => Ok(other?),
        }
    }

    fn text(&mut self, report: &impl Report) -> io::Result<()> {
        let mut text = Vec::new();
        report.text(&mut text)?;
        let text = String::from_utf8_lossy(&text);
        self.out.write_all(printable(&text).as_bytes())
    }

    fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_string_pretty(value).map_err(io::Error::other)?;
        writeln!(self.out, "{text}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn styles_stay_and_what_steers_a_terminal_does_not() {
        for style in [
            ERROR,
            WARNING,
            GOOD,
            STRONG,
            FAINT,
            AnsiColor::BrightRed.on_default(),
        ] {
            let text = styled(style, "a\tb\n");
            assert_eq!(printable(&text), text);
        }
        let hostile = "p\u{1b}]0;owned\u{7}\u{1b}[1A\u{1b}[2K\u{1b}[8m\u{202e}\u{9b}2J\r";
        let shown = printable(hostile);
        assert!(
            !shown.contains(|letter: char| letter.is_control() || is_invisible(letter)),
            "{shown:?}"
        );
        assert!(shown.starts_with("p\u{fffd}]0;owned"), "{shown:?}");
    }
}
