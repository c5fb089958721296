//! The log of what the prefix indexes have learnt since it was last drained, for the other pickers of one
//! proxy to learn as well.
//!
//! It is bounded: evidence beyond the bound is not passed on. Where nothing drains it
//! ([`LearntLog::set_enabled`]) nothing is logged.

use std::ops::Range;

use crate::prefix::key::TableKey;
use crate::scheduling::StateId;

/// Hashes logged between two ticks of 50 ms; at 1,000 cold requests a second with 256 blocks each, shared by
/// four workers, some 3,000 come up in a tick.
pub const MAX_LOGGED_HASHES: usize = 65_536;

/// The evidence that an endpoint holds blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// They were sent there.
    Sent,
    /// The endpoint has responded: it has them in its cache.
    Proven,
    /// They were sent there and did not get into its cache: what no response has proven is to be forgotten.
    Refuted,
}

/// What a run of hashes tells the other pickers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// Where consecutive blocks of a prompt are: the hashes are the blocks'.
    Blocks(PlacedBlocks),
    /// Where a key of a plugin's state is bound: the hashes are the key and, if it has moved, how often.
    Binding(Binding),
    /// A plugin's whole state, with two hashes for each key: see [`super::peers::IndexPeer::index_list`].
    State(StateId),
}

/// Evidence for consecutive blocks of a prompt at one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlacedBlocks {
    /// The evidence.
    pub evidence: Evidence,
    /// Index of the prefix producer in the plan.
    pub producer: u8,
    /// The endpoint's slot.
    pub slot: u32,
    /// Distinguishes the endpoint from former and later ones in its slot.
    pub tag: u32,
}

/// The endpoint to which a key of a plugin's state is bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding {
    /// The state.
    pub state: StateId,
    /// The endpoint's slot.
    pub slot: u32,
    /// Distinguishes the endpoint from former and later ones in its slot.
    pub tag: u32,
}

impl Placement {
    /// Returns whether its hashes mean nothing unless all of them are there.
    pub fn is_indivisible(self) -> bool {
        matches!(self, Self::Binding(_))
    }
}

/// The hashes of one placement in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Hashes of the blocks before, as many as it takes to find the placed ones.
    pub context: usize,
    /// Hashes of the placed blocks.
    pub blocks: usize,
}

/// The log.
#[derive(Debug, Default)]
pub struct LearntLog {
    enabled: bool,
    key: TableKey,
    placements: Vec<(Placement, Span)>,
    hashes: Vec<u64>,
}

impl LearntLog {
    /// Keeps a log from now on, or none.
    pub fn set_enabled(&mut self, enabled: bool) {
        self.enabled = enabled;
        if !enabled {
            self.clear();
        }
    }

    /// Begins an empty log under the key of other indexes: hashes of the former ones mean nothing there.
    pub fn restart(&mut self, key: TableKey) {
        self.key = key;
        self.clear();
    }

    /// Returns the key of the indexes' tables.
    pub fn key(&self) -> TableKey {
        self.key
    }

    /// Logs that this was learnt of one block of a prompt.
    pub fn append(&mut self, placement: Placement, prompt: &[u64], block: usize) {
        self.append_run(placement, prompt, block..block + 1);
    }

    /// Logs that this was learnt of consecutive blocks of a prompt.
    pub fn append_run(&mut self, placement: Placement, prompt: &[u64], blocks: Range<usize>) {
        let Some((before, run)) = prompt.split_at_checked(blocks.start) else {
            return;
        };
        let room = MAX_LOGGED_HASHES.saturating_sub(self.hashes.len());
        let run = run.get(..blocks.len().min(room)).unwrap_or_default();
        let is_cut = placement.is_indivisible() && run.len() < blocks.len();
        if !self.enabled || run.is_empty() || is_cut {
            return;
        }
        let follows = !before.is_empty() && before.last() == self.hashes.last();
        match self.placements.last_mut() {
            Some((last, span)) if *last == placement && follows => span.blocks += run.len(),
            _ => {
                let context = self.key.context(before);
                self.hashes.extend_from_slice(context);
                let (context, blocks) = (context.len(), run.len());
                self.placements.push((placement, Span { context, blocks }));
            }
        }
        self.hashes.extend_from_slice(run);
    }

    /// Returns each placement with its hashes, those of its context first, in the order in which they were
    /// logged.
    pub fn entries(&self) -> impl Iterator<Item = (Placement, Span, &[u64])> {
        let mut left = self.hashes.as_slice();
        let placements = self.placements.iter();
        placements.map_while(move |(placement, span)| {
            let (hashes, rest) = left.split_at_checked(span.context + span.blocks)?;
            left = rest;
            Some((*placement, *span, hashes))
        })
    }

    /// Empties the log, which keeps its memory.
    pub fn clear(&mut self) {
        self.placements.clear();
        self.hashes.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binding_for_which_there_is_no_room_is_left_out_whole() {
        let mut log = LearntLog::default();
        log.set_enabled(true);
        let (slot, tag) = (0, 0);
        let run = Placement::Blocks(PlacedBlocks {
            evidence: Evidence::Sent,
            producer: 0,
            slot,
            tag,
        });
        let state = StateId(0);
        let binding = Placement::Binding(Binding { state, slot, tag });
        let blocks: Vec<u64> = (0..MAX_LOGGED_HASHES as u64 - 1).collect();
        log.append_run(run, &blocks, 0..blocks.len());
        log.append_run(binding, &[7, 1], 0..2);
        assert_eq!(log.entries().count(), 1);
        log.append_run(run, &[8], 0..1);
        assert_eq!(log.entries().count(), 2);
    }
}
