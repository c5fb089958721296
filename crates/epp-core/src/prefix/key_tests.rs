use super::*;
use crate::prefix::digest::{BlockHasher, BlockSpec};

const PRIME_1: u64 = 0x9e37_79b1_85eb_ca87;
const PRIME_2: u64 = 0xc2b2_ae3d_27d4_eb4f;

/// Returns the multiplicative inverse of an odd number.
fn inverse(odd: u64) -> u64 {
    // Each round doubles the number of correct bits.
    (0..6).fold(odd, |found, _| {
        found.wrapping_mul(2_u64.wrapping_sub(odd.wrapping_mul(found)))
    })
}

fn lane(block: &[u8], lane: usize) -> u64 {
    u64::from_le_bytes(block[lane * 8..][..8].try_into().unwrap())
}

fn set_lane(block: &mut [u8], lane: usize, value: u64) {
    block[lane * 8..][..8].copy_from_slice(&value.to_le_bytes());
}

/// Returns two different blocks with the same XXH64 under every other seed. Flipping the top bit of a lane changes the
/// sum of its lanes by 2^30 * PRIME_1 up or down; the same lane of the next 32 bytes reverts that.
pub fn pair(rng: &mut fastrand::Rng) -> [Vec<u8>; 2] {
    let mut block = vec![0; 256];
    rng.fill(&mut block);
    let difference = (PRIME_1 << 30).wrapping_mul(inverse(PRIME_2));
    let others = [difference, difference.wrapping_neg()].map(|difference| {
        let mut other = block.clone();
        set_lane(&mut other, 0, lane(&block, 0) ^ 1 << 63);
        set_lane(&mut other, 4, lane(&block, 4).wrapping_add(difference));
        other
    });
    let same = |other: &Vec<u8>| xxh64(other, 0) == xxh64(&block, 0);
    let other = others.into_iter().find(same);
    [block, other.expect("one of the two signs is right")]
}

#[test]
fn texts_that_collide_in_xxh64_do_not_when_keyed() {
    let mut rng = fastrand::Rng::with_seed(1);
    let mut under_a_seed = 0;
    for round in 0..200 {
        let [one, other] = pair(&mut rng);
        assert_ne!(one, other);
        assert_eq!(Key::Plain.digest(&one), Key::Plain.digest(&other));
        let seed = rng.u64(..);
        under_a_seed += usize::from(xxh64(&one, seed) == xxh64(&other, seed));
        let key = Key::Secret(Secret::from(round));
        assert_ne!(key.digest(&one), key.digest(&other));
        // Blocks in pieces take another path through the code.
        let digests = [one, other].map(|block| {
            let mut digest = BlockDigest::new(&key);
            block.chunks(100).for_each(|piece| digest.update(piece));
            digest.digest()
        });
        assert_ne!(digests[0], digests[1]);
    }
    assert!(
        under_a_seed > 50,
        "a secret seed is not a key: {under_a_seed}"
    );
}

#[test]
fn digests_with_different_secrets_differ() {
    let [one, other] = [1, 2].map(|number| Key::Secret(Secret::from(number)));
    for length in [0, 3, 8, 16, 64, 200, 256, 5_000] {
        let block = vec![7; length];
        assert_ne!(one.digest(&block), other.digest(&block), "{length}");
        assert_eq!(one.digest(&block), one.clone().digest(&block), "{length}");
    }
}

#[test]
fn model_and_salt_are_distinguished() {
    let key = Key::Secret(Secret::from(1));
    let seeds = [
        key.seed("mTENANT-A", ""),
        key.seed("m", "TENANT-A"),
        key.seed("mTENANT-", "A"),
        key.seed("", "mTENANT-A"),
        key.seed("TENANT-A", "m"),
    ];
    for (place, seed) in seeds.iter().enumerate() {
        assert!(!seeds[place + 1..].contains(seed), "{place}");
    }
    // The plain seed equals the Endpoint Picker's to the bit.
    assert_eq!(Key::Plain.seed("m", "x"), Key::Plain.seed("mx", ""));
}

