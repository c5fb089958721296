//! Request bodies: chat completions of a given size whose prompts share a third of their text.

use clap::ValueEnum;

use crate::bootstrap::SESSION_HEADER;

/// Prompts in rotation.
const PROMPTS: usize = 64;

/// The order of the keys, which determines how much of a body must be read before the model is known.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Order {
    /// As OpenAI's Python client sends them.
    MessagesFirst,
    /// The model, then the messages.
    ModelFirst,
}

/// Whether prompts were seen before.
#[derive(Debug, Clone, Copy, ValueEnum, PartialEq, Eq)]
pub enum Prompts {
    /// The same prompts in rotation.
    Warm,
    /// New ones: each differs from its first words on.
    Cold,
}

impl Order {
    /// Returns the name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::MessagesFirst => "messages-first",
            Self::ModelFirst => "model-first",
        }
    }
}

impl Prompts {
    /// Returns the name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Warm => "warm",
            Self::Cold => "cold",
        }
    }
}

/// A source of requests, each as the bytes on the wire.
pub struct Source {
    bodies: Vec<Vec<u8>>,
    prompts: Prompts,
    next: usize,
}

impl Source {
    /// Creates a source of requests with bodies of about this many bytes.
    pub fn new(bytes: usize, order: Order, prompts: Prompts) -> Self {
        let bodies = (0..PROMPTS).map(|index| request(&body(bytes, order, index), index));
        Self {
            bodies: bodies.collect(),
            prompts,
            next: 0,
        }
    }

    /// Creates a source without bodies, in place of one that is lent out.
    pub fn empty() -> Self {
        Self {
            bodies: Vec::new(),
            prompts: Prompts::Warm,
            next: 0,
        }
    }

    /// Returns the next request.
    pub fn next(&mut self) -> Vec<u8> {
        self.next += 1;
        let mut bytes = self
            .bodies
            .get(self.next % PROMPTS)
            .cloned()
            .unwrap_or_default();
        if self.prompts == Prompts::Cold {
            let mark = format!("{:08}", self.next);
            let place = bytes.windows(8).position(|window| window == b"@@@@@@@@");
            if let Some(place) = place.and_then(|at| bytes.get_mut(at..at + 8)) {
                place.copy_from_slice(mark.as_bytes());
            }
        }
        bytes
    }
}

fn body(bytes: usize, order: Order, index: usize) -> String {
    let shared = filler(bytes / 3, 0);
    let own = filler(bytes - bytes / 3, index + 1);
    let messages = format!(
        r#""messages":[{{"role":"system","content":"@@@@@@@@ {shared}"}},{{"role":"user","content":"{own}"}}]"#
    );
    match order {
        Order::MessagesFirst => format!(r#"{{{messages},"model":"bench","max_tokens":8}}"#),
        Order::ModelFirst => format!(r#"{{"model":"bench","max_tokens":8,{messages}}}"#),
    }
}

/// Returns words with escapes, as in prompts: a line break every ten words.
fn filler(bytes: usize, seed: usize) -> String {
    const WORDS: [&str; 8] = [
        "route", "the", "prompt", "where", "its", "prefix", "lies", "cached",
    ];
    let mut text = String::with_capacity(bytes + 16);
    let mut state = seed as u64 * 0x9e37_79b9_7f4a_7c15 + 1;
    let mut count = 0;
    while text.len() < bytes {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        text.push_str(
            WORDS
                .get((state >> 33) as usize % WORDS.len())
                .unwrap_or(&""),
        );
        count += 1;
        text.push_str(if count % 10 == 0 { "\\n" } else { " " });
    }
    text
}

/// Returns a request. Each prompt is a session, by which ring hash balances.
fn request(body: &str, session: usize) -> Vec<u8> {
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n\
         {SESSION_HEADER}: {session}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
