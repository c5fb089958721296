//! Placements told to the other workers, so that all of one Envoy decide from the same knowledge.
//!
//! What a VM places between two of its ticks goes into the next segments of its journal, each a
//! value of its own in shared data, in a ring of sixteen. Its seat says how many segments there
//! are, so that a tick without news costs nobody anything, and news cost their own size. The ring
//! is bounded: a reader that falls behind loses hints, and nobody memory.

use super::pack::{Reader, Writer};
use super::SharedData;
use crate::prefix::key::TableKey;

/// Segments that are kept: a reader that pauses for less than 0.8 s loses nothing, as long as a
/// segment holds what comes up in a tick.
const RING: u64 = 16;

/// Hashes of one segment, 8 bytes each. Before those that follow each other in one prompt stand 16
/// bytes and what it takes to find them there, some 16 hashes. At 1,000 cold requests a second with 256 blocks each,
/// shared by four workers, some 3,000 come up in a tick.
const SEGMENT: usize = 4_096;

/// Hashes noted between two ticks; what is more is not told.
const MOST_FRESH: usize = RING as usize * SEGMENT;

/// What is said of blocks and an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// They were sent there.
    Sent,
    /// It has answered: it took them in.
    Proven,
    /// They were sent there and not taken in: what no answer has proven is to be forgotten.
    Refuted,
}

impl Word {
    /// As it stands in a run's head.
    fn bits(self) -> u32 {
        match self {
            Self::Sent => 0,
            Self::Proven => 1,
            Self::Refuted => 2,
        }
    }

    fn of(bits: u32) -> Option<Self> {
        let words = [Self::Sent, Self::Proven, Self::Refuted];
        words.get(bits as usize).copied()
    }
}

/// Where in a run's head the word stands, and the bits below it, which say how many hashes follow: more
/// than a segment or a piece has.
const WORD_BIT: u32 = 22;
const COUNT: u32 = (1 << WORD_BIT) - 1;

/// Blocks of one endpoint, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// What is said of them.
    pub word: Word,
    /// Index of the prefix producer in the plan.
    pub producer: u8,
    /// The endpoint's slot.
    pub slot: u32,
    /// Tells the endpoint from others that were or will be in its slot.
    pub tag: u32,
}

/// A part of a prompt: how many of the hashes it takes to find the others, and how many those are.
type Part = (usize, usize);

/// One VM's journal.
#[derive(Debug)]
pub struct Journal {
    base: String,
    own: u64,
    key: TableKey,
    /// Runs since the last tick.
    runs: Vec<(Run, Part)>,
    hashes: Vec<u64>,
    written: u64,
}

impl Journal {
    /// An empty journal under these keys; `own` tells this VM from the others.
    pub fn new(base: String, own: u64) -> Self {
        Self {
            base,
            own,
            key: TableKey::default(),
            runs: Vec::new(),
            hashes: Vec::new(),
            written: 0,
        }
    }

    /// Hashes are of another secret from now on: those that were noted mean nothing any more.
    pub fn set_key(&mut self, key: TableKey) {
        self.key = key;
        self.runs.clear();
        self.hashes.clear();
    }

    /// Notes what is to be told of a block of a prompt with the next tick.
    pub fn note(&mut self, run: Run, prompt: &[u64], block: usize) {
        let Some((before, [hash, ..])) = prompt.split_at_checked(block) else {
            return;
        };
        if self.hashes.len() >= MOST_FRESH {
            return;
        }
        let follows = !before.is_empty() && before.last() == self.hashes.last();
        match self.runs.last_mut() {
            Some((last, (_, count))) if *last == run && follows => *count += 1,
            _ => {
                let context = self.key.context(before);
                self.hashes.extend_from_slice(context);
                self.runs.push((run, (context.len(), 1)));
            }
        }
        self.hashes.push(*hash);
    }

