//! A model server: a queue, prefill of one prompt after the other, joint decoding of all running requests,
//! and a KV cache whose blocks are reused.
//!
//! | setting | default | where it comes from |
//! |---|---|---|
//! | prefill | 15,928 tokens/s | `peakPrefillThroughput` of llm-d-router's `prefix-cache-affinity-filter` |
//! | KV cache | 500,000 tokens | 31,250 blocks, the Endpoint Picker's `lruCapacityPerServer`, of vLLM's 16 tokens |
//! | most running requests | 256 | vLLM's `max_num_seqs` |
//! | time per token | 20 ms + 0.1 ms × running | assumed: a large model on a full node decodes at some 50 tokens/s alone and half that in a batch of 200 |
//!
//! As in vLLM, requests are admitted first come, first served: while the first in the queue has no
//! room, no other request overtakes it. The cached first blocks of a prompt are not computed again, but its
//! last token always is. The model leaves out that prefill slows decoding down, preemption (a request reserves
//! the blocks of its response), LoRA, and that the next turn of a conversation finds the blocks of the response.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::fmt::Write;

use epp_core::endpoints::engine::EngineConfig;

use crate::cache::Cache;
use crate::trace::Request;
use crate::SECOND;

/// The performance of a server.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// Prompt tokens computed per second.
    pub prefill_rate: f64,
    /// Seconds per token of a request that runs alone.
    pub token_seconds: f64,
    /// Seconds that each running request adds to that.
    pub token_seconds_each: f64,
    /// The most requests that run at a time.
    pub max_running: usize,
    /// Tokens in the KV cache.
    pub cache_tokens: usize,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            prefill_rate: 15_928.0,
            token_seconds: 0.02,
            token_seconds_each: 0.0001,
            max_running: 256,
            cache_tokens: 31_250 * 16,
        }
    }
}

/// A request, by its number in the trace.
type Number = usize;

/// The end of a decoding request, as the number of tokens that each request will have received since the
/// beginning, in millionths, so that marks have an order.
type Mark = Reverse<(u64, Number)>;

/// An event in a server.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Next {
    /// The first token of a request.
    FirstToken(Number),
    /// The last token of a request.
    End(Number),
}

/// A server.
#[derive(Debug)]
pub struct Pod {
    model: Model,
    block_tokens: u32,
    queue: VecDeque<Number>,
    /// The request that is being prefilled, and the time of its first token.
    prefilling: Option<(Number, u64)>,
    decoding: BinaryHeap<Mark>,
    /// Millionths of tokens that each decoding request has received since the beginning.
    given: f64,
    /// The time of [`Self::given`].
    as_of: u64,
    /// The KV cache.
    pub cache: Cache,
    /// Prompt tokens of the requests that have begun.
    pub prompt_tokens: u64,
    /// Prompt tokens that were cached.
    pub cached_tokens: u64,
    /// Requests that have begun.
    pub requests: u64,
    /// Nanoseconds of prefill.
    pub busy: u64,
}

impl Pod {
    /// Creates an idle server with blocks of this many tokens.
    pub fn new(model: &Model, block_tokens: u32) -> Self {
        Self {
            cache: Cache::new(model.cache_tokens / block_tokens.max(1) as usize),
            model: model.clone(),
            block_tokens: block_tokens.max(1),
            queue: VecDeque::new(),
            prefilling: None,
            decoding: BinaryHeap::new(),
            given: 0.0,
            as_of: 0,
            prompt_tokens: 0,
            cached_tokens: 0,
            requests: 0,
            busy: 0,
        }
    }

    /// Returns the number of waiting requests.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Returns the number of running requests.
    pub fn running(&self) -> usize {
        self.decoding.len() + usize::from(self.prefilling.is_some())
    }

    /// Queues a request. Returns false if the cache is too small for it.
    pub fn arrive(&mut self, now: u64, number: Number, requests: &[Request]) -> bool {
        let Some(request) = requests.get(number) else {
            return false;
        };
        let private = self.private(request);
        if !self.cache.could_hold(&request.blocks, private) {
            return false;
        }
        self.queue.push_back(number);
        self.admit(now, requests);
        true
    }

