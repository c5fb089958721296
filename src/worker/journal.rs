//! Placements told to the other workers, so that all of one Envoy decide from the same knowledge.
//!
//! What a VM places between two of its ticks goes into the next segments of its journal, each a
//! value of its own in shared data, in a ring of sixteen. Its seat says how many segments there
//! are, so that a tick without news costs nobody anything, and news cost their own size. The ring
//! is bounded: a reader that falls behind loses hints, and nobody memory.

use super::pack::{Reader, Writer};
use super::SharedData;

/// Segments that are kept: a reader that pauses for less than 0.8 s loses nothing, as long as a
/// segment holds what comes up in a tick.
const RING: u64 = 16;

/// Hashes of one segment, 8 bytes each. At 1,000 cold requests a second with 256 blocks each,
/// shared by four workers, some 3,000 come up in a tick.
const SEGMENT: usize = 4_096;

/// Hashes noted between two ticks; what is more is not told.
const MOST_FRESH: usize = RING as usize * SEGMENT;

/// Blocks that were sent to one endpoint, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Index of the prefix producer in the plan.
    pub producer: u8,
    /// The endpoint's slot.
    pub slot: u32,
    /// Tells the endpoint from others that were or will be in its slot.
    pub tag: u32,
}

/// One VM's journal.
#[derive(Debug)]
pub struct Journal {
    base: String,
    own: u64,
    /// Runs since the last tick, each with how many of the hashes are its own.
    runs: Vec<(Run, usize)>,
    hashes: Vec<u64>,
    written: u64,
}

impl Journal {
    /// An empty journal under these keys; `own` tells this VM from the others.
    pub fn new(base: String, own: u64) -> Self {
        Self {
            base,
            own,
            runs: Vec::new(),
            hashes: Vec::new(),
            written: 0,
        }
    }

    /// Notes a placement, to be told with the next tick.
    pub fn note(&mut self, run: Run, hash: u64) {
        if self.hashes.len() >= MOST_FRESH {
            return;
        }
        self.hashes.push(hash);
        match self.runs.last_mut() {
            Some((last, count)) if *last == run => *count += 1,
            _ => self.runs.push((run, 1)),
        }
    }

    /// Segments written so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Writes what is new at the VM's seat.
    pub fn write(&mut self, seat: u32, host: &mut dyn SharedData) {
        let mut runs = std::mem::take(&mut self.runs);
        let mut left = self.hashes.as_slice();
        let mut pieces = runs.drain(..).peekable();
        let mut rest: Option<(Run, usize)> = None;
        while rest.is_some() || pieces.peek().is_some() {
            let mut segment = Writer::default();
            segment.u64(self.own);
            segment.u64(self.written);
            let mut room = SEGMENT;
            while let Some((run, count)) = rest.take().or_else(|| pieces.next()) {
                let take = count.min(room);
                let Some((hashes, more)) = left.split_at_checked(take) else {
                    break;
                };
                left = more;
                write_run(&mut segment, run, hashes);
                room -= take;
                if take < count {
                    rest = Some((run, count - take));
                }
                if room == 0 {
                    break;
                }
            }
            let key = key(&self.base, seat, self.written);
            host.set(&key, &segment.seal(), None);
            self.written += 1;
        }
        drop(pieces);
        self.runs = runs;
        self.hashes.clear();
    }
}

/// Takes in the segments of another VM's journal from number `read` on, as far as they are still
/// there, up to one that is torn, which is counted. Returns the number reached.
pub fn read(
    (base, seat, owner): (&str, u32, u64),
    (read, written): (u64, u64),
    host: &mut dyn SharedData,
    foreign: &mut u64,
    take: &mut dyn FnMut(Run, &mut dyn Iterator<Item = u64>),
) -> u64 {
    // A count that went back is another journal's.
    let read = if read > written { 0 } else { read };
    for number in read.max(written.saturating_sub(RING))..written {
        let Some((value, _)) = host.get(&key(base, seat, number)) else {
            continue;
        };
        let Some(mut reader) = Reader::open(&value) else {
            *foreign += 1;
            return number;
        };
        // A former VM's at the same seat, or a newer one: that will be read in its turn.
        if reader.u64() == Some(owner) && reader.u64() == Some(number) {
            while read_run(&mut reader, take).is_some() {}
        }
    }
    written
}

