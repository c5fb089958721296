//! What a pod does for a request: which part of it, and how much.

use serde::Serialize;

use crate::cache::BYTES_PER_TOKEN;

/// Where a prompt's KV cache comes from, and what it is for: vLLM's `kv_transfer_params`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kv {
    /// Computed here, for the response that is generated here.
    Own,
    /// Computed here, for another pod (`do_remote_decode`).
    HandedOver,
    /// Computed by another pod and fetched from it (`do_remote_prefill`).
    Fetched,
}

/// The tokens of a prompt, and how many of them were cached.
#[derive(Debug, Clone, Copy)]
pub struct Served {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of the prompt that were in the cache.
    pub cached_tokens: usize,
}

impl Served {
    /// Returns the counts of a prompt without cached tokens.
    pub fn uncached(prompt: &str) -> Self {
        Self {
            prompt_tokens: prompt.len().div_ceil(BYTES_PER_TOKEN),
            cached_tokens: 0,
        }
    }

    /// Returns the number of tokens that were not cached.
    pub fn missing(&self) -> usize {
        self.prompt_tokens.saturating_sub(self.cached_tokens)
    }
}

/// What a pod has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Work {
    /// Prompt tokens that it computed.
    pub computed_tokens: usize,
    /// Prompt tokens that it had cached.
    pub cached_tokens: usize,
    /// Prompt tokens whose KV cache it fetched from another pod.
    pub fetched_tokens: usize,
    /// Prompts that it computed for another pod.
    pub handed_over: usize,
    /// Images and other media that it encoded.
    pub encoded_media: usize,
    /// Tokens of responses, also those of prompts that were handed over.
    pub generated_tokens: usize,
}
