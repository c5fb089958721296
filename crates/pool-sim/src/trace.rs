//! Loads: traces that are read, and synthetic ones.
//!
//! A trace is JSON lines in one of two forms:
//!
//! - Mooncake's (<https://github.com/kvcache-ai/Mooncake>): `{"timestamp": ms, "input_length": tokens,
//!   "output_length": tokens, "hash_ids": [id, …]}`. An id stands for 512 tokens and everything before
//!   them: equal ids mean equal beginnings of prompts. The text is generated from the ids.
//! - requests: `{"timestamp": ms, "path": "/v1/chat/completions", "body": {…}, "output_length":
//!   tokens}`. The path shown is the default; the default length of the response is the body's
//!   `max_tokens`, or else 128.

use serde::Deserialize;
use serde_json::Value;
use xxhash_rust::xxh64::xxh64;

use crate::adapters::Adapter;
use crate::SECOND;

/// Bytes of text that count as one token, as in the Endpoint Picker.
pub const TOKEN_BYTES: usize = 4;

/// Tokens of a block in Mooncake's traces.
const MOONCAKE_BLOCK_TOKENS: u32 = 512;

/// Tokens of a block elsewhere: the smallest blocks of the Endpoint Picker.
const BLOCK_TOKENS: u32 = 64;

/// Tokens of the system prompts that generated conversations share.
const SYSTEM_TOKENS: u32 = 1024;

/// Tokens of a response of unknown length.
const DEFAULT_RESPONSE_TOKENS: u32 = 128;

/// A request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Request {
    /// The time at which it arrives.
    pub at: u64,
    /// Tokens of its prompt.
    pub input: u32,
    /// Tokens of its response.
    pub output: u32,
    /// The prompt's whole blocks, each identified with everything before it.
    pub blocks: Vec<u64>,
    /// The LoRA adapter that it asks for, if any.
    pub adapter: Option<Adapter>,
    /// `:path` and body, if the trace has them.
    pub sent: Option<(String, String)>,
    /// The number of its objective, if the trace has objectives.
    pub objective: usize,
    /// The number of its tenant, if the trace has tenants.
    pub tenant: usize,
}

/// A load.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Trace {
    /// Tokens of a block.
    pub block_tokens: u32,
    /// The requests, by time.
    pub requests: Vec<Request>,
    /// The names of the objectives.
    pub objectives: Vec<String>,
    /// The number of tenants.
    pub tenants: usize,
}

#[derive(Deserialize)]
struct Line {
    timestamp: f64,
    input_length: Option<u32>,
    output_length: Option<u32>,
    hash_ids: Option<Vec<u64>>,
    path: Option<String>,
    body: Option<Value>,
}

impl Trace {
    /// Reads JSON lines.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut trace = Self::default();
        for (number, text) in text.lines().enumerate() {
            if text.trim().is_empty() {
                continue;
            }
            let at_line = |error: String| format!("line {}: {error}", number + 1);
            let line: Line =
                serde_json::from_str(text).map_err(|error| at_line(error.to_string()))?;
            let (block, request) = line.request().map_err(at_line)?;
            if trace.block_tokens != block && !trace.requests.is_empty() {
                return Err(at_line(
                    "found another form than on the first line".to_owned(),
                ));
            }
            trace.block_tokens = block;
            trace.requests.push(request);
        }
        if trace.requests.is_empty() {
            return Err("found no request, expected one on each line".to_owned());
        }
        trace.sort();
        Ok(trace)
    }

    /// Generates conversations, each with one of eight system prompts of 1024 tokens: 2 to 8 turns of 50 to
    /// 500 tokens with responses of 50 to 400, some seconds apart. Each prompt repeats the whole conversation.
    pub fn multi_turn(requests: usize, rate: f64, seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut trace = Self::new();
        let mut begins = 0.0;
        // A conversation has five turns on average.
        let apart = 5.0 / rate.max(1e-6);
        while trace.requests.len() < requests {
            begins += exponential(&mut rng, apart);
            let mut at = begins;
            let mut prompt = blocks(rng.u64(0..8), 0, SYSTEM_TOKENS / BLOCK_TOKENS);
            let conversation = rng.u64(..);
            for _ in 0..rng.u32(2..9) {
                let said = rng.u32(50..500).div_ceil(BLOCK_TOKENS);
                prompt.extend(blocks(conversation, prompt.len(), said));
                let output = rng.u32(50..400);
                trace.push(at, &prompt, output);
                prompt.extend(blocks(
                    conversation,
                    prompt.len(),
                    output.div_ceil(BLOCK_TOKENS),
                ));
                at += 2.0 + exponential(&mut rng, 10.0);
            }
        }
        trace.sort();
        trace.requests.truncate(requests);
        trace
    }

    /// Generates questions of 256 tokens, with responses of 128, about this many documents of 4096, all equally
    /// likely.
    pub fn shared_prefix(requests: usize, rate: f64, documents: u64, seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut trace = Self::new();
        let mut at = 0.0;
        for _ in 0..requests {
            at += exponential(&mut rng, 1.0 / rate.max(1e-6));
            let mut prompt = blocks(rng.u64(0..documents.max(1)), 0, 4096 / BLOCK_TOKENS);
            let question = rng.u64(..);
            prompt.extend(blocks(question, prompt.len(), 256 / BLOCK_TOKENS));
            trace.push(at, &prompt, 128);
        }
        trace
    }

    /// Spreads the conversations or documents of a generated load evenly over this many LoRA adapters. What one adapter
    /// computes of a prompt is of no use to another.
    pub fn use_adapters(&mut self, count: u32) {
        for request in &mut self.requests {
            // The first block that is not shared identifies the conversation; in a document every block does.
            let own = request.blocks.get((SYSTEM_TOKENS / BLOCK_TOKENS) as usize);
            let Some(adapter) = own.map(|own| (own % u64::from(count.max(1))) as Adapter) else {
                continue;
            };
            request.adapter = Some(adapter);
            for block in &mut request.blocks {
                *block = xxh64(&block.to_le_bytes(), adapter.into());
            }
        }
    }

    /// Makes requests arrive this many times faster.
    pub fn speed_up(&mut self, times: f64) {
        for request in &mut self.requests {
            request.at = (request.at as f64 / times) as u64;
        }
    }

    fn new() -> Self {
        Self {
            block_tokens: BLOCK_TOKENS,
            ..Self::default()
        }
    }

    fn push(&mut self, at: f64, prompt: &[u64], output: u32) {
        self.requests.push(Request {
            at: (at * SECOND as f64) as u64,
            input: prompt.len() as u32 * BLOCK_TOKENS,
            output,
            blocks: prompt.to_vec(),
            ..Request::default()
        });
    }

    fn sort(&mut self) {
        self.requests.sort_by_key(|request| request.at);
    }
}

