//! Prompts whose blocks collide in the prefix index: what an attacker can compute at home.
//!
//! The chain of the Endpoint Picker's hashes, hᵢ = XXH64(XXH64(blockᵢ) ‖ hᵢ₋₁) with
//! h₋₁ = XXH64(model), has no secret. A table that takes its bucket from low bits of these hashes can
//! therefore be filled from outside with entries of a single bucket, and each look-up walks them all.
//! Texts come out of two properties of XXH64:
//!
//! - For inputs of 8 bytes, and for the chain step with a known predecessor, it is a bijection: a hash
//!   with the wanted low bits is chosen first, and its text is computed. One in 3,300 such texts can be
//!   written in JSON without escapes.
//! - Where blocks are shorter or stand in a chain, a text with `bits` zero bits turns up after
//!   2^`bits` tries, 15 ns each.
//!
//! The hashes here are written out rather than taken from the module, because what matters is the form
//! that is publicly known, whatever the module makes of it.

use xxhash_rust::xxh64::xxh64;

const PRIME_1: u64 = 0x9e37_79b1_85eb_ca87;
const PRIME_2: u64 = 0xc2b2_ae3d_27d4_eb4f;
const PRIME_3: u64 = 0x1656_67b1_9e37_79f9;
const PRIME_4: u64 = 0x85eb_ca77_c2b2_ae63;
const PRIME_5: u64 = 0x27d4_eb2f_1656_67c5;

/// The bits of a hash that a table of 131,072 entries takes its bucket from, at two entries a bucket.
pub const BITS: u32 = 16;

/// Returns the hash that a prompt's chain begins with, without a salt.
pub fn seed(model: &str) -> u64 {
    xxh64(model.as_bytes(), 0)
}

/// Returns the hash of a block with these bytes behind one that has the hash `last`.
pub fn chained(last: u64, block: &[u8]) -> u64 {
    let mut both = [0; 16];
    let (digest, before) = both.split_at_mut(8);
    digest.copy_from_slice(&xxh64(block, 0).to_le_bytes());
    before.copy_from_slice(&last.to_le_bytes());
    xxh64(&both, 0)
}

/// Returns `count` different texts of eight characters: each, as a prompt of its own for this model, is
/// one block whose hash ends in `bits` zero bits.
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

/// The eight bytes whose block has this hash as the first one of a prompt.
fn text_of(seed: u64, hash: u64) -> u64 {
    let before_last = unround(unfinish(hash)) ^ lane(seed);
    let digest = unlane(unround(before_last) ^ PRIME_5.wrapping_add(16));
    unlane(unround(unfinish(digest)) ^ PRIME_5.wrapping_add(8))
}

/// These bytes, if JSON writes them as they are.
fn plain(bytes: &[u8]) -> Option<String> {
    let fits = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    bytes
        .iter()
        .all(fits)
        .then(|| bytes.iter().copied().map(char::from).collect())
}

/// What eight bytes contribute to a hash.
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

/// Takes back what follows a contribution.
const fn unround(state: u64) -> u64 {
    state
        .wrapping_sub(PRIME_4)
        .wrapping_mul(inverse(PRIME_1))
        .rotate_right(27)
}

/// Takes back the finalizer.
const fn unfinish(hash: u64) -> u64 {
    let state = hash ^ hash >> 32;
    let state = state.wrapping_mul(inverse(PRIME_3));
    let state = state ^ state >> 29 ^ state >> 58;
    let state = state.wrapping_mul(inverse(PRIME_2));
    state ^ state >> 33
}

/// The number that undoes a multiplication by this odd one: each of Newton's steps doubles the bits that
/// are right, of which there are three at first.
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