    /// Segments written so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Writes what is new at the VM's seat.
    pub fn write(&mut self, seat: u32, host: &mut dyn SharedData) {
        let mut left = self.hashes.as_slice();
        let mut segment = None;
        let mut room = SEGMENT;
        for (run, (known, count)) in self.runs.drain(..) {
            let Some((hashes, more)) = left.split_at_checked(known + count) else {
                break;
            };
            left = more;
            let mut from = known;
            while from < hashes.len() {
                let before = hashes.get(..from).unwrap_or_default();
                let before = self.key.context(before).len();
                // Without any it is found only where it is in the table; that long there is none.
                let before = if before < SEGMENT { before } else { 0 };
                if room <= before {
                    room = SEGMENT;
                    self.written += seal(&self.base, seat, self.written, segment.take(), host);
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
                write_run(writer, run, part);
                room -= part.len();
                from = to;
            }
        }
        self.written += seal(&self.base, seat, self.written, segment, host);
        self.hashes.clear();
    }
}

/// Writes a segment, if there is one. How many were written.
fn seal(
    base: &str,
    seat: u32,
    number: u64,
    segment: Option<Writer>,
    host: &mut dyn SharedData,
) -> u64 {
    let Some(segment) = segment else {
        return 0;
    };
    host.set(&key(base, seat, number), &segment.seal(), None);
    1
}

/// Takes in the segments of another VM's journal from number `read` on, as far as they are still
/// there, up to one that is torn, which is counted, or until `room` hashes were read: the segment that
/// exceeds them is the last. Returns the number reached, and how many hashes were read.
pub fn read(
    (base, seat, owner): (&str, u32, u64),
    (read, written): (u64, u64),
    room: usize,
    host: &mut dyn SharedData,
    foreign: &mut u64,
    take: &mut dyn FnMut(Run, &[u64], usize),
) -> (u64, usize) {
    let (mut prompt, mut taken) = (Vec::new(), 0);
    // A count that went back is another journal's.
    let read = if read > written { 0 } else { read };
    for number in read.max(written.saturating_sub(RING))..written {
        if taken >= room {
            return (number, taken);
        }
        let Some((value, _)) = host.get(&key(base, seat, number)) else {
            continue;
        };
        taken += value.len() / size_of::<u64>();
        let Some(mut reader) = Reader::open(&value) else {
            *foreign += 1;
            return (number, taken);
        };
        // A former VM's at the same seat, or a newer one: that will be read in its turn.
        if reader.u64() == Some(owner) && reader.u64() == Some(number) {
            while let Some(before) = reader.u32() {
                let mut take = |run, hashes: &mut dyn Iterator<Item = u64>| {
                    prompt.clear();
                    prompt.extend(hashes);
                    take(run, &prompt, before as usize);
                };
                if read_run(&mut reader, &mut take).is_none() {
                    break;
                }
            }
        }
    }
    (written, taken)
}

/// Writes a run with its hashes.
pub fn write_run(writer: &mut Writer, run: Run, hashes: &[u64]) {
    writer.u32(run.slot);
    writer.u32(run.tag);
    let count = hashes.len() as u32 & COUNT;
    writer.u32(u32::from(run.producer) << 24 | run.word.bits() << WORD_BIT | count);
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
        word: Word::of(head >> WORD_BIT & 3)?,
        producer: (head >> 24) as u8,
        slot,
        tag,
    };
    let count = (head & COUNT) as usize;
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
    use crate::worker::Local;

    const RUN: Run = Run {
        word: Word::Sent,
        producer: 1,
        slot: 3,
        tag: 7,
    };

    /// Notes the blocks of a prompt that counts from 0.
    fn note(journal: &mut Journal, blocks: std::ops::Range<usize>) {
        let prompt: Vec<u64> = (0..blocks.end as u64).collect();
        blocks.for_each(|block| journal.note(RUN, &prompt, block));
    }

    fn take_all(memory: &mut Local, from: u64, written: u64) -> (Vec<u64>, u64) {
        let (mut taken, mut foreign) = (Vec::new(), 0);
        let mut take = |_, prompt: &[u64], from: usize| taken.extend_from_slice(&prompt[from..]);
        read(
            ("b", 0, 5),
            (from, written),
            usize::MAX,
            memory,
            &mut foreign,
            &mut take,
        );
        (taken, foreign)
    }

    /// Reads these segments of the journal that the tests write.
    fn read_back(
        segments: (u64, u64),
        memory: &mut Local,
        take: &mut dyn FnMut(Run, &[u64], usize),
    ) {
        read(("b", 0, 5), segments, usize::MAX, memory, &mut 0, take);
    }

    #[test]
    fn what_was_written_is_read_in_order_and_once() {
        let (mut journal, mut memory) = (Journal::new("b".to_owned(), 5), Local::default());
        journal.write(0, &mut memory);
        assert_eq!(journal.written(), 0, "nothing new, nothing written");
        note(&mut journal, 0..10_000);
        journal.write(0, &mut memory);
        assert_eq!(journal.written(), 3);
        let expected: Vec<u64> = (0..10_000).collect();
        assert_eq!(take_all(&mut memory, 0, 3).0, expected);
        assert!(take_all(&mut memory, 3, 3).0.is_empty());
    }

