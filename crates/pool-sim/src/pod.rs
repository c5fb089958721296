//! A model server: a queue, prefill of one prompt after the other, joint decoding of all running requests,
//! and a KV cache whose blocks are reused.
//!
//! | setting | default | where it comes from |
//! |---|---|---|
//! | prefill | 15,928 tokens/s | `peakPrefillThroughput` of llm-d-router's `prefix-cache-affinity-filter` |
//! | KV cache | 500,000 tokens | 31,250 blocks, the Endpoint Picker's `lruCapacityPerServer`, of vLLM's 16 tokens |
//! | most running requests | 256 | vLLM's `max_num_seqs` |
//! | time per token | 20 ms + 0.1 ms × running | assumed: a large model on a full node decodes at some 50 tokens/s alone and half that in a batch of 200 |
//! | step | 2,048 prompt tokens | the lower of vLLM's defaults of `max_num_batched_tokens` |
//! | LoRA | 4 adapters at a time, 0.5 s to load one | assumed; vLLM's default of `max_loras` is 1 |
//! | KV transfer | 76,000 tokens/s | assumed: 320 KiB per token of a 70B model with grouped-query attention, at 25 GB/s |
//!
//! A server can also have only a [part](Part) in a request: compute the prompt for another server, or fetch the KV
//! cache of a prompt from another server and decode. Transfers overlap with everything else.
//!
//! As in vLLM, requests are admitted first come, first served: while the first in the queue has no
//! room, no other request overtakes it, except those for whose adapter there is a place where there is none for the
//! first one's. Nothing else is computed while an adapter is loaded. The cached first blocks of a prompt are not computed again, but its
//! last token always is. While a prompt is computed, each step takes as long as its part of the prompt, and decoding
//! requests get one token per step. The model leaves out preemption (a request reserves the blocks of its response),
//! that the next turn of a conversation finds the blocks of the response, and that a server keeps a prompt's
//! blocks until the other server has fetched them.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};
use std::fmt::Write;

use epp_core::endpoints::engine::EngineConfig;
use epp_core::endpoints::spec::MetricSpec;

use crate::adapters::{Adapter, Adapters};
use crate::cache::Cache;
use crate::trace::{adapter_name, Request};
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
    /// Prompt tokens per step; 0 if prefill does not slow decoding down.
    pub step_tokens: u32,
    /// Prompt tokens per second whose KV cache is fetched from another server.
    pub transfer_rate: f64,
    /// The most requests that run at a time.
    pub max_running: usize,
    /// Tokens in the KV cache.
    pub cache_tokens: usize,
    /// The most LoRA adapters whose requests run at a time; 0 if servers have no adapters.
    pub max_adapters: usize,
    /// Seconds to load an adapter.
    pub adapter_seconds: f64,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            prefill_rate: 15_928.0,
            token_seconds: 0.02,
            token_seconds_each: 0.0001,
            step_tokens: 2048,
            transfer_rate: 76_000.0,
            max_running: 256,
            cache_tokens: 31_250 * 16,
            max_adapters: 0,
            adapter_seconds: 0.5,
        }
    }
}

/// A request, by its number in the trace.
type Number = usize;

/// A server's part in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// It computes the prompt and decodes.
    Whole,
    /// It computes the prompt for another server.
    Prefill,
    /// It fetches the prompt's KV cache from another server and decodes.
    Decode,
}

/// The token counts of a prompt, as a response reports them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// All tokens.
    pub prompt_tokens: u32,
    /// Those that were cached.
    pub cached_tokens: u64,
    /// Those of the response.
    pub output_tokens: u32,
}

/// A request with the part that a server has in it.
type Job = (Number, Part);

/// A request in the queue.
#[derive(Debug)]
struct Waiting {
    job: Job,
    adapter: Option<Adapter>,
}

/// The end of a decoding request, as the number of tokens that each request will have received since the
/// beginning, in millionths, so that marks have an order.
type Mark = Reverse<(u64, Number)>;

