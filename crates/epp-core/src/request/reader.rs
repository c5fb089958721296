//! The reader of one request's body.

use std::ops::Range;

use super::body::{Body, BodyNode};
use super::scan::{Reading, Scanner};
use super::text::TextBuffer;
use super::{tail, Api, Fact, ReadPlan};

/// Bytes asked for at a time when a part is read again: as many as a filter takes over of a body
/// in one go.
const AGAIN: usize = 64 << 10;

/// What may still come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pending {
    /// Something that comes before what was read in the prompt, or seeds its hashes.
    pub earlier_parts: bool,
}

/// Reads a body. Its buffers are kept from request to request.
#[derive(Debug, Default)]
pub struct BodyReader {
    scanner: Scanner<BodyNode>,
    body: Body,
    again: Again,
    finished: bool,
    /// Whether no more of the body is to be read, whatever it could still tell.
    stopped: bool,
}

/// What is read a second time.
#[derive(Debug, Default)]
struct Again {
    scanner: Scanner<BodyNode>,
    /// What is left to read, in the prompt's order.
    parts: [Option<(BodyNode, Range<usize>)>; 2],
    /// Whether any of it was read.
    begun: bool,
    /// Whether the first of what is left was.
    open: bool,
}

impl BodyReader {
    /// Begins another body.
    pub fn reset(&mut self, api: Api, plan: ReadPlan) {
        self.body.reset(api, &plan);
        self.scanner.reset(BodyNode::Body, 0);
        self.again.parts = [None, None];
        self.again.begun = false;
        self.again.open = false;
        self.stopped = false;
        self.finished = api == Api::PassThrough;
        if self.finished {
            self.body.finish();
        }
    }

    /// More bytes of the body.
    pub fn push(&mut self, bytes: &[u8], buffer: &mut TextBuffer) {
        if self.finished {
            return;
        }
        self.scanner.push(bytes, buffer, &mut self.body);
        match self.scanner.reading() {
            Reading::Going | Reading::Enough => self.look_back(),
            _ => self.finish(),
        }
    }

