//! Times the look-up of a prompt, by the number of endpoints that hold it and how much of it they hold.

use std::hint::black_box;
use std::time::Instant;

use epp_core::prefix::index::Index;
use epp_core::prefix::key::Secret;
use epp_core::prefix::matcher::Matcher;

/// Blocks of the prompt. llm-d-router's default window with 64 tokens per block is eight times as long.
const BLOCKS: u64 = 256;

/// Blocks that all endpoints hold, as those of a system prompt.
const COMMON: u64 = 50;

const ROUNDS: u32 = 2_000;

/// Prints the table.
pub fn run() {
    println!("| endpoints | all hold 50 blocks, two hold all | all hold all |");
    println!("|---|---|---|");
    for endpoints in [1, 10, 100, 1_000] {
        let some = time(endpoints, |slot| if slot < 2 { BLOCKS } else { COMMON });
        let all = time(endpoints, |_| BLOCKS);
        println!("| {endpoints} | {some:.1} \u{b5}s | {all:.1} \u{b5}s |");
    }
}

/// Returns the microseconds of a look-up of the whole prompt.
fn time(endpoints: u32, held: impl Fn(u32) -> u64) -> f64 {
    let mut rng = fastrand::Rng::with_seed(1);
    let prompt: Vec<u64> = (0..BLOCKS).map(|_| rng.u64(..)).collect();
    let mut index = Index::new(64 << 20, &Secret::from(1));
    for slot in 0..endpoints {
        // Other prompts lie between, so that the index is of a common size.
        for _ in 0..200_000 / endpoints / BLOCKS as u32 {
            let others: Vec<u64> = (0..BLOCKS).map(|_| rng.u64(..)).collect();
            index.add(slot, &others, 0, 31_250, &mut |_| {});
        }
        let blocks = prompt.get(..held(slot) as usize).unwrap_or_default();
        index.add(slot, blocks, 0, 31_250, &mut |_| {});
    }
    let mut matcher = Matcher::default();
    let started = Instant::now();
    for _ in 0..ROUNDS {
        matcher.reset();
        for hash in &prompt {
            matcher.extend(&index, *hash);
        }
        matcher.settle(&index);
        black_box(matcher.counts());
    }
    started.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS)
}
