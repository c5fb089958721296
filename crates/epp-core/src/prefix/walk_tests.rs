use std::collections::HashSet;

use super::*;
use crate::prefix::key::Secret;

const CAPACITY: usize = 10_000;

/// The index of one worker, and that of another worker, which receives everything that is published immediately.
struct Twins {
    own: Index,
    other: Index,
}

/// The provenance of what the other worker receives.
fn first_worker() -> Provenance {
    Provenance::of_worker(3)
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Verdict {
    SentBlocks,
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

    fn update(&mut self, walk: &mut Walk, slot: u32, verdict: Verdict) {
        self.update_at(walk, (Part::Primary, slot), verdict);
    }

    fn update_at(&mut self, walk: &mut Walk, at: (Part, u32), verdict: Verdict) {
        let (_, slot) = at;
        let Self { own, other } = self;
        let mut publish = |prompt: &[u64], blocks: Range<usize>| {
            let before = other.context(&prompt[..blocks.start]).len();
            let part = &prompt[blocks.start - before..blocks.end];
            if verdict == Verdict::Refuted {
                other.retract(slot, part, before..part.len(), first_worker(), &mut |_| {});
                return;
            }
            let sent = SentBlocks {
                slot,
                prompt: part,
                from: before,
                provenance: match verdict {
                    Verdict::Proven => Provenance::PROVEN,
                    _ => first_worker(),
                },
            };
            other.record(sent, CAPACITY, &mut |_, _| {});
        };
        match verdict {
            Verdict::SentBlocks => walk.learn(own, at, CAPACITY, &mut publish),
            Verdict::Proven => walk.prove(own, at, CAPACITY, &mut publish),
            Verdict::Refuted => walk.refute(own, at, &mut publish),
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

/// Returns the prompts of one request, with few distinct contents.
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
    let prompts = |first| prompts.iter().skip(first).map(Vec::as_slice);
    walk.advance(7, prompts, index);
}

#[test]
fn in_the_end_both_indexes_hold_exactly_the_blocks_that_were_served() {
    const SLOTS: u32 = 3;
    for seed in 0..300 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut twins = Twins::new();
        let mut served: Vec<HashSet<u64>> = vec![HashSet::new(); SLOTS as usize];
        let mut in_flight: Vec<([(Part, u32); 2], Walk)> = Vec::new();
        for round in 0..60 {
            if rng.bool() && round < 50 {
                let prompts = request(&mut rng);
                // Both parts may be one endpoint's.
                let targets = [Part::Primary, Part::Prefill].map(|part| (part, rng.u32(0..SLOTS)));
                let mut walk = Walk::default();
                // A part of the prompts may be sent before the rest arrives.
                let first = prompts[0][..rng.usize(..=prompts[0].len())].to_vec();
                for part in [&[first][..], &prompts] {
                    advance(&mut walk, part, &twins.own);
                    for target in targets {
                        twins.update_at(&mut walk, target, Verdict::SentBlocks);
                    }
                }
                in_flight.push((targets, walk));
            } else if !in_flight.is_empty() {
                let ended = rng.usize(0..in_flight.len());
                let (targets, mut walk) = in_flight.swap_remove(ended);
                let verdict = [Verdict::Proven, Verdict::Refuted][rng.usize(0..2)];
                for (part, slot) in targets {
                    twins.update_at(&mut walk, (part, slot), verdict);
                    if verdict == Verdict::Proven {
                        served[slot as usize].extend(&walk.hashes);
                    }
                }
                assert!(!walk.is_unproven());
            }
            let under_way = in_flight.iter();
            let under_way =
                under_way.flat_map(|(targets, walk)| targets.map(|(_, slot)| (slot, walk)));
            for (slot, walk) in under_way {
                let [own, _] = twins.lists(slot);
                let served = &served[slot as usize];
                let mut proven = walk.hashes.iter().filter(|hash| served.contains(hash));
                assert!(proven.all(|hash| own.contains(hash)), "seed {seed}");
            }
        }
        for (targets, mut walk) in in_flight {
            for target in targets {
                twins.update_at(&mut walk, target, Verdict::Refuted);
            }
        }
        for slot in 0..SLOTS {
            let [own, other] = twins.lists(slot);
            assert_eq!(own, served[slot as usize], "seed {seed}, {slot}");
            assert_eq!(other, own, "seed {seed}, {slot}");
        }
    }
}

#[test]
fn a_failing_copy_of_a_prompt_removes_no_block_that_was_served() {
    let mut twins = Twins::new();
    let prompts = [vec![1; 50]];
    let mut walks = [(); 3].map(|()| Walk::default());
    let [early, honest, late] = &mut walks;
    for walk in [&mut *early, &mut *honest] {
        advance(walk, &prompts, &twins.own);
        twins.update(walk, 0, Verdict::SentBlocks);
    }
    twins.update(honest, 0, Verdict::Proven);
    // Even the request that came first.
    twins.update(early, 0, Verdict::Refuted);
    advance(late, &prompts, &twins.own);
    twins.update(late, 0, Verdict::SentBlocks);
    assert!(!late.is_unproven(), "known blocks are not unproven again");
    twins.update(late, 0, Verdict::Refuted);
    for index in [&twins.own, &twins.other] {
        let mut matcher = Matcher::default();
        honest.hashes.iter().for_each(|hash| {
            matcher.extend(index, *hash);
        });
        matcher.settle(index);
        assert_eq!(matcher.counts(), [50]);
    }
}

#[test]
fn alternating_prompts_of_a_list_are_distinguished() {
    let mut twins = Twins::new();
    let (known, mut both) = ([vec![1], vec![3], vec![5]], Walk::default());
    let mut walk = Walk::default();
    advance(&mut walk, &known, &twins.own);
    twins.update(&mut walk, 0, Verdict::SentBlocks);
    twins.update(&mut walk, 0, Verdict::Proven);
    let prompts = [vec![1], vec![2], vec![3], vec![4], vec![5, 6]];
    advance(&mut both, &prompts, &twins.own);
    twins.update(&mut both, 0, Verdict::SentBlocks);
    assert_eq!(twins.lists(0).map(|list| list.len()), [6, 6]);
    assert_eq!(both.recorded[0].created.len(), 3);
    twins.update(&mut both, 0, Verdict::Refuted);
    assert_eq!(twins.lists(0).map(|list| list.len()), [3, 3]);
}

/// A client chooses how many prompts a request has, and in how many parts its body comes.
#[test]
fn prompts_that_were_walked_are_not_looked_at_again() {
    let mut index = Index::new(1 << 20, &Secret::from(1));
    let prompts: Vec<Vec<u64>> = (0..1_000).map(|prompt| vec![prompt]).collect();
    let mut walk = Walk::default();
    advance(&mut walk, &prompts, &index);
    walk.learn(&mut index, (Part::Primary, 0), 31_250, &mut |_, _| ());
    let mut asked = None;
    let from = |first| {
        asked = Some(first);
        prompts.iter().skip(first).map(Vec::as_slice)
    };
    walk.advance(7, from, &index);
    assert_eq!(asked, Some(999));
    assert_eq!(walk.total(), 1_000);
}
