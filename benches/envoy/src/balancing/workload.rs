//! The workloads: the requests of clients.

use std::iter::once;

use fastrand::Rng;
use serde_json::{json, Value};

/// Tokens of a response.
pub const RESPONSE_TOKENS: usize = 16;

/// A workload.
#[derive(Debug)]
pub struct Workload {
    /// Its name.
    pub name: &'static str,
    /// Its description on the page.
    pub about: &'static str,
    /// Requests of a conversation, each of which repeats the conversation so far.
    pub turns: usize,
    /// The number of system prompts. Each conversation begins with a random one.
    systems: u64,
    /// Tokens of a system prompt.
    system_tokens: usize,
    /// The least and the most tokens of a question.
    question_tokens: (usize, usize),
    /// Requests per second: low, medium, and near the capacity of the pool.
    pub rates: [f64; 3],
}

/// All workloads, in the order of the page.
pub const WORKLOADS: [Workload; 3] = [
    Workload {
        name: "shared prefix",
        about:
            "Many users, one request each: one of 24 system prompts of 4,000 tokens, of which a \
                pod's cache holds about half, and a question of 100 to 300 tokens that occurs once.",
        turns: 1,
        systems: 24,
        system_tokens: 4_000,
        question_tokens: (100, 300),
        rates: [8.0, 16.0, 28.0],
    },
    Workload {
        name: "multi-turn",
        about:
            "Conversations of six turns, 0.3 to 1.5 s apart: one of four system prompts of 1,500 \
                tokens, and 150 to 350 new tokens per turn.",
        turns: 6,
        systems: 4,
        system_tokens: 1_500,
        question_tokens: (150, 350),
        rates: [15.0, 35.0, 60.0],
    },
    Workload {
        name: "no reuse",
        about:
            "Prompts of 500 to 3,500 tokens that differ from their first words on and never repeat, so that \
                a cache is of no use.",
        turns: 1,
        systems: 0,
        system_tokens: 0,
        question_tokens: (500, 3_500),
        rates: [8.0, 16.0, 26.0],
    },
];

/// Returns words of this many tokens of four bytes, determined by the seed.
fn words(seed: u64, tokens: usize) -> String {
    let mut rng = Rng::with_seed(seed);
    let word = |_| {
        (0..3)
            .map(|_| rng.lowercase())
            .chain(once(' '))
            .collect::<String>()
    };
    (0..tokens).map(word).collect()
}

/// A growing conversation.
pub struct Conversation {
    messages: Vec<Value>,
    question_tokens: (usize, usize),
}

impl Conversation {
    /// Begins a conversation with its system prompt.
    pub fn new(workload: &Workload, rng: &mut Rng) -> Self {
        let system = (workload.systems > 0).then(|| rng.u64(0..workload.systems));
        let system = system.map(|seed| words(seed, workload.system_tokens));
        let messages = system.map(|text| json!({"role": "system", "content": text}));
        Self {
            messages: messages.into_iter().collect(),
            question_tokens: workload.question_tokens,
        }
    }

    /// Adds a question. Returns the body of the request.
    pub fn ask(&mut self, rng: &mut Rng) -> String {
        let (least, most) = self.question_tokens;
        let tokens = rng.usize(least..=most);
        let question = words(rng.u64(..), tokens);
        self.messages
            .push(json!({"role": "user", "content": question}));
        json!({"model": "demo", "messages": self.messages, "stream": true,
            "stream_options": {"include_usage": true}, "max_tokens": RESPONSE_TOKENS})
        .to_string()
    }

    /// Adds a response, which the next turn repeats.
    pub fn add_response(&mut self, rng: &mut Rng) {
        let response = words(rng.u64(..), RESPONSE_TOKENS);
        self.messages
            .push(json!({"role": "assistant", "content": response}));
    }
}