/// An event in a server.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Next {
    /// A prompt is computed for another server.
    Prefilled(Number),
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
    queue: VecDeque<Waiting>,
    /// The request that is being prefilled, and the time of its first token.
    prefilling: Option<(Job, u64)>,
    /// The tokens of its prompt that were cached.
    prefilling_cached: u64,
    /// The times at which KV caches have been fetched.
    fetching: BinaryHeap<Reverse<(u64, Number)>>,
    decoding: BinaryHeap<Mark>,
    /// Millionths of tokens that each decoding request has received since the beginning.
    given: f64,
    /// The time of [`Self::given`].
    as_of: u64,
    /// The KV cache.
    pub cache: Cache,
    /// The LoRA adapters.
    adapters: Adapters,
    /// Prompt tokens of the requests whose prompt it has begun to compute.
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
            adapters: Adapters::new(model.max_adapters.max(1)),
            model: model.clone(),
            block_tokens: block_tokens.max(1),
            queue: VecDeque::new(),
            prefilling: None,
            prefilling_cached: 0,
            fetching: BinaryHeap::new(),
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
        let prefilling = usize::from(self.prefilling.is_some());
        self.decoding.len() + self.fetching.len() + prefilling
    }

    /// Queues a request for a part in it. Returns false if the cache is too small for it.
    pub fn arrive(&mut self, now: u64, number: Number, part: Part, requests: &[Request]) -> bool {
        let Some(request) = requests.get(number).filter(|it| self.could_hold(it, part)) else {
            return false;
        };
        self.queue.push_back(Waiting {
            job: (number, part),
            adapter: request.adapter,
        });
        self.admit(now, requests);
        true
    }

    /// Returns whether the empty cache is large enough for a part in a request.
    pub fn could_hold(&self, request: &Request, part: Part) -> bool {
        let private = self.private(request, part);
        self.cache.could_hold(&request.blocks, private)
    }

    /// Returns the next event and its time.
    pub fn next(&self) -> Option<(u64, Next)> {
        let prefilled = self.prefilling.map(|((number, part), at)| match part {
            Part::Prefill => (at, Next::Prefilled(number)),
            Part::Whole | Part::Decode => (at, Next::FirstToken(number)),
        });
        let fetched = self.fetching.peek();
        let fetched = fetched.map(|Reverse((at, number))| (*at, Next::FirstToken(*number)));
        let ends = self.decoding.peek().map(|Reverse((mark, number))| {
            let left = (*mark as f64 - self.given).max(0.0) / 1e6;
            let wait = (left * self.token_time() * SECOND as f64).ceil() as u64;
            (self.as_of + wait, Next::End(*number))
        });
        // Of those at the same time, the first.
        let events = [prefilled, fetched, ends].into_iter().flatten();
        events.min_by_key(|(at, _)| *at)
    }

    /// Returns what the response reports of a request whose prompt is being computed; `None` for another one.
    pub fn usage(&self, number: Number, requests: &[Request]) -> Option<Usage> {
        let is_own =
            |((prefilling, part), _): &(Job, u64)| *prefilling == number && *part == Part::Whole;
        self.prefilling.filter(is_own)?;
        let request = requests.get(number)?;
        Some(Usage {
            prompt_tokens: request.input,
            output_tokens: request.output,
            cached_tokens: self.prefilling_cached,
        })
    }

    /// Carries out the next event.
    pub fn advance(&mut self, now: u64, next: Next, requests: &[Request]) {
        self.decode_until(now);
        match next {
            Next::Prefilled(number) => {
                self.prefilling = None;
                self.release(number, Part::Prefill, requests);
            }
            Next::FirstToken(number) => {
                match self.prefilling {
                    Some(((prefilled, _), _)) if prefilled == number => self.prefilling = None,
                    _ => drop(self.fetching.pop()),
                }
                let output = requests.get(number).map_or(1, |request| request.output);
                // The prefill yields the first one.
                let left = f64::from(output.saturating_sub(1)) * 1e6;
                let mark = (self.given + left).ceil() as u64;
                self.decoding.push(Reverse((mark, number)));
            }
            Next::End(_) => {
                if let Some(Reverse((_, number))) = self.decoding.pop() {
                    self.release(number, Part::Whole, requests);
                }
            }
        }
        self.admit(now, requests);
    }

    /// Aborts a request, whatever part it has in it. The blocks of its prompt stay cached.
    pub fn abort(&mut self, now: u64, number: Number, requests: &[Request]) {
        self.decode_until(now);
        self.queue.retain(|waiting| waiting.job.0 != number);
        let mut part = None;
        if let Some(((_, own), until)) = self.prefilling.filter(|((own, _), _)| *own == number) {
            self.prefilling = None;
            self.busy -= until.saturating_sub(now);
            part = Some(own);
        }
        let running = self.running();
        self.fetching.retain(|Reverse((_, own))| *own != number);
        self.decoding.retain(|Reverse((_, own))| *own != number);
        if self.running() < running {
            part = Some(Part::Whole);
        }
        if let Some(part) = part {
            self.release(number, part, requests);
        }
        self.admit(now, requests);
    }

    fn release(&mut self, number: Number, part: Part, requests: &[Request]) {
        if let Some(request) = requests.get(number) {
            let private = self.private(request, part);
            self.cache.release(&request.blocks, private);
            if let Some(adapter) = request.adapter {
                self.adapters.end(adapter);
            }
        }
    }

    /// Writes the metrics page, with the families by which a picker reads this engine's load.
    pub fn page(&self, engine: &EngineConfig, page: &mut String) {
        page.clear();
        if let Some(spec) = engine.lora.as_ref().filter(|_| self.model.max_adapters > 0) {
            self.write_adapters(spec, page);
        }
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

    /// Writes the series of adapters.
    fn write_adapters(&self, spec: &MetricSpec, page: &mut String) {
        let waiting = self.queue.iter().filter_map(|waiting| waiting.adapter);
        let list = |adapters: BTreeSet<Adapter>| {
            let names: Vec<String> = adapters.into_iter().map(adapter_name).collect();
            names.join(",")
        };
        let (running, waiting) = (self.adapters.running().collect(), waiting.collect());
        let (running, waiting) = (list(running), list(waiting));
        let (name, most) = (&spec.name, self.model.max_adapters);
        // Writing to a String cannot fail.
        let _ = writeln!(
            page,
            "{name}{{max_lora=\"{most}\",running_lora_adapters=\"{running}\",waiting_lora_adapters=\"{waiting}\"}} 1"
        );
    }

    /// Starts the first requests in the queue while there is room for them.
    fn admit(&mut self, now: u64, requests: &[Request]) {
        self.decode_until(now);
        while self.admit_first(now, requests).is_some() {}
    }

    /// Starts the first request in the queue. Returns `None` if there is no room for it.
    fn admit_first(&mut self, now: u64, requests: &[Request]) -> Option<()> {
        let fits = |waiting: &Waiting| {
            let adapter = waiting.adapter;
            adapter.is_none_or(|adapter| self.adapters.has_room(adapter))
        };
        let place = self.queue.iter().position(fits)?;
        let (number, part) = self.queue.get(place)?.job;
        let fetches = part == Part::Decode;
        let busy = self.prefilling.is_some() && !fetches;
        if busy || self.running() >= self.model.max_running {
            return None;
        }
        let request = requests.get(number)?;
        let cached = self.cache.matched(&request.blocks) as u64 * u64::from(self.block_tokens);
        let private = self.private(request, part);
        if !self.cache.admit(&request.blocks, private) {
            return None;
        }
        self.queue.remove(place);
        let loads = request.adapter.is_some_and(|it| self.adapters.begin(it));
        let loading = match loads {
            true => (self.model.adapter_seconds * SECOND as f64) as u64,
            false => 0,
        };
        self.requests += 1;
        let input = u64::from(request.input).max(1);
        let cached = cached.min(input - 1);
        let time = |rate: f64| ((input - cached) as f64 / rate * SECOND as f64).ceil() as u64;
        if fetches {
            let fetched = now + loading + time(self.model.transfer_rate);
            self.fetching.push(Reverse((fetched, number)));
        } else {
            let prefill = loading + time(self.model.prefill_rate);
            self.prefilling = Some(((number, part), now + prefill));
            self.prefilling_cached = cached;
            self.busy += prefill;
            self.prompt_tokens += input;
            self.cached_tokens += cached;
        }
        Some(())
    }

    /// Returns the number of blocks for a part in a request that no other request can use.
    fn private(&self, request: &Request, part: Part) -> usize {
        let shared = request.blocks.len() as u32 * self.block_tokens;
        let output = match part {
            Part::Prefill => 1,
            Part::Whole | Part::Decode => request.output,
        };
        let private = request.input.saturating_sub(shared) + output;
        private.div_ceil(self.block_tokens) as usize
    }

    fn decode_until(&mut self, now: u64) {
        let passed = now.saturating_sub(self.as_of) as f64 / SECOND as f64;
        if !self.decoding.is_empty() {
            self.given += passed / self.token_time() * 1e6;
        }
        self.as_of = now;
    }

    /// Returns the time per token of each decoding request, which is that of a step.
    fn token_time(&self) -> f64 {
        let alone =
            self.model.token_seconds + self.model.token_seconds_each * self.decoding.len() as f64;
        match self.prefilling {
            Some(_) => alone.max(f64::from(self.model.step_tokens) / self.model.prefill_rate),
            None => alone,
        }
    }
}
