//! A KV cache: blocks that running requests use, and blocks of former prompts until room is needed.

use std::collections::{BTreeMap, HashMap};

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Requests that use it.
    pins: u32,
    /// Its place among the unused, by age.
    stamp: u64,
}

/// The cache of one server.
#[derive(Debug)]
pub struct Cache {
    capacity: usize,
    entries: HashMap<u64, Entry>,
    /// Unused blocks, oldest first.
    unused: BTreeMap<u64, u64>,
    /// Blocks without a name: answers, and what of a prompt does not fill one.
    private: usize,
    clock: u64,
}

impl Cache {
    /// An empty cache of so many blocks.
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            entries: HashMap::new(),
            unused: BTreeMap::new(),
            private: 0,
            clock: 0,
        }
    }

    /// How many of a prompt's blocks are there, from its first on.
    pub fn matched(&self, blocks: &[u64]) -> usize {
        let there = |block: &&u64| self.entries.contains_key(*block);
        blocks.iter().take_while(there).count()
    }

    /// Whether a request of these blocks and so many private ones could ever run.
    pub fn could_hold(&self, blocks: &[u64], private: usize) -> bool {
        blocks.len() + private <= self.capacity
    }

    /// Takes a request in, if the requests that run leave room for it.
    pub fn admit(&mut self, blocks: &[u64], private: usize) -> bool {
        let unpinned = |block: &&u64| self.entries.get(*block).is_none_or(|entry| entry.pins == 0);
        let new = blocks.iter().filter(unpinned).count();
        if self.used() + new + private > self.capacity {
            return false;
        }
        for block in blocks {
            let entry = self
                .entries
                .entry(*block)
                .or_insert(Entry { pins: 0, stamp: 0 });
            if entry.pins == 0 {
                self.unused.remove(&entry.stamp);
            }
            entry.pins += 1;
        }
        self.private += private;
        while self.held() > self.capacity {
            let Some((_, oldest)) = self.unused.pop_first() else {
                break;
            };
            self.entries.remove(&oldest);
        }
        true
    }

    /// A request has ended: its blocks stay until room is needed, the last of the prompt the
    /// shortest, as in vLLM.
    pub fn release(&mut self, blocks: &[u64], private: usize) {
        for block in blocks.iter().rev() {
            let Some(entry) = self.entries.get_mut(block) else {
                continue;
            };
            entry.pins = entry.pins.saturating_sub(1);
            if entry.pins == 0 {
                self.clock += 1;
                entry.stamp = self.clock;
                self.unused.insert(self.clock, *block);
            }
        }
        self.private = self.private.saturating_sub(private);
    }

    /// Blocks that running requests use.
    pub fn used(&self) -> usize {
        self.entries.len() - self.unused.len() + self.private
    }

    /// Blocks in use or kept.
    pub fn held(&self) -> usize {
        self.entries.len() + self.private
    }

    /// The share in use, as `vllm:kv_cache_usage_perc` tells it.
    pub fn usage(&self) -> f64 {
        self.used() as f64 / self.capacity.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_holds_more_than_fits_and_never_drops_what_is_in_use() {
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
    fn what_was_used_longest_ago_goes_first_and_a_prompts_end_before_its_beginning() {
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
