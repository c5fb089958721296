use super::*;
use crate::scheduling::{InFlight, Pool, RequestView};
use crate::testing::{endpoint, refused, scores};

/// The scores of an endpoint by its rank.
const BY_RANK: [f64; RANKS] = [1.0, 0.25, 0.0625];

const SCORER: PrefixRendezvousScorer = PrefixRendezvousScorer {
    anchor_bytes: BLOCK_BYTES,
    load_factor: 2.0,
};

/// A pool of the endpoints with these numbers, in slots of this order.
fn members(numbers: &[u32]) -> Pool {
    let mut pool = Pool::default();
    for (slot, number) in (0..).map(Slot).zip(numbers) {
        pool.set(slot, endpoint(&format!("10.0.{number}.1"), Default::default()));
    }
    pool
}

/// The numbers of the endpoints that score above 0, the best first.
fn order(pool: &Pool, numbers: &[u32], anchor: u64) -> Vec<u32> {
    let request = RequestView {
        anchor: Some(anchor),
        ..RequestView::default()
    };
    let scores = scores(&SCORER, pool, request);
    let place = |score: &f64| scores.iter().position(|own| own == score);
    let places: Vec<usize> = BY_RANK.iter().filter_map(place).collect();
    let scored = scores.iter().filter(|score| **score > 0.0);
    assert_eq!(scored.count(), places.len(), "{scores:?}");
    places.iter().map(|place| numbers[*place]).collect()
}

fn load(pool: &mut Pool, slot: u32, requests: u32) {
    let load = InFlight {
        requests,
        ..InFlight::default()
    };
    pool.set_load(Slot(slot), load);
}

#[test]
fn gateways_agree_whatever_the_order_and_the_slots_of_their_members() {
    let mut rng = fastrand::Rng::with_seed(1);
    let mut numbers: Vec<u32> = (0..20).collect();
    let first = members(&numbers);
    let mut firsts = std::collections::BTreeSet::new();
    for _ in 0..200 {
        let anchor = rng.u64(..);
        let expected = order(&first, &numbers.clone(), anchor);
        let mut shuffled = numbers.clone();
        rng.shuffle(&mut shuffled);
        let mut pool = members(&shuffled);
        // A member that has left, and its slot is empty or another's.
        let gone = Slot(rng.u32(0..20));
        let kept = pool.remove(gone).unwrap();
        pool.set(Slot(25), kept);
        let moved = shuffled.remove(gone.index());
        shuffled.push(moved);
        assert_eq!(order(&pool, &shuffled, anchor), expected);
        assert_eq!(expected.len(), RANKS);
        firsts.insert(expected[0]);
    }
    numbers.retain(|number| !firsts.contains(number));
    assert!(numbers.is_empty(), "{numbers:?} are the first choice for no prompt");
}

#[test]
fn only_the_prompts_of_an_endpoint_that_leaves_move_and_go_to_their_second_choice() {
    let all: Vec<u32> = (0..20).collect();
    let (before, fewer) = (members(&all), &all[..19]);
    let after = members(fewer);
    let mut moved = 0;
    for anchor in 0..4_000 {
        let was = order(&before, &all, anchor);
        let is = order(&after, fewer, anchor);
        let stayed: Vec<u32> = was.iter().copied().filter(|number| *number != 19).collect();
        assert!(is.starts_with(&stayed), "{was:?} {is:?}");
        moved += u32::from(was[0] != is[0]);
    }
    // A twentieth, by four standard deviations.
    assert!((145..=255).contains(&moved), "{moved}");
}

#[test]
fn prompts_are_spread_evenly_as_first_and_as_second_choice() {
    let numbers: Vec<u32> = (0..10).collect();
    let pool = members(&numbers);
    let mut counts = [[0; 10]; 10];
    for anchor in 0..20_000_u64 {
        let order = order(&pool, &numbers, anchor.wrapping_mul(1 << 40));
        counts[order[0] as usize][order[1] as usize] += 1;
    }
    for (first, seconds) in counts.iter().enumerate() {
        let sum: u32 = seconds.iter().sum();
        assert!((1_830..=2_170).contains(&sum), "{first}: {sum}");
        // What leaves an endpoint is spread over all others.
        for (second, count) in seconds.iter().enumerate().filter(|(second, _)| *second != first) {
            assert!((160..=290).contains(count), "{first} {second}: {count}");
        }
    }
}

#[test]
fn an_endpoint_with_more_than_its_share_in_flight_is_passed_over() {
    let numbers: Vec<u32> = (0..8).collect();
    let mut pool = members(&numbers);
    let idle = order(&pool, &numbers, 7);
    // The mean is below 1, and counts as 1.
    load(&mut pool, idle[0], 2);
    assert_eq!(order(&pool, &numbers, 7), idle);
    load(&mut pool, idle[0], 3);
    let without = order(&pool, &numbers, 7);
    assert_eq!(without[..2], idle[1..]);
    assert!(!without.contains(&idle[0]));
    // The same number is no more than twice the mean where all have as many.
    numbers.iter().for_each(|slot| load(&mut pool, *slot, 3));
    assert_eq!(order(&pool, &numbers, 7), idle);
    load(&mut pool, idle[1], 7);
    assert_eq!(order(&pool, &numbers, 7), idle, "twice the mean of 3.5");
    load(&mut pool, idle[1], 8);
    assert_eq!(order(&pool, &numbers, 7)[..2], [idle[0], idle[2]]);
}

#[test]
fn requests_that_all_begin_alike_fill_no_endpoint_beyond_the_bound() {
    let numbers: Vec<u32> = (0..10).collect();
    let mut pool = members(&numbers);
    for sent in 0..1_000_u32 {
        let target = order(&pool, &numbers, 7)[0];
        let requests = pool.load(Slot(target)).requests + 1;
        load(&mut pool, target, requests);
        let mean = (f64::from(sent) / 10.0).max(1.0);
        assert!(f64::from(requests) <= 2.0 * mean + 1.0, "{requests} of {sent}");
    }
}

#[test]
fn without_a_prompt_or_with_few_endpoints_there_are_fewer_scores() {
    let two = members(&[3, 4]);
    assert_eq!(scores(&SCORER, &two, RequestView::default()), [0.0; 2]);
    assert_eq!(order(&two, &[3, 4], 1).len(), 2);
    let none = Pool::default();
    let request = RequestView {
        anchor: Some(1),
        ..RequestView::default()
    };
    assert_eq!(scores(&SCORER, &none, request), [0.0; 0]);
}

#[test]
fn the_parameters_are_checked() {
    let kind = TYPE.name;
    for blocks in ["0", "1025"] {
        let error = refused(kind, &format!("{{anchorBlocks: {blocks}}}"));
        assert!(error.contains("plugins[0].parameters.anchorBlocks"), "{error}");
        assert!(error.contains("from 1 to 1024"), "{error}");
    }
    let error = refused(kind, "{loadFactor: 0.5}");
    assert!(error.contains("plugins[0].parameters.loadFactor"), "{error}");
    let expected = "found 0.5, expected a number of at least 1";
    assert!(error.contains(expected), "{error}");
}