    /// Returns the next event and its time.
    pub fn next(&self) -> Option<(u64, Next)> {
        let prefilled = self
            .prefilling
            .map(|(number, at)| (at, Next::FirstToken(number)));
        let ends = self.decoding.peek().map(|Reverse((mark, number))| {
            let left = (*mark as f64 - self.given).max(0.0) / 1e6;
            let wait = (left * self.token_time() * SECOND as f64).ceil() as u64;
            (self.as_of + wait, Next::End(*number))
        });
        match (prefilled, ends) {
            (Some(prefilled), Some(ends)) if ends.0 < prefilled.0 => Some(ends),
            (Some(prefilled), _) => Some(prefilled),
            (None, ends) => ends,
        }
    }

    /// Carries out the next event.
    pub fn advance(&mut self, now: u64, next: Next, requests: &[Request]) {
        self.decode_until(now);
        match next {
            Next::FirstToken(number) => {
                self.prefilling = None;
                let output = requests.get(number).map_or(1, |request| request.output);
                // The prefill yields the first one.
                let left = f64::from(output.saturating_sub(1)) * 1e6;
                let mark = (self.given + left).ceil() as u64;
                self.decoding.push(Reverse((mark, number)));
            }
            Next::End(_) => {
                let ended = self.decoding.pop().map(|Reverse((_, number))| number);
                if let Some(request) = ended.and_then(|number| requests.get(number)) {
                    let private = self.private(request);
                    self.cache.release(&request.blocks, private);
                }
            }
        }
        self.admit(now, requests);
    }

    /// Writes the metrics page, with the families by which a picker reads this engine's load.
    pub fn page(&self, engine: &EngineConfig, page: &mut String) {
        page.clear();
        for (spec, value) in [
            (&engine.queued, self.waiting() as f64),
            (&engine.running, self.running() as f64),
            (&engine.kv_usage, self.cache.usage()),
        ] {
            if let Some(spec) = spec {
                // Writing to a String cannot fail.
                let _ = writeln!(page, "{spec} {value}");
            }
        }
    }

    /// Starts the first request in the queue if there is room for it.
    fn admit(&mut self, now: u64, requests: &[Request]) {
        self.decode_until(now);
        if self.prefilling.is_some() || self.running() >= self.model.max_running {
            return;
        }
        let Some(&number) = self.queue.front() else {
            return;
        };
        let Some(request) = requests.get(number) else {
            return;
        };
        let cached = self.cache.matched(&request.blocks) as u64 * u64::from(self.block_tokens);
        let private = self.private(request);
        if !self.cache.admit(&request.blocks, private) {
            return;
        }
        self.queue.pop_front();
        let input = u64::from(request.input).max(1);
        let cached = cached.min(input - 1);
        let prefill = (input - cached) as f64 / self.model.prefill_rate;
        let prefill = (prefill * SECOND as f64).ceil() as u64;
        self.prefilling = Some((number, now + prefill));
        self.busy += prefill;
        self.prompt_tokens += input;
        self.cached_tokens += cached;
        self.requests += 1;
    }

    /// Returns the number of blocks of a request that no other request can use.
    fn private(&self, request: &Request) -> usize {
        let shared = request.blocks.len() as u32 * self.block_tokens;
        let private = request.input.saturating_sub(shared) + request.output;
        private.div_ceil(self.block_tokens) as usize
    }

    fn decode_until(&mut self, now: u64) {
        let passed = now.saturating_sub(self.as_of) as f64 / SECOND as f64;
        if !self.decoding.is_empty() {
            self.given += passed / self.token_time() * 1e6;
        }
        self.as_of = now;
    }

    fn token_time(&self) -> f64 {
        self.model.token_seconds + self.model.token_seconds_each * self.decoding.len() as f64
    }
}