    /// The body has ended, or nothing more is to be read of it.
    pub fn finish(&mut self) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        self.scanner.finish();
        if self.scanner.reading() != Reading::Enough {
            self.body.finish();
        }
        self.look_back();
    }

    /// Returns the bytes of memory that it has allocated.
    pub fn allocated(&self) -> usize {
        self.scanner.allocated() + self.again.scanner.allocated() + self.body.allocated()
    }

    /// How reading goes. Whatever it says, what was read stands.
    pub fn reading(&self) -> Reading {
        self.scanner.reading()
    }

    /// Whether anything that follows can still matter, or something must be read again.
    pub fn needs_more(&self) -> bool {
        let going = !self.finished && self.scanner.reading() == Reading::Going;
        going || self.reread().is_some()
    }

    /// Returns whether more of the body is to be read: it can still matter, and reading was not stopped.
    pub fn wants_more(&self) -> bool {
        !self.stopped && self.needs_more()
    }

    /// Stops reading. What is not known stays unknown, unlike after [`Self::finish`].
    pub fn stop(&mut self) {
        self.stopped = true;
    }

    /// Gives back the memory of a body of which no more is to be read.
    pub fn give_back(&mut self) {
        *self = Self {
            stopped: true,
            ..Self::default()
        };
    }

    /// The model's name.
    pub fn model(&self) -> Fact<&str> {
        self.body.facts().model()
    }

    /// Where the model's value stands in the body, quotes included; empty where it is not known.
    pub fn model_span(&self) -> Range<usize> {
        self.body.facts().model_span()
    }

    /// The cache salt, which the llm-d dialect reads.
    pub fn salt(&self) -> Fact<&str> {
        self.body.facts().salt()
    }

    /// How many tokens the answer may have, as far as the body has said.
    pub fn max_tokens(&self) -> Option<u64> {
        self.body.facts().max_tokens()
    }

    /// Whether the answer is to be streamed, as far as the body has said.
    pub fn stream(&self) -> bool {
        self.body.facts().stream()
    }

    /// The prompts' content digests so far, as one of the plan's streams cuts them. They only grow,
    /// unless [`Self::restarts`] does.
    pub fn prompts(&self, stream: usize) -> impl Iterator<Item = &[u64]> {
        self.body.prompts().digests(stream)
    }

    /// How often the digests were restarted, because a part that comes first in the prompt came
    /// late in the body.
    pub fn restarts(&self) -> u32 {
        self.body.prompts().restarts()
    }

    /// What may still come.
    pub fn pending(&self) -> Pending {
        let salt = self.salt() == Fact::Unknown;
        Pending {
            earlier_parts: salt || self.body.may_precede() || self.body.is_out_of_order(),
        }
    }

    /// Whether no further block counts.
    pub fn window_full(&self) -> bool {
        self.body.is_full() && !self.body.is_out_of_order()
    }

    /// Tokens of all prompts so far, as far as they count.
    pub fn prompt_tokens(&self) -> usize {
        self.body.prompts().tokens()
    }

    /// The most tokens that there can be if no other prompt follows.
    pub fn most_prompt_tokens(&self) -> usize {
        if self.finished || self.window_full() {
            self.prompt_tokens()
        } else {
            self.body.prompts().most_tokens()
        }
    }

    /// Whether another prompt may follow.
    pub fn may_add_prompts(&self) -> bool {
        self.body.may_add_prompts()
    }

    /// Whether only the model is missing, which may stand at the body's end.
    pub fn wants_only_model(&self) -> bool {
        let going = !self.finished && self.scanner.reading() == Reading::Going;
        going
            && self.model() == Fact::Unknown
            && self.window_full()
            && !self.pending().earlier_parts
    }

    /// Reads the body's end, from its byte `start` on, before what stands between. Whether it told the model, after which
    /// nothing more needs to be read; else reading goes on where it was.
    pub fn push_tail(&mut self, start: usize, tail: &[u8], buffer: &mut TextBuffer) -> bool {
        let Some(facts) = tail::facts_at_end(tail, start, self.body.api(), buffer) else {
            return false;
        };
        self.body.add_facts(facts);
        self.finish();
        true
    }

    /// Bytes of the body that the prompt window still takes at least.
    pub fn room(&self) -> usize {
        self.body.prompts().room()
    }

    /// The range of the body that must be fed once more.
    pub fn reread(&self) -> Option<Range<usize>> {
        let (_, range) = self.again.parts.iter().flatten().next()?;
        let end = range.end.min(range.start + AGAIN);
        Some(range.start..end)
    }

    /// The bytes that [`Self::reread`] asked for, or as many of them as there are. Without any, or
    /// with others, the prompt stays as far as it was read.
    pub fn feed_again(&mut self, offset: usize, bytes: &[u8], buffer: &mut TextBuffer) {
        let mut parts = self.again.parts.iter_mut();
        let Some(part) = parts.find(|part| part.is_some()) else {
            return;
        };
        let Some((place, range)) = part else {
            return;
        };
        let bytes = bytes.get(..range.len()).unwrap_or(bytes);
        if offset != range.start || bytes.is_empty() {
            self.again.parts = [None, None];
            self.body.end_again();
            return;
        }
        if !std::mem::replace(&mut self.again.begun, true) {
            self.body.begin_again();
        }
        let scanner = &mut self.again.scanner;
        if !std::mem::replace(&mut self.again.open, true) {
            scanner.reset(*place, range.start);
        }
        scanner.push(bytes, buffer, &mut self.body);
        range.start += bytes.len();
        if range.start >= range.end || scanner.reading() != Reading::Going {
            *part = None;
            self.again.open = false;
        }
        if self.body.prompts().is_full() {
            self.again.parts = [None, None];
        }
        if self.again.parts.iter().all(Option::is_none) {
            self.body.end_again();
        }
    }

    /// Notes what must be read again.
    fn look_back(&mut self) {
        if !self.again.begun && self.reread().is_none() {
            self.again.parts = self.body.to_read_again();
        }
    }
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
