use std::collections::HashMap;

use super::*;
use crate::prefix::key::tests::aimed;
use crate::prefix::matcher::Matcher;

/// A simple model of the index: the hashes of each endpoint in order of use, with their provenance.
#[derive(Default)]
struct Model {
    held: HashMap<u32, Vec<(u64, Provenance)>>,
}

impl Model {
    fn add(&mut self, slot: u32, hashes: &[u64], capacity: usize, provenance: Provenance) {
        let held = self.held.entry(slot).or_default();
        for hash in hashes {
            let known = held.iter().position(|(known, _)| known == hash);
            let before = known.map(|place| held.remove(place).1);
            let provenance = match before {
                Some(Provenance::PROVEN) => Provenance::PROVEN,
                Some(before) if provenance == Provenance::OWN => before,
                _ => provenance,
            };
            if before.is_none() {
                let excess = (held.len() + 1).saturating_sub(capacity);
                held.drain(..excess.min(2).min(held.len()));
            }
            held.push((*hash, provenance));
        }
    }

    fn retract(&mut self, slot: u32, hashes: &[u64], provenance: Provenance) {
        if let Some(held) = self.held.get_mut(&slot) {
            held.retain(|(known, other)| *other != provenance || !hashes.contains(known));
        }
    }

    fn list(&self, slot: u32) -> Vec<u64> {
        let held = self.held.get(&slot).map_or(&[][..], Vec::as_slice);
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
        matcher.extend(index, *hash);
    }
    matcher.settle(index);
    let mut counts = matcher.counts().to_vec();
    counts.resize(slots as usize, 0);
    counts
}

/// Adds all blocks of a prompt.
fn add(index: &mut Index, slot: u32, hashes: &[u64], capacity: usize) {
    index.add(slot, hashes, 0, capacity, &mut |_| {});
}

/// Returns the hash of a block, which depends on all blocks before it.
fn chained(before: u64, content: u64) -> u64 {
    (before ^ content)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .rotate_left(23)
}

/// Returns the blocks of a prompt with few distinct contents and beginnings, so that prompts share prefixes.
fn prompt(rng: &mut fastrand::Rng) -> Vec<u64> {
    let mut last = 7;
    let length = rng.usize(0..12);
    let parts = rng.usize(..=length);
    let blocks = (0..length).map(|number| {
        let content = if number < parts { 1 } else { rng.u64(1..3) };
        last = chained(last, content);
        last
    });
    blocks.collect()
}

/// Adds a prompt in pieces, each with its context.
fn add_in_pieces(
    index: &mut Index,
    (slot, provenance): (u32, Provenance),
    hashes: &[u64],
    capacity: usize,
    size: usize,
) {
    for from in (0..hashes.len()).step_by(size) {
        let prompt = &hashes[..hashes.len().min(from + size)];
        let less = index.context(&prompt[..from]).len();
        let sent = SentBlocks {
            slot,
            prompt: &prompt[from - less..],
            from: less,
            provenance,
        };
        index.record(sent, capacity, &mut |_, _| {});
    }
}

/// Returns a random provenance other than proof.
fn other_origin(rng: &mut fastrand::Rng) -> Provenance {
    [
        Provenance::OWN,
        Provenance::of_worker(0),
        Provenance::of_worker(5),
    ][rng.usize(0..3)]
}

fn provenance(rng: &mut fastrand::Rng) -> Provenance {
    if rng.bool() {
        Provenance::PROVEN
    } else {
        other_origin(rng)
    }
}

