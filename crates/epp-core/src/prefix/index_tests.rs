use std::collections::HashMap;

use super::*;
use crate::prefix::key::tests::aimed;

/// The same by the plainest means: per endpoint the hashes in order of use, and whose word they are.
#[derive(Default)]
struct Model {
    held: HashMap<u32, (usize, Vec<(u64, Origin)>)>,
}

impl Model {
    fn add(&mut self, slot: u32, hashes: &[u64], capacity: usize, origin: Origin) {
        let (capacity, held) = self.held.entry(slot).or_insert((capacity, Vec::new()));
        for hash in hashes {
            let known = held.iter().position(|(known, _)| known == hash);
            let before = known.map(|place| held.remove(place).1);
            let origin = match before {
                Some(Origin::PROVEN) => Origin::PROVEN,
                Some(before) if origin == Origin::OWN => before,
                _ => origin,
            };
            held.push((*hash, origin));
            if held.len() > *capacity {
                held.remove(0);
            }
        }
    }

    fn retract(&mut self, slot: u32, hashes: &[u64], origin: Origin) {
        if let Some((_, held)) = self.held.get_mut(&slot) {
            held.retain(|(known, whose)| *whose != origin || !hashes.contains(known));
        }
    }

    fn list(&self, slot: u32) -> Vec<u64> {
        let held = self.held.get(&slot).map_or(&[][..], |(_, held)| held);
        held.iter().map(|(hash, _)| *hash).collect()
    }

    fn matched(&self, hashes: &[u64], slots: u32) -> Vec<u32> {
        let mut counts = vec![0; slots as usize];
        for hash in hashes {
            let has = |slot: &u32| self.list(*slot).contains(hash);
            let having: Vec<u32> = (0..slots).filter(has).collect();
            if having.is_empty() {
                break;
            }
            having.iter().for_each(|slot| counts[*slot as usize] += 1);
        }
        counts
    }
}

fn matched(index: &Index, hashes: &[u64], slots: u32) -> Vec<u32> {
    let mut matcher = Matcher::default();
    for hash in hashes {
        index.extend(&mut matcher, *hash);
    }
    index.settle(&mut matcher);
    let mut counts = matcher.counts().to_vec();
    counts.resize(slots as usize, 0);
    counts
}

/// Adds the blocks of a prompt from its beginning on.
fn add(index: &mut Index, slot: u32, hashes: &[u64], capacity: usize) {
    index.add(slot, hashes, 0, capacity, &mut |_| {});
}

/// The block behind another one: its hash says all that stands before it, too.
fn behind(before: u64, content: u64) -> u64 {
    (before ^ content)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .rotate_left(23)
}

/// Blocks of a prompt; few contents and few beginnings, so that prompts meet and part.
fn prompt(rng: &mut fastrand::Rng) -> Vec<u64> {
    let mut last = 7;
    let length = rng.usize(0..12);
    let parts = rng.usize(..=length);
    let blocks = (0..length).map(|number| {
        let content = if number < parts { 1 } else { rng.u64(1..3) };
        last = behind(last, content);
        last
    });
    blocks.collect()
}

/// Adds a prompt in pieces, each with the block before it.
fn add_in_pieces(
    index: &mut Index,
    (slot, origin): (u32, Origin),
    hashes: &[u64],
    capacity: usize,
    size: usize,
) {
    // Even nothing says how much the endpoint holds.
    add(index, slot, &[], capacity);
    for from in (0..hashes.len()).step_by(size) {
        let prompt = &hashes[..hashes.len().min(from + size)];
        let less = index.context(&prompt[..from]).len();
        let sent = Sent {
            slot,
            prompt: &prompt[from - less..],
            from: less,
            origin,
        };
        index.note(sent, capacity, &mut |_, _| {});
    }
}

/// Whose word it may be that is not proven.
fn other_origin(rng: &mut fastrand::Rng) -> Origin {
    [Origin::OWN, Origin::of_seat(0), Origin::of_seat(5)][rng.usize(0..3)]
}

fn origin(rng: &mut fastrand::Rng) -> Origin {
    if rng.bool() {
        Origin::PROVEN
    } else {
        other_origin(rng)
    }
}

