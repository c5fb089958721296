//! Feeds the prompts of one request into block digests.

use super::extra;
use super::scan::ValueKind;
use super::ReadPlan;
use crate::prefix::digest::{BlockHasher, BlockSpec, TOKEN};
use crate::prefix::key::Key;

/// Maximum bytes of a draft, beside the prompt window. This is the size up to which Envoy buffers an HTTP/1.1 body by
/// default.
const MAX_DRAFT_BYTES: usize = 1 << 20;

/// Maximum images, videos and sounds of a draft; models accept a hundredth of that.
const MAX_DRAFT_MEDIA: usize = 1 << 12;

/// Bytes of a buffer that are kept between requests. A worker keeps dozens of readers.
const MAX_CACHED_BYTES: usize = 16 << 10;

/// Empties a buffer, and frees the memory that few requests need.
pub fn clear_buffer<T>(buffer: &mut Vec<T>) {
    buffer.clear();
    buffer.shrink_to(MAX_CACHED_BYTES / size_of::<T>().max(1));
}

/// An image, a video or a sound, as a run of equal tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Media {
    /// The token.
    pub token: u32,
    /// The number of tokens.
    pub count: usize,
}

/// Different images, videos and sounds of one request that are distinguished; models accept about as many.
const MAX_MEDIA: usize = 32;

/// The flattened prompts of one request.
#[derive(Debug, Default)]
pub struct Prompts {
    /// One block hasher for each block spec of the plan, and the anchor's if the plan needs that.
    streams: Vec<BlockHasher>,
    /// Whether the last of them is the anchor's.
    has_anchor: bool,
    /// Bytes of the current prompt so far that fit into the window.
    length: usize,
    /// Tokens of the prompts that have ended.
    tokens: usize,
    closed: bool,
    restarts: u32,
    /// Whether images, videos or sounds were read. A restart leaves it: they come again.
    has_media: bool,
    /// Each of them once, [`MAX_MEDIA`] at most.
    media: Vec<Media>,
}

impl Prompts {
    /// Begins another request.
    pub fn reset(&mut self, plan: &ReadPlan) {
        self.has_anchor = plan.anchor_bytes > 0;
        let count = plan.blocks.len() + usize::from(self.has_anchor);
        self.streams.resize_with(count, BlockHasher::default);
        for (stream, spec) in self.streams.iter_mut().zip(&plan.blocks) {
            stream.reset(*spec, &plan.key);
        }
        if let Some(anchor) = self.streams.last_mut().filter(|_| self.has_anchor) {
            let spec = BlockSpec {
                block_bytes: plan.anchor_bytes,
                max_blocks: Some(1),
                keep_partial: true,
            };
            anchor.reset(spec, &Key::Plain);
        }
        self.length = 0;
        self.tokens = 0;
        self.closed = self.streams.is_empty();
        self.restarts = 0;
        self.has_media = false;
        self.media.clear();
    }

    /// Restarts the request's first prompt.
    pub fn restart(&mut self) {
        self.streams.iter_mut().for_each(BlockHasher::restart);
        self.length = 0;
        self.tokens = 0;
        self.closed = self.streams.is_empty();
        self.restarts += 1;
    }

    /// Returns whether images, videos or sounds were read.
    pub fn has_media(&self) -> bool {
        self.has_media
    }

    /// Returns the images, videos and sounds that were read, each once.
    pub fn distinct_media(&self) -> &[Media] {
        &self.media
    }

    /// Returns how often the first prompt was restarted.
    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    /// Returns the allocated memory in bytes.
    pub fn allocated(&self) -> usize {
        let own = self.streams.capacity() * size_of::<BlockHasher>()
            + self.media.capacity() * size_of::<Media>();
        own + self
            .streams
            .iter()
            .map(BlockHasher::allocated)
            .sum::<usize>()
    }

    /// Returns the digest of the anchor, once it was read; `None` also if the plan does not need it.
    pub fn anchor(&self) -> Option<u64> {
        let anchor = self.streams.last().filter(|_| self.has_anchor);
        anchor?.first()
    }

