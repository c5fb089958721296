//! Renders problems with an excerpt of the document.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use epp_core::config::value::Problem;
use serde::Serialize;

/// A problem, as serialized to JSON and YAML.
#[derive(Debug, Clone, Serialize)]
pub struct Diagnostic {
    /// The path in the document, such as `plugins[0].type`.
    pub path: String,
    /// The line, counted from 1, if known.
    pub line: Option<usize>,
    /// The column, counted from 1, if known.
    pub column: Option<usize>,
    /// The finding, the allowed values, and what to do.
    pub message: String,
}

impl From<&Problem> for Diagnostic {
    fn from(problem: &Problem) -> Self {
        Self {
            path: problem.path.to_string(),
            line: problem.location.map(|(line, _)| line),
            column: problem.location.map(|(_, column)| column),
            message: problem.message.clone(),
        }
    }
}

/// The origin of a document.
pub struct Source<'s> {
    /// The file.
    pub file: &'s str,
    /// The location in the file; empty if the document is the file.
    pub place: &'s str,
    /// The file's text.
    pub text: &'s str,
}

impl Source<'_> {
    /// Returns the document's name.
    pub fn name(&self) -> String {
        match self.place {
            "" => self.file.to_owned(),
            place => format!("{}: {place}", self.file),
        }
    }
}

/// Renders a problem as compilers do, with an excerpt of the text.
pub fn render(source: &Source<'_>, problem: &Diagnostic, error: bool) -> String {
    let Source { file, place, text } = *source;
    let level = if error { Level::ERROR } else { Level::WARNING };
    let title = match problem.path.as_str() {
        "" => problem.message.clone(),
        path => format!("{path}: {}", problem.message),
    };
    let title = match place {
        "" => title,
        place => format!("{place}: {title}"),
    };
    let span = problem
        .line
        .zip(problem.column)
        .and_then(|(line, column)| span(text, line, column));
    let title = match (&span, problem.line) {
        (Some(_), _) | (None, None) => format!("{file}: {title}"),
        (None, Some(line)) => format!("{file}:{line}: {title}"),
    };
    let title = level.primary_title(&title);
    let group: Group<'_> = match span {
        Some(span) => title.element(
            Snippet::source(text)
                .path(file)
                .annotation(AnnotationKind::Primary.span(span)),
        ),
        None => Group::with_title(title),
    };
    // The output stream strips the styles unless it is a terminal.
    Renderer::styled().render(&[group])
}

/// Returns the byte range of the word at a line and column.
fn span(text: &str, line: usize, column: usize) -> Option<std::ops::Range<usize>> {
    let start: usize = text
        .split_inclusive('\n')
        .take(line.checked_sub(1)?)
        .map(str::len)
        .sum();
    let rest = text.get(start..)?.lines().next()?;
    let skipped: usize = rest
        .chars()
        .take(column.checked_sub(1)?)
        .map(char::len_utf8)
        .sum();
    let word = rest.get(skipped..)?;
    let ends = |letter: char| letter.is_whitespace() || matches!(letter, ',' | ']' | '}');
    let length = word.find(ends).unwrap_or(word.len());
    let length = if length == 0 {
        word.chars().next().map_or(0, char::len_utf8)
    } else {
        length
    };
    (length > 0).then_some(start + skipped..start + skipped + length)
}
