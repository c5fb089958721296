//! What is wrong with a document, and where.

use std::fmt;

use super::question::Question;

/// A place in a document, such as `schedulingProfiles[0].plugins[1].pluginRef`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Path(Vec<Step>);

/// One step of a [`Path`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Step {
    /// Into a mapping.
    Key(String),
    /// Into a list.
    Index(usize),
}

impl Path {
    /// The place below this one under a key.
    pub fn key(&self, key: &str) -> Self {
        self.with(Step::Key(key.to_owned()))
    }

    /// The place below this one at a list index.
    pub fn index(&self, index: usize) -> Self {
        self.with(Step::Index(index))
    }

    /// The steps from the top.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }

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
                Step::Key(key) if position == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// One thing that is wrong, or worth a warning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub path: Path,
    /// What was found, what is allowed, what to do: one sentence, no final stop.
    pub message: String,
    /// Line and column, from one, where the text has them.
    pub location: Option<(usize, usize)>,
}

/// Problems and warnings of one reading, in document order.
#[derive(Debug, Clone, Default)]
pub struct Problems {
    /// What makes the document unusable.
    pub errors: Vec<Problem>,
    /// What has no effect here, or another one than in the Endpoint Picker.
    pub warnings: Vec<Problem>,
    /// What was asked for, where somebody wants to know it: see [`Problems::recording`].
    pub(super) questions: Option<Vec<Question>>,
}

impl Problems {
    /// For a reading of nothing, that tells what it asks for: each list has one absent entry, and
    /// what is optional is looked into.
    pub fn recording() -> Self {
        Self {
            questions: Some(Vec::new()),
            ..Self::default()
        }
    }

    /// Whether this is a reading of nothing.
    pub fn is_recording(&self) -> bool {
        self.questions.is_some()
    }

    /// What was asked for, in order.
    pub fn into_questions(self) -> Vec<Question> {
        self.questions.unwrap_or_default()
    }

    /// Notes an error.
    pub fn error(&mut self, path: &Path, message: impl Into<String>) {
        self.errors.push(Problem {
            path: path.clone(),
            message: message.into(),
            location: None,
        });
    }

    /// Notes a warning.
    pub fn warn(&mut self, path: &Path, message: impl Into<String>) {
        self.warnings.push(Problem {
            path: path.clone(),
            message: message.into(),
            location: None,
        });
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
