//! One request's prompts on their way through one prefix index: the chain of block hashes, how far
//! it has been matched, and how much of it the index has learnt.

use std::ops::Range;

use super::digest::chain;
use super::index::{Change, Index, Matcher, Origin, Sent};

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
    /// The first of `hashes` of which no answer has proven that the endpoint took it in.
    doubted: Option<usize>,
    /// Those of `hashes` that the index learnt of this request, each range in one prompt.
    created: Vec<Range<usize>>,
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
        self.settle();
        self.seed = None;
    }

    /// Returns the bytes of memory that it has allocated.
    pub fn allocated(&self) -> usize {
        let hashes = self.hashes.capacity() * size_of::<u64>();
        let created = self.created.capacity() * size_of::<Range<usize>>();
        let begins = self.begins.capacity() * size_of::<usize>();
        hashes + begins + created + self.matcher.allocated()
    }

    /// Gives back what nothing more is looked up with: all but what an answer is still to prove.
    pub fn give_back(&mut self) {
        if self.is_doubted() {
            self.matcher = Matcher::default();
            self.hashes.shrink_to_fit();
        } else {
            *self = Self::default();
        }
    }

    /// Whether the walk starts again with this seed.
    pub fn parts_from(&self, seed: u64) -> bool {
        self.seed.is_some_and(|own| own != seed)
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

    /// The hash of the first block, which tells prompts that begin otherwise or are for another
    /// model apart.
    pub fn first(&self) -> Option<u64> {
        self.hashes.first().copied()
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
        let (doubted, created) = (&mut self.doubted, &mut self.created);
        for prompt in prompts(&self.begins, self.hashes.len(), learnt) {
            let hashes = self.hashes.get(prompt.clone()).unwrap_or_default();
            let sent = Sent {
                slot,
                prompt: hashes,
                from: learnt.saturating_sub(prompt.start),
                origin: Origin::OWN,
            };
            let mut changed = |block, change: Change| {
                let place = prompt.start + block;
                if change.new && note(created, place, block == 0) || change.doubted {
                    doubted.get_or_insert(place);
                }
                if change.due {
                    news(hashes, block);
                }
            };
            index.note(sent, capacity, &mut changed);
        }
    }

    /// Whether anything that was learnt of this request is still to be proven.
    pub fn is_doubted(&self) -> bool {
        self.doubted.is_some()
    }

    /// The endpoint in this slot has answered: it took in what it was sent. `news` as for
    /// [`Self::learn`], of blocks that others should hear to be proven: not those that this request
    /// brought, of which they have heard.
    pub fn prove(
        &mut self,
        index: &mut Index,
        slot: u32,
        capacity: usize,
        news: &mut dyn FnMut(&[u64], usize),
    ) {
        let Some(doubted) = self.doubted else {
            return;
        };
        for prompt in prompts(&self.begins, self.learnt, doubted) {
            let hashes = self.hashes.get(prompt.clone()).unwrap_or_default();
            let mut from = doubted.saturating_sub(prompt.start);
            let created = &self.created;
            let of_others = |block| !contains(created, prompt.start + block);
            from += index.prove(slot, hashes, from, |block| {
                if of_others(block) {
                    news(hashes, block);
                }
            });
            if from == hashes.len() {
                continue;
            }
            let sent = Sent {
                slot,
                prompt: hashes,
                from,
                origin: Origin::PROVEN,
            };
            index.note(sent, capacity, &mut |block, change: Change| {
                if change.due || change.doubted && of_others(block) {
                    news(hashes, block);
                }
            });
        }
        self.settle();
    }

    /// The endpoint in this slot did not take in what it was sent: the index forgets what this request
    /// brought, as far as no other has proven it, or another worker has sent it too. `news` as for [`Self::learn`], of what is forgotten.
    pub fn refute(&mut self, index: &mut Index, slot: u32, news: &mut dyn FnMut(&[u64], usize)) {
        for range in &self.created {
            let begin = self.begins.partition_point(|begin| *begin <= range.start);
            let begin = begin.checked_sub(1).and_then(|last| self.begins.get(last));
            let begin = begin.copied().unwrap_or(0);
            let hashes = self.hashes.get(begin..range.end).unwrap_or_default();
            let blocks = range.start - begin..hashes.len();
            index.retract(slot, hashes, blocks, Origin::OWN, &mut |block| {
                news(hashes, block);
            });
        }
        self.settle();
    }

    /// Nothing is to be proven any more.
    fn settle(&mut self) {
        self.doubted = None;
        self.created.clear();
    }
}

/// The prompts that reach beyond the first `from` of `count` hashes, of which all but the first begin
/// there.
fn prompts(begins: &[usize], count: usize, from: usize) -> impl Iterator<Item = Range<usize>> + '_ {
    let starts = [0].into_iter().chain(begins.iter().copied());
    let ends = begins.iter().copied().chain([count]);
    let prompts = starts
        .zip(ends)
        .map(move |(start, end)| start..end.min(count));
    prompts.filter(move |prompt| prompt.end > from && !prompt.is_empty())
}

/// One more hash is of this request; `first` where it is its prompt's first. Whether a range begins.
fn note(created: &mut Vec<Range<usize>>, place: usize, first: bool) -> bool {
    match created.last_mut() {
        Some(last) if last.end == place && !first => {
            last.end = place + 1;
            false
        }
        _ => {
            created.push(place..place + 1);
            true
        }
    }
}

/// Whether one of these ranges, which are in order, has this number.
fn contains(ranges: &[Range<usize>], number: usize) -> bool {
    let next = ranges.partition_point(|range| range.end <= number);
    ranges
        .get(next)
        .is_some_and(|range| range.contains(&number))
}

#[cfg(test)]
#[path = "walk_tests.rs"]
mod tests;
