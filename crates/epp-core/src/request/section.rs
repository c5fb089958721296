//! Where a body's fields stand that are parts of its prompt.

use std::ops::Range;

/// A part of a prompt that is a field of its own.
#[derive(Debug, Default, Clone)]
pub struct Section {
    /// Whether it has come, or cannot come.
    pub begun: bool,
    /// Whether it counts.
    pub counts: bool,
    /// Whether it began after a part that it precedes in the prompt.
    pub late: bool,
    /// Where it is in the body, once it has ended.
    pub span: Option<Range<usize>>,
    /// Where it begins.
    pub start: usize,
}

impl Section {
    /// Begins another body, in which it may be found.
    pub fn reset(&mut self, expected: bool) {
        *self = Self {
            begun: !expected,
            ..Self::default()
        };
    }

    /// It begins. False if it came before: of keys that repeat the first counts.
    pub fn begin(&mut self, at: usize) -> bool {
        self.start = at;
        !std::mem::replace(&mut self.begun, true)
    }

    /// It has ended.
    pub fn end(&mut self, at: usize) {
        self.span = Some(self.start..at);
    }

    /// Whether it came late and has not ended yet.
    pub fn is_open(&self) -> bool {
        self.late && self.span.is_none()
    }
}