    #[test]
    fn runs_keep_their_endpoints_and_what_stands_before_them() {
        let (mut journal, mut memory) = (Journal::new("b".to_owned(), 5), Local::default());
        let other = Run { slot: 9, ..RUN };
        note(&mut journal, 0..5);
        for (prompt, block) in [(&[8, 9][..], 0), (&[8, 9], 1), (&[4, 5], 1), (&[6], 0)] {
            journal.note(other, prompt, block);
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
    fn what_a_segment_has_no_room_for_is_found_in_the_next() {
        let (mut journal, mut memory) = (Journal::new("b".to_owned(), 5), Local::default());
        note(&mut journal, 0..SEGMENT + 3);
        journal.write(0, &mut memory);
        let mut found = Vec::new();
        let mut take = |_, prompt: &[u64], from| found.push((prompt.to_vec(), from));
        read_back((1, 2), &mut memory, &mut take);
        let blocks: Vec<u64> = (0..SEGMENT as u64 + 3).collect();
        let before = TableKey::default().context(&blocks[..SEGMENT]).len();
        let expected = blocks[SEGMENT - before..].to_vec();
        assert_eq!(found, [(expected, before)]);
    }

    /// A prompt's hashes: as scattered as real ones, so that one in sixteen is a milestone.
    fn scattered(rng: &mut fastrand::Rng) -> Vec<u64> {
        let most = [3, 40, 400, 9_000][rng.usize(0..4)];
        (0..rng.usize(1..most)).map(|_| rng.u64(..)).collect()
    }

    #[test]
    fn whatever_was_noted_comes_with_all_that_it_takes_to_find_it() {
        for seed in 0..60 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (mut journal, mut memory) = (Journal::new("b".to_owned(), 5), Local::default());
            for _ in 0..rng.usize(1..6) {
                let before = journal.written();
                let mut noted = Vec::new();
                let prompts: Vec<_> = (0..rng.usize(1..20)).map(|_| scattered(&mut rng)).collect();
                for prompt in &prompts {
                    // What is news of a prompt are some stretches of it.
                    let run = Run {
                        slot: rng.u32(0..3),
                        ..RUN
                    };
                    let mut block = rng.usize(0..prompt.len());
                    while block < prompt.len() && noted.len() < 20_000 {
                        journal.note(run, prompt, block);
                        noted.push((run, prompt, block));
                        block += if rng.u32(0..50) == 0 {
                            rng.usize(1..40)
                        } else {
                            1
                        };
                    }
                }
                journal.write(0, &mut memory);
                let mut told = Vec::new();
                let mut take = |run, part: &[u64], from: usize| {
                    told.extend((from..part.len()).map(|at| (run, part[..=at].to_vec(), from)));
                };
                let segments = (before, journal.written());
                read_back(segments, &mut memory, &mut take);
                assert_eq!(told.len(), noted.len(), "seed {seed}");
                for ((run, part, from), (noted_run, prompt, block)) in told.iter().zip(&noted) {
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
        let (mut journal, mut memory) = (Journal::new("b".to_owned(), 5), Local::default());
        for hash in 0..100 {
            note(&mut journal, hash..hash + 1);
            journal.write(0, &mut memory);
        }
        let expected: Vec<u64> = (100 - RING..100).collect();
        assert_eq!(take_all(&mut memory, 0, 100).0, expected);
        note(&mut journal, 0..3 * MOST_FRESH);
        journal.write(0, &mut memory);
        assert!(memory.size() < RING as usize * (SEGMENT * 8 + 100));
    }

    #[test]
    fn no_more_is_read_than_there_is_room_for_and_the_rest_afterwards() {
        let (mut journal, mut memory) = (Journal::new("b".to_owned(), 5), Local::default());
        note(&mut journal, 0..4 * SEGMENT);
        journal.write(0, &mut memory);
        let (mut taken, mut reached, mut rounds) = (Vec::new(), 0, 0);
        while reached < journal.written() {
            let before = taken.len();
            let segments = (reached, journal.written());
            let mut take =
                |_, prompt: &[u64], from: usize| taken.extend_from_slice(&prompt[from..]);
            let (host, foreign) = (&mut memory, &mut 0);
            (reached, _) = read(("b", 0, 5), segments, SEGMENT, host, foreign, &mut take);
            assert!(taken.len() - before <= SEGMENT);
            rounds += 1;
        }
        assert_eq!(taken, (0..4 * SEGMENT as u64).collect::<Vec<_>>());
        assert!(rounds >= 4);
    }

    #[test]
    fn what_is_said_of_blocks_is_heard() {
        let (mut journal, mut memory) = (Journal::new("b".to_owned(), 5), Local::default());
        let words = [Word::Sent, Word::Proven, Word::Refuted, Word::Sent];
        for word in words {
            journal.note(Run { word, ..RUN }, &[1, 2], 0);
            journal.note(Run { word, ..RUN }, &[1, 2], 1);
        }
        journal.write(0, &mut memory);
        let mut heard = Vec::new();
        let mut take = |run: Run, prompt: &[u64], _| heard.push((run.word, prompt.len()));
        read_back((0, 1), &mut memory, &mut take);
        assert_eq!(heard, words.map(|word| (word, 2)));
    }

    #[test]
    fn a_torn_segment_is_counted_and_a_former_vms_left_alone() {
        let (mut journal, mut memory) = (Journal::new("b".to_owned(), 5), Local::default());
        for hash in 0..2 {
            note(&mut journal, hash..hash + 1);
            journal.write(0, &mut memory);
        }
        let mut former = Journal::new("b".to_owned(), 6);
        former.note(RUN, &[8], 0);
        former.write(0, &mut memory);
        assert_eq!(take_all(&mut memory, 0, 2), (vec![1], 0));
        memory.tear("b/seat/0/1");
        assert_eq!(take_all(&mut memory, 0, 2), (vec![], 1));
    }
}
