//! What clients ask for.

use std::iter::once;

use fastrand::Rng;
use serde_json::{json, Value};

/// Tokens of an answer: as many as are streamed.
pub const ANSWER_TOKENS: usize = 16;

/// A kind of load.
#[derive(Debug)]
pub struct Workload {
    /// Its name.
    pub name: &'static str,
    /// What it is, for the page.
    pub about: &'static str,
    /// Requests of a conversation, each of which repeats all that was said before.
    pub turns: usize,
    /// How many system prompts there are; conversations begin with one of them, drawn evenly.
    systems: u64,
    /// Tokens of a system prompt.
    system_tokens: usize,
    /// Tokens of what a user says in a turn, at least and at most.
    question_tokens: (usize, usize),
    /// Requests a second: low, middle, and near what the pool can do.
    pub rates: [f64; 3],
}

/// All of them, in the page's order.
pub const WORKLOADS: [Workload; 3] = [
    Workload {
        name: "shared prefix",
        about:
            "Many users, one request each: one of 24 system prompts of 4,000 tokens, of which a \
                pod's cache holds about half, and a question of 100 to 300 tokens that nobody else asks.",
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
                tokens, and 150 to 350 new tokens a turn.",
        turns: 6,
        systems: 4,
        system_tokens: 1_500,
        question_tokens: (150, 350),
        rates: [15.0, 35.0, 60.0],
    },
    Workload {
        name: "no reuse",
        about:
            "Prompts of 500 to 3,500 tokens that differ from their first words on and never come again: \
                nothing that a cache could help with.",
        turns: 1,
        systems: 0,
        system_tokens: 0,
        question_tokens: (500, 3_500),
        rates: [8.0, 16.0, 26.0],
    },
];

/// Words of so many tokens of four bytes, the same for the same seed.
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

/// A conversation as it grows.
pub struct Conversation {
    messages: Vec<Value>,
    question_tokens: (usize, usize),
}

impl Conversation {
    /// One that has only its system prompt yet.
    pub fn new(workload: &Workload, rng: &mut Rng) -> Self {
        let system = (workload.systems > 0).then(|| rng.u64(0..workload.systems));
        let system = system.map(|seed| words(seed, workload.system_tokens));
        let messages = system.map(|text| json!({"role": "system", "content": text}));
        Self {
            messages: messages.into_iter().collect(),
            question_tokens: workload.question_tokens,
        }
    }

    /// The body that asks on.
    pub fn ask(&mut self, rng: &mut Rng) -> String {
        let (least, most) = self.question_tokens;
        let tokens = rng.usize(least..=most);
        let question = words(rng.u64(..), tokens);
        self.messages
            .push(json!({"role": "user", "content": question}));
        json!({"model": "demo", "messages": self.messages, "stream": true,
            "stream_options": {"include_usage": true}, "max_tokens": ANSWER_TOKENS})
        .to_string()
    }

    /// What came is said again with the next turn.
    pub fn answered(&mut self, rng: &mut Rng) {
        let answer = words(rng.u64(..), ANSWER_TOKENS);
        self.messages
            .push(json!({"role": "assistant", "content": answer}));
    }
}
