//! Simulated model servers.

use std::collections::VecDeque;
use std::ops::Range;

use super::STEP;

/// A model server: it computes prompts one after the other in chunks, and decodes all running requests together.
#[derive(Clone)]
pub(super) struct Server {
    /// Prompt tokens per millisecond.
    pub(super) prefill: f64,
    /// Milliseconds per decoding step.
    pub(super) step: f64,
    /// Milliseconds between two pauses, and of one: for a new CUDA graph, or a long prompt in a single step.
    pub(super) pauses: Option<(u64, Range<u64>)>,
    /// Milliseconds for which it stands still with its first request.
    pub(super) cold: u64,
    /// Whether its page is SGLang's: gauges, set every 40 decoding steps.
    pub(super) sglang: bool,
    pub(super) paused_until: u64,
    pub(super) hung: bool,
    pub(super) queue: VecDeque<Job>,
    pub(super) running: Vec<Job>,
    pub(super) generated: f64,
    pub(super) page: String,
    pub(super) page_due: u64,
}

/// A request at a server.
#[derive(Clone)]
pub(super) struct Job {
    pub(super) id: u32,
    pub(super) worker: usize,
    /// Prompt tokens that are not computed.
    pub(super) prompt: f64,
    /// Tokens that are not generated.
    pub(super) output: f64,
    pub(super) streams: bool,
    pub(super) begun: bool,
}

/// What becomes of a job in a step.
pub(super) enum Event {
    /// With whether it streams.
    Begun(u32, usize, bool),
    Ended(u32, usize),
}

pub(super) const MAX_RUNNING: usize = 256;

/// Tokens in the KV cache.
pub(super) const CACHE: f64 = 500_000.0;

impl Server {
    pub(super) fn new() -> Self {
        Self {
            prefill: 16.0,
            step: 25.0,
            pauses: None,
            cold: 0,
            sglang: false,
            paused_until: 0,
            hung: false,
            queue: VecDeque::new(),
            running: Vec::new(),
            generated: 0.0,
            page: String::new(),
            page_due: 0,
        }
    }

    pub(super) fn advance(&mut self, now: u64, rng: &mut fastrand::Rng, events: &mut Vec<Event>) {
        if self.hung || now < self.paused_until {
            return;
        }
        if let Some((between, pause)) = self.pauses.clone() {
            if rng.u64(0..between) < STEP {
                self.paused_until = now + rng.u64(pause);
            }
        }
        if !self.queue.is_empty() && self.cold > 0 {
            self.paused_until = now + std::mem::take(&mut self.cold);
            return;
        }
        let mut budget = self.prefill * STEP as f64;
        while self.running.len() < MAX_RUNNING {
            let Some(first) = self.queue.front_mut() else {
                break;
            };
            let part = first.prompt.min(budget);
            first.prompt -= part;
            budget -= part;
            if first.prompt > 0.0 {
                break;
            }
            self.running.extend(self.queue.pop_front());
        }
        let tokens = STEP as f64 / (self.step + 0.1 * self.running.len() as f64);
        for job in &mut self.running {
            self.generated += tokens;
            job.output -= tokens;
            if !job.begun && (job.streams || job.output <= 0.0) {
                job.begun = true;
                events.push(Event::Begun(job.id, job.worker, job.streams));
            }
            if job.output <= 0.0 {
                events.push(Event::Ended(job.id, job.worker));
            }
        }
        self.running.retain(|job| job.output > 0.0);
        if now >= self.page_due {
            self.write();
            let steps = if self.sglang { 40.0 } else { 1.0 };
            self.page_due = now + (steps * self.step) as u64;
        }
    }

    pub(super) fn write(&mut self) {
        let prefilling = self.queue.front().map_or(0.0, |job| job.prompt);
        let used = self.generated % CACHE - prefilling;
        let usage = used.rem_euclid(CACHE) / CACHE;
        let (running, waiting) = (self.running.len(), self.queue.len());
        let generated = self.generated as u64;
        self.page = match self.sglang {
            true => format!("sglang:num_running_reqs {running}\nsglang:num_queue_reqs {waiting}\nsglang:token_usage {usage}\n"),
            false => format!("vllm:num_requests_running {running}\nvllm:num_requests_waiting {waiting}\nvllm:kv_cache_usage_perc {usage}\nvllm:generation_tokens_total {generated}\n"),
        };
    }
}
