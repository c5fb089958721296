//! Matching one prompt's blocks against the index.

use super::index::{Holders, Index};

/// How far one request's prompts have been matched, by endpoint. The memory is reused for other requests.
///
/// Consecutive blocks mostly have the same holders, so that the matcher counts a run of such blocks and adds the
/// count to all holders once, when the holders change or in [`Matcher::settle`].
#[derive(Debug, Default)]
pub struct Matcher {
    /// Matched blocks by slot, without the current run.
    counts: Vec<u32>,
    /// The holders of the current run.
    holders: Holders,
    /// Blocks in the current run.
    run: u32,
    /// Place of the last block's primary entry, behind which the next block's entry probably lies.
    place: u32,
    /// Whether the prompt has reached a block that no endpoint holds.
    ended: bool,
}

impl Matcher {
    /// Forgets what was matched, and keeps the memory.
    pub fn reset(&mut self) {
        self.counts.clear();
        self.run = 0;
        self.ended = false;
    }

    /// Returns the bytes of memory that the matcher has allocated.
    pub fn allocated(&self) -> usize {
        self.counts.capacity() * size_of::<u32>()
    }

    /// Begins another prompt; what was matched so far still counts.
    pub fn restart(&mut self) {
        self.ended = false;
    }

    /// Continues behind these blocks of a prompt, after the index may have changed.
    pub fn resume(&mut self, index: &Index, blocks: &[u64]) {
        self.place = index.find_last(blocks);
    }

    /// Matches the next block of a prompt: every endpoint that holds it has one more match. Matching ends at the
    /// first block that no endpoint holds. Returns whether matching continues.
    pub fn extend(&mut self, index: &Index, hash: u64) -> bool {
        if self.ended {
            return false;
        }
        let (place, holders) = index.holders_after(self.place, hash);
        self.place = place;
        let Some(holders) = holders else {
            self.ended = true;
            return false;
        };
        if self.run > 0 && self.holders != holders {
            self.settle(index);
        }
        self.holders = holders;
        self.run += 1;
        true
    }

    /// Adds the current run to the counts. This must be done before the index changes.
    pub fn settle(&mut self, index: &Index) {
        let run = std::mem::take(&mut self.run);
        if run == 0 {
            return;
        }
        let counts = &mut self.counts;
        index.for_each_holder(self.holders, |slot| {
            let slot = usize::from(slot);
            if counts.len() <= slot {
                counts.resize(slot + 1, 0);
            }
            if let Some(count) = counts.get_mut(slot) {
                *count += run;
            }
        });
    }

    /// Returns the matched blocks by slot, as of the last [`Self::settle`].
    pub fn counts(&self) -> &[u32] {
        &self.counts
    }
}
