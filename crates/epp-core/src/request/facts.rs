//! The fields of a body beside its prompt: model, cache salt, token limit, streaming.

use std::ops::Range;

use super::number::{push_digits, whole_number};
use super::scan::{ValueKind, Want};
use super::Fact;

/// Stored bytes of a model's name or a salt. A longer one is cut.
const MAX_TEXT_BYTES: usize = 4096;

/// Identifies a fact in a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FactNode {
    /// The model.
    Model,
    /// The cache salt.
    Salt,
    /// Whether the response is to be streamed.
    Stream,
    /// The maximum number of output tokens. Of several such fields, the one with the highest rank that has a number counts.
    MaxTokens(u8),
}

/// A fact that is a text.
#[derive(Debug, Default)]
struct TextFact {
    text: String,
    state: FactState,
}

/// Whether a fact was read.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum FactState {
    #[default]
    Unknown,
    Absent,
    Known,
}

impl TextFact {
    fn clear(&mut self) {
        self.text.clear();
        self.state = FactState::Unknown;
    }

    /// Begins the text, unless the fact came before: of repeated keys the first counts.
    fn begin(&mut self, kind: ValueKind, place: FactNode) -> Want<FactNode> {
        match (self.state, kind) {
            (FactState::Unknown, ValueKind::String) => return Want::Inside(place),
            (FactState::Unknown, _) => self.state = FactState::Absent,
            _ => {}
        }
        Want::Nothing
    }

    fn push(&mut self, bytes: &[u8]) -> bool {
        let room = MAX_TEXT_BYTES.saturating_sub(self.text.len());
        let text = String::from_utf8_lossy(bytes);
        let mut end = room.min(text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.text.push_str(text.get(..end).unwrap_or_default());
        end == text.len()
    }

    fn fact(&self) -> Fact<&str> {
        match self.state {
            FactState::Unknown => Fact::Unknown,
            FactState::Absent => Fact::Absent,
            FactState::Known => Fact::Known(&self.text),
        }
    }
}

/// The facts of one body.
#[derive(Debug, Default)]
pub struct Facts {
    model: TextFact,
    salt: TextFact,
    /// The range of the model's value in the body, with its quotes.
    model_span: Range<usize>,
    /// Whether a model came after the first.
    model_repeated: bool,
    stream: Option<bool>,
    max_tokens: Option<(u8, u64)>,
    /// The current number or word.
    scalar: Vec<u8>,
}

impl Facts {
    /// Begins another body. The parameters say which facts its API has.
    pub fn reset(&mut self, model: bool, salt: bool) {
        self.model.clear();
        self.salt.clear();
        if !model {
            self.model.state = FactState::Absent;
        }
        if !salt {
            self.salt.state = FactState::Absent;
        }
        self.model_span = 0..0;
        self.model_repeated = false;
        self.stream = None;
        self.max_tokens = None;
    }

    /// Begins the value of a fact.
    pub fn begin(&mut self, place: FactNode, kind: ValueKind, at: usize) -> Want<FactNode> {
        match place {
            FactNode::Model => {
                self.model_repeated |= self.model.state != FactState::Unknown;
                let want = self.model.begin(kind, place);
                if want == Want::Inside(place) {
                    self.model_span.start = at;
                }
                return want;
            }
            FactNode::Salt => return self.salt.begin(kind, place),
            FactNode::Stream if kind == ValueKind::Word && self.stream.is_none() => {}
            FactNode::MaxTokens(rank)
                if kind == ValueKind::Number
                    && self.max_tokens.is_none_or(|(had, _)| had < rank) => {}
            FactNode::Stream | FactNode::MaxTokens(_) => return Want::Nothing,
        }
        self.scalar.clear();
        Want::Inside(place)
    }

    /// Adds bytes of a fact's value. Returns whether more are wanted.
    pub fn bytes(&mut self, place: FactNode, bytes: &[u8]) -> bool {
        match place {
            FactNode::Model => self.model.push(bytes),
            FactNode::Salt => self.salt.push(bytes),
            FactNode::Stream | FactNode::MaxTokens(_) => {
                push_digits(&mut self.scalar, bytes);
                true
            }
        }
    }

    /// Ends a fact's value.
    pub fn end(&mut self, place: FactNode, at: usize) {
        match place {
            FactNode::Model => {
                self.model.state = FactState::Known;
                self.model_span.end = at;
            }
            FactNode::Salt => self.salt.state = FactState::Known,
            FactNode::Stream => self.stream = Some(self.scalar == b"true"),
            FactNode::MaxTokens(rank) => {
                let whole = whole_number(&self.scalar, u64::MAX);
                self.max_tokens = whole.map(|value| (rank, value)).or(self.max_tokens);
            }
        }
    }

    /// Adopts the facts that are not known yet from `others`.
    pub fn add(&mut self, others: Self) {
        if self.model.state == FactState::Unknown {
            self.model = others.model;
            self.model_span = others.model_span;
            self.model_repeated = others.model_repeated;
        }
        self.stream = self.stream.or(others.stream);
        self.max_tokens = self.max_tokens.or(others.max_tokens);
    }

    /// Returns the allocated memory in bytes.
    pub fn allocated(&self) -> usize {
        self.model.text.capacity() + self.salt.text.capacity() + self.scalar.capacity()
    }

    /// Nothing more comes.
    pub fn finish(&mut self) {
        for text in [&mut self.model, &mut self.salt] {
            if text.state == FactState::Unknown {
                text.state = FactState::Absent;
            }
        }
    }

    /// Returns the model's name.
    pub fn model(&self) -> Fact<&str> {
        self.model.fact()
    }

    /// Returns the range of the model's value in the body, with its quotes; empty if it is not known.
    pub fn model_span(&self) -> Range<usize> {
        self.model_span.clone()
    }

    /// Returns whether another model came after the first, which alone counts here. Model servers take the last.
    pub fn model_repeated(&self) -> bool {
        self.model_repeated
    }

    /// Returns the cache salt.
    pub fn salt(&self) -> Fact<&str> {
        self.salt.fact()
    }

    /// Returns whether the response is to be streamed, as far as the body was read.
    pub fn stream(&self) -> bool {
        self.stream.unwrap_or_default()
    }

    /// Returns the maximum number of output tokens, as far as the body was read.
    pub fn max_tokens(&self) -> Option<u64> {
        self.max_tokens.map(|(_, value)| value)
    }
}
