//! Request bodies: chat completions of a given size whose prompts share a third of their text.

use clap::ValueEnum;

use crate::bootstrap::{DESTINATION_HEADER, SESSION_HEADER};

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

/// The first line of a request.
const REQUEST_LINE: &str = "POST /v1/chat/completions HTTP/1.1\r\n";

/// A source of requests, each as the bytes on the wire.
pub struct Source {
    /// Requests without their first line.
    requests: Vec<Vec<u8>>,
    prompts: Prompts,
    next: usize,
    destinations: Vec<u16>,
}

impl Source {
    /// Creates a source of requests with bodies of about this many bytes.
    pub fn new(bytes: usize, order: Order, prompts: Prompts) -> Self {
        let requests = (0..PROMPTS).map(|index| request(&body(bytes, order, index), index));
        Self {
            requests: requests.collect(),
            prompts,
            next: 0,
            destinations: Vec::new(),
        }
    }

    /// Creates a source without bodies, in place of one that is lent out.
    pub fn empty() -> Self {
        Self {
            requests: Vec::new(),
            prompts: Prompts::Warm,
            next: 0,
            destinations: Vec::new(),
        }
    }

    /// Names an endpoint in the header of each request from now on: each prompt goes to one of these ports on this
    /// machine. With none there is no such header.
    pub fn send_to(&mut self, destinations: &[u16]) {
        self.destinations = destinations.to_vec();
    }

    /// Returns the next request.
    pub fn next(&mut self) -> Vec<u8> {
        self.next += 1;
        let index = self.next % PROMPTS;
        let rest = self.requests.get(index).map_or(&[][..], Vec::as_slice);
        let mut bytes = Vec::with_capacity(rest.len() + 128);
        bytes.extend_from_slice(REQUEST_LINE.as_bytes());
        let at = index.checked_rem(self.destinations.len());
        if let Some(port) = at.and_then(|at| self.destinations.get(at)) {
            let header = format!("{DESTINATION_HEADER}: 127.0.0.1:{port}\r\n");
            bytes.extend_from_slice(header.as_bytes());
        }
        bytes.extend_from_slice(rest);
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
    let mut state = (seed as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1;
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

/// Returns a request without its first line. Each prompt is a session, by which ring hash balances.
fn request(body: &str, session: usize) -> Vec<u8> {
    format!(
        "host: bench\r\ncontent-type: application/json\r\n\
         {SESSION_HEADER}: {session}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_goes_to_the_same_destination_each_time() {
        let mut source = Source::new(1_024, Order::MessagesFirst, Prompts::Warm);
        let header = |bytes: Vec<u8>| {
            let text = String::from_utf8(bytes).unwrap();
            assert!(text.starts_with(REQUEST_LINE) && text.contains("\r\n\r\n{\"messages\""));
            let mut lines = text.lines();
            lines.find_map(|line| {
                line.strip_prefix("x-gateway-destination-endpoint: ")
                    .map(str::to_owned)
            })
        };
        assert_eq!(header(source.next()), None);
        source.send_to(&[8_001, 8_002, 8_003]);
        let first: Vec<_> = (0..PROMPTS).map(|_| header(source.next())).collect();
        let second: Vec<_> = (0..PROMPTS).map(|_| header(source.next())).collect();
        assert_eq!(first, second);
        assert_eq!(first[0].as_deref(), Some("127.0.0.1:8003"));
        source.send_to(&[]);
        assert_eq!(header(source.next()), None);
    }
}