    /// Writes something that depends on the key. The anchor must be the same in every proxy, so it does not include this.
    pub fn write_keyed(&mut self, write: impl FnOnce(&mut Self)) {
        let anchor = self.has_anchor.then(|| self.streams.pop()).flatten();
        write(self);
        self.streams.extend(anchor);
    }

    /// Returns the digests of the prompts for one of the block specs, from the prompt of this number on.
    pub fn digests(&self, stream: usize, first: usize) -> impl Iterator<Item = &[u64]> {
        let stream = self.streams.get(stream).into_iter();
        stream.flat_map(move |stream| stream.prompts_from(first))
    }

    /// Counts the last block even if it is not full: it may contain the only difference between two requests.
    pub fn keep_partial(&mut self) {
        self.streams.iter_mut().for_each(BlockHasher::keep_partial);
    }

    /// Returns whether no more text counts, because the window is full or the last prompt has ended.
    pub fn is_full(&self) -> bool {
        self.closed || self.streams.iter().all(BlockHasher::is_full)
    }

    /// Returns whether the last prompt has ended.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Returns the tokens of all prompts so far that fit into the window, with four bytes per token.
    pub fn tokens(&self) -> usize {
        self.tokens + self.length.div_ceil(TOKEN)
    }

    /// Returns the maximum number of tokens if no other prompt follows.
    pub fn max_tokens(&self) -> usize {
        if self.closed {
            self.tokens
        } else {
            let length = self.length.saturating_add(self.left());
            self.tokens.saturating_add(length.div_ceil(TOKEN))
        }
    }

    /// Returns how many bytes are worth storing in a draft.
    pub fn room(&self) -> usize {
        if self.closed {
            0
        } else {
            self.left().min(MAX_DRAFT_BYTES)
        }
    }

    /// Returns how many more bytes count if no other prompt follows.
    fn left(&self) -> usize {
        let rooms = self.streams.iter().map(BlockHasher::room);
        rooms.max().unwrap_or_default()
    }

    /// Adds text. Returns whether more is wanted.
    pub fn text(&mut self, text: &[u8]) -> bool {
        if self.closed {
            return false;
        }
        self.length += text.len().min(self.left());
        self.streams
            .iter_mut()
            .for_each(|stream| stream.update(text));
        !self.is_full()
    }

    /// Adds media, beginning on a token boundary.
    pub fn media(&mut self, media: Media) {
        /// Tokens written at a time.
        const RUN: usize = 64;
        let mut run = [0; RUN * TOKEN];
        for token in run.chunks_exact_mut(TOKEN) {
            token.copy_from_slice(&media.token.to_le_bytes());
        }
        let gap = self.length.next_multiple_of(TOKEN) - self.length;
        self.text([0; TOKEN].get(..gap).unwrap_or_default());
        let mut left = media.count;
        while left > 0 && !self.is_full() {
            let count = left.min(RUN);
            self.text(run.get(..count * TOKEN).unwrap_or_default());
            left -= count;
        }
    }

    /// Ends the current prompt.
    pub fn end_prompt(&mut self) {
        if !self.closed {
            self.tokens = self.tokens();
            self.length = 0;
            self.streams.iter_mut().for_each(BlockHasher::end_prompt);
        }
    }

    /// Ends the last prompt.
    pub fn close(&mut self) {
        self.end_prompt();
        self.closed = true;
    }
}

/// A section of a prompt that must wait for the text before it.
#[derive(Debug, Default)]
pub struct Draft {
    bytes: Vec<u8>,
    media: Vec<(usize, Media)>,
    /// Whether something was left out because the draft is full.
    cut: bool,
}

impl Draft {
    /// Forgets everything, and keeps the memory.
    pub fn clear(&mut self) {
        clear_buffer(&mut self.bytes);
        clear_buffer(&mut self.media);
        self.cut = false;
    }