#[test]
fn the_index_behaves_like_the_model_over_random_histories() {
    for seed in 0..90 {
        // Some pools have more endpoints than a word of a set has bits.
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
                    let (capacity, provenance) = (rng.usize(1..15), provenance(&mut rng));
                    let size = rng.usize(1..13);
                    add_in_pieces(&mut index, (slot, provenance), &hashes, capacity, size);
                    model.add(slot, &hashes, capacity, provenance);
                }
                6..=7 => {
                    let from = rng.usize(..=hashes.len());
                    let less = index.context(&hashes[..from]).len();
                    let (part, mut dropped) = (&hashes[from - less..], 0);
                    let before = index.entries();
                    let provenance = other_origin(&mut rng);
                    index.retract(slot, part, less..part.len(), provenance, &mut |_| {
                        dropped += 1
                    });
                    model.retract(slot, &hashes[from..], provenance);
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
            let entries: usize = model.held.values().map(Vec::len).sum();
            assert_eq!(index.entries(), entries, "seed {seed}");
        }
        (0..slots).for_each(|slot| index.remove(slot));
        assert_eq!((index.entries(), index.sets.bytes()), (0, 0), "seed {seed}");
    }
}

#[test]
fn the_reference_vectors_hold() {
    let mut index = Index::new(1 << 20, &Secret::from(1));
    let ten: Vec<u64> = (0..10).collect();
    add(&mut index, 0, &ten, 10);
    add(&mut index, 1, &ten, 10);
    add(&mut index, 0, &[10], 10);
    assert_eq!(matched(&index, &[0], 2), [0, 1]);
    assert_eq!(matched(&index, &[10], 2), [1, 0]);
    index.remove(1);
    assert_eq!(matched(&index, &[0], 2), [0, 0]);
    // The capacity that the endpoint reports applies.
    let mut index = Index::new(1 << 20, &Secret::from(1));
    add(&mut index, 0, &[1, 2, 3], 2);
    assert_eq!(index.entries(), 2);
    assert_eq!(matched(&index, &[1], 1), [0]);
}

#[test]
fn a_list_follows_a_capacity_that_becomes_known_later() {
    let mut index = Index::new(1 << 20, &Secret::from(1));
    let hashes: Vec<u64> = (0..240).collect();
    add(&mut index, 0, &hashes[..100], 31_250);
    // Each new block drops two old ones, until the list fits.
    add(&mut index, 0, &hashes[100..101], 10);
    assert_eq!((index.entries(), index.evictions()), (99, 2));
    add(&mut index, 0, &hashes[101..], 10);
    assert_eq!(index.entries(), 10);
    let mut list = Vec::new();
    index.list(0, &mut list);
    assert_eq!(list, hashes[230..]);
    // It grows as well.
    add(&mut index, 0, &hashes[..20], 100);
    assert_eq!(index.entries(), 30);
    // A capacity of 0 is no reason to keep nothing: the newest block is held.
    add(&mut index, 0, &hashes[20..60], 0);
    assert_eq!(index.entries(), 1);
}

#[test]
fn another_endpoint_bridges_a_gap_and_matching_ends_where_no_endpoint_holds_the_block() {
    let mut index = Index::new(1 << 20, &Secret::from(1));
    add(&mut index, 0, &[1], 10);
    // The endpoint has lost the block in between.
    add(&mut index, 0, &[3], 10);
    add(&mut index, 1, &[1, 2, 3], 10);
    add(&mut index, 2, &[5], 10);
    assert_eq!(matched(&index, &[1, 2, 3, 4, 5], 3), [2, 3, 0]);
}

#[test]
fn a_look_up_is_not_a_use() {
    let mut index = Index::new(1 << 20, &Secret::from(1));
    add(&mut index, 0, &[1, 2], 2);
    matched(&index, &[1], 1);
    add(&mut index, 0, &[3], 2);
    assert_eq!(matched(&index, &[1], 1), [0]);
}

