//! The parts of a prompt that are re-serialized as JSON.

use std::ops::Range;

use super::canon::{Canon, CanonNode, Shape};
use super::prompt::Prompts;
use super::scan::{Kind, Want};

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
    /// Begins another body.
    pub fn reset(&mut self) {
        self.canon.clear();
        self.parts = Default::default();
    }

    /// A part begins.
    pub fn begin(&mut self, part: usize, kind: Kind, shape: Option<Shape>) -> Want<CanonNode> {
        let Some(own) = self.parts.get_mut(part).filter(|own| !own.begun) else {
            return Want::Nothing;
        };
        own.begun = true;
        self.current = part;
        self.start = self.canon.text().len();
        self.canon.begin_whole(kind, shape)
    }

    /// A value has ended. Whether it was a whole part.
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

    /// Whether there was more than is held.
    pub fn overflown(&self) -> bool {
        self.canon.overflown()
    }

    /// Whether this many parts have come.
    pub fn is_whole(&self, parts: usize) -> bool {
        self.parts.iter().take(parts).all(|part| part.begun)
    }

    /// The only part; nothing if it is an empty list.
    pub fn tools(&self) -> &[u8] {
        let [part, ..] = &self.parts;
        match self.text(part) {
            Some(b"[]") | None => &[],
            Some(text) => text,
        }
    }

    /// Hands over the prompt: a list of the parts that there are, each in its frame, or without
    /// frames the only part. The last part must be there.
    pub fn give(&self, frames: &[&str], prompts: &mut Prompts) {
        let parts = self.parts.get(..frames.len()).unwrap_or_default();
        let whole = parts.last().is_some_and(|last| last.text.is_some());
        if !whole || self.overflown() {
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
