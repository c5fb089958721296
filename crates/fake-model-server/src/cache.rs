//! A KV cache of fixed-size blocks with prefix reuse.

use std::collections::HashMap;

use xxhash_rust::xxh64::xxh64;

/// Bytes of prompt text that count as one token.
pub const BYTES_PER_TOKEN: usize = 4;

/// Tokens of a block, as in vLLM.
pub const BLOCK_TOKENS: usize = 16;

/// Which prefix blocks are cached; the least recently used ones go first.
#[derive(Debug)]
pub struct Cache {
    capacity: usize,
    clock: u64,
    blocks: HashMap<u64, u64>,
}

impl Cache {
    /// An empty cache of so many blocks.
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            clock: 0,
            blocks: HashMap::new(),
        }
    }

    /// Takes a prompt in; how many of its tokens were there already.
    pub fn insert(&mut self, model: &str, prompt: &str) -> usize {
        self.clock += 1;
        let mut last = xxh64(model.as_bytes(), 0);
        let mut matched = 0;
        let mut matching = true;
        let block = BLOCK_TOKENS * BYTES_PER_TOKEN;
        for bytes in prompt.as_bytes().chunks_exact(block) {
            last = xxh64(bytes, last);
            matching &= self.blocks.insert(last, self.clock).is_some();
            matched += usize::from(matching);
        }
        self.evict();
        matched * BLOCK_TOKENS
    }

    /// The share that is in use.
    pub fn usage(&self) -> f64 {
        self.blocks.len() as f64 / self.capacity.max(1) as f64
    }

    fn evict(&mut self) {
        if self.blocks.len() <= self.capacity {
            return;
        }
        let mut ages: Vec<u64> = self.blocks.values().copied().collect();
        ages.sort_unstable();
        let surplus = self.blocks.len() - self.capacity;
        if let Some(oldest) = ages.get(surplus - 1).copied() {
            self.blocks.retain(|_, used| *used > oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_that_was_seen_is_cached_up_to_where_it_differs() {
        let mut cache = Cache::new(100);
        let head = "h".repeat(128);
        assert_eq!(cache.insert("m", &format!("{head}{}", "a".repeat(64))), 0);
        assert_eq!(cache.insert("m", &format!("{head}{}", "b".repeat(64))), 32);
        assert_eq!(cache.insert("other", &head), 0);
    }

    #[test]
    fn what_was_used_longest_ago_goes_first() {
        let mut cache = Cache::new(2);
        let prompt = |letter: &str| letter.repeat(64);
        cache.insert("m", &prompt("a"));
        cache.insert("m", &prompt("b"));
        cache.insert("m", &prompt("a"));
        cache.insert("m", &prompt("c"));
        assert_eq!(cache.insert("m", &prompt("a")), 16);
        assert_eq!(cache.insert("m", &prompt("b")), 0);
        assert!(cache.usage() <= 1.0);
    }
}