#[test]
fn the_memory_bound_holds_and_is_used() {
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
fn blocks_used_again_are_published_again_once_per_quarter_of_the_capacity() {
    let mut index = Index::new(1 << 20, &Secret::from(1));
    let mut published = Vec::new();
    let mut publish = |index: &mut Index, hash| {
        published.clear();
        index.add(0, &[hash], 0, 100, &mut |block| published.push(block));
        published.len()
    };
    let first: usize = (0..100).map(|hash| publish(&mut index, hash)).sum();
    assert_eq!(first, 100, "new blocks are published");
    let again: usize = (0..1_000).map(|_| publish(&mut index, 7)).sum();
    assert!((39..=41).contains(&again), "{again}");
    let mut roomy = Index::new(1 << 20, &Secret::from(1));
    add(&mut roomy, 0, &[1], 100);
    let count: usize = (0..100).map(|_| publish(&mut roomy, 1)).sum();
    assert_eq!(count, 0, "nothing is evicted, so that ages do not matter");
    // The capacity is known late.
    let mut index = Index::new(1 << 20, &Secret::from(1));
    add(&mut index, 0, &(0..100).collect::<Vec<u64>>(), 31_250);
    let again: usize = (0..1_000).map(|_| publish(&mut index, 7)).sum();
    assert!((39..=41).contains(&again), "{again}");
}

/// Blocks per request (the attack had 60,000 in one).
const REQUEST: usize = 2_000;
/// Number of requests.
const REQUESTS: u64 = 30;

/// Looks prompts up and adds them, and repeats this in the order in which entries are evicted. Returns the number of
/// bucket entries that were read: in total, and the maximum per request.
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
            // Another endpoint holds the blocks too.
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
    // A list of tiny prompts, prompts of the llm-d dialect, and prompts of GIE v1.
    for blocks in [1, REQUEST, 256] {
        let random = steps(&|number| fastrand::Rng::with_seed(number).u64(..), blocks);
        let crafted: [&dyn Fn(u64) -> u64; 4] = [
            // As in the attack: the 16 low bits are equal.
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
fn chains_are_bounded_even_for_an_attacker_with_the_secret() {
    let secret = Secret::from(7);
    let hashes: Vec<u64> = aimed(&secret).take(60_000).collect();
    for blocks in [1, 500] {
        let mut index = Index::new(64 << 20, &secret);
        for prompt in hashes.chunks(blocks).cycle().take(2 * 60_000 / blocks) {
            index.arena.steps.set(0);
            matched(&index, prompt, 3);
            (0..3).for_each(|slot| add(&mut index, slot, prompt, 5_000));
            index.retract(1, prompt, 0..prompt.len(), Provenance::PROVEN, &mut |_| {});
            let most = 64 * 40 * prompt.len();
            assert!(
                index.arena.steps.get() <= most,
                "{} steps",
                index.arena.steps.get()
            );
            assert!(index.entries() <= 3 * 5_000);
        }
        // Other prompts are still found.
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
fn refuted_blocks_are_removed_and_proven_ones_stay() {
    let mut index = Index::new(1 << 20, &Secret::from(1));
    let sent = |prompt, from, proven| SentBlocks {
        slot: 0,
        prompt,
        from,
        provenance: if proven {
            Provenance::PROVEN
        } else {
            Provenance::OWN
        },
    };
    let mut changes = Vec::new();
    let mut record = |index: &mut Index, sent| {
        changes.clear();
        index.record(sent, 100, &mut |block, change: BlockChange| {
            changes.push((block, change.new, change.unproven));
        });
        changes.clone()
    };
    let prompt = [11, 12, 13, 14];
    assert_eq!(
        record(&mut index, sent(&prompt[..2], 0, true)),
        [(0, true, false), (1, true, false)]
    );
    let more = [(2, true, false), (3, true, false)];
    assert_eq!(
        record(&mut index, sent(&prompt, 0, false)),
        more,
        "proven blocks stay proven"
    );
    assert_eq!(
        matched(&index, &prompt, 1),
        [4],
        "blocks in flight match immediately"
    );
    let unproven = [(2, false, true), (3, false, true)];
    assert_eq!(record(&mut index, sent(&prompt, 0, false)), unproven);
    index.retract(0, &prompt, 0..4, Provenance::OWN, &mut |_| {});
    assert_eq!(matched(&index, &prompt, 1), [2]);
    record(&mut index, sent(&prompt, 0, false));
    assert_eq!(record(&mut index, sent(&prompt, 2, true)), unproven);
    index.retract(0, &prompt, 0..4, Provenance::OWN, &mut |_| {});
    assert_eq!(matched(&index, &prompt, 1), [4]);
    assert!(record(&mut index, sent(&prompt, 0, true)).is_empty());
}
