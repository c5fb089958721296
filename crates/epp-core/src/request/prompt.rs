//! The prompts of one request on their way into block digests.

use super::extra;
use super::scan::Kind;
use crate::prefix::digest::{BlockHasher, BlockSpec, TOKEN};
use crate::prefix::key::Key;

/// Text that has to wait for something that comes before it in the prompt is held up to the window
/// and up to this, which is the size from which Envoy refuses to hold an HTTP/1.1 body by default.
const MOST_HELD: usize = 1 << 20;

/// Images and the like that are held of one message; models take a hundredth of it.
const MOST_MEDIA: usize = 1 << 12;

/// Bytes of a buffer that are kept from request to request. A worker keeps dozens of readers.
const MOST_KEPT: usize = 16 << 10;

/// Empties a buffer, and gives back what few requests need.
pub fn empty<T>(buffer: &mut Vec<T>) {
    buffer.clear();
    buffer.shrink_to(MOST_KEPT / size_of::<T>().max(1));
}

/// An image, a video or a sound: this many tokens, all equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Media {
    /// The token.
    pub token: u32,
    /// How many.
    pub count: usize,
}

/// Where flattened prompts go.
#[derive(Debug, Default)]
pub struct Prompts {
    /// One for each way to cut them.
    streams: Vec<BlockHasher>,
    /// Bytes of the current prompt so far, as far as they count.
    length: usize,
    /// Tokens of the prompts that have ended.
    tokens: usize,
    closed: bool,
    restarts: u32,
}

impl Prompts {
    /// Begins another request.
    pub fn reset(&mut self, specs: &[BlockSpec], key: &Key) {
        self.streams.resize_with(specs.len(), BlockHasher::default);
        for (stream, spec) in self.streams.iter_mut().zip(specs) {
            stream.reset(*spec, key);
        }
        self.length = 0;
        self.tokens = 0;
        self.closed = specs.is_empty();
        self.restarts = 0;
    }

    /// Restarts the request's first prompt.
    pub fn restart(&mut self) {
        self.streams.iter_mut().for_each(BlockHasher::restart);
        self.length = 0;
        self.tokens = 0;
        self.closed = self.streams.is_empty();
        self.restarts += 1;
    }

    /// How often the first prompt was restarted.
    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    /// Returns the bytes of memory that they have allocated.
    pub fn allocated(&self) -> usize {
        let own = self.streams.capacity() * size_of::<BlockHasher>();
        own + self
            .streams
            .iter()
            .map(BlockHasher::allocated)
            .sum::<usize>()
    }

    /// The prompts' digests as one of the streams cuts them.
    pub fn digests(&self, stream: usize) -> impl Iterator<Item = &[u64]> {
        let stream = self.streams.get(stream);
        stream.into_iter().flat_map(BlockHasher::prompts)
    }

    /// The last block counts even if it is not full: it may hold all that two requests differ in.
    pub fn keep_partial(&mut self) {
        self.streams.iter_mut().for_each(BlockHasher::keep_partial);
    }

    /// Whether nothing more counts, of this prompt or another.
    pub fn is_full(&self) -> bool {
        self.closed || self.streams.iter().all(BlockHasher::is_full)
    }

    /// Whether nothing counts any more.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Tokens of all prompts so far, as far as they count: four bytes each.
    pub fn tokens(&self) -> usize {
        self.tokens + self.length.div_ceil(TOKEN)
    }

    /// The most tokens that there can be if no other prompt follows.
    pub fn most_tokens(&self) -> usize {
        if self.closed {
            self.tokens
        } else {
            let length = self.length.saturating_add(self.left());
            self.tokens.saturating_add(length.div_ceil(TOKEN))
        }
    }

    /// Bytes worth holding for later.
    pub fn room(&self) -> usize {
        if self.closed {
            0
        } else {
            self.left().min(MOST_HELD)
        }
    }

    /// Bytes that still count, if no other prompt follows.
    fn left(&self) -> usize {
        let rooms = self.streams.iter().map(BlockHasher::room);
        rooms.max().unwrap_or_default()
    }

    /// More text. Whether more is wanted.
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

