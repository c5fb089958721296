//! OpenAI completions: a text, several, one prompt's tokens, or several prompts'.

use super::{max_tokens, Field, MODEL, SALT, STREAM};
use crate::request::escape::escape;
use crate::request::extra;
use crate::request::number::{push_digits, whole_number};
use crate::request::prompt::{Out, Prompts};
use crate::request::scan::{Kind, Want};

/// The fields that tell something.
pub const FIELDS: &[(&[u8], Field)] = &[
    MODEL,
    SALT,
    STREAM,
    max_tokens(b"max_tokens", 0),
    (b"prompt", Field::Prompt),
];

/// A place in a prompt field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The field.
    Whole,
    /// A text in its list.
    Text,
    /// A token in its list.
    Token,
    /// A list of tokens in its list.
    Tokens,
    /// In an element of another kind.
    Extra(extra::Place),
}

/// Writes texts as JSON of its own shape; what comes before, between and behind them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Around a text alone.
    pub alone: (&'static str, &'static str),
    /// Around and between the texts of a list.
    pub list: (&'static str, &'static str, &'static str),
}

/// Reads a prompt field. Of a list the first element tells whether it holds texts, tokens or lists of
/// tokens; elements of another kind count by their bytes.
#[derive(Debug, Default)]
pub struct PromptReader {
    /// Without a frame each text is a prompt of its own.
    frame: Option<Frame>,
    field: Option<Kind>,
    /// What the list holds.
    list: Option<Kind>,
    /// Whether the next element begins another prompt.
    between: bool,
    digits: Vec<u8>,
    escaped: Vec<u8>,
}

impl PromptReader {
    /// Begins another body.
    pub fn reset(&mut self, frame: Option<Frame>) {
        self.frame = frame;
        self.field = None;
        self.list = None;
        self.between = false;
    }

    /// Returns the bytes of memory that it has allocated.
    pub fn allocated(&self) -> usize {
        self.digits.capacity() + self.escaped.capacity()
    }

    /// The field begins.
    pub fn begin_field(&mut self, kind: Kind, prompts: &mut Prompts) -> Want<Place> {
        match kind {
            Kind::String => {
                if let Some(frame) = self.frame {
                    prompts.text(frame.alone.0.as_bytes());
                }
            }
            Kind::Array => {}
            _ => return Want::Nothing,
        }
        self.field = Some(kind);
        Want::Inside(Place::Whole)
    }

    /// An element of the list begins, or something in one.
    pub fn begin(
        &mut self,
        parent: Place,
        key: &[u8],
        kind: Kind,
        prompts: &mut Prompts,
    ) -> Want<Place> {
        if let Place::Extra(_) = parent {
            if prompts.is_full() {
                return Want::Nothing;
            }
            let place = extra::begin(key, kind, &mut |bytes| prompts.text(bytes));
            return Want::Inside(Place::Extra(place));
        }
        let whole = parent == Place::Whole;
        if whole && std::mem::take(&mut self.between) {
            prompts.end_prompt();
        }
        let first = whole && self.list.is_none();
        let list = match whole {
            true => *self.list.get_or_insert(kind),
            false => Kind::Number,
        };
        match kind {
            _ if prompts.is_closed() => Want::Nothing,
            Kind::String if list == kind => {
                if let Some(frame) = self.frame {
                    let text = if first { frame.list.0 } else { frame.list.1 };
                    prompts.text(text.as_bytes());
                }
                Want::Inside(Place::Text)
            }
            _ if prompts.is_full() => Want::Nothing,
            Kind::Array if list == kind => Want::Inside(Place::Tokens),
            Kind::Number if list == kind => {
                self.digits.clear();
                Want::Inside(Place::Token)
            }
            _ => {
                let place = Out::prompt(prompts).begin_extra(u8::from(!whole), &[], kind);
                Want::Inside(Place::Extra(place))
            }
        }
    }

    /// More of a text or token. Whether more is wanted.
    pub fn bytes(&mut self, place: Place, bytes: &[u8], prompts: &mut Prompts) -> bool {
        if place == Place::Token {
            push_digits(&mut self.digits, bytes);
            return true;
        }
        if self.frame.is_none() || matches!(place, Place::Extra(_)) {
            return prompts.text(bytes);
        }
        self.escaped.clear();
        escape(bytes, &mut self.escaped);
        prompts.text(&self.escaped)
    }

    /// A text or token has ended, or the field.
    pub fn end(&mut self, place: Place, prompts: &mut Prompts) {
        match (place, self.frame) {
            (Place::Whole, frame) => {
                let behind = match (frame, self.field, self.list) {
                    (Some(frame), Some(Kind::String), _) => frame.alone.1,
                    (Some(frame), _, Some(Kind::String)) => frame.list.2,
                    _ => "",
                };
                prompts.text(behind.as_bytes());
            }
            (Place::Text, None) | (Place::Tokens, _) => self.between = true,
            (Place::Text, Some(_)) => {}
            (Place::Extra(_), _) => Out::prompt(prompts).end_extra(),
            (Place::Token, _) => {
                let token = whole_number(&self.digits, u64::from(u32::MAX));
                match token.and_then(|token| u32::try_from(token).ok()) {
                    Some(token) => {
                        prompts.text(&token.to_le_bytes());
                    }
                    None => Out::prompt(prompts).extra(0, &[], &self.digits),
                }
            }
        }
    }

    /// Whether all that is still to come belongs to the current prompt.
    pub fn is_single(&self) -> bool {
        self.field == Some(Kind::String) || self.frame.is_some() || self.list == Some(Kind::Number)
    }
}
