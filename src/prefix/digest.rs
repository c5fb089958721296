//! interim
use xxhash_rust::xxh64::{xxh64, Xxh64};
/// seed
pub fn seed(model: &str, salt: &str) -> u64 {
    let mut h = Xxh64::new(0);
    h.update(model.as_bytes());
    h.update(salt.as_bytes());
    h.digest()
}
/// chain
pub fn chain(prev: u64, digest: u64) -> u64 {
    let mut b = [0u8; 16];
    b[..8].copy_from_slice(&digest.to_le_bytes());
    b[8..].copy_from_slice(&prev.to_le_bytes());
    xxh64(&b, 0)
}
/// spec
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BlockSpec {
    pub block_bytes: usize,
    pub max_blocks: usize,
    pub keep_partial: bool,
}
