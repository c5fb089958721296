//! Reads the token counts in one JSON value: a response, or one event of a stream.
//!
//! The counts are in the `usage` of the value itself (OpenAI's chat, completions, embeddings and responses; Anthropic's
//! messages and `message_delta`), of its `response` (the responses API's `response.completed`), or of its `message`
//! (Anthropic's `message_start`), or in SGLang's own `meta_info`.
//!
//! Anthropic does not include tokens that were read from its cache or written to it in `input_tokens`; here they are part
//! of the prompt, as with all other servers.

use super::Usage;
use crate::request::number::{push_digits, whole_number};
use crate::request::scan::{Reading, Scanner, ValueKind, Visit, Want};
use crate::request::TextBuffer;

/// Identifies a value in a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UsageNode {
    Top,
    /// An object with `usage` as a member.
    Holder,
    Usage,
    Details,
    Count(Count),
}

/// The kind of tokens that a number in a response counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Count {
    Prompt,
    Completion,
    Cached,
    CacheRead,
    CacheWritten,
}

#[derive(Debug, Default)]
struct Counts {
    prompt: Option<u64>,
    completion: Option<u64>,
    cached: Option<u64>,
    cache_read: Option<u64>,
    cache_written: Option<u64>,
    digits: Vec<u8>,
}

/// Reads the counts of one value.
#[derive(Debug)]
pub struct Tokens {
    scanner: Scanner<UsageNode>,
    counts: Counts,
}

impl Default for Tokens {
    fn default() -> Self {
        let mut scanner = Scanner::default();
        scanner.reset(UsageNode::Top, 0);
        Self {
            scanner,
            counts: Counts::default(),
        }
    }
}

impl Tokens {
    /// Begins another value.
    pub fn reset(&mut self) {
        self.scanner.reset(UsageNode::Top, 0);
        let digits = std::mem::take(&mut self.counts.digits);
        self.counts = Counts {
            digits,
            ..Counts::default()
        };
    }

    /// Adds bytes of the value.
    pub fn push(&mut self, bytes: &[u8], buffer: &mut TextBuffer) {
        self.scanner.push(bytes, buffer, &mut self.counts);
    }

    /// Returns the state of reading.
    pub fn reading(&self) -> Reading {
        self.scanner.reading()
    }

    /// Returns the counts, if the value is complete.
    pub fn usage(&self) -> Usage {
        if self.scanner.reading() != Reading::Complete {
            return Usage::default();
        }
        let counts = &self.counts;
        let beside = counts.cache_read.unwrap_or(0) + counts.cache_written.unwrap_or(0);
        Usage {
            prompt: counts.prompt.map(|prompt| prompt.saturating_add(beside)),
            completion: counts.completion,
            cached: counts.cached.or(counts.cache_read),
        }
    }
}

impl Visit for Counts {
    type Node = UsageNode;

    fn begin(
        &mut self,
        parent: UsageNode,
        key: &[u8],
        kind: ValueKind,
        _: usize,
    ) -> Want<UsageNode> {
        let place = match (parent, key, kind) {
            (UsageNode::Top | UsageNode::Holder, b"usage", ValueKind::Object) => UsageNode::Usage,
            (UsageNode::Top, b"meta_info", ValueKind::Object) => UsageNode::Usage,
            (UsageNode::Top, b"response" | b"message", ValueKind::Object) => UsageNode::Holder,
            (
                UsageNode::Usage,
                b"prompt_tokens_details" | b"input_tokens_details",
                ValueKind::Object,
            ) => UsageNode::Details,
            (UsageNode::Usage | UsageNode::Details, _, ValueKind::Number) => match count(key) {
                Some(count) => UsageNode::Count(count),
                None => return Want::Nothing,
            },
            _ => return Want::Nothing,
        };
        self.digits.clear();
        Want::Inside(place)
    }

    fn bytes(&mut self, _: UsageNode, bytes: &[u8]) -> bool {
        push_digits(&mut self.digits, bytes);
        true
    }

    fn end(&mut self, place: UsageNode, _: usize) {
        let UsageNode::Count(count) = place else {
            return;
        };
        let number = whole_number(&self.digits, MAX_COUNT);
        let counted = match count {
            Count::Prompt => &mut self.prompt,
            Count::Completion => &mut self.completion,
            Count::Cached => &mut self.cached,
            Count::CacheRead => &mut self.cache_read,
            Count::CacheWritten => &mut self.cache_written,
        };
        *counted = number.or(*counted);
    }

    fn is_done(&self) -> bool {
        false
    }
}

/// A count above this is not credible and is ignored, since it would spoil the sums: no model has that many tokens.
const MAX_COUNT: u64 = 1 << 32;

fn count(key: &[u8]) -> Option<Count> {
    Some(match key {
        b"prompt_tokens" | b"input_tokens" => Count::Prompt,
        b"completion_tokens" | b"output_tokens" => Count::Completion,
        b"cached_tokens" => Count::Cached,
        b"cache_read_input_tokens" => Count::CacheRead,
        b"cache_creation_input_tokens" => Count::CacheWritten,
        _ => return None,
    })
}
