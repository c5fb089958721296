//! Tables by numbers.

use std::hash::{BuildHasherDefault, Hasher};

use hashbrown::HashMap;

/// A table by the numbers that a host gives to exchanges, or to other things that it counts up.
pub type ById<T> = HashMap<u32, T, BuildHasherDefault<NumberHasher>>;

/// 2^64 divided by the golden ratio: a product with it differs in its upper bits for numbers that differ in any.
pub const GOLDEN_RATIO: u64 = 0x9E37_79B9_7F4A_7C15;

/// Spreads numbers that no client chooses: those that are counted up, or hashes under a secret. The general hasher
/// needs 128-bit products, which wasm has to do in parts, at every callback.
#[derive(Debug, Default, Clone, Copy)]
pub struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        // The table takes its bits from both ends.
        let product = (self.0 ^ number).wrapping_mul(GOLDEN_RATIO);
        self.0 = product.rotate_left(26);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
