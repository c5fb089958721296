//! The walk of one request's prompts through one prefix index: the chain of block hashes, how far it has been matched,
//! and how much of it the index has learnt.

use std::ops::Range;

use super::digest::chain;
use super::index::{BlockChange, Index, Provenance, SentBlocks};
use super::matcher::Matcher;

/// An endpoint that gets a request's prompts into its cache, by its part in the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The request is sent to it.
    Primary,
    /// It computes the prompts for the primary one.
    Prefill,
}

impl Part {
    fn of(self, [primary, prefill]: &mut [Recorded; 2]) -> &mut Recorded {
        match self {
            Self::Primary => primary,
            Self::Prefill => prefill,
        }
    }
}

/// What the index has recorded of a walk's hashes for one endpoint.
#[derive(Debug, Default)]
struct Recorded {
    /// How many of the hashes.
    learnt: usize,
    /// The first of them for which no response has proven that the endpoint holds it.
    unproven: Option<usize>,
    /// Those that this request added to the index. Each range lies in one prompt.
    created: Vec<Range<usize>>,
}

impl Recorded {
    /// Forgets which blocks are unproven.
    fn clear_unproven(&mut self) {
        self.unproven = None;
        self.created.clear();
    }
}

/// The walk of one request's prompts through one index. The memory is reused for other requests.
#[derive(Debug, Default)]
pub struct Walk {
    matcher: Matcher,
    /// Chained hashes of all prompts' blocks so far, prompt by prompt.
    hashes: Vec<u64>,
    /// The beginning in `hashes` of each prompt but the first.
    begins: Vec<usize>,
    /// Number of the current prompt.
    prompt: usize,
    /// Blocks of the current prompt so far.
    blocks: usize,
    /// Hash of the last block, or the seed before the first one.
    last: u64,
    /// Whether the current prompt has reached a block that no endpoint holds.
    ended: bool,
    /// What the index has recorded of `hashes`, by [`Part`].
    recorded: [Recorded; 2],
    /// The hash with which each chain begins.
    seed: Option<u64>,
}

impl Walk {
    /// Forgets everything, and keeps the memory.
    pub fn reset(&mut self) {
        self.matcher.reset();
        self.hashes.clear();
        self.begins.clear();
        self.prompt = 0;
        self.blocks = 0;
        self.ended = false;
        for recorded in &mut self.recorded {
            recorded.learnt = 0;
            recorded.clear_unproven();
        }
        self.seed = None;
    }

    /// Returns the bytes of memory that the walk has allocated.
    pub fn allocated(&self) -> usize {
        let hashes = self.hashes.capacity() * size_of::<u64>();
        let created = self.recorded.iter().map(|one| one.created.capacity());
        let created = created.sum::<usize>() * size_of::<Range<usize>>();
        let begins = self.begins.capacity() * size_of::<usize>();
        hashes + begins + created + self.matcher.allocated()
    }

    /// Frees the memory that is not needed once the request is routed: all but the hashes that a response may prove.
    pub fn release_memory(&mut self) {
        if self.is_unproven() {
            self.matcher = Matcher::default();
            self.hashes.shrink_to_fit();
        } else {
            *self = Self::default();
        }
    }

    /// Returns whether [`Self::advance`] would restart the walk with this seed.
    pub fn restarts_with(&self, seed: u64) -> bool {
        self.seed.is_some_and(|own| own != seed)
    }