#[test]
fn it_behaves_as_the_plain_model_over_random_histories() {
    for seed in 0..90 {
        // Some pools are wider than a word of a set.
        let slots: u32 = [3, 6, 70][seed as usize % 3];
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut index, mut model) = (Index::new(1 << 20, &Secret::from(seed)), Model::default());
        for _ in 0..300 {
            let slot = rng.u32(0..slots);
            let hashes = prompt(&mut rng);
            match rng.u32(0..12) {
                0 => {
                    index.remove(slot);
                    model.held.remove(&slot);
                }
                1..=5 => {
                    let (capacity, origin) = (rng.usize(1..15), origin(&mut rng));
                    let size = rng.usize(1..13);
                    add_in_pieces(&mut index, (slot, origin), &hashes, capacity, size);
                    model.add(slot, &hashes, capacity, origin);
                }
                6..=7 => {
                    let from = rng.usize(..=hashes.len());
                    let less = index.context(&hashes[..from]).len();
                    let (part, mut dropped) = (&hashes[from - less..], 0);
                    let before = index.entries();
                    let origin = other_origin(&mut rng);
                    index.retract(slot, part, less..part.len(), origin, &mut |_| dropped += 1);
                    model.retract(slot, &hashes[from..], origin);
                    assert_eq!(index.entries() + dropped, before);
                }
                _ => assert_eq!(
                    matched(&index, &hashes, slots),
                    model.matched(&hashes, slots),
                    "seed {seed}"
                ),
            }
            let mut list = Vec::new();
            index.list(slot, &mut list);
            assert_eq!(list, model.list(slot), "seed {seed}");
            let entries: usize = model.held.values().map(|(_, held)| held.len()).sum();
            assert_eq!(index.entries(), entries, "seed {seed}");
        }
        (0..slots).for_each(|slot| index.remove(slot));
        assert_eq!((index.entries(), index.sets.bytes()), (0, 0), "seed {seed}");
    }
}

#[test]
fn the_references_vectors_hold() {
    let mut index = Index::new(1 << 20, &Secret::from(1));
    let ten: Vec<u64> = (0..10).collect();
    add(&mut index, 0, &ten, 10);
    add(&mut index, 1, &ten, 10);
    add(&mut index, 0, &[10], 10);
    assert_eq!(matched(&index, &[0], 2), [0, 1]);
    assert_eq!(matched(&index, &[10], 2), [1, 0]);
    index.remove(1);
    assert_eq!(matched(&index, &[0], 2), [0, 0]);
    // The first word on the capacity holds.
    let mut index = Index::new(1 << 20, &Secret::from(1));
    add(&mut index, 0, &[1, 2, 3], 2);
    assert_eq!(index.entries(), 2);
    assert_eq!(matched(&index, &[1], 1), [0]);
}

#[test]
fn another_endpoint_bridges_a_gap_and_the_walk_ends_where_nobody_goes_on() {
    let mut index = Index::new(1 << 20, &Secret::from(1));
    add(&mut index, 0, &[1], 10);
    // What it had behind that it holds no more.
    add(&mut index, 0, &[3], 10);
    add(&mut index, 1, &[1, 2, 3], 10);
    add(&mut index, 2, &[5], 10);
    assert_eq!(matched(&index, &[1, 2, 3, 4, 5], 3), [2, 3, 0]);
}

#[test]
fn a_look_up_refreshes_nothing() {
    let mut index = Index::new(1 << 20, &Secret::from(1));
    add(&mut index, 0, &[1, 2], 2);
    matched(&index, &[1], 1);
    add(&mut index, 0, &[3], 2);
    assert_eq!(matched(&index, &[1], 1), [0]);
}

#[test]
fn the_bound_holds_and_is_used() {
    const BOUND: usize = 1 << 20;
    let mut index = Index::new(BOUND, &Secret::from(1));
    let mut rng = fastrand::Rng::with_seed(1);
    for round in 0..200_u32 {
        let hashes: Vec<u64> = (0..500).map(|_| rng.u64(..)).collect();
        add(&mut index, round % 7, &hashes, 31_250);
        assert!(index.entries() * ENTRY_BYTES <= BOUND);
    }
    assert!(index.evictions() > 0);
    assert!(index.entries() >= BOUND / 32, "{}", index.entries());
}

#[test]
fn what_is_used_again_is_told_again_once_in_a_quarter_of_the_capacity() {
    let mut index = Index::new(1 << 20, &Secret::from(1));
    let mut news = Vec::new();
    let mut tell = |index: &mut Index, hash| {
        news.clear();
        index.add(0, &[hash], 0, 100, &mut |block| news.push(block));
        news.len()
    };
    let first: usize = (0..100).map(|hash| tell(&mut index, hash)).sum();
    assert_eq!(first, 100, "what is new is told");
    let again: usize = (0..1_000).map(|_| tell(&mut index, 7)).sum();
    assert!((39..=41).contains(&again), "{again}");
    let mut roomy = Index::new(1 << 20, &Secret::from(1));
    add(&mut roomy, 0, &[1], 100);
    let untold: usize = (0..100).map(|_| tell(&mut roomy, 1)).sum();
    assert_eq!(
        untold, 0,
        "nothing is dropped, so that its age does not matter"
    );
}

/// What one request may bring, and how many there are (the attack had 60,000 in one).
const REQUEST: usize = 2_000;
const REQUESTS: u64 = 30;

