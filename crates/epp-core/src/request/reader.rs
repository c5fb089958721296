//! Reads the body of one request.

use std::ops::Range;

use super::body::{BodyNode, BodyVisitor};
use super::prompt::Media;
use super::scan::{Reading, Scanner};
use super::text::TextBuffer;
use super::{tail, Api, Fact, ReadPlan};

/// Maximum bytes per call when a part is read again.
const REREAD_BYTES: usize = 64 << 10;

/// The parts of a prompt that may still come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pending {
    /// Whether a part may come that precedes the parts that were read in the prompt, or that seeds its hashes.
    pub earlier_parts: bool,
}

/// Reads a body. The memory is reused for other requests.
#[derive(Debug, Default)]
pub struct BodyReader {
    scanner: Scanner<BodyNode>,
    body: BodyVisitor,
    reread: Reread,
    finished: bool,
    /// Whether reading has ended for good, so that the rest of the body is skipped.
    stopped: bool,
}

/// The parts of a body that are read a second time.
#[derive(Debug, Default)]
struct Reread {
    scanner: Scanner<BodyNode>,
    /// The parts that are left to read, in the prompt's order.
    parts: [Option<(BodyNode, Range<usize>)>; 2],
    /// Whether rereading has begun.
    begun: bool,
    /// Whether the first of the parts that are left has begun.
    open: bool,
}

impl BodyReader {
    /// Begins another body, and keeps the memory.
    pub fn reset(&mut self, api: Api, plan: ReadPlan) {
        self.body.reset(api, &plan);
        self.scanner.reset(BodyNode::Body, 0);
        self.reread.parts = [None, None];
        self.reread.begun = false;
        self.reread.open = false;
        self.stopped = false;
        self.finished = api == Api::PassThrough;
        if self.finished {
            self.body.finish();
        }
    }

    /// Adds bytes of the body.
    pub fn push(&mut self, bytes: &[u8], buffer: &mut TextBuffer) {
        if self.finished {
            return;
        }
        self.scanner.push(bytes, buffer, &mut self.body);
        match self.scanner.reading() {
            Reading::Going | Reading::Enough => self.plan_reread(),
            _ => self.finish(),
        }
    }