    /// Returns the allocated memory in bytes.
    pub fn allocated(&self) -> usize {
        self.bytes.capacity() + self.media.capacity() * size_of::<(usize, Media)>()
    }

    /// Returns whether the draft is empty.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.media.is_empty()
    }

    /// Adds text of a name, which is only compared. A name longer than `most` is folded.
    pub fn name(&mut self, text: &[u8], most: usize) -> bool {
        extra::fold(&mut self.bytes, text, most);
        true
    }

    /// Returns the text so far.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Adds text, up to a length of `room`. Returns whether more is wanted.
    pub fn text(&mut self, text: &[u8], room: usize) -> bool {
        let left = room.saturating_sub(self.bytes.len());
        self.cut |= text.len() > left;
        self.bytes
            .extend_from_slice(text.get(..left).unwrap_or(text));
        !self.cut
    }

    /// Adds media at the end of the text so far.
    pub fn media(&mut self, media: Media) {
        self.cut |= self.media.len() >= MAX_DRAFT_MEDIA;
        if !self.cut {
            self.media.push((self.bytes.len(), media));
        }
    }

    /// Writes everything to a sink and clears the draft.
    pub fn write_to(&mut self, out: &mut PromptSink<'_>) {
        let mut from = 0;
        for (at, media) in &self.media {
            out.text(self.bytes.get(from..*at).unwrap_or_default());
            out.media(*media);
            from = *at;
        }
        out.text(self.bytes.get(from..).unwrap_or_default());
        if self.cut {
            out.cut();
        }
        self.clear();
    }
}

/// The destination of a part of a message: the prompt, or a draft.
pub struct PromptSink<'a> {
    /// The prompt.
    pub prompts: &'a mut Prompts,
    /// The draft, if the part has to wait.
    pub draft: Option<&'a mut Draft>,
    /// The number of the message and of its part, which identify the container of unknown values.
    pub at: [u8; 2],
}

impl<'a> PromptSink<'a> {
    /// Returns the sink that writes into the prompt.
    pub fn prompt(prompts: &'a mut Prompts) -> Self {
        let (draft, at) = (None, [0; 2]);
        Self { prompts, draft, at }
    }

    /// Begins a value that the flattening does not read, in a container at this level.
    // This is called from a dozen places, few of which a request passes.
    #[inline(never)]
    pub fn begin_extra(&mut self, level: u8, key: &[u8], kind: ValueKind) -> extra::ExtraNode {
        let [outer, inner] = self.at;
        self.prompts.keep_partial();
        extra::mark([level, outer, inner], &mut |bytes| self.text(bytes));
        extra::begin(key, kind, &mut |bytes| self.text(bytes))
    }

    /// Ends a value that the flattening does not read, or one in it.
    #[inline(never)]
    pub fn end_extra(&mut self) {
        extra::end(&mut |bytes| self.text(bytes));
    }

    /// Adds the text of a member that the flattening does not read.
    #[inline(never)]
    pub fn extra(&mut self, level: u8, key: &[u8], text: &[u8]) {
        self.begin_extra(level, key, ValueKind::String);
        self.text(text);
        self.end_extra();
    }

    /// Adds text. Returns whether more is wanted.
    pub fn text(&mut self, text: &[u8]) -> bool {
        match self.draft.as_mut() {
            Some(draft) => draft.text(text, self.prompts.room()),
            None => self.prompts.text(text),
        }
    }

    /// Adds media.
    pub fn media(&mut self, media: Media) {
        self.prompts.has_media = true;
        let known = &mut self.prompts.media;
        if known.len() < MAX_MEDIA && !known.contains(&media) {
            known.push(media);
        }
        match self.draft.as_mut() {
            Some(draft) => draft.media(media),
            None => self.prompts.media(media),
        }
    }

    /// Marks that text was left out here, so that the following text does not count.
    fn cut(&mut self) {
        match self.draft.as_mut() {
            Some(draft) => draft.cut = true,
            None => self.prompts.close(),
        }
    }
}
