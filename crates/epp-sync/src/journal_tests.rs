use super::*;
use crate::shared::Traffic;
use crate::{InProcess, Store};
use epp_core::picker::peers::MAX_LOGGED_HASHES;
use epp_core::prefix::key::TableKey;

const BLOCKS: PlacedBlocks = PlacedBlocks {
    evidence: Evidence::Sent,
    producer: 1,
    slot: 3,
    tag: 7,
};
const RUN: Placement = Placement::Blocks(BLOCKS);

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
    let other = Placement::Blocks(PlacedBlocks { slot: 9, ..BLOCKS });
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
                let slot = rng.u32(0..3);
                let run = Placement::Blocks(PlacedBlocks { slot, ..BLOCKS });
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
                published.extend((from..part.len()).map(|at| (run, part[..=at].to_vec(), from)));
            };
            let segments = (before, journal.written());
            read_back(segments, &mut memory, &mut take);
            assert_eq!(published.len(), noted.len(), "seed {seed}");
            for ((run, part, from), (noted_run, prompt, block)) in published.iter().zip(&noted) {
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
        let mut take = |_, prompt: &[u64], from: usize| taken.extend_from_slice(&prompt[from..]);
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
    let (state, slot, tag) = (StateId(72), 3, 7);
    let binding = Placement::Binding(Binding { state, slot, tag });
    journal.log.append_run(binding, &[1 << 40, 3], 0..2);
    journal.write(0, &mut memory);
    let mut found = Vec::new();
    let mut take = |run, words: &[u64], from| found.push((run, words.to_vec(), from));
    read_back((0, 2), &mut memory, &mut take);
    assert_eq!(found[1..], [(binding, vec![1 << 40, 3], 0)]);
}

#[test]
fn what_a_placement_says_is_read_back() {
    let (mut journal, mut memory) = (Written::new(5), InProcess::default());
    let of_blocks = |evidence| Placement::Blocks(PlacedBlocks { evidence, ..BLOCKS });
    let (state, slot, tag) = (StateId(63), 3, 7);
    let placements = [
        of_blocks(Evidence::Sent),
        of_blocks(Evidence::Proven),
        of_blocks(Evidence::Refuted),
        of_blocks(Evidence::Sent),
        Placement::Binding(Binding { state, slot, tag }),
        Placement::State(state),
    ];
    for placement in placements {
        journal.append(placement, &[1, 2], 0);
        journal.append(placement, &[1, 2], 1);
    }
    journal.write(0, &mut memory);
    let mut heard = Vec::new();
    let mut take = |run: Placement, prompt: &[u64], _| heard.push((run, prompt.len()));
    read_back((0, 1), &mut memory, &mut take);
    assert_eq!(heard, placements.map(|placement| (placement, 2)));
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
