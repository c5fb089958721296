//! A store for tests, of which some reads are corrupt.

use super::{InProcess, Store};

/// A store of which some reads are corrupt.
pub struct Faulty<'a> {
    /// The values.
    pub memory: &'a mut InProcess,
    /// Selects the reads that fail.
    pub rng: &'a mut fastrand::Rng,
    /// One read in this many; 0: none.
    pub corrupt: u32,
}

impl Store for Faulty<'_> {
    fn get(&mut self, key: &str) -> Option<(Vec<u8>, u32)> {
        let (mut value, version) = self.memory.get(key)?;
        if self.corrupt > 0 && self.rng.u32(0..self.corrupt) == 0 && !value.is_empty() {
            if self.rng.bool() {
                value.truncate(self.rng.usize(0..value.len()));
            } else {
                let place = self.rng.usize(0..value.len());
                value[place] ^= 1 << self.rng.u32(0..8);
            }
        }
        Some((value, version))
    }

    fn set(&mut self, key: &str, value: &[u8], cas: Option<u32>) -> bool {
        self.memory.set(key, value, cas)
    }
}
