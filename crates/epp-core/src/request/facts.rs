//! What a body says besides its prompt: model, cache salt, token limit, whether to stream.

use std::ops::Range;

use super::number::{push_digits, whole_number};
use super::scan::{Kind, Want};
use super::Fact;

/// Bytes kept of a model's name or a salt; longer ones are cut here, and stay equal to themselves.
const MOST_TEXT: usize = 4096;

/// A fact's place in a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FactNode {
    /// The model.
    Model,
    /// The cache salt.
    Salt,
    /// Whether the answer is to be streamed.
    Stream,
    /// Output tokens at most. The field of the highest rank that holds a number counts.
    MaxTokens(u8),
}

/// A fact as it comes in.
#[derive(Debug, Default)]
struct Text {
    text: String,
    state: State,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Unknown,
    Absent,
    Known,
}

impl Text {
    fn clear(&mut self) {
        self.text.clear();
        self.state = State::Unknown;
    }

    /// Begins, if it did not come before: of keys that repeat the first counts.
    fn begin(&mut self, kind: Kind, place: FactNode) -> Want<FactNode> {
        match (self.state, kind) {
            (State::Unknown, Kind::String) => return Want::Inside(place),
            (State::Unknown, _) => self.state = State::Absent,
            _ => {}
        }
        Want::Nothing
    }

    fn push(&mut self, bytes: &[u8]) -> bool {
        let room = MOST_TEXT.saturating_sub(self.text.len());
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
            State::Unknown => Fact::Unknown,
            State::Absent => Fact::Absent,
            State::Known => Fact::Known(&self.text),
        }
    }
}

/// The facts of one body.
#[derive(Debug, Default)]
pub struct Facts {
    model: Text,
    salt: Text,
    /// The model's value in the body, quotes included.
    model_span: Range<usize>,
    stream: Option<bool>,
    max_tokens: Option<(u8, u64)>,
    /// The number or word that is being read.
    scalar: Vec<u8>,
}

impl Facts {
    /// Begins another body, in which these may be found.
    pub fn reset(&mut self, model: bool, salt: bool) {
        self.model.clear();
        self.salt.clear();
        if !model {
            self.model.state = State::Absent;
        }
        if !salt {
            self.salt.state = State::Absent;
        }
        self.model_span = 0..0;
        self.stream = None;
        self.max_tokens = None;
    }

    /// A fact's value begins.
    pub fn begin(&mut self, place: FactNode, kind: Kind, at: usize) -> Want<FactNode> {
        match place {
            FactNode::Model => {
                let want = self.model.begin(kind, place);
                if want == Want::Inside(place) {
                    self.model_span.start = at;
                }
                return want;
            }
            FactNode::Salt => return self.salt.begin(kind, place),
            FactNode::Stream if kind == Kind::Word && self.stream.is_none() => {}
            FactNode::MaxTokens(rank)
                if kind == Kind::Number && self.max_tokens.is_none_or(|(had, _)| had < rank) => {}
            FactNode::Stream | FactNode::MaxTokens(_) => return Want::Nothing,
        }
        self.scalar.clear();
        Want::Inside(place)
    }

    /// More of a fact's value. Whether more is wanted.
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

    /// A fact's value has ended.
    pub fn end(&mut self, place: FactNode, at: usize) {
        match place {
            FactNode::Model => {
                self.model.state = State::Known;
                self.model_span.end = at;
            }
            FactNode::Salt => self.salt.state = State::Known,
            FactNode::Stream => self.stream = Some(self.scalar == b"true"),
            FactNode::MaxTokens(rank) => {
                let whole = whole_number(&self.scalar, u64::MAX);
                self.max_tokens = whole.map(|value| (rank, value)).or(self.max_tokens);
            }
        }
    }

    /// Takes from `others` what is not known yet.
    pub fn add(&mut self, others: Self) {
        if self.model.state == State::Unknown {
            self.model = others.model;
            self.model_span = others.model_span;
        }
        self.stream = self.stream.or(others.stream);
        self.max_tokens = self.max_tokens.or(others.max_tokens);
    }

    /// Returns the bytes of memory that it has allocated.
    pub fn allocated(&self) -> usize {
        self.model.text.capacity() + self.salt.text.capacity() + self.scalar.capacity()
    }

    /// Nothing more comes.
    pub fn finish(&mut self) {
        for text in [&mut self.model, &mut self.salt] {
            if text.state == State::Unknown {
                text.state = State::Absent;
            }
        }
    }

    /// The model's name.
    pub fn model(&self) -> Fact<&str> {
        self.model.fact()
    }

    /// Where the model's value stands in the body, quotes included; empty where it is not known.
    pub fn model_span(&self) -> Range<usize> {
        self.model_span.clone()
    }

    /// The cache salt.
    pub fn salt(&self) -> Fact<&str> {
        self.salt.fact()
    }

    /// Whether the answer is to be streamed, as far as the body has said.
    pub fn stream(&self) -> bool {
        self.stream.unwrap_or_default()
    }

    /// How many tokens the answer may have, as far as the body has said.
    pub fn max_tokens(&self) -> Option<u64> {
        self.max_tokens.map(|(_, value)| value)
    }
}
