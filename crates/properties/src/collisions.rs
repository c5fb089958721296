//! Prompts whose blocks collide in a prefix index without a secret, as an attacker can compute them.
//!
//! The chain of the Endpoint Picker's hashes, hᵢ = XXH64(XXH64(blockᵢ) ‖ hᵢ₋₁) with
//! h₋₁ = XXH64(model), has no secret. A client can therefore fill a table that takes its bucket from low bits
//! of these hashes with entries of a single bucket, and each look-up walks them all. Texts are found by two
//! properties of XXH64:
//!
//! - For inputs of 8 bytes, and for a step of the chain with a known predecessor, it is a bijection: choose a
//!   hash with the wanted low bits, and compute its text. One in 3,300 such texts is JSON without
//!   escapes.
//! - For shorter blocks and for chains, a text with `bits` zero bits is found after 2^`bits` attempts, 15 ns
//!   each.
//!
//! The hashes are computed here instead of by `epp-core`: the attack uses the published form, whatever the
//! filter does with it.

use xxhash_rust::xxh64::xxh64;

const PRIME_1: u64 = 0x9e37_79b1_85eb_ca87;
const PRIME_2: u64 = 0xc2b2_ae3d_27d4_eb4f;
const PRIME_3: u64 = 0x1656_67b1_9e37_79f9;
const PRIME_4: u64 = 0x85eb_ca77_c2b2_ae63;
const PRIME_5: u64 = 0x27d4_eb2f_1656_67c5;

/// The bits of a hash that select a bucket in a table of 131,072 entries with two entries per bucket.
pub const BITS: u32 = 16;

/// Returns the hash with which the chain of a prompt begins, without a salt.
pub fn seed(model: &str) -> u64 {
    xxh64(model.as_bytes(), 0)
}

/// Returns the hash of a block after one with the hash `last`.
pub fn chained(last: u64, block: &[u8]) -> u64 {
    let mut both = [0; 16];
    let (digest, before) = both.split_at_mut(8);
    digest.copy_from_slice(&xxh64(block, 0).to_le_bytes());
    before.copy_from_slice(&last.to_le_bytes());
    xxh64(&both, 0)
}

/// Returns `count` different texts of eight characters. As a prompt for this model, each is one block whose
/// hash ends in `bits` zero bits.
pub fn strings(model: &str, bits: u32, count: usize) -> Vec<String> {
    let seed = seed(model);
    let hashes = (1..).map(|high: u64| high.wrapping_mul(PRIME_3) << bits);
    let texts = hashes.filter_map(|hash| plain(&text_of(seed, hash).to_le_bytes()));
    texts.take(count).collect()
}

/// Returns a text of `blocks` blocks of `size` characters, each of which has a hash that ends in `bits`
/// zero bits. Different numbers give different texts, from their first block on.
pub fn prompt(model: &str, size: usize, blocks: usize, bits: u32, number: u64) -> String {
    let mut random = fastrand::Rng::with_seed(number);
    let mut last = seed(model);
    let mut text = Vec::with_capacity(size * blocks);
    for _ in 0..blocks {
        let mut block = vec![b'a'; size];
        last = loop {
            block
                .iter_mut()
                .for_each(|byte| *byte = random.u8(b'a'..=b'z'));
            let hash = chained(last, &block);
            if hash.trailing_zeros() >= bits {
                break hash;
            }
        };
        text.extend(block);
    }
    String::from_utf8(text).unwrap()
}

/// Returns the eight bytes that, as the first block of a prompt, have this hash.
fn text_of(seed: u64, hash: u64) -> u64 {
    let before_last = unround(unfinish(hash)) ^ lane(seed);
    let digest = unlane(unround(before_last) ^ PRIME_5.wrapping_add(16));
    unlane(unround(unfinish(digest)) ^ PRIME_5.wrapping_add(8))
}

/// Returns the bytes as text if JSON does not escape them.
fn plain(bytes: &[u8]) -> Option<String> {
    let fits = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    bytes
        .iter()
        .all(fits)
        .then(|| bytes.iter().copied().map(char::from).collect())
}

/// Returns the contribution of eight bytes to a hash.
const fn lane(input: u64) -> u64 {
    input
        .wrapping_mul(PRIME_2)
        .rotate_left(31)
        .wrapping_mul(PRIME_1)
}

const fn unlane(lane: u64) -> u64 {
    lane.wrapping_mul(inverse(PRIME_1))
        .rotate_right(31)
        .wrapping_mul(inverse(PRIME_2))
}

/// Reverts the step after a contribution.
const fn unround(state: u64) -> u64 {
    state
        .wrapping_sub(PRIME_4)
        .wrapping_mul(inverse(PRIME_1))
        .rotate_right(27)
}

/// Reverts the finalizer.
const fn unfinish(hash: u64) -> u64 {
    let state = hash ^ hash >> 32;
    let state = state.wrapping_mul(inverse(PRIME_3));
    let state = state ^ state >> 29 ^ state >> 58;
    let state = state.wrapping_mul(inverse(PRIME_2));
    state ^ state >> 33
}

/// Returns the inverse of an odd number. Each of Newton's steps doubles the number of correct bits, from
/// three at first.
const fn inverse(odd: u64) -> u64 {
    let mut inverse = odd;
    let mut step = 0;
    while step < 5 {
        inverse = inverse.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(inverse)));
        step += 1;
    }
    inverse
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_text_has_the_hash_that_it_was_made_for() {
        let texts = strings("demo", BITS, 500);
        for text in &texts {
            assert_eq!(text.len(), 8);
            assert_eq!(serde_json::json!(text).to_string().len(), 10, "{text}");
            let hash = chained(seed("demo"), text.as_bytes());
            assert!(hash.trailing_zeros() >= BITS, "{text}: {hash:x}");
        }
        let different: HashSet<&String> = texts.iter().collect();
        assert_eq!(different.len(), texts.len());
    }

    #[test]
    fn each_block_of_a_prompt_collides() {
        let text = prompt("demo", 5, 20, 8, 1);
        let mut last = seed("demo");
        for block in text.as_bytes().chunks(5) {
            last = chained(last, block);
            assert!(last.trailing_zeros() >= 8);
        }
        assert_ne!(text[..5], prompt("demo", 5, 1, 8, 2)[..]);
    }
}
