//! Shared data as a test wants it that asks what becomes of torn values.

use super::{InProcess, Store};

/// Shared data of which one read in so many is torn.
pub struct Faulty<'a> {
    /// What is read and written.
    pub memory: &'a mut InProcess,
    /// What chance is.
    pub rng: &'a mut fastrand::Rng,
    /// One in so many; 0: none.
    pub torn: u32,
}

impl Store for Faulty<'_> {
    fn get(&mut self, key: &str) -> Option<(Vec<u8>, u32)> {
        let (mut value, version) = self.memory.get(key)?;
        if self.torn > 0 && self.rng.u32(0..self.torn) == 0 && !value.is_empty() {
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