/// Looks prompts up, adds them, and all of it again as soon as an endpoint's memory has been through:
/// where they come again in the order in which they are dropped. Returns the entries of buckets that were
/// looked at, in all and in one request at most.
fn steps(hash: &dyn Fn(u64) -> u64, blocks: usize) -> (usize, usize) {
    let mut index = Index::new(64 << 20, &Secret::from(7));
    let (mut sum, mut most) = (0, 0);
    for request in (0..REQUESTS).cycle().take(2 * REQUESTS as usize) {
        index.arena.steps.set(0);
        let hashes: Vec<u64> = (0..REQUEST as u64)
            .map(|block| hash(request * REQUEST as u64 + block))
            .collect();
        for prompt in hashes.chunks(blocks) {
            matched(&index, prompt, 1);
            add(&mut index, 0, prompt, 31_250);
            // Another endpoint holds them, too.
            add(&mut index, 1, prompt, 31_250);
        }
        sum += index.arena.steps.get();
        most = most.max(index.arena.steps.get());
    }
    assert_eq!(index.entries(), 62_500);
    (sum, most)
}

#[test]
fn crafted_hashes_cost_as_much_as_random_ones() {
    // A list of tiny prompts, today's prompts, and the seed's.
    for blocks in [1, REQUEST, 256] {
        let random = steps(&|number| fastrand::Rng::with_seed(number).u64(..), blocks);
        let crafted: [&dyn Fn(u64) -> u64; 4] = [
            // As in the attack: 16 low bits are alike, all are multiples of 16.
            &|number| number << 16,
            &|number| number << 32 | 0x1230,
            &|number| number.rotate_right(16),
            &|number| number,
        ];
        for (kind, crafted) in crafted.iter().enumerate() {
            let (sum, most) = steps(crafted, blocks);
            assert!(
                sum <= 2 * random.0 && most <= 2 * random.1,
                "{kind}, {blocks} blocks: {sum} and {most}, not {random:?}"
            );
        }
    }
}

#[test]
fn even_one_who_knows_the_secret_gets_bounded_chains() {
    let secret = Secret::from(7);
    let hashes: Vec<u64> = aimed(&secret).take(60_000).collect();
    for blocks in [1, 500] {
        let mut index = Index::new(64 << 20, &secret);
        for prompt in hashes.chunks(blocks).cycle().take(2 * 60_000 / blocks) {
            index.arena.steps.set(0);
            matched(&index, prompt, 3);
            (0..3).for_each(|slot| add(&mut index, slot, prompt, 5_000));
            index.retract(1, prompt, 0..prompt.len(), Origin::PROVEN, &mut |_| {});
            let most = 64 * 40 * prompt.len();
            assert!(
                index.arena.steps.get() <= most,
                "{} steps",
                index.arena.steps.get()
            );
            assert!(index.entries() <= 3 * 5_000);
        }
        // Other prompts are found as before.
        let other: Vec<u64> = (0..100)
            .map(|number| fastrand::Rng::with_seed(number).u64(..))
            .collect();
        add(&mut index, 1, &other, 5_000);
        assert_eq!(matched(&index, &other, 3), [0, 100, 0]);
        (0..3).for_each(|slot| index.remove(slot));
        assert_eq!((index.entries(), index.sets.bytes()), (0, 0));
    }
}

#[test]
fn what_is_refuted_goes_and_what_is_proven_stays() {
    let mut index = Index::new(1 << 20, &Secret::from(1));
    let sent = |prompt, from, proven| Sent {
        slot: 0,
        prompt,
        from,
        origin: if proven { Origin::PROVEN } else { Origin::OWN },
    };
    let mut told = Vec::new();
    let mut note = |index: &mut Index, sent| {
        told.clear();
        index.note(sent, 100, &mut |block, change: Change| {
            told.push((block, change.new, change.doubted));
        });
        told.clone()
    };
    let prompt = [11, 12, 13, 14];
    assert_eq!(
        note(&mut index, sent(&prompt[..2], 0, true)),
        [(0, true, false), (1, true, false)]
    );
    let more = [(2, true, false), (3, true, false)];
    assert_eq!(
        note(&mut index, sent(&prompt, 0, false)),
        more,
        "what is proven is not doubted again"
    );
    assert_eq!(
        matched(&index, &prompt, 1),
        [4],
        "what is under way counts at once"
    );
    let doubted = [(2, false, true), (3, false, true)];
    assert_eq!(note(&mut index, sent(&prompt, 0, false)), doubted);
    index.retract(0, &prompt, 0..4, Origin::OWN, &mut |_| {});
    assert_eq!(matched(&index, &prompt, 1), [2]);
    note(&mut index, sent(&prompt, 0, false));
    assert_eq!(note(&mut index, sent(&prompt, 2, true)), doubted);
    index.retract(0, &prompt, 0..4, Origin::OWN, &mut |_| {});
    assert_eq!(matched(&index, &prompt, 1), [4]);
    assert!(note(&mut index, sent(&prompt, 0, true)).is_empty());
}
