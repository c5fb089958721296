//! The journal of one VM: the latest updates of its indexes, from which the other workers update theirs.
//!
//! What a VM learns between two of its ticks goes into the next segments of its journal, each a value of its
//! own in the store, in a ring of sixteen. Its presence says how many segments there are, so that a tick
//! without news costs nothing, and news cost their own size. The ring is bounded: a reader that falls behind
//! loses hints, and no VM's memory grows.

use epp_core::picker::peers::{Binding, Evidence, LearntLog, PlacedBlocks, Placement};
use epp_core::scheduling::StateId;

use crate::codec::{Reader, Writer};
use crate::presence::key as worker_key;
use crate::shared::Shared;

/// Segments that are kept: a reader that pauses for less than 0.8 s loses nothing, as long as a
/// segment holds what comes up in a tick.
const SEGMENTS: u64 = 16;

/// Hashes of one segment, 8 bytes each. Those that follow each other in one prompt are preceded by 16 bytes and
/// the context that it takes to find them, some 16 hashes. At 1,000 cold requests a second with 256 blocks
/// each, shared by four workers, some 3,000 come up in a tick.
pub const SEGMENT_HASHES: usize = 4_096;

/// The position of the evidence in a run's head. The bits below have the number of hashes that follow: more than a
/// segment or a piece of a handover has.
const EVIDENCE_SHIFT: u32 = 22;
const COUNT_MASK: u32 = (1 << EVIDENCE_SHIFT) - 1;

/// The number, in a run's head, of the first plugin state: those below are prefix producers'. A plan has at most 64 of
/// either.
const FIRST_STATE: u8 = 128;
/// The slot of a run that lists a whole state.
const ALL_SLOTS: u32 = u32::MAX;

fn evidence_bits(evidence: Evidence) -> u32 {
    match evidence {
        Evidence::Sent => 0,
        Evidence::Proven => 1,
        Evidence::Refuted => 2,
    }
}

fn evidence_of(bits: u32) -> Option<Evidence> {
    let known = [Evidence::Sent, Evidence::Proven, Evidence::Refuted];
    known.get(bits as usize).copied()
}

/// The writing side of one VM's journal.
#[derive(Debug)]
pub struct Journal {
    base: String,
    own: u64,
    written: u64,
}

impl Journal {
    /// Returns an empty journal under these keys; `own` distinguishes this VM from the others.
    pub fn new(base: String, own: u64) -> Self {
        Self {
            base,
            own,
            written: 0,
        }
    }

    /// Returns how many segments were written so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Drains the log into segments of the VM in this worker slot.
    pub fn write(&mut self, worker: u32, log: &mut LearntLog, shared: &mut Shared<'_>) {
        let mut segment = None;
        let mut room = SEGMENT_HASHES;
        for (placement, span, hashes) in log.entries() {
            let mut from = span.context;
            while from < hashes.len() {
                let before = hashes.get(..from).unwrap_or_default();
                let before = log.key().context(before).len();
                // Without a context a block is found only where it is in the table; so long a one there is not.
                let before = if before < SEGMENT_HASHES { before } else { 0 };
                // A key is of no use without how often it has moved: a binding, of two hashes at most, is never cut.
                let least = if placement.is_indivisible() {
                    hashes.len()
                } else {
                    1
                };
                if room < before + least {
                    room = SEGMENT_HASHES;
                    self.write_segment(worker, segment.take(), shared);
                }
                let to = hashes.len().min(from + room - before);
                let part = hashes.get(from - before..to).unwrap_or_default();
                let writer = segment.get_or_insert_with(|| {
                    let mut writer = Writer::default();
                    writer.u64(self.own);
                    writer.u64(self.written);
                    writer
                });
                writer.u32(before as u32);
                write_run(writer, placement, part);
                room -= part.len();
                from = to;
            }
        }
        self.write_segment(worker, segment, shared);
        log.clear();
    }

    fn write_segment(&mut self, worker: u32, segment: Option<Writer>, shared: &mut Shared<'_>) {
        if let Some(segment) = segment {
            let key = key(&self.base, worker, self.written);
            shared.set(&key, &segment.seal(), None);
            self.written += 1;
        }
    }
}

