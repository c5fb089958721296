//! Tables by an exchange's number.

use std::hash::{BuildHasherDefault, Hasher};

use hashbrown::HashMap;

/// A table by the numbers that a host gives to exchanges, or to other things that it counts up.
pub type ById<T> = HashMap<u32, T, BuildHasherDefault<IdHasher>>;

/// Spreads small whole numbers, which is all that such a number takes: the general hasher
/// needs 128-bit products, which wasm has to do in parts, at every callback.
#[derive(Debug, Default, Clone, Copy)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        // 2^64 divided by the golden ratio: the table takes its bits from both ends.
        const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;
        self.0 = (self.0 ^ u64::from(number))
            .wrapping_mul(SPREAD)
            .rotate_left(26);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