    /// Walks through the blocks that were read since the last call. `prompts` returns the prompts of the request from
    /// a number on, each with its content digests so far; `seed` begins each chain. The walk restarts if the seed has
    /// changed.
    pub fn advance<'a, P: Iterator<Item = &'a [u64]>>(
        &mut self,
        seed: u64,
        prompts: impl FnOnce(usize) -> P,
        index: &Index,
    ) {
        if self.seed != Some(seed) {
            self.reset();
            self.seed = Some(seed);
            self.last = seed;
        }
        if !self.ended {
            let walked = self.begins.last().copied().unwrap_or(0);
            let walked = self.hashes.get(walked..).unwrap_or_default();
            self.matcher.resume(index, walked);
        }
        let first = self.prompt;
        for (position, digests) in (first..).zip(prompts(first)) {
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
                self.ended = self.ended || !self.matcher.extend(index, self.last);
            }
        }
        self.matcher.settle(index);
    }

    /// Returns whether no further block of the current prompt can match.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Returns the matched blocks by slot.
    pub fn matched(&mut self) -> &[u32] {
        self.matcher.counts()
    }

    /// Returns the hash of the first block, which differs for prompts that begin differently or are for another model.
    pub fn first(&self) -> Option<u64> {
        self.hashes.first().copied()
    }

    /// Returns the number of blocks read so far.
    pub fn total(&self) -> usize {
        self.hashes.len()
    }

    /// Records in the index that the blocks that were read since the last call were sent to an endpoint. `publish` is
    /// called with the prompt so far and the positions of consecutive blocks, perhaps none, that should be published to
    /// other workers.
    pub fn learn(
        &mut self,
        index: &mut Index,
        (part, slot): (Part, u32),
        capacity: usize,
        publish: &mut dyn FnMut(&[u64], Range<usize>),
    ) {
        let Recorded {
            learnt,
            unproven,
            created,
        } = part.of(&mut self.recorded);
        if *learnt == self.hashes.len() {
            // Each part of a body comes here, and the prompts below are as many as its client likes.
            return;
        }
        let learnt = std::mem::replace(learnt, self.hashes.len());
        for prompt in prompts(&self.begins, self.hashes.len(), learnt) {
            let hashes = self.hashes.get(prompt.clone()).unwrap_or_default();
            let sent = SentBlocks {
                slot,
                prompt: hashes,
                from: learnt.saturating_sub(prompt.start),
                provenance: Provenance::OWN,
            };
            let mut run = 0..0;
            let mut changed = |block, change: BlockChange| {
                let position = prompt.start + block;
                if change.new && add_created(created, position, block == 0) || change.unproven {
                    unproven.get_or_insert(position);
                }
                if change.to_publish {
                    if block != run.end {
                        publish(hashes, std::mem::replace(&mut run, block..block));
                    }
                    run.end = block + 1;
                }
            };
            index.record(sent, capacity, &mut changed);
            publish(hashes, run);
        }
    }

    /// Returns whether a block that was recorded for this request is still unproven.
    pub fn is_unproven(&self) -> bool {
        self.recorded.iter().any(|one| one.unproven.is_some())
    }

    /// Returns whether responses have proven that the primary endpoint, in this slot, holds all blocks that were matched
    /// there.
    pub fn expects_proven(&mut self, slot: u32) -> bool {
        let matched = self.matched().get(slot as usize).copied().unwrap_or(0);
        let [primary, _] = &self.recorded;
        primary
            .unproven
            .is_none_or(|first| first >= matched as usize)
    }

    /// Returns whether there is no second prompt so far.
    pub fn is_single(&self) -> bool {
        self.begins.is_empty()
    }

    /// Records that the endpoint has responded, and so holds the blocks that it was sent. `publish` is called as in
    /// [`Self::learn`] for the blocks whose proof should be published; those that this request added were published
    /// before.
    pub fn prove(
        &mut self,
        index: &mut Index,
        (part, slot): (Part, u32),
        capacity: usize,
        publish: &mut dyn FnMut(&[u64], Range<usize>),
    ) {
        let recorded = part.of(&mut self.recorded);
        let Some(unproven) = recorded.unproven else {
            return;
        };
        for prompt in prompts(&self.begins, recorded.learnt, unproven) {
            let hashes = self.hashes.get(prompt.clone()).unwrap_or_default();
            let mut from = unproven.saturating_sub(prompt.start);
            let created = &recorded.created;
            let of_others = |block| !contains(created, prompt.start + block);
            from += index.prove(slot, hashes, from, |block| {
                if of_others(block) {
                    publish(hashes, block..block + 1);
                }
            });
            if from == hashes.len() {
                continue;
            }
            let sent = SentBlocks {
                slot,
                prompt: hashes,
                from,
                provenance: Provenance::PROVEN,
            };
            index.record(sent, capacity, &mut |block, change: BlockChange| {
                if change.to_publish || change.unproven && of_others(block) {
                    publish(hashes, block..block + 1);
                }
            });
        }
        recorded.clear_unproven();
    }

    /// Records that the endpoint did not process what it was sent. The index forgets the blocks that this request added,
    /// unless another request has proven them or another worker has sent them too. `publish` is called as in
    /// [`Self::learn`] for the forgotten blocks.
    pub fn refute(
        &mut self,
        index: &mut Index,
        (part, slot): (Part, u32),
        publish: &mut dyn FnMut(&[u64], Range<usize>),
    ) {
        let recorded = part.of(&mut self.recorded);
        for range in &recorded.created {
            let begin = self.begins.partition_point(|begin| *begin <= range.start);
            let begin = begin.checked_sub(1).and_then(|last| self.begins.get(last));
            let begin = begin.copied().unwrap_or(0);
            let hashes = self.hashes.get(begin..range.end).unwrap_or_default();
            let blocks = range.start - begin..hashes.len();
            index.retract(slot, hashes, blocks, Provenance::OWN, &mut |block| {
                publish(hashes, block..block + 1);
            });
        }
        recorded.clear_unproven();
    }
}

/// Returns the prompts with hashes beyond the first `from` of `count`, as ranges of hashes. `begins` is where each prompt
/// but the first begins.
fn prompts(begins: &[usize], count: usize, from: usize) -> impl Iterator<Item = Range<usize>> + '_ {
    let starts = [0].into_iter().chain(begins.iter().copied());
    let ends = begins.iter().copied().chain([count]);
    let prompts = starts
        .zip(ends)
        .map(move |(start, end)| start..end.min(count));
    prompts.filter(move |prompt| prompt.end > from && !prompt.is_empty())
}

/// Adds the position of a hash that this request added; `first` if it is the first of its prompt. Returns whether a new
/// range begins.
fn add_created(created: &mut Vec<Range<usize>>, position: usize, first: bool) -> bool {
    match created.last_mut() {
        Some(last) if last.end == position && !first => {
            last.end = position + 1;
            false
        }
        _ => {
            created.push(position..position + 1);
            true
        }
    }
}

/// Returns whether one of these ascending ranges contains a number.
fn contains(ranges: &[Range<usize>], number: usize) -> bool {
    let next = ranges.partition_point(|range| range.end <= number);
    ranges
        .get(next)
        .is_some_and(|range| range.contains(&number))
}

#[cfg(test)]
#[path = "walk_tests.rs"]
mod tests;