impl Line {
    fn request(self) -> Result<(u32, Request), String> {
        if self.timestamp < 0.0 {
            let found = self.timestamp;
            return Err(format!(
                "timestamp: found {found}, expected milliseconds from 0"
            ));
        }
        let at = (self.timestamp * 1e6) as u64;
        match (self.hash_ids, self.body) {
            (Some(mut blocks), None) => {
                let input = self.input_length.ok_or("input_length: found nothing")?;
                // The last id may stand for a partial block, which cannot be reused.
                blocks.truncate((input / MOONCAKE_BLOCK_TOKENS) as usize);
                let output = self.output_length.unwrap_or(DEFAULT_RESPONSE_TOKENS);
                let request = Request {
                    at,
                    input,
                    output,
                    blocks,
                    ..Request::default()
                };
                Ok((MOONCAKE_BLOCK_TOKENS, request))
            }
            (None, Some(body)) => {
                let path = self
                    .path
                    .unwrap_or_else(|| "/v1/chat/completions".to_owned());
                let text = prompt(&body);
                let most = body.get("max_tokens").and_then(Value::as_u64);
                let most = most.and_then(|most| u32::try_from(most).ok());
                let request = Request {
                    at,
                    input: text.len().div_ceil(TOKEN_BYTES) as u32,
                    output: self
                        .output_length
                        .or(most)
                        .unwrap_or(DEFAULT_RESPONSE_TOKENS),
                    blocks: chain(&text),
                    sent: Some((path, body.to_string())),
                    ..Request::default()
                };
                Ok((BLOCK_TOKENS, request))
            }
            _ => Err(
                "expected hash_ids (Mooncake's form) or body (requests), one of them".to_owned(),
            ),
        }
    }
}

/// Returns all text of a prompt.
fn prompt(body: &Value) -> String {
    fn gather(value: &Value, text: &mut String) {
        match value {
            Value::String(string) => text.push_str(string),
            Value::Array(values) => values.iter().for_each(|value| gather(value, text)),
            Value::Object(fields) => {
                for key in ["role", "text", "content"] {
                    fields
                        .get(key)
                        .into_iter()
                        .for_each(|value| gather(value, text));
                }
            }
            _ => {}
        }
    }
    let mut text = String::new();
    for key in [
        "model",
        "system",
        "instructions",
        "messages",
        "prompt",
        "input",
    ] {
        body.get(key)
            .into_iter()
            .for_each(|value| gather(value, &mut text));
    }
    text
}

/// Returns the whole blocks of a text, each hashed with everything before it.
fn chain(text: &str) -> Vec<u64> {
    let mut last = 0;
    let blocks = text
        .as_bytes()
        .chunks_exact(BLOCK_TOKENS as usize * TOKEN_BYTES);
    let chained = blocks.map(|block| {
        last = xxh64(block, last);
        last
    });
    chained.collect()
}

