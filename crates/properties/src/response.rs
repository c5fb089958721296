//! Properties of the reader of token counts in responses.
//!
//! Settings: the random seed of the cuts.

use epp_core::request::TextBuffer;
use epp_core::response::{ResponseReader, Usage};
use serde_json::Value;

use super::{json, number, settings, within};

/// Memory for any response: the levels of JSON, and the digits of a number.
const MEMORY: usize = 64 << 10;

/// A count above this is ignored.
const MAX_TOKENS: u64 = 1 << 32;

/// Asserts that a response gives the same counts however it is split, and the same as a simple reader.
pub fn response(input: &[u8]) {
    let (mut words, response) = settings(input);
    let mut random = fastrand::Rng::with_seed(number(&mut words) as u64);
    let longest = 1 << random.u32(..13);
    let whole = read(response, || response.len().max(1));
    assert_eq!(
        whole,
        read(response, || random.usize(1..=longest)),
        "in pieces"
    );
    assert_eq!(whole, read(response, || 1), "byte by byte");
    let expected = std::str::from_utf8(response).ok().and_then(plain);
    if let Some(expected) = expected {
        assert_eq!(whole.0, expected);
    }
}

/// Reads a response in pieces of these lengths. Returns its counts and whether it is a stream.
fn read(response: &[u8], mut length: impl FnMut() -> usize) -> (Usage, bool) {
    let reader = within(MEMORY, || {
        let mut reader = ResponseReader::default();
        let mut rest = response;
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(length().min(rest.len()));
            rest = behind;
            let (wanted, before) = (reader.wants_bytes(), reader.usage());
            reader.push(piece, &mut TextBuffer::default());
            assert!(wanted || reader.usage() == before, "unwanted bytes count");
        }
        reader.finish(&mut TextBuffer::default());
        reader
    });
    assert!(!reader.wants_bytes(), "nothing follows the end");
    (reader.usage(), reader.streams())
}

/// Returns the counts that a simple reader finds, if it can read the response.
fn plain(response: &str) -> Option<Usage> {
    if response.starts_with('{') {
        return usage(&json::parse(response.as_bytes())?);
    }
    if !response.starts_with("data: ") && !response.starts_with("event: ") {
        return None;
    }
    let lines = response.replace("\r\n", "\n").replace('\r', "\n");
    let mut sum = Usage::default();
    for event in lines.split("\n\n") {
        let mut data = event.lines().filter_map(|line| line.strip_prefix("data:"));
        let Some(text) = data.next() else {
            continue;
        };
        if data.next().is_some() {
            return None;
        }
        if text.strip_prefix(' ').unwrap_or(text) == "[DONE]" {
            break;
        }
        let later = usage(&json::parse(text.as_bytes())?)?;
        sum = Usage {
            prompt: later.prompt.or(sum.prompt),
            completion: later.completion.or(sum.completion),
            cached: later.cached.or(sum.cached),
        };
    }
    Some(sum)
}

/// Returns the counts in a response or an event that has each of them once.
fn usage(value: &Value) -> Option<Usage> {
    let places = [
        &value["usage"],
        &value["meta_info"],
        &value["response"]["usage"],
        &value["message"]["usage"],
    ];
    let mut places = places.into_iter().filter(|place| place.is_object());
    let Some(place) = places.next() else {
        return Some(Usage::default());
    };
    if places.next().is_some() {
        return None;
    }
    let details = ["prompt_tokens_details", "input_tokens_details"].map(|name| &place[name]);
    let count = |names: &[&str]| {
        let holders = [place, details[0], details[1]].into_iter();
        let found = holders.flat_map(|holder| names.iter().map(move |name| &holder[*name]));
        let mut numbers = found.filter(|found| found.is_number());
        match (numbers.next(), numbers.next()) {
            (None, _) => Some(None),
            (Some(number), None) if number.is_u64() => {
                Some(number.as_u64().filter(|number| *number <= MAX_TOKENS))
            }
            // In two places, or written as a fraction.
            _ => None,
        }
    };
    let read = count(&["cache_read_input_tokens"])?;
    let beside = read.unwrap_or(0) + count(&["cache_creation_input_tokens"])?.unwrap_or(0);
    Some(Usage {
        prompt: count(&["prompt_tokens", "input_tokens"])?.map(|prompt| prompt + beside),
        completion: count(&["completion_tokens", "output_tokens"])?,
        cached: count(&["cached_tokens"])?.or(read),
    })
}
