//! The memory of the prefix index, counted at the allocator: in a program of its own, because the
//! allocator counts for all tests that run at the same time.

use epp_core::prefix::index::Index;
use epp_core::prefix::key::Secret;

#[path = "memory/counting.rs"]
mod counting;

/// The holders of blocks: each endpoint has its own, some have the same, or all have the same.
#[test]
fn an_entry_of_the_index_costs_32_bytes_at_any_fill() {
    // The last chunk of entries and of buckets, and the endpoints' lists.
    const SLACK: usize = 64 << 10;
    for shared in [1_u64, 2, 3, 30] {
        let before = counting::used();
        let mut index = Index::new(16 << 20, &Secret::from(1));
        for round in 0..12_000_u64 {
            let slot = (round % 30) as u32;
            // This many endpoints in a row are sent the same.
            let seed = if shared == 1 { round } else { round / shared };
            let mut rng = fastrand::Rng::with_seed(seed);
            let prompt: Vec<u64> = (0..100).map(|_| rng.u64(..)).collect();
            let add = || index.add(slot, &prompt, 0, 31_250, &mut |_| {});
            let (most, ()) = counting::most(add);
            assert!(
                most <= SLACK,
                "{most} bytes at once: nothing is ever copied to grow"
            );
            let used = counting::used() - before;
            let entries = index.entries();
            assert!(
                used <= 32 * entries + SLACK,
                "{used} bytes for {entries} entries, {shared} hold each"
            );
            assert!(used <= (16 << 20) + SLACK);
            let said = index.bytes();
            assert!(
                said.abs_diff(used) <= used / 50 + SLACK,
                "{said} said, {used} used"
            );
        }
        assert!(index.entries() > 500_000 || shared > 1);
    }
}