/// Returns the hash for which [`TableKey::mix`] returns `mixed`.
fn unmix(key: TableKey, mixed: u64) -> u64 {
    let hash = (mixed ^ mixed >> 32).wrapping_mul(inverse(key.second));
    let hash = (hash ^ hash >> 29 ^ hash >> 58).wrapping_mul(inverse(key.first));
    hash ^ hash >> 32 ^ key.add
}

/// Returns hashes that only an attacker with the secret can find: all fall into one bucket, however many there are, and
/// all are milestones.
pub fn aimed(secret: &Secret) -> impl Iterator<Item = u64> {
    let key = TableKey::new(secret);
    // The number lies above the bits that select the bucket and below those that make a milestone.
    (1..).map(move |number: u64| {
        let hash = unmix(key, number << 32);
        assert_eq!(key.mix(hash), number << 32);
        hash
    })
}

#[test]
fn hashes_with_any_equal_bits_are_scattered_like_random_ones() {
    const BUCKETS: usize = 1 << 14;
    let mut rng = fastrand::Rng::with_seed(1);
    for secret in 0..200 {
        let key = TableKey::new(&Secret::from(secret));
        for turn in (0..64).step_by(8) {
            // All but 16 bits of the hashes are equal; four fall into each bucket.
            let rest = rng.u64(..) << 16;
            let hashes = (0..1_u64 << 16).map(|number| (rest | number).rotate_left(turn));
            let (mut buckets, mut milestones) = (vec![0_u32; BUCKETS], 0);
            for hash in hashes {
                buckets[key.mix(hash) as usize % BUCKETS] += 1;
                milestones += usize::from(key.is_milestone(hash));
            }
            // The cost of looking up each hash; random hashes cost 4 * 4 + 4 per bucket.
            let steps: u32 = buckets.iter().map(|count| count * count).sum();
            let steps = f64::from(steps) / (20 * BUCKETS) as f64;
            assert!(steps < 1.2, "{secret} {turn}: {steps}");
            let fullest = buckets.iter().max().unwrap();
            assert!(*fullest < 32, "{secret} {turn}: {fullest}");
            let share = milestones as f64 / 4_096.0;
            assert!((0.7..1.3).contains(&share), "{secret} {turn}: {share}");
        }
    }
}

#[test]
fn a_context_goes_back_to_the_last_milestone_and_is_bounded() {
    let secret = Secret::from(1);
    let key = TableKey::new(&secret);
    let mut rng = fastrand::Rng::with_seed(1);
    let hashes: Vec<u64> = (0..10_000).map(|_| rng.u64(..)).collect();
    let context = key.context(&hashes);
    assert!(hashes.ends_with(context) && key.is_milestone(context[0]));
    assert!(!context[1..].iter().any(|hash| key.is_milestone(*hash)));
    let others = hashes.iter().filter(|hash| !key.is_milestone(**hash));
    let none: Vec<u64> = others.copied().collect();
    assert_eq!(key.context(&none).len(), MAX_CONTEXT);
    assert!(key.context(&[]).is_empty());
    let milestones: Vec<u64> = aimed(&secret).take(3).collect();
    assert_eq!(key.context(&milestones), &milestones[2..]);
}

#[test]
fn a_secret_does_not_show_in_debug_output() {
    let secret = Secret::from(1);
    let key = Key::Secret(secret.clone());
    let table = TableKey::new(&secret);
    let shown = format!("{secret:?} {key:?} {table:?}");
    assert_eq!(shown, "Secret(..) Secret(Secret(..)) TableKey(..)");
    let mut hasher = BlockHasher::default();
    let plain = format!("{hasher:?}");
    hasher.reset(BlockSpec::default(), &key);
    assert_eq!(format!("{hasher:?}"), plain);
}