    /// Media stand on a token boundary.
    pub fn media(&mut self, media: Media) {
        /// Tokens written in one go.
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

    /// The current prompt has ended.
    pub fn end_prompt(&mut self) {
        if !self.closed {
            self.tokens = self.tokens();
            self.length = 0;
            self.streams.iter_mut().for_each(BlockHasher::end_prompt);
        }
    }

    /// The last prompt has ended.
    pub fn close(&mut self) {
        self.end_prompt();
        self.closed = true;
    }
}

/// A stretch of a prompt that waits for what comes before it.
#[derive(Debug, Default)]
pub struct Draft {
    bytes: Vec<u8>,
    media: Vec<(usize, Media)>,
    /// Whether something was left out for want of room.
    cut: bool,
}

impl Draft {
    /// Forgets everything but the memory.
    pub fn clear(&mut self) {
        empty(&mut self.bytes);
        empty(&mut self.media);
        self.cut = false;
    }

    /// Returns the bytes of memory that it has allocated.
    pub fn allocated(&self) -> usize {
        self.bytes.capacity() + self.media.capacity() * size_of::<(usize, Media)>()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.media.is_empty()
    }

    /// More of a name. Only its first bytes are compared; a longer one is folded.
    pub fn name(&mut self, text: &[u8], most: usize) -> bool {
        extra::fold(&mut self.bytes, text, most);
        true
    }

    /// The text so far.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// More text, at most as much as there is room for. Whether more is wanted.
    pub fn text(&mut self, text: &[u8], room: usize) -> bool {
        let left = room.saturating_sub(self.bytes.len());
        self.cut |= text.len() > left;
        self.bytes
            .extend_from_slice(text.get(..left).unwrap_or(text));
        !self.cut
    }

    /// Media at the end of the text so far.
    pub fn media(&mut self, media: Media) {
        self.cut |= self.media.len() >= MOST_MEDIA;
        if !self.cut {
            self.media.push((self.bytes.len(), media));
        }
    }

    /// Hands everything over.
    pub fn give(&mut self, out: &mut Out<'_>) {
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

/// Where a part of a message goes: straight into the prompt, or into a draft.
pub struct Out<'a> {
    /// The prompt.
    pub prompts: &'a mut Prompts,
    /// The draft, if the part has to wait.
    pub draft: Option<&'a mut Draft>,
    /// Which message of the list this is, and which part of its content.
    pub at: [u8; 2],
}

impl<'a> Out<'a> {
    /// Straight into the prompt.
    pub fn prompt(prompts: &'a mut Prompts) -> Self {
        let (draft, at) = (None, [0; 2]);
        Self { prompts, draft, at }
    }

    /// A value begins that the flattening does not read, in a container at this level.
    // Called from a dozen places, few of which a request comes past.
    #[inline(never)]
    pub fn begin_extra(&mut self, level: u8, key: &[u8], kind: Kind) -> extra::ExtraNode {
        let [outer, inner] = self.at;
        self.prompts.keep_partial();
        extra::mark([level, outer, inner], &mut |bytes| self.text(bytes));
        extra::begin(key, kind, &mut |bytes| self.text(bytes))
    }

    /// A value has ended that the flattening does not read, or one in it.
    #[inline(never)]
    pub fn end_extra(&mut self) {
        extra::end(&mut |bytes| self.text(bytes));
    }

    /// A text of a member that the flattening leaves out.
    #[inline(never)]
    pub fn extra(&mut self, level: u8, key: &[u8], text: &[u8]) {
        self.begin_extra(level, key, Kind::String);
        self.text(text);
        self.end_extra();
    }

    /// More text. Whether more is wanted.
    pub fn text(&mut self, text: &[u8]) -> bool {
        match self.draft.as_mut() {
            Some(draft) => draft.text(text, self.prompts.room()),
            None => self.prompts.text(text),
        }
    }

    /// Media.
    pub fn media(&mut self, media: Media) {
        match self.draft.as_mut() {
            Some(draft) => draft.media(media),
            None => self.prompts.media(media),
        }
    }

    /// Something was left out here: what follows does not count.
    fn cut(&mut self) {
        match self.draft.as_mut() {
            Some(draft) => draft.cut = true,
            None => self.prompts.close(),
        }
    }
}
