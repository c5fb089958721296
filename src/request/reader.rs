//! The reader of one request's body.

use std::ops::Range;

use serde_json::Value;

use super::flatten::{prompts, Prompt};
use super::Api;
use crate::prefix::digest::{digests, BlockSpec};

/// Whose layout of a prompt is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Flattening {
    /// Gateway API Inference Extension v1.0.
    #[default]
    Seed,
    /// llm-d-router.
    Today,
}

/// What to read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReadPlan {
    /// How the prompt is laid out.
    pub flattening: Flattening,
    /// How it is cut: one entry for each prefix producer of the plan.
    pub blocks: Vec<BlockSpec>,
}

/// Something that the rest of a body may still tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact<T> {
    /// Not read yet.
    Unknown,
    /// It is not there.
    Absent,
    /// It is this.
    Known(T),
}

impl<T> Fact<T> {
    /// The fact, if it is known.
    pub fn known(self) -> Option<T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Unknown | Self::Absent => None,
        }
    }
}

/// What may still come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pending {
    /// Something that comes before what was read in the prompt, or seeds its hashes.
    pub earlier_parts: bool,
}

/// Reads a body. Its buffers are kept from request to request.
#[derive(Debug, Default)]
pub struct BodyReader {
    api: Api,
    plan: ReadPlan,
    body: Vec<u8>,
    ended: bool,
    model: Option<String>,
    salt: Option<String>,
    /// Content digests by stream, then by prompt.
    streams: Vec<Vec<Vec<u64>>>,
}

impl BodyReader {
    /// Begins another body.
    pub fn reset(&mut self, api: Api, plan: ReadPlan) {
        self.api = api;
        self.plan = plan;
        self.body.clear();
        self.ended = false;
        self.model = None;
        self.salt = None;
        self.streams.clear();
    }

    /// More bytes of the body.
    pub fn push(&mut self, bytes: &[u8]) {
        if !self.ended {
            self.body.extend_from_slice(bytes);
        }
    }

    /// The body has ended, or nothing more is to be read of it.
    pub fn finish(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let Ok(body) = serde_json::from_slice::<Value>(&self.body) else {
            return;
        };
        let text = |name: &str| body.get(name).and_then(Value::as_str).map(str::to_owned);
        self.model = text("model");
        self.salt = text("cache_salt").filter(|_| self.plan.flattening == Flattening::Today);
        let prompts = prompts(&body, self.api, self.plan.flattening);
        for spec in &self.plan.blocks {
            let cut = |prompt: &Prompt| match prompt {
                Prompt::Text(text) => digests(text, spec),
                Prompt::Tokens(tokens) => {
                    let bytes: Vec<u8> = tokens
                        .iter()
                        .flat_map(|token| token.to_le_bytes())
                        .collect();
                    digests(&bytes, spec)
                }
            };
            self.streams.push(prompts.iter().map(cut).collect());
        }
    }

    /// Whether anything that follows can still tell something.
    pub fn needs_more(&self) -> bool {
        !self.ended
    }

    /// The model's name.
    pub fn model(&self) -> Fact<&str> {
        self.fact(self.model.as_deref())
    }

    /// The cache salt, which today's generation knows.
    pub fn salt(&self) -> Fact<&str> {
        self.fact(self.salt.as_deref())
    }

    /// The prompts' content digests so far, as one of the plan's streams cuts them.
    pub fn prompts(&self, stream: usize) -> impl Iterator<Item = &[u64]> {
        let prompts = self.streams.get(stream).into_iter().flatten();
        prompts.map(Vec::as_slice)
    }

    /// What may still come.
    pub fn pending(&self) -> Pending {
        Pending {
            earlier_parts: !self.ended,
        }
    }

    /// Whether no further block counts.
    pub fn window_full(&self) -> bool {
        self.ended
    }

    /// Whether another prompt may follow.
    pub fn may_add_prompts(&self) -> bool {
        !self.ended
    }

    /// The range of the body that must be fed once more.
    pub fn reread(&self) -> Option<Range<usize>> {
        None
    }

    /// The bytes that [`Self::reread`] asked for.
    pub fn feed_again(&mut self, _: usize, _: &[u8]) {}

    fn fact<'a>(&self, value: Option<&'a str>) -> Fact<&'a str> {
        match value {
            Some(value) => Fact::Known(value),
            None if self.ended => Fact::Absent,
            None => Fact::Unknown,
        }
    }
}