/// The journal of another VM.
#[derive(Debug, Clone, Copy)]
pub struct PeerJournal<'a> {
    /// Under which keys.
    pub base: &'a str,
    /// The VM's worker slot.
    pub worker: u32,
    /// The VM's number.
    pub owner: u64,
    /// Segments that were read before.
    pub read: u64,
    /// Segments that there are.
    pub written: u64,
}

impl PeerJournal<'_> {
    /// Reads the segments that are new and still there, up to a corrupt one or until `room` hashes were read:
    /// the segment that exceeds them is the last. Returns the number reached, and how many hashes were read.
    pub fn read(
        &self,
        room: usize,
        shared: &mut Shared<'_>,
        take: &mut dyn FnMut(Placement, &[u64], usize),
    ) -> (u64, usize) {
        let (mut prompt, mut taken) = (Vec::new(), 0);
        // A count that went back is another journal's.
        let read = if self.read > self.written {
            0
        } else {
            self.read
        };
        for number in read.max(self.written.saturating_sub(SEGMENTS))..self.written {
            if taken >= room {
                return (number, taken);
            }
            let Some((value, _)) = shared.bytes(&key(self.base, self.worker, number)) else {
                continue;
            };
            taken += value.len() / size_of::<u64>();
            let Some(mut reader) = Reader::open(&value) else {
                shared.count(true);
                return (number, taken);
            };
            // A former VM's in the same worker slot, or a newer one: that will be read in its turn.
            if reader.u64() == Some(self.owner) && reader.u64() == Some(number) {
                read_segment(&mut reader, &mut prompt, take);
            }
        }
        (self.written, taken)
    }
}

fn read_segment(
    reader: &mut Reader<'_>,
    prompt: &mut Vec<u64>,
    take: &mut dyn FnMut(Placement, &[u64], usize),
) {
    while let Some(before) = reader.u32() {
        let mut take = |placement, hashes: &mut dyn Iterator<Item = u64>| {
            prompt.clear();
            prompt.extend(hashes);
            take(placement, prompt, before as usize);
        };
        if read_run(reader, &mut take).is_none() {
            break;
        }
    }
}

/// Writes a run: a placement with its hashes.
pub fn write_run(writer: &mut Writer, placement: Placement, hashes: &[u64]) {
    let number = |state: StateId| FIRST_STATE.saturating_add(state.0 as u8);
    let (number, evidence, slot, tag) = match placement {
        Placement::Blocks(blocks) => (blocks.producer, blocks.evidence, blocks.slot, blocks.tag),
        Placement::Binding(Binding { state, slot, tag }) => {
            (number(state), Evidence::Sent, slot, tag)
        }
        Placement::State(state) => (number(state), Evidence::Sent, ALL_SLOTS, 0),
    };
    writer.u32(slot);
    writer.u32(tag);
    let count = hashes.len() as u32 & COUNT_MASK;
    let evidence = evidence_bits(evidence) << EVIDENCE_SHIFT;
    writer.u32(u32::from(number) << 24 | evidence | count);
    hashes.iter().for_each(|hash| writer.u64(*hash));
}

/// Reads a run. Returns how many hashes it has, or `None` where no other run follows.
pub fn read_run(
    reader: &mut Reader<'_>,
    take: &mut dyn FnMut(Placement, &mut dyn Iterator<Item = u64>),
) -> Option<usize> {
    let (slot, tag) = (reader.u32()?, reader.u32()?);
    let head = reader.u32()?;
    let evidence = evidence_of(head >> EVIDENCE_SHIFT & 3)?;
    let producer = (head >> 24) as u8;
    let state = producer.checked_sub(FIRST_STATE);
    let placement = match state.map(|state| StateId(usize::from(state))) {
        Some(state) if slot == ALL_SLOTS => Placement::State(state),
        Some(state) => Placement::Binding(Binding { state, slot, tag }),
        None => Placement::Blocks(PlacedBlocks {
            evidence,
            producer,
            slot,
            tag,
        }),
    };
    let count = (head & COUNT_MASK) as usize;
    let mut hashes = reader.numbers(count)?;
    take(placement, &mut hashes);
    Some(count)
}

fn key(base: &str, worker: u32, number: u64) -> String {
    format!("{}/{}", worker_key(base, worker), number % SEGMENTS)
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
