//! The state of a field that is a part of the prompt.

use std::ops::Range;

/// A field of a body that is a part of its prompt.
#[derive(Debug, Default, Clone)]
pub struct Section {
    /// Whether the field has begun, or cannot come.
    pub begun: bool,
    /// Whether the field has a kind that is read.
    pub counts: bool,
    /// Whether the field began after one that follows it in the prompt.
    pub late: bool,
    /// The range of the field in the body, once it has ended.
    pub span: Option<Range<usize>>,
    /// The offset of the field in the body.
    pub start: usize,
}

impl Section {
    /// Begins another body. `expected`: whether its API has the field.
    pub fn reset(&mut self, expected: bool) {
        *self = Self {
            begun: !expected,
            ..Self::default()
        };
    }

    /// Begins the field. Returns false if it came before: of repeated keys the first counts.
    pub fn begin(&mut self, at: usize) -> bool {
        self.start = at;
        !std::mem::replace(&mut self.begun, true)
    }

    /// Ends the field.
    pub fn end(&mut self, at: usize) {
        self.span = Some(self.start..at);
    }

    /// Returns whether the field came late and has not ended yet.
    pub fn is_open(&self) -> bool {
        self.late && self.span.is_none()
    }
}
