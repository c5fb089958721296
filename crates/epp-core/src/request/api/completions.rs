//! OpenAI completions: one text, several texts, the tokens of one prompt, or those of several prompts.

use super::{max_tokens, Field, MODEL, SALT, STREAM};
use crate::request::escape::escape;
use crate::request::extra;
use crate::request::number::{push_digits, whole_number};
use crate::request::prompt::{PromptSink, Prompts};
use crate::request::scan::{ValueKind, Want};

/// The fields that are read of a body.
pub const FIELDS: &[(&[u8], Field)] = &[
    MODEL,
    SALT,
    STREAM,
    max_tokens(b"max_tokens", 0),
    (b"prompt", Field::Prompt),
];

/// Identifies a value in a prompt field.
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
    /// A value in an element of another kind.
    Extra(extra::ExtraNode),
}

/// The JSON that stands before, between and behind the texts of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Before and behind a single text.
    pub single: (&'static str, &'static str),
    /// Before, between and behind the texts of a list.
    pub list: (&'static str, &'static str, &'static str),
}

/// Reads a prompt field. The first element of a list decides whether it is a list of texts, tokens or lists of tokens;
/// elements of another kind are added to the prompt as they stand.
#[derive(Debug, Default)]
pub struct PromptReader {
    /// The frame of the texts; without one each text is a separate prompt.
    frame: Option<Frame>,
    field: Option<ValueKind>,
    /// The kind of the list's first element.
    list: Option<ValueKind>,
    /// Whether the next element begins another prompt.
    between: bool,
    digits: Vec<u8>,
    escaped: Vec<u8>,
}

impl PromptReader {
    /// Begins another body, and keeps the memory.
    pub fn reset(&mut self, frame: Option<Frame>) {
        self.frame = frame;
        self.field = None;
        self.list = None;
        self.between = false;
    }

    /// Returns the allocated memory in bytes.
    pub fn allocated(&self) -> usize {
        self.digits.capacity() + self.escaped.capacity()
    }

    /// Begins the field.
    pub fn begin_field(&mut self, kind: ValueKind, prompts: &mut Prompts) -> Want<PromptNode> {
        match kind {
            ValueKind::String => {
                if let Some(frame) = self.frame {
                    prompts.text(frame.single.0.as_bytes());
                }
            }
            ValueKind::Array => {}
            _ => return Want::Nothing,
        }
        self.field = Some(kind);
        Want::Inside(PromptNode::Whole)
    }

    /// Begins an element of the list, or a value in one.
    pub fn begin(
        &mut self,
        parent: PromptNode,
        key: &[u8],
        kind: ValueKind,
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
            false => ValueKind::Number,
        };
        match kind {
            _ if prompts.is_closed() => Want::Nothing,
            ValueKind::String if list == kind => {
                if let Some(frame) = self.frame {
                    let text = if first { frame.list.0 } else { frame.list.1 };
                    prompts.text(text.as_bytes());
                }
                Want::Inside(PromptNode::Text)
            }
            _ if prompts.is_full() => Want::Nothing,
            ValueKind::Array if list == kind => Want::Inside(PromptNode::Tokens),
            ValueKind::Number if list == kind => {
                self.digits.clear();
                Want::Inside(PromptNode::Token)
            }
            _ => {
                let place = PromptSink::prompt(prompts).begin_extra(u8::from(!whole), &[], kind);
                Want::Inside(PromptNode::Extra(place))
            }
        }
    }

    /// Adds bytes of a text or token. Returns whether more are wanted.
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

    /// Ends a text, a token or the field.
    pub fn end(&mut self, place: PromptNode, prompts: &mut Prompts) {
        match (place, self.frame) {
            (PromptNode::Whole, frame) => {
                let behind = match (frame, self.field, self.list) {
                    (Some(frame), Some(ValueKind::String), _) => frame.single.1,
                    (Some(frame), _, Some(ValueKind::String)) => frame.list.2,
                    _ => "",
                };
                prompts.text(behind.as_bytes());
            }
            (PromptNode::Text, None) | (PromptNode::Tokens, _) => self.between = true,
            (PromptNode::Text, Some(_)) => {}
            (PromptNode::Extra(_), _) => PromptSink::prompt(prompts).end_extra(),
            (PromptNode::Token, _) => {
                let token = whole_number(&self.digits, u64::from(u32::MAX));
                match token.and_then(|token| u32::try_from(token).ok()) {
                    Some(token) => {
                        prompts.text(&token.to_le_bytes());
                    }
                    None => PromptSink::prompt(prompts).extra(0, &[], &self.digits),
                }
            }
        }
    }

    /// Returns whether the rest of the field belongs to the current prompt.
    pub fn is_single(&self) -> bool {
        self.field == Some(ValueKind::String)
            || self.frame.is_some()
            || self.list == Some(ValueKind::Number)
    }
}
