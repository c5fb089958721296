//! The problems of a document, with their locations.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use super::question::Question;

/// Problems that are noted of each kind: more are not fixed at a time, each is a line of Envoy's log,
/// and a document of a megabyte can have a hundred thousand.
const MAX_PROBLEMS: usize = 1_000;

/// Characters of the longest message. The longest of a sensible document lists all plugin types.
const MAX_MESSAGE_CHARS: usize = 4_096;

/// Characters of a document's own text in a message: more is not needed to recognise it.
pub const MAX_SHOWN_CHARS: usize = 200;

/// A place in a document, such as `schedulingProfiles[0].plugins[1].pluginRef`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Path(Vec<Step>);

/// One step of a [`Path`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Step {
    /// Into a mapping. Shared, because all paths below have it, too.
    Key(Arc<str>),
    /// Into a list.
    Index(usize),
}

impl Path {
    /// The place below this one under a key.
    pub fn key(&self, key: &str) -> Self {
        self.with(Step::Key(key.into()))
    }

    /// The place below this one at a list index.
    pub fn index(&self, index: usize) -> Self {
        self.with(Step::Index(index))
    }

    /// The steps from the top.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    // As Fields::has.
    #[inline(never)]
    fn with(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if position == 0 => f.write_str(&shortened(key, MAX_SHOWN_CHARS))?,
                Step::Key(key) => write!(f, ".{}", shortened(key, MAX_SHOWN_CHARS))?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// One thing that is wrong, or worth a warning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The location.
    pub path: Path,
    /// The finding, what is allowed, and what to do: one sentence without a final stop.
    pub message: String,
    /// Line and column, from one, where the text has them.
    pub location: Option<(usize, usize)>,
    /// Whether it is the warning of an approximation: decisions may differ from the Endpoint Picker's.
    pub approximates: bool,
}

/// Problems and warnings of one reading, in document order.
#[derive(Debug, Clone, Default)]
pub struct Problems {
    /// Problems that make the document unusable.
    pub errors: Vec<Problem>,
    /// Settings without effect here, or with another effect than in the Endpoint Picker.
    pub warnings: Vec<Problem>,
    /// Errors beyond [`MAX_PROBLEMS`].
    more: usize,
    /// Warnings of approximations. They are bounded apart: a strict document must not load for its other warnings.
    approximated: usize,
    /// The fields that were read, if this is a recording: see [`Problems::recording`].
    pub(super) questions: Option<Vec<Question>>,
}

impl Problems {
    /// Starts a recording: a reading of an empty document that notes each field that is read, from which
    /// the schema and the reference are made. Each list then has one absent entry, and optional
    /// sections are read as if they were given.
    pub fn recording() -> Self {
        Self {
            questions: Some(Vec::new()),
            ..Self::default()
        }
    }

    /// Returns whether this records which fields are read, without a document.
    pub fn is_recording(&self) -> bool {
        self.questions.is_some()
    }

    /// Returns the fields that were read, in order.
    pub fn into_questions(self) -> Vec<Question> {
        self.questions.unwrap_or_default()
    }

    /// Notes an error.
    pub fn error(&mut self, path: &Path, message: impl Into<String>) {
        self.error_with(path, || message.into());
    }

    /// Notes an error whose message takes time to make: it is made only if there is room for it.
    pub fn error_with(&mut self, path: &Path, message: impl FnOnce() -> String) {
        if self.errors.len() >= MAX_PROBLEMS {
            self.more += 1;
            return;
        }
        self.errors.push(Problem::at(path, message()));
    }

    /// Notes a warning.
    pub fn warn(&mut self, path: &Path, message: impl Into<String>) {
        if self.warnings.len() - self.approximated < MAX_PROBLEMS {
            self.warnings.push(Problem::at(path, message.into()));
        }
    }

    /// Notes that something is approximated here, and how.
    pub fn approximate(&mut self, path: &Path, message: impl Into<String>) {
        if self.approximated < MAX_PROBLEMS {
            self.approximated += 1;
            let mut problem = Problem::at(path, message.into());
            problem.approximates = true;
            self.warnings.push(problem);
        }
    }

    /// Returns the warnings of approximations.
    pub fn approximations(&self) -> impl Iterator<Item = &Problem> {
        self.warnings.iter().filter(|problem| problem.approximates)
    }

    /// Makes errors of the approximations, as a strict document wants it.
    pub fn refuse_approximations(&mut self) {
        self.approximated = 0;
        for mut problem in std::mem::take(&mut self.warnings) {
            if problem.approximates {
                problem.message.push_str(", which `strict` refuses");
                self.errors.push(problem);
            } else {
                self.warnings.push(problem);
            }
        }
    }

    /// Notes an error about the document as a whole.
    pub fn refuse(&mut self, message: String, location: Option<(usize, usize)>) {
        let mut problem = Problem::at(&Path::default(), message);
        problem.location = location;
        self.errors.push(problem);
    }

    /// Returns the number of errors, including those that were left out.
    pub fn count(&self) -> usize {
        self.errors.len() + self.more
    }

    /// Notes how many errors were left out, at the end of the reading.
    pub fn say_what_was_left_out(&mut self) {
        if self.more > 0 {
            self.refuse(format!("{} more errors are not shown", self.more), None);
        }
    }
}

impl Problem {
    fn at(path: &Path, message: String) -> Self {
        let path = path.clone();
        let message = shortened(&message, MAX_MESSAGE_CHARS).into_owned();
        Self {
            path,
            message,
            location: None,
            approximates: false,
        }
    }
}

/// Returns the first characters of a text, with three dots if it has more.
pub fn shortened(text: &str, most: usize) -> Cow<'_, str> {
    match text.char_indices().nth(most) {
        Some((end, _)) => Cow::Owned(format!("{}...", text.get(..end).unwrap_or_default())),
        None => Cow::Borrowed(text),
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.steps().is_empty() {
            write!(f, "{}", self.path)?;
        }
        match self.location {
            Some((line, column)) if self.path.steps().is_empty() => {
                write!(f, "line {line}, column {column}: ")?;
            }
            Some((line, column)) => write!(f, " (line {line}, column {column}): ")?,
            None if self.path.steps().is_empty() => {}
            None => f.write_str(": ")?,
        }
        f.write_str(&self.message)
    }
}
