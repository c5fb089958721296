//! A KV cache: blocks that running requests use, and blocks of earlier prompts until their room is
//! needed.

use std::collections::HashMap;

use lru::LruCache;

/// The cache of one server.
#[derive(Debug)]
pub struct Cache {
    capacity: usize,
    /// The number of running requests that use each block.
    in_use: HashMap<u64, u32>,
    /// Blocks that no running request uses.
    unused: LruCache<u64, ()>,
    /// Blocks that only one request can use: its response, and the end of its prompt that does not fill a block.
    private: usize,
}

impl Cache {
    /// Creates an empty cache that holds this many blocks.
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            in_use: HashMap::new(),
            unused: LruCache::unbounded(),
            private: 0,
        }
    }

    /// Returns how many of a prompt's blocks are cached, from its first on.
    pub fn matched(&self, blocks: &[u64]) -> usize {
        let cached =
            |block: &&u64| self.in_use.contains_key(*block) || self.unused.contains(*block);
        blocks.iter().take_while(cached).count()
    }

    /// Returns whether an empty cache has room for a request with these blocks and this many private ones.
    pub fn could_hold(&self, blocks: &[u64], private: usize) -> bool {
        blocks.len() + private <= self.capacity
    }

    /// Reserves a request's blocks, if the running requests leave room for it.
    pub fn admit(&mut self, blocks: &[u64], private: usize) -> bool {
        let new = blocks
            .iter()
            .filter(|block| !self.in_use.contains_key(*block));
        if self.used() + new.count() + private > self.capacity {
            return false;
        }
        for block in blocks {
            self.unused.pop(block);
            *self.in_use.entry(*block).or_default() += 1;
        }
        self.private += private;
        while self.held() > self.capacity && self.unused.pop_lru().is_some() {}
        true
    }

    /// Frees the blocks of a request that has ended. They stay cached until their room is needed, the
    /// end of the prompt for the shortest time, as in vLLM.
    pub fn release(&mut self, blocks: &[u64], private: usize) {
        for block in blocks.iter().rev() {
            let Some(requests) = self.in_use.get_mut(block) else {
                continue;
            };
            *requests -= 1;
            if *requests == 0 {
                self.in_use.remove(block);
                self.unused.put(*block, ());
            }
        }
        self.private = self.private.saturating_sub(private);
    }

    /// Returns the number of blocks that running requests use.
    pub fn used(&self) -> usize {
        self.in_use.len() + self.private
    }

    /// Returns the number of blocks that are in use or cached.
    pub fn held(&self) -> usize {
        self.used() + self.unused.len()
    }

    /// Returns the share of the cache that is in use, as in `vllm:kv_cache_usage_perc`.
    pub fn usage(&self) -> f64 {
        self.used() as f64 / self.capacity.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_never_exceeds_its_capacity_and_never_drops_blocks_in_use() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut cache = Cache::new(40);
        let mut running: Vec<(Vec<u64>, usize)> = Vec::new();
        for _ in 0..5_000 {
            let first = rng.u64(0..30);
            let blocks: Vec<u64> = (first..first + rng.u64(0..12)).collect();
            let private = rng.usize(0..4);
            if cache.admit(&blocks, private) {
                running.push((blocks, private));
            } else if !running.is_empty() {
                let (blocks, private) = running.swap_remove(rng.usize(0..running.len()));
                cache.release(&blocks, private);
            }
            assert!(cache.held() <= 40 && cache.used() <= cache.held());
            for (blocks, _) in &running {
                assert_eq!(cache.matched(blocks), blocks.len());
            }
        }
        running
            .iter()
            .for_each(|(blocks, private)| cache.release(blocks, *private));
        assert_eq!(cache.used(), 0);
    }

    #[test]
    fn the_least_recently_used_is_evicted_first_and_a_prompts_end_before_its_beginning() {
        let mut cache = Cache::new(4);
        assert!(cache.admit(&[1, 2], 0));
        cache.release(&[1, 2], 0);
        assert!(cache.admit(&[3, 4], 0));
        cache.release(&[3, 4], 0);
        assert!(cache.admit(&[5], 0));
        assert_eq!(cache.matched(&[1, 2]), 1);
        assert_eq!(cache.matched(&[3, 4]), 2);
    }
}