    /// Ends reading, because the body has ended or the rest is not read.
    pub fn finish(&mut self) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        self.scanner.finish();
        if self.scanner.reading() != Reading::Enough {
            self.body.finish();
        }
        self.plan_reread();
    }

    /// Returns the allocated memory in bytes.
    pub fn allocated(&self) -> usize {
        self.scanner.allocated() + self.reread.scanner.allocated() + self.body.allocated()
    }

    /// Returns the state of reading. What was read before an error stays valid.
    pub fn reading(&self) -> Reading {
        self.scanner.reading()
    }

    /// Returns whether the rest of the body may matter, or a part must be read again.
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

    /// Returns the model's name.
    pub fn model(&self) -> Fact<&str> {
        self.body.facts().model()
    }

    /// Returns the range of the model's value in the body, with its quotes; empty if it is not known.
    pub fn model_span(&self) -> Range<usize> {
        self.body.facts().model_span()
    }

    /// Returns whether another model came after the first.
    pub fn repeats_model(&self) -> bool {
        self.body.facts().model_repeated()
    }

    /// Returns whether the body was read as a whole, so that it names no other model. Where the model was found in the
    /// body's end ([`Self::push_tail`]) another may stand in what was not read.
    pub fn is_whole_read(&self) -> bool {
        self.scanner.reading() == Reading::Complete
    }

    /// Returns the cache salt, which only the llm-d dialect reads.
    pub fn salt(&self) -> Fact<&str> {
        self.body.facts().salt()
    }

    /// Returns the maximum number of output tokens, as far as the body was read.
    pub fn max_tokens(&self) -> Option<u64> {
        self.body.facts().max_tokens()
    }

    /// Returns whether the response is to be streamed, as far as the body was read.
    pub fn stream(&self) -> bool {
        self.body.facts().stream()
    }

    /// Returns the prompts' content digests so far, for one of the plan's block specs, from the prompt of this number
    /// on. Digests are only appended, unless [`Self::restarts`] grows.
    pub fn prompts_from(&self, stream: usize, first: usize) -> impl Iterator<Item = &[u64]> {
        self.body.prompts().digests(stream, first)
    }

    /// Returns the digest of the anchor ([`ReadPlan::anchor_bytes`]), once it was read.
    pub fn anchor(&self) -> Option<u64> {
        self.body.prompts().anchor()
    }

    /// Returns how often the digests were restarted because an early part of the prompt came late in the body.
    pub fn restarts(&self) -> u32 {
        self.body.prompts().restarts()
    }

    /// Returns which parts of the prompt may still come.
    pub fn pending(&self) -> Pending {
        let salt = self.salt() == Fact::Unknown;
        Pending {
            earlier_parts: salt || self.body.may_precede() || self.body.is_out_of_order(),
        }
    }

    /// Returns whether no further block counts.
    pub fn window_full(&self) -> bool {
        self.body.is_full() && !self.body.is_out_of_order()
    }

    /// Returns whether the prompts hold images or other media, as far as they were read.
    pub fn has_media(&self) -> bool {
        self.body.prompts().has_media()
    }

    /// Returns the images and other media of the prompts that were read, each once.
    pub fn distinct_media(&self) -> &[Media] {
        self.body.prompts().distinct_media()
    }

    /// Returns the tokens of all prompts so far that fit into the window.
    pub fn prompt_tokens(&self) -> usize {
        self.body.prompts().tokens()
    }

    /// Returns the maximum number of tokens if no other prompt follows.
    pub fn max_prompt_tokens(&self) -> usize {
        if self.finished || self.window_full() {
            self.prompt_tokens()
        } else {
            self.body.prompts().max_tokens()
        }
    }

    /// Returns whether another prompt may follow.
    pub fn may_add_prompts(&self) -> bool {
        self.body.may_add_prompts()
    }

    /// Returns whether only the model is missing, which may stand at the body's end.
    pub fn wants_only_model(&self) -> bool {
        let going = !self.finished && self.scanner.reading() == Reading::Going;
        going
            && self.model() == Fact::Unknown
            && self.window_full()
            && !self.pending().earlier_parts
    }

    /// Reads the body's end, from its byte `start` on, without the bytes before. Returns whether the model was found: then
    /// nothing more needs to be read. Otherwise reading continues where it was.
    pub fn push_tail(&mut self, start: usize, tail: &[u8], buffer: &mut TextBuffer) -> bool {
        let Some(facts) = tail::facts_at_end(tail, start, self.body.api(), buffer) else {
            return false;
        };
        self.body.add_facts(facts);
        self.finish();
        true
    }

    /// Returns how many bytes of the body the prompt window still takes at least.
    pub fn room(&self) -> usize {
        self.body.prompts().room()
    }

    /// Returns the range of the body that must be fed again.
    pub fn reread(&self) -> Option<Range<usize>> {
        let (_, range) = self.reread.parts.iter().flatten().next()?;
        let end = range.end.min(range.start + REREAD_BYTES);
        Some(range.start..end)
    }

    /// Feeds the bytes that [`Self::reread`] requested, or as many of them as there are. If there are none, or the offset is
    /// another, the prompt stays as far as it was read.
    pub fn feed_again(&mut self, offset: usize, bytes: &[u8], buffer: &mut TextBuffer) {
        let mut parts = self.reread.parts.iter_mut();
        let Some(part) = parts.find(|part| part.is_some()) else {
            return;
        };
        let Some((place, range)) = part else {
            return;
        };
        let bytes = bytes.get(..range.len()).unwrap_or(bytes);
        if offset != range.start || bytes.is_empty() {
            self.reread.parts = [None, None];
            self.body.end_reread();
            return;
        }
        if !std::mem::replace(&mut self.reread.begun, true) {
            self.body.begin_reread();
        }
        let scanner = &mut self.reread.scanner;
        if !std::mem::replace(&mut self.reread.open, true) {
            scanner.reset(*place, range.start);
        }
        scanner.push(bytes, buffer, &mut self.body);
        range.start += bytes.len();
        if range.start >= range.end || scanner.reading() != Reading::Going {
            *part = None;
            self.reread.open = false;
        }
        if self.body.prompts().is_full() {
            self.reread.parts = [None, None];
        }
        if self.reread.parts.iter().all(Option::is_none) {
            self.body.end_reread();
        }
    }

    /// Plans which parts must be read again.
    fn plan_reread(&mut self) {
        if !self.reread.begun && self.reread().is_none() {
            self.reread.parts = self.body.parts_to_reread();
        }
    }
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
