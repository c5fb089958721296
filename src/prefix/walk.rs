//! One request's prompts on their way through one prefix index: the chain of block hashes, how far
//! it has been matched, and how much of it the index has learnt.

use super::digest::chain;
use super::index::{Index, Matcher};

/// The walk of one request's prompts through one index. Buffers are kept from request to request.
#[derive(Debug, Default)]
pub struct Walk {
    matcher: Matcher,
    /// Chained hashes of all prompts' blocks so far, prompt by prompt.
    hashes: Vec<u64>,
    /// Where in `hashes` each prompt but the first begins.
    begins: Vec<usize>,
    /// The prompt that is being walked.
    prompt: usize,
    /// Blocks of it walked so far.
    blocks: usize,
    /// Hash of the last block, or the seed.
    last: u64,
    /// Whether the walk of this prompt has come to a block that nobody has.
    ended: bool,
    /// How many of `hashes` the index has learnt.
    learnt: usize,
    seed: Option<u64>,
}

impl Walk {
    /// Forgets everything but the memory.
    pub fn reset(&mut self) {
        self.matcher.reset();
        self.hashes.clear();
        self.begins.clear();
        self.prompt = 0;
        self.blocks = 0;
        self.ended = false;
        self.learnt = 0;
        self.seed = None;
    }

    /// Returns the bytes of memory that it has allocated.
    pub fn allocated(&self) -> usize {
        let hashes = self.hashes.capacity() * size_of::<u64>();
        hashes + self.begins.capacity() * size_of::<usize>() + self.matcher.allocated()
    }

    /// Walks on through the blocks that were read since. `prompts` are all of the request's, each
    /// with its content digests so far; `seed` starts each chain. With another seed than before
    /// the walk begins anew.
    pub fn advance<'a>(
        &mut self,
        seed: u64,
        prompts: impl Iterator<Item = &'a [u64]>,
        index: &Index,
    ) {
        if self.seed != Some(seed) {
            self.reset();
            self.seed = Some(seed);
            self.last = seed;
        }
        if !self.ended {
            let walked = self.begins.last().copied().unwrap_or(0);
            index.resume(
                &mut self.matcher,
                self.hashes.get(walked..).unwrap_or_default(),
            );
        }
        for (position, digests) in prompts.enumerate().skip(self.prompt) {
            if position > self.prompt {
                self.prompt = position;
                self.begins.push(self.hashes.len());
                self.blocks = 0;
                self.ended = false;
                self.last = seed;
                self.matcher.restart();
            }
            for digest in digests.iter().skip(self.blocks) {
                self.last = chain(self.last, *digest);
                self.hashes.push(self.last);
                self.blocks += 1;
                self.ended = self.ended || !index.extend(&mut self.matcher, self.last);
            }
        }
        index.settle(&mut self.matcher);
    }

    /// Whether more blocks of the prompt that was walked last cannot match any more.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Matched blocks by slot.
    pub fn matched(&mut self) -> &[u32] {
        self.matcher.counts()
    }

    /// Blocks read so far.
    pub fn total(&self) -> usize {
        self.hashes.len()
    }

    /// Notes in the index that what it was not told of yet was sent to the endpoint in this slot;
    /// `news` gets the prompt so far and the number of a block that others should hear of.
    pub fn learn(
        &mut self,
        index: &mut Index,
        slot: u32,
        capacity: usize,
        news: &mut dyn FnMut(&[u64], usize),
    ) {
        let learnt = std::mem::replace(&mut self.learnt, self.hashes.len());
        let begins = [0].into_iter().chain(self.begins.iter().copied());
        let ends = self.begins.iter().copied().chain([self.hashes.len()]);
        for (begin, end) in begins.zip(ends).filter(|(_, end)| *end > learnt) {
            let prompt = self.hashes.get(begin..end).unwrap_or_default();
            let from = learnt.saturating_sub(begin);
            index.add(slot, prompt, from, capacity, &mut |block| {
                news(prompt, block)
            });
        }
    }
}
