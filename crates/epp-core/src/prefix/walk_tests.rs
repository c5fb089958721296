use std::collections::HashSet;

use super::*;
use crate::prefix::index::Matcher;
use crate::prefix::key::Secret;

const CAPACITY: usize = 10_000;

/// An index, and another worker's, which receives at once what is published.
struct Twins {
    own: Index,
    other: Index,
}

/// The first worker, to the other one.
fn teller() -> Origin {
    Origin::of_seat(3)
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Word {
    Sent,
    Proven,
    Refuted,
}

impl Twins {
    fn new() -> Self {
        let index = Index::new(1 << 20, &Secret::from(1));
        Self {
            own: index.clone(),
            other: index,
        }
    }

    fn teach(&mut self, walk: &mut Walk, slot: u32, word: Word) {
        let Self { own, other } = self;
        let mut news = |prompt: &[u64], block: usize| {
            let before = other.context(&prompt[..block]).len();
            let part = &prompt[block - before..=block];
            if word == Word::Refuted {
                other.retract(slot, part, before..part.len(), teller(), &mut |_| {});
                return;
            }
            let sent = Sent {
                slot,
                prompt: part,
                from: before,
                origin: match word {
                    Word::Proven => Origin::PROVEN,
                    _ => teller(),
                },
            };
            other.note(sent, CAPACITY, &mut |_, _| {});
        };
        match word {
            Word::Sent => walk.learn(own, slot, CAPACITY, &mut news),
            Word::Proven => walk.prove(own, slot, CAPACITY, &mut news),
            Word::Refuted => walk.refute(own, slot, &mut news),
        }
    }

    fn lists(&self, slot: u32) -> [HashSet<u64>; 2] {
        [&self.own, &self.other].map(|index| {
            let mut hashes = Vec::new();
            index.list(slot, &mut hashes);
            hashes.into_iter().collect()
        })
    }
}

/// Prompts of one request, of few contents.
fn request(rng: &mut fastrand::Rng) -> Vec<Vec<u64>> {
    let prompt = |rng: &mut fastrand::Rng| {
        let length = rng.usize(1..30);
        let parts = rng.usize(..=length);
        let blocks = 0..length;
        blocks
            .map(|block| if block < parts { 1 } else { rng.u64(1..3) })
            .collect()
    };
    (0..rng.usize(1..4)).map(|_| prompt(rng)).collect()
}

fn advance(walk: &mut Walk, prompts: &[Vec<u64>], index: &Index) {
    walk.advance(7, prompts.iter().map(Vec::as_slice), index);
}

#[test]
fn in_the_end_the_indexes_hold_what_was_answered_and_nothing_else() {
    const SLOTS: u32 = 3;
    for seed in 0..300 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut twins = Twins::new();
        let mut answered: Vec<HashSet<u64>> = vec![HashSet::new(); SLOTS as usize];
        let mut under_way: Vec<(u32, Vec<Vec<u64>>, Walk)> = Vec::new();
        for round in 0..60 {
            if rng.bool() && round < 50 {
                let (slot, prompts) = (rng.u32(0..SLOTS), request(&mut rng));
                let mut walk = Walk::default();
                // Some of it may leave before the rest has come.
                let first = prompts[0][..rng.usize(..=prompts[0].len())].to_vec();
                for part in [&[first][..], &prompts] {
                    advance(&mut walk, part, &twins.own);
                    twins.teach(&mut walk, slot, Word::Sent);
                }
                under_way.push((slot, prompts, walk));
            } else if !under_way.is_empty() {
                let ended = rng.usize(0..under_way.len());
                let (slot, _, mut walk) = under_way.swap_remove(ended);
                let word = [Word::Proven, Word::Refuted][rng.usize(0..2)];
                twins.teach(&mut walk, slot, word);
                assert!(!walk.is_doubted());
                if word == Word::Proven {
                    answered[slot as usize].extend(&walk.hashes);
                }
            }
            for (slot, _, walk) in &under_way {
                let [own, _] = twins.lists(*slot);
                let proven = walk
                    .hashes
                    .iter()
                    .filter(|hash| answered[*slot as usize].contains(hash));
                assert!(
                    proven.into_iter().all(|hash| own.contains(hash)),
                    "seed {seed}"
                );
            }
        }
        for (slot, _, mut walk) in under_way {
            twins.teach(&mut walk, slot, Word::Refuted);
        }
        for slot in 0..SLOTS {
            let [own, other] = twins.lists(slot);
            assert_eq!(own, answered[slot as usize], "seed {seed}, {slot}");
            assert_eq!(other, own, "seed {seed}, {slot}");
        }
    }
}

#[test]
fn a_failing_copy_of_a_prompt_removes_nothing_that_was_answered() {
    let mut twins = Twins::new();
    let prompts = [vec![1; 50]];
    let mut walks = [(); 3].map(|()| Walk::default());
    let [early, honest, late] = &mut walks;
    for walk in [&mut *early, &mut *honest] {
        advance(walk, &prompts, &twins.own);
        twins.teach(walk, 0, Word::Sent);
    }
    twins.teach(honest, 0, Word::Proven);
    // Even the one that was there first.
    twins.teach(early, 0, Word::Refuted);
    advance(late, &prompts, &twins.own);
    twins.teach(late, 0, Word::Sent);
    assert!(!late.is_doubted(), "what is known costs nothing more");
    twins.teach(late, 0, Word::Refuted);
    for index in [&twins.own, &twins.other] {
        let mut matcher = Matcher::default();
        honest.hashes.iter().for_each(|hash| {
            index.extend(&mut matcher, *hash);
        });
        index.settle(&mut matcher);
        assert_eq!(matcher.counts(), [50]);
    }
}

#[test]
fn alternating_blocks_of_a_list_are_told_apart() {
    let mut twins = Twins::new();
    let (known, mut both) = ([vec![1], vec![3], vec![5]], Walk::default());
    let mut walk = Walk::default();
    advance(&mut walk, &known, &twins.own);
    twins.teach(&mut walk, 0, Word::Sent);
    twins.teach(&mut walk, 0, Word::Proven);
    let prompts = [vec![1], vec![2], vec![3], vec![4], vec![5, 6]];
    advance(&mut both, &prompts, &twins.own);
    twins.teach(&mut both, 0, Word::Sent);
    assert_eq!(twins.lists(0).map(|list| list.len()), [6, 6]);
    assert_eq!(both.created.len(), 3);
    twins.teach(&mut both, 0, Word::Refuted);
    assert_eq!(twins.lists(0).map(|list| list.len()), [3, 3]);
}
