use std::collections::HashMap;

use super::*;

/// The same by the plainest means: per endpoint the hashes in order of use.
#[derive(Default)]
struct Model {
    held: HashMap<u32, (usize, Vec<u64>)>,
}

impl Model {
    fn add(&mut self, slot: u32, hashes: &[u64], capacity: usize) {
        let (capacity, held) = self.held.entry(slot).or_insert((capacity, Vec::new()));
        for hash in hashes {
            held.retain(|known| known != hash);
            held.push(*hash);
            if held.len() > *capacity {
                held.remove(0);
            }
        }
    }

    fn matched(&self, hashes: &[u64], slots: u32) -> Vec<u32> {
        let mut counts = vec![0; slots as usize];
        for hash in hashes {
            let has = |slot: &u32| {
                self.held
                    .get(slot)
                    .is_some_and(|(_, held)| held.contains(hash))
            };
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
fn add_in_pieces(index: &mut Index, slot: u32, hashes: &[u64], capacity: usize, size: usize) {
    // Even nothing says how much the endpoint holds.
    add(index, slot, &[], capacity);
    for from in (0..hashes.len()).step_by(size) {
        let prompt = &hashes[..hashes.len().min(from + size)];
        let less = context(&prompt[..from]).len();
        index.add(slot, &prompt[from - less..], less, capacity, &mut |_| {});
    }
}

#[test]
fn it_behaves_as_the_plain_model_over_random_histories() {
    for seed in 0..90 {
        // Some pools are wider than a word of a set.
        let slots: u32 = [3, 6, 70][seed as usize % 3];
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut index, mut model) = (Index::new(1 << 20), Model::default());
        for _ in 0..300 {
            let slot = rng.u32(0..slots);
            let hashes = prompt(&mut rng);
            match rng.u32(0..10) {
                0 => {
                    index.remove(slot);
                    model.held.remove(&slot);
                }
                1..=5 => {
                    let capacity = rng.usize(1..15);
                    let size = rng.usize(1..13);
                    add_in_pieces(&mut index, slot, &hashes, capacity, size);
                    model.add(slot, &hashes, capacity);
                }
                _ => assert_eq!(
                    matched(&index, &hashes, slots),
                    model.matched(&hashes, slots),
                    "seed {seed}"
                ),
            }
            let entries: usize = model.held.values().map(|(_, held)| held.len()).sum();
            assert_eq!(index.entries(), entries, "seed {seed}");
        }
    }
}

#[test]
fn the_references_vectors_hold() {
    let mut index = Index::new(1 << 20);
    let ten: Vec<u64> = (0..10).collect();
    add(&mut index, 0, &ten, 10);
    add(&mut index, 1, &ten, 10);
    add(&mut index, 0, &[10], 10);
    assert_eq!(matched(&index, &[0], 2), [0, 1]);
    assert_eq!(matched(&index, &[10], 2), [1, 0]);
    index.remove(1);
    assert_eq!(matched(&index, &[0], 2), [0, 0]);
    // The first word on the capacity holds.
    let mut index = Index::new(1 << 20);
    add(&mut index, 0, &[1, 2, 3], 2);
    assert_eq!(index.entries(), 2);
    assert_eq!(matched(&index, &[1], 1), [0]);
}

#[test]
fn another_endpoint_bridges_a_gap_and_the_walk_ends_where_nobody_goes_on() {
    let mut index = Index::new(1 << 20);
    add(&mut index, 0, &[1], 10);
    // What it had behind that it holds no more.
    add(&mut index, 0, &[3], 10);
    add(&mut index, 1, &[1, 2, 3], 10);
    add(&mut index, 2, &[5], 10);
    assert_eq!(matched(&index, &[1, 2, 3, 4, 5], 3), [2, 3, 0]);
}

#[test]
fn a_look_up_refreshes_nothing() {
    let mut index = Index::new(1 << 20);
    add(&mut index, 0, &[1, 2], 2);
    matched(&index, &[1], 1);
    add(&mut index, 0, &[3], 2);
    assert_eq!(matched(&index, &[1], 1), [0]);
}

#[test]
fn the_bound_holds_and_is_used() {
    const BOUND: usize = 1 << 20;
    let mut index = Index::new(BOUND);
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
    let mut index = Index::new(1 << 20);
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
    let mut roomy = Index::new(1 << 20);
    add(&mut roomy, 0, &[1], 100);
    let untold: usize = (0..100).map(|_| tell(&mut roomy, 1)).sum();
    assert_eq!(
        untold, 0,
        "nothing is dropped, so that its age does not matter"
    );
}
