//! The inputs of one scheduling cycle: the request with its prefix matches and cost, and the pool.

use super::endpoint::{Pool, Slot};
use super::headers::{HeaderId, HeaderValues};
use super::state::{Bindings, StateId, States};
use crate::request::Media;

/// The number of a prefix producer in its plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerId(pub usize);

/// The part of a prompt that each endpoint probably holds, in prefix blocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct PrefixMatch<'a> {
    /// Matched blocks by slot; a slot beyond the end has none.
    pub matched: &'a [u32],
    /// Blocks of the whole prompt within the window. Infinite if an early decision computes what
    /// would happen if the prompt had no end.
    pub total: f64,
    /// Tokens per block; `None` where blocks are counted in bytes.
    pub block_tokens: Option<u32>,
}

impl PrefixMatch<'_> {
    /// Returns the matched blocks of one endpoint.
    pub fn blocks(&self, slot: Slot) -> u32 {
        self.matched.get(slot.index()).copied().unwrap_or(0)
    }

    /// Returns the part of the prompt that one endpoint holds, 0 to 1; 0 for a prompt without blocks.
    pub fn share(&self, slot: Slot) -> f64 {
        share(self.blocks(slot), self.total)
    }

    /// Returns what one endpoint holds of a prompt whose decision is made.
    pub fn expected(&self, slot: Slot) -> ExpectedHit {
        ExpectedHit {
            blocks: self.blocks(slot),
            of: self.total as u32,
        }
    }
}

/// The part of a prompt that the picked endpoint is expected to hold, in prefix blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpectedHit {
    /// Blocks that it holds.
    pub blocks: u32,
    /// Blocks of the whole prompt within the window.
    pub of: u32,
}

impl ExpectedHit {
    /// Returns the part as a share, 0 to 1; 0 for a prompt without blocks.
    pub fn share(self) -> f64 {
        share(self.blocks, self.of.into())
    }
}

fn share(blocks: u32, of: f64) -> f64 {
    match of > 0.0 {
        true => f64::from(blocks) / of,
        false => 0.0,
    }
}

/// The cost of a request for the endpoint that serves it, in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Cost {
    /// Tokens of the prompts. Infinite if an early decision computes what would happen if the
    /// prompt had no end.
    pub prompt: f64,
    /// Tokens of the response, as far as they are counted in advance.
    pub output: f64,
    /// The prefix match that says how much of the prompt an endpoint holds already.
    pub prefix: Option<ProducerId>,
}

/// A request as plugins see it.
#[derive(Debug, Clone, Copy, Default)]
pub struct RequestView<'a> {
    /// The values of the headers that the plan's plugins read.
    pub headers: &'a HeaderValues,
    /// The target model, which is also how a LoRA adapter is named; empty when unknown.
    pub model: &'a str,
    /// One match per prefix producer of the plan, by [`ProducerId`].
    pub prefix: &'a [PrefixMatch<'a>],
    /// The hash of the beginning of its prompt, with model and cache salt: the same in every proxy. `None` if no plugin
    /// needs it, or the request has no prompt.
    pub anchor: Option<u64>,
    /// The cost of the request for the endpoint that serves it.
    pub cost: Cost,
    /// Whether its prompts hold images or other media, as far as they were read. An early decision computes what
    /// would happen without and with some in the part that was not read.
    pub media: bool,
    /// These media, each once.
    pub distinct_media: &'a [Media],
    /// The state that plugins keep from request to request.
    pub states: &'a States,
    /// Random bits of the request, the same in each of its cycles, so that whether the rest of its prompt matters
    /// does not depend on chance; 0 in a plan that does not need them.
    pub draw: u64,
}

impl RequestView<'_> {
    /// Draws for the request, with this probability of `true`; the result is the same for the same salt.
    pub fn chance(&self, probability: f64, salt: u64) -> bool {
        probability > 0.0 && fastrand::Rng::with_seed(self.draw ^ salt).f64() < probability
    }

    /// Returns the value of a header that a plugin requested when it was built.
    pub fn header(&self, header: HeaderId) -> Option<&[u8]> {
        self.headers.get(header)
    }

    /// Returns the state that a plugin declared when it was built.
    pub fn state(&self, state: StateId) -> Option<&Bindings> {
        self.states.get(state)
    }

    /// Returns how much of its prompt endpoints hold, by a prefix producer that a plugin refers to.
    pub fn prefix_match(&self, producer: ProducerId) -> Option<&PrefixMatch<'_>> {
        self.prefix.get(producer.0)
    }

    /// Returns the tokens that the request costs one endpoint: the part of the prompt that the endpoint does not
    /// hold, in whole blocks, the part beyond the blocks, and the response.
    pub fn tokens_at(&self, slot: Slot) -> f64 {
        let Cost {
            prompt,
            output,
            prefix,
        } = self.cost;
        let found = prefix.and_then(|producer| self.prefix_match(producer));
        let Some((prefix, tokens)) = found.and_then(|prefix| Some((prefix, prefix.block_tokens?)))
        else {
            return prompt + output;
        };
        let block = f64::from(tokens);
        let new = (prefix.total - f64::from(prefix.blocks(slot))).max(0.0) * block;
        // NaN if both are infinite, which counts as nothing.
        let beyond = (prompt - prefix.total * block).max(0.0);
        new + beyond + output
    }
}

/// The state that one run of the scheduler sees; it does not change while it runs.
#[derive(Debug, Clone, Copy)]
pub struct Cycle<'a> {
    /// The endpoints.
    pub pool: &'a Pool,
    /// The request.
    pub request: RequestView<'a>,
    /// The endpoint that another profile has picked for it, which this one is to suit: see
    /// [`ProfileSet::insert_beside`](super::ProfileSet::insert_beside).
    pub peer: Option<Slot>,
}

impl<'a> Cycle<'a> {
    /// Returns the cycle of a request for which no endpoint was picked yet.
    pub fn new(pool: &'a Pool, request: RequestView<'a>) -> Self {
        Self {
            pool,
            request,
            peer: None,
        }
    }
}

/// A candidate with its weighted sum.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scored {
    /// The endpoint.
    pub slot: Slot,
    /// Σ clamp(score, 0, 1) × weight over the profile's scorers; not divided by the weights.
    pub score: f64,
}
