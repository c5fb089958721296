//! A KV cache of fixed-size blocks with prefix reuse.

use lru::LruCache;
use xxhash_rust::xxh64::xxh64;

/// Bytes of prompt text that count as one token.
pub const BYTES_PER_TOKEN: usize = 4;

/// Tokens of a block, as in vLLM.
pub const BLOCK_TOKENS: usize = 16;

/// The cached prefix blocks, by hash; the least recently used ones are evicted first.
#[derive(Debug)]
pub struct Cache {
    capacity: usize,
    blocks: LruCache<u64, ()>,
}

impl Cache {
    /// Creates an empty cache that holds this many blocks.
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            blocks: LruCache::unbounded(),
        }
    }

    /// Caches a prompt. Returns how many of its tokens were cached before.
    pub fn insert(&mut self, model: &str, prompt: &str) -> usize {
        let mut last = xxh64(model.as_bytes(), 0);
        let mut matched = 0;
        let mut matching = true;
        let block = BLOCK_TOKENS * BYTES_PER_TOKEN;
        for bytes in prompt.as_bytes().chunks_exact(block) {
            last = xxh64(bytes, last);
            matching &= self.blocks.put(last, ()).is_some();
            matched += usize::from(matching);
        }
        while self.blocks.len() > self.capacity {
            self.blocks.pop_lru();
        }
        matched * BLOCK_TOKENS
    }

    /// Returns the share of the cache that is filled.
    pub fn usage(&self) -> f64 {
        self.blocks.len() as f64 / self.capacity.max(1) as f64
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
    fn the_least_recently_used_block_is_evicted_first() {
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
