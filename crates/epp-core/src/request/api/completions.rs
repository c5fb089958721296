//! OpenAI completions: a text, several, one prompt's tokens, or several prompts'.

use super::{max_tokens, Field, MODEL, SALT, STREAM};
use crate::request::escape::escape;
use crate::request::extra;
use crate::request::number::{push_digits, whole_number};
use crate::request::prompt::{Out, Prompts};
use crate::request::scan::{Kind, Want};

/// The fields that are read.
pub const FIELDS: &[(&[u8], Field)] = &[
    MODEL,
    SALT,
    STREAM,
    max_tokens(b"max_tokens", 0),
    (b"prompt", Field::Prompt),
];

/// A place in a prompt field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PromptNode {
    /// The field.
    Whole,
    /// A text in its list.
    Text,
    /// A token in its list.
    Token,
    /// A list of tokens in its list.
    Tokens,
    /// In an element of another kind.
    Extra(extra::ExtraNode),
}

/// Writes texts as JSON of its own shape; what comes before, between and behind them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Around a text alone.
    pub alone: (&'static str, &'static str),
    /// Around and between the texts of a list.
    pub list: (&'static str, &'static str, &'static str),
}

/// Reads a prompt field. The first element of a list says whether it holds texts, tokens or lists of
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
    pub fn begin_field(&mut self, kind: Kind, prompts: &mut Prompts) -> Want<PromptNode> {
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
        Want::Inside(PromptNode::Whole)
    }

    /// An element of the list begins, or something in one.
    pub fn begin(
        &mut self,
        parent: PromptNode,
        key: &[u8],
        kind: Kind,
        prompts: &mut Prompts,
    ) -> Want<PromptNode> {
        if let PromptNode::Extra(_) = parent {
            if prompts.is_full() {
                return Want::Nothing;
            }
            let place = extra::begin(key, kind, &mut |bytes| prompts.text(bytes));
            return Want::Inside(PromptNode::Extra(place));
        }
        let whole = parent == PromptNode::Whole;
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
                Want::Inside(PromptNode::Text)
            }
            _ if prompts.is_full() => Want::Nothing,
            Kind::Array if list == kind => Want::Inside(PromptNode::Tokens),
            Kind::Number if list == kind => {
                self.digits.clear();
                Want::Inside(PromptNode::Token)
            }
            _ => {
                let place = Out::prompt(prompts).begin_extra(u8::from(!whole), &[], kind);
                Want::Inside(PromptNode::Extra(place))
            }
        }
    }

    /// More of a text or token. Whether more is wanted.
    pub fn bytes(&mut self, place: PromptNode, bytes: &[u8], prompts: &mut Prompts) -> bool {
        if place == PromptNode::Token {
            push_digits(&mut self.digits, bytes);
            return true;
        }
        if self.frame.is_none() || matches!(place, PromptNode::Extra(_)) {
            return prompts.text(bytes);
        }
        self.escaped.clear();
        escape(bytes, &mut self.escaped);
        prompts.text(&self.escaped)
    }

    /// A text or token has ended, or the field.
    pub fn end(&mut self, place: PromptNode, prompts: &mut Prompts) {
        match (place, self.frame) {
            (PromptNode::Whole, frame) => {
                let behind = match (frame, self.field, self.list) {
                    (Some(frame), Some(Kind::String), _) => frame.alone.1,
                    (Some(frame), _, Some(Kind::String)) => frame.list.2,
                    _ => "",
                };
                prompts.text(behind.as_bytes());
            }
            (PromptNode::Text, None) | (PromptNode::Tokens, _) => self.between = true,
            (PromptNode::Text, Some(_)) => {}
            (PromptNode::Extra(_), _) => Out::prompt(prompts).end_extra(),
            (PromptNode::Token, _) => {
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
