//! The journal of one VM: the latest updates of its indexes, from which the other workers update theirs.
//!
//! What a VM learns between two of its ticks goes into the next segments of its journal, each a value of its
//! own in the store, in a ring of sixteen. Its presence says how many segments there are, so that a tick
//! without news costs nothing, and news cost their own size. The ring is bounded: a reader that falls behind
//! loses hints, and no VM's memory grows.

use epp_core::picker::peers::{Evidence, LearntLog, Placement};

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
                let least = if placement.is_binding() {
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
    writer.u32(placement.slot);
    writer.u32(placement.tag);
    let count = hashes.len() as u32 & COUNT_MASK;
    let evidence = evidence_bits(placement.evidence) << EVIDENCE_SHIFT;
    writer.u32(u32::from(placement.producer) << 24 | evidence | count);
    hashes.iter().for_each(|hash| writer.u64(*hash));
}

/// Reads a run. Returns how many hashes it has, or `None` where no other run follows.
pub fn read_run(
    reader: &mut Reader<'_>,
    take: &mut dyn FnMut(Placement, &mut dyn Iterator<Item = u64>),
) -> Option<usize> {
    let (slot, tag) = (reader.u32()?, reader.u32()?);
    let head = reader.u32()?;
    let placement = Placement {
        evidence: evidence_of(head >> EVIDENCE_SHIFT & 3)?,
        producer: (head >> 24) as u8,
        slot,
        tag,
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
mod tests {
    use super::*;
    use crate::shared::Traffic;
    use crate::{InProcess, Store};
    use epp_core::picker::peers::MAX_LOGGED_HASHES;
    use epp_core::prefix::key::TableKey;

    const RUN: Placement = Placement {
        evidence: Evidence::Sent,
        producer: 1,
        slot: 3,
        tag: 7,
    };

    /// A journal with the log that it writes.
    struct Written {
        journal: Journal,
        log: LearntLog,
    }

    impl Written {
        fn new(own: u64) -> Self {
            let mut log = LearntLog::default();
            log.set_enabled(true);
            let journal = Journal::new("b".to_owned(), own);
            Self { journal, log }
        }

        fn append(&mut self, placement: Placement, prompt: &[u64], block: usize) {
            self.log.append(placement, prompt, block);
        }

        fn write(&mut self, worker: u32, store: &mut dyn Store) {
            let mut traffic = Traffic::default();
            let shared = &mut Shared::new(store, &mut traffic);
            self.journal.write(worker, &mut self.log, shared);
        }

        fn written(&self) -> u64 {
            self.journal.written()
        }
    }

    /// Notes the blocks of a prompt that counts from 0.
    fn append(journal: &mut Written, blocks: std::ops::Range<usize>) {
        let prompt: Vec<u64> = (0..blocks.end as u64).collect();
        blocks.for_each(|block| journal.append(RUN, &prompt, block));
    }

    fn take_all(memory: &mut InProcess, from: u64, written: u64) -> (Vec<u64>, u64) {
        let mut taken = Vec::new();
        let mut take = |_, prompt: &[u64], from: usize| taken.extend_from_slice(&prompt[from..]);
        let unrecognised = read((from, written), usize::MAX, memory, &mut take).2;
        (taken, unrecognised)
    }

    /// Reads segments of the journal that the tests write. Returns the number reached, how many hashes were
    /// read, and how many segments were corrupt.
    fn read(
        (read, written): (u64, u64),
        room: usize,
        memory: &mut InProcess,
        take: &mut dyn FnMut(Placement, &[u64], usize),
    ) -> (u64, usize, u64) {
        let journal = PeerJournal {
            base: "b",
            worker: 0,
            owner: 5,
            read,
            written,
        };
        let mut traffic = Traffic::default();
        let shared = &mut Shared::new(memory, &mut traffic);
        let (reached, taken) = journal.read(room, shared, take);
        (reached, taken, traffic.unrecognised)
    }

    /// Reads these segments of the journal that the tests write.
    fn read_back(
        segments: (u64, u64),
        memory: &mut InProcess,
        take: &mut dyn FnMut(Placement, &[u64], usize),
    ) {
        read(segments, usize::MAX, memory, take);
    }

    #[test]
    fn written_runs_are_read_in_order_and_once() {
        let (mut journal, mut memory) = (Written::new(5), InProcess::default());
        journal.write(0, &mut memory);
        assert_eq!(journal.written(), 0, "nothing new, nothing written");
        append(&mut journal, 0..10_000);
        journal.write(0, &mut memory);
        assert_eq!(journal.written(), 3);
        let expected: Vec<u64> = (0..10_000).collect();
        assert_eq!(take_all(&mut memory, 0, 3).0, expected);
        assert!(take_all(&mut memory, 3, 3).0.is_empty());
    }

    #[test]
    fn runs_keep_their_endpoints_and_contexts() {
        let (mut journal, mut memory) = (Written::new(5), InProcess::default());
        let other = Placement { slot: 9, ..RUN };
        append(&mut journal, 0..5);
        for (prompt, block) in [(&[8, 9][..], 0), (&[8, 9], 1), (&[4, 5], 1), (&[6], 0)] {
            journal.append(other, prompt, block);
        }
        journal.write(0, &mut memory);
        let mut found = Vec::new();
        let mut take = |run, prompt: &[u64], from| found.push((run, prompt.to_vec(), from));
        read_back((0, 1), &mut memory, &mut take);
        assert_eq!(found[0], (RUN, vec![0, 1, 2, 3, 4], 0));
        let parts = [(vec![8, 9], 0), (vec![4, 5], 1), (vec![6], 0)];
        let parts = parts.map(|(prompt, from)| (other, prompt, from));
        assert_eq!(found[1..], parts);
    }

    #[test]
    fn runs_that_do_not_fit_a_segment_are_in_the_next() {
        let (mut journal, mut memory) = (Written::new(5), InProcess::default());
        append(&mut journal, 0..SEGMENT_HASHES + 3);
        journal.write(0, &mut memory);
        let mut found = Vec::new();
        let mut take = |_, prompt: &[u64], from| found.push((prompt.to_vec(), from));
        read_back((1, 2), &mut memory, &mut take);
        let blocks: Vec<u64> = (0..SEGMENT_HASHES as u64 + 3).collect();
        let before = TableKey::default().context(&blocks[..SEGMENT_HASHES]).len();
        let expected = blocks[SEGMENT_HASHES - before..].to_vec();
        assert_eq!(found, [(expected, before)]);
    }

    /// A prompt's hashes: as scattered as real ones, so that one in sixteen is a milestone.
    fn scattered(rng: &mut fastrand::Rng) -> Vec<u64> {
        let most = [3, 40, 400, 9_000][rng.usize(0..4)];
        (0..rng.usize(1..most)).map(|_| rng.u64(..)).collect()
    }

    #[test]
    fn every_run_comes_with_the_context_that_locates_it() {
        for seed in 0..60 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (mut journal, mut memory) = (Written::new(5), InProcess::default());
            for _ in 0..rng.usize(1..6) {
                let before = journal.written();
                let mut noted = Vec::new();
                let prompts: Vec<_> = (0..rng.usize(1..20)).map(|_| scattered(&mut rng)).collect();
                for prompt in &prompts {
                    // What is news of a prompt are some stretches of it.
                    let run = Placement {
                        slot: rng.u32(0..3),
                        ..RUN
                    };
                    let mut block = rng.usize(0..prompt.len());
                    while block < prompt.len() && noted.len() < 20_000 {
                        journal.append(run, prompt, block);
                        noted.push((run, prompt, block));
                        block += if rng.u32(0..50) == 0 {
                            rng.usize(1..40)
                        } else {
                            1
                        };
                    }
                }
                journal.write(0, &mut memory);
                let mut published = Vec::new();
                let mut take = |run, part: &[u64], from: usize| {
                    published
                        .extend((from..part.len()).map(|at| (run, part[..=at].to_vec(), from)));
                };
                let segments = (before, journal.written());
                read_back(segments, &mut memory, &mut take);
                assert_eq!(published.len(), noted.len(), "seed {seed}");
                for ((run, part, from), (noted_run, prompt, block)) in published.iter().zip(&noted)
                {
                    assert_eq!((run, part.last()), (noted_run, prompt.get(*block)));
                    // The record begins where its first block can be found from.
                    let first = block + 1 - (part.len() - from);
                    let before = TableKey::default().context(&prompt[..first]);
                    assert_eq!(&part[..*from], before, "seed {seed}");
                    assert!(prompt[..=*block].ends_with(part), "seed {seed}");
                }
            }
        }
    }

    #[test]
    fn a_late_reader_loses_the_oldest_and_the_ring_stays_bounded() {
        let (mut journal, mut memory) = (Written::new(5), InProcess::default());
        for hash in 0..100 {
            append(&mut journal, hash..hash + 1);
            journal.write(0, &mut memory);
        }
        let expected: Vec<u64> = (100 - SEGMENTS..100).collect();
        assert_eq!(take_all(&mut memory, 0, 100).0, expected);
        append(&mut journal, 0..3 * MAX_LOGGED_HASHES);
        journal.write(0, &mut memory);
        assert!(memory.size() < SEGMENTS as usize * (SEGMENT_HASHES * 8 + 100));
    }

    #[test]
    fn no_more_is_read_than_there_is_room_for_and_the_rest_afterwards() {
        let (mut journal, mut memory) = (Written::new(5), InProcess::default());
        append(&mut journal, 0..4 * SEGMENT_HASHES);
        journal.write(0, &mut memory);
        let (mut taken, mut reached, mut rounds) = (Vec::new(), 0, 0);
        while reached < journal.written() {
            let before = taken.len();
            let segments = (reached, journal.written());
            let mut take =
                |_, prompt: &[u64], from: usize| taken.extend_from_slice(&prompt[from..]);
            (reached, ..) = read(segments, SEGMENT_HASHES, &mut memory, &mut take);
            assert!(taken.len() - before <= SEGMENT_HASHES);
            rounds += 1;
        }
        assert_eq!(taken, (0..4 * SEGMENT_HASHES as u64).collect::<Vec<_>>());
        assert!(rounds >= 4);
    }

    #[test]
    fn a_binding_is_never_cut() {
        let (mut journal, mut memory) = (Written::new(5), InProcess::default());
        append(&mut journal, 0..SEGMENT_HASHES - 1);
        let binding = Placement {
            producer: 200,
            ..RUN
        };
        journal.log.append_run(binding, &[1 << 40, 3], 0..2);
        journal.write(0, &mut memory);
        let mut found = Vec::new();
        let mut take = |run, words: &[u64], from| found.push((run, words.to_vec(), from));
        read_back((0, 2), &mut memory, &mut take);
        assert_eq!(found[1..], [(binding, vec![1 << 40, 3], 0)]);
    }

    #[test]
    fn evidence_on_blocks_is_read_back() {
        let (mut journal, mut memory) = (Written::new(5), InProcess::default());
        let words = [
            Evidence::Sent,
            Evidence::Proven,
            Evidence::Refuted,
            Evidence::Sent,
        ];
        for word in words {
            journal.append(
                Placement {
                    evidence: word,
                    ..RUN
                },
                &[1, 2],
                0,
            );
            journal.append(
                Placement {
                    evidence: word,
                    ..RUN
                },
                &[1, 2],
                1,
            );
        }
        journal.write(0, &mut memory);
        let mut heard = Vec::new();
        let mut take = |run: Placement, prompt: &[u64], _| heard.push((run.evidence, prompt.len()));
        read_back((0, 1), &mut memory, &mut take);
        assert_eq!(heard, words.map(|word| (word, 2)));
    }

    #[test]
    fn a_corrupt_segment_is_counted_and_a_former_vms_left_alone() {
        let (mut journal, mut memory) = (Written::new(5), InProcess::default());
        for hash in 0..2 {
            append(&mut journal, hash..hash + 1);
            journal.write(0, &mut memory);
        }
        let mut former = Written::new(6);
        former.append(RUN, &[8], 0);
        former.write(0, &mut memory);
        assert_eq!(take_all(&mut memory, 0, 2), (vec![1], 0));
        memory.corrupt("b/worker/0/1");
        assert_eq!(take_all(&mut memory, 0, 2), (vec![], 1));
    }
}