/// Returns some blocks of a generated text, from a position on.
fn blocks(text: u64, from: usize, count: u32) -> Vec<u64> {
    let places = from..from + count as usize;
    places
        .map(|place| xxh64(&text.to_le_bytes(), place as u64))
        .collect()
}

fn exponential(rng: &mut fastrand::Rng, mean: f64) -> f64 {
    -mean * (1.0 - rng.f64()).ln()
}

impl Request {
    /// Writes the body, and returns the path. The part of the prompt outside whole blocks is unique to `number`.
    pub fn write(&self, number: usize, block_tokens: u32, body: &mut Vec<u8>) -> &str {
        body.clear();
        if let Some((path, text)) = &self.sent {
            body.extend_from_slice(text.as_bytes());
            return path;
        }
        body.extend_from_slice(b"{\"model\":\"");
        match self.adapter {
            Some(adapter) => body.extend_from_slice(adapter_name(adapter).as_bytes()),
            None => body.push(b'm'),
        }
        body.extend_from_slice(b"\",\"prompt\":\"");
        let bytes = block_tokens as usize * TOKEN_BYTES;
        for block in &self.blocks {
            write_text(*block, bytes, body);
        }
        let rest = self.input as usize * TOKEN_BYTES;
        let rest = rest.saturating_sub(self.blocks.len() * bytes);
        write_text(!(number as u64), rest, body);
        body.extend_from_slice(b"\",\"stream\":true}");
        "/v1/completions"
    }
}

/// Returns the name of an adapter, which is that of the model in requests.
pub fn adapter_name(adapter: Adapter) -> String {
    format!("adapter-{adapter}")
}

/// Writes the text of a block: its name in sixteen letters, repeated.
fn write_text(name: u64, bytes: usize, into: &mut Vec<u8>) {
    let mut digits = [0; 16];
    for (place, digit) in digits.iter_mut().enumerate() {
        let value = (name >> (place * 4)) & 15;
        *digit = b'a' + value as u8;
    }
    let mut left = bytes;
    while left > 0 {
        let part = digits.get(..left.min(16)).unwrap_or_default();
        into.extend_from_slice(part);
        left -= part.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_trace_formats_are_read() {
        let text = "{\"timestamp\": 1000, \"input_length\": 1100, \"output_length\": 5, \"hash_ids\": [1, 2, 3]}\n\n{\"timestamp\": 27, \"input_length\": 600, \"output_length\": 7, \"hash_ids\": [1, 9]}";
        let trace = Trace::parse(text).unwrap();
        assert_eq!(trace.block_tokens, 512);
        assert_eq!(trace.requests[0].at, 27_000_000);
        assert_eq!(trace.requests[0].blocks, [1]);
        assert_eq!(
            (trace.requests[1].input, trace.requests[1].output),
            (1100, 5)
        );
        let long = "x".repeat(600);
        let text = format!("{{\"timestamp\": 0, \"body\": {{\"model\": \"m\", \"prompt\": \"{long}\", \"max_tokens\": 3}}}}");
        let trace = Trace::parse(&text).unwrap();
        assert_eq!(trace.requests[0].blocks.len(), 2);
        assert_eq!(trace.requests[0].output, 3);
    }

    #[test]
    fn an_error_has_its_line() {
        for (text, expected) in [
            ("", "no request"),
            ("{\"timestamp\": 0}", "line 1: expected hash_ids"),
            ("\n{", "line 2:"),
            ("{\"timestamp\": -1, \"body\": {}}", "timestamp: found -1"),
        ] {
            let error = Trace::parse(text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn equal_blocks_are_equal_text_and_others_differ() {
        let request = |blocks: &[u64]| Request {
            at: 0,
            input: 150,
            output: 1,
            blocks: blocks.to_vec(),
            ..Request::default()
        };
        let text = |blocks: &[u64], number| {
            let mut body = Vec::new();
            request(blocks).write(number, 64, &mut body);
            body
        };
        let [a, b, c] = [text(&[1, 2], 0), text(&[1, 2], 1), text(&[1, 3], 0)];
        assert_eq!(a.len(), b.len());
        let shared = |x: &[u8], y: &[u8]| x.iter().zip(y).take_while(|(x, y)| x == y).count();
        assert!(
            shared(&a, &b) >= 512 && shared(&a, &b) < 560,
            "{}",
            shared(&a, &b)
        );
        assert!(shared(&a, &c) < 300);
    }

    #[test]
    fn generated_loads_have_their_rate_and_are_reproducible() {
        let trace = Trace::shared_prefix(2_000, 50.0, 10, 3);
        let last = trace.requests.last().unwrap().at as f64 / 1e9;
        assert!((35.0..45.0).contains(&last), "{last}");
        assert_eq!(
            Trace::multi_turn(500, 20.0, 5),
            Trace::multi_turn(500, 20.0, 5)
        );
    }
}