/// Writes a run with its hashes.
pub fn write_run(writer: &mut Writer, run: Run, hashes: &[u64]) {
    writer.u32(run.slot);
    writer.u32(run.tag);
    writer.u32(u32::from(run.producer) << 24 | hashes.len() as u32 & 0xff_ffff);
    hashes.iter().for_each(|hash| writer.u64(*hash));
}

/// Reads a run, if another one follows.
pub fn read_run(
    reader: &mut Reader<'_>,
    take: &mut dyn FnMut(Run, &mut dyn Iterator<Item = u64>),
) -> Option<usize> {
    let (slot, tag) = (reader.u32()?, reader.u32()?);
    let head = reader.u32()?;
    let run = Run {
        producer: (head >> 24) as u8,
        slot,
        tag,
    };
    let count = (head & 0xff_ffff) as usize;
    let mut hashes = reader.numbers(count)?;
    take(run, &mut hashes);
    Some(count)
}

fn key(base: &str, seat: u32, number: u64) -> String {
    format!("{base}/seat/{seat}/{}", number % RING)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Memory;

    const RUN: Run = Run {
        producer: 1,
        slot: 3,
        tag: 7,
    };

    fn take_all(memory: &mut Memory, from: u64, written: u64) -> (Vec<u64>, u64) {
        let (mut taken, mut foreign) = (Vec::new(), 0);
        let mut take = |_, hashes: &mut dyn Iterator<Item = u64>| taken.extend(hashes);
        read(
            ("b", 0, 5),
            (from, written),
            memory,
            &mut foreign,
            &mut take,
        );
        (taken, foreign)
    }

    #[test]
    fn what_was_written_is_read_in_order_and_once() {
        let (mut journal, mut memory) = (Journal::new("b".to_owned(), 5), Memory::default());
        journal.write(0, &mut memory);
        assert_eq!(journal.written(), 0, "nothing new, nothing written");
        (0..10_000).for_each(|hash| journal.note(RUN, hash));
        journal.write(0, &mut memory);
        assert_eq!(journal.written(), 3);
        let expected: Vec<u64> = (0..10_000).collect();
        assert_eq!(take_all(&mut memory, 0, 3).0, expected);
        assert!(take_all(&mut memory, 3, 3).0.is_empty());
    }

    #[test]
    fn runs_keep_their_endpoints() {
        let (mut journal, mut memory) = (Journal::new("b".to_owned(), 5), Memory::default());
        let other = Run { slot: 9, ..RUN };
        for hash in 0..9 {
            journal.note(if hash < 5 { RUN } else { other }, hash);
        }
        journal.write(0, &mut memory);
        let mut found = Vec::new();
        let mut take = |run, hashes: &mut dyn Iterator<Item = u64>| {
            found.push((run, hashes.count()));
        };
        read(("b", 0, 5), (0, 1), &mut memory, &mut 0, &mut take);
        assert_eq!(found, [(RUN, 5), (other, 4)]);
    }

    #[test]
    fn a_late_reader_loses_the_oldest_and_the_ring_stays_bounded() {
        let (mut journal, mut memory) = (Journal::new("b".to_owned(), 5), Memory::default());
        for hash in 0..100 {
            journal.note(RUN, hash);
            journal.write(0, &mut memory);
        }
        let expected: Vec<u64> = (100 - RING..100).collect();
        assert_eq!(take_all(&mut memory, 0, 100).0, expected);
        for hash in 0..3 * MOST_FRESH as u64 {
            journal.note(RUN, hash);
        }
        journal.write(0, &mut memory);
        assert!(memory.size() < RING as usize * (SEGMENT * 8 + 100));
    }

    #[test]
    fn a_torn_segment_is_counted_and_a_former_vms_left_alone() {
        let (mut journal, mut memory) = (Journal::new("b".to_owned(), 5), Memory::default());
        for hash in 0..2 {
            journal.note(RUN, hash);
            journal.write(0, &mut memory);
        }
        let mut former = Journal::new("b".to_owned(), 6);
        former.note(RUN, 8);
        former.write(0, &mut memory);
        assert_eq!(take_all(&mut memory, 0, 2), (vec![1], 0));
        memory.tear("b/seat/0/1");
        assert_eq!(take_all(&mut memory, 0, 2), (vec![], 1));
    }
}
