//! The parts of a prompt that are re-serialized as JSON.

use std::ops::Range;

use super::canon::{Canon, CanonNode, Shape};
use super::prompt::Prompts;
use super::scan::{ValueKind, Want};

/// The most parts that a prompt of JSON has.
const PARTS: usize = 3;

/// Collects the parts in whichever order they come.
#[derive(Debug, Default)]
pub struct JsonParts {
    /// Writes them, one behind the other.
    pub canon: Canon,
    parts: [Part; PARTS],
    /// The part that is being read, and where it begins.
    current: usize,
    start: usize,
}

#[derive(Debug, Default, Clone)]
struct Part {
    begun: bool,
    text: Option<Range<usize>>,
}

impl JsonParts {
    /// Begins another body, and keeps the memory.
    pub fn reset(&mut self) {
        self.canon.clear();
        self.parts = Default::default();
    }

    /// A part begins.
    pub fn begin(&mut self, part: usize, kind: ValueKind, shape: Option<Shape>) -> Want<CanonNode> {
        let Some(own) = self.parts.get_mut(part).filter(|own| !own.begun) else {
            return Want::Nothing;
        };
        own.begun = true;
        self.current = part;
        self.start = self.canon.text().len();
        self.canon.begin_whole(kind, shape)
    }

    /// Ends a value. Returns whether it was a whole part.
    pub fn end(&mut self, place: CanonNode) -> bool {
        let whole = self.canon.end(place);
        let range = self.start..self.canon.text().len();
        let nothing = self.canon.text().get(range.clone()) == Some(b"null");
        if let Some(own) = self
            .parts
            .get_mut(self.current)
            .filter(|_| whole && !nothing)
        {
            own.text = Some(range);
        }
        whole
    }

    /// Returns whether there was more JSON than is stored.
    pub fn overflowed(&self) -> bool {
        self.canon.overflowed()
    }

    /// Returns whether the first parts, this many, have begun.
    pub fn is_whole(&self, parts: usize) -> bool {
        self.parts.iter().take(parts).all(|part| part.begun)
    }

    /// Returns the text of the only part, or nothing if it is an empty list.
    pub fn tools(&self) -> &[u8] {
        let [part, ..] = &self.parts;
        match self.text(part) {
            Some(b"[]") | None => &[],
            Some(text) => text,
        }
    }

    /// Writes the prompt: a list of the parts, each in its frame, or the only part if its frame is empty. Nothing is
    /// written if the last part is missing.
    pub fn write_to(&self, frames: &[&str], prompts: &mut Prompts) {
        let parts = self.parts.get(..frames.len()).unwrap_or_default();
        let whole = parts.last().is_some_and(|last| last.text.is_some());
        if !whole || self.overflowed() {
            return;
        }
        let mut between = "[";
        for (part, frame) in parts.iter().zip(frames) {
            let Some(text) = self.text(part) else {
                continue;
            };
            if frame.is_empty() {
                prompts.text(text);
                return;
            }
            for piece in [between.as_bytes(), frame.as_bytes(), text, b"}"] {
                prompts.text(piece);
            }
            between = ",";
        }
        prompts.text(b"]");
    }

    fn text(&self, part: &Part) -> Option<&[u8]> {
        self.canon.text().get(part.text.clone()?)
    }
}
