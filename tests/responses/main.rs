//! The reader of responses against vectors: bodies and the counts of tokens in them. Each is read
//! whole, byte by byte, and cut at random.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;

use epp_core::request::TextBuffer;
use epp_core::response::{ResponseReader, Usage};
use serde_json::Value;

/// Reads in pieces of random sizes up to this many bytes.
fn read(reader: &mut ResponseReader, body: &[u8], most: usize, rng: &mut fastrand::Rng) -> Usage {
    reader.reset();
    let mut rest = body;
    while !rest.is_empty() {
        let size = rng.usize(1..=most.max(1)).min(rest.len());
        let (piece, after) = rest.split_at(size);
        let wanted = reader.wants_bytes();
        let before = reader.usage();
        reader.push(piece, &mut TextBuffer::default());
        assert!(wanted || reader.usage() == before, "was not wanted");
        rest = after;
    }
    reader.finish(&mut TextBuffer::default());
    reader.usage()
}

/// Whole, byte by byte, and in twenty ways at random, with one reader for all.
fn check(name: &str, body: &[u8], expected: Usage) {
    let mut reader = ResponseReader::default();
    let mut rng = fastrand::Rng::with_seed(body.len() as u64);
    let mut whole = fastrand::Rng::with_seed(1);
    reader.push(body, &mut TextBuffer::default());
    reader.finish(&mut TextBuffer::default());
    assert_eq!(reader.usage(), expected, "{name}");
    assert_eq!(
        read(&mut reader, body, 1, &mut whole),
        expected,
        "{name}, byte by byte"
    );
    for round in 0..20 {
        let most = rng.usize(2..40);
        let got = read(&mut reader, body, most, &mut rng);
        assert_eq!(got, expected, "{name}, cut at random, round {round}");
    }
}

#[test]
fn the_vectors_hold() {
    let text = fs::read_to_string("tests/responses/vectors.json").unwrap();
    let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert!(cases.len() > 30);
    for case in &cases {
        let expected = Usage {
            prompt: case["prompt"].as_u64(),
            completion: case["completion"].as_u64(),
            cached: case["cached"].as_u64(),
        };
        // Bytes above 127 stand for themselves.
        let body = case["body"].as_str().unwrap().chars().map(|c| c as u8);
        check(
            case["name"].as_str().unwrap(),
            &body.collect::<Vec<u8>>(),
            expected,
        );
    }
}

#[test]
fn a_real_servers_responses_are_read() {
    for (file, prompt, completion, cached) in [
        ("chat_nonstream.http", 26, 12, None),
        ("chat_stream_cached.http", 1208, 3, Some(1152)),
    ] {
        let bytes = fs::read(format!("tests/fixtures/vllm-0.32/{file}")).unwrap();
        let head = bytes
            .windows(4)
            .position(|part| part == b"\r\n\r\n")
            .unwrap();
        let expected = Usage {
            prompt: Some(prompt),
            completion: Some(completion),
            cached,
        };
        check(file, &bytes[head + 4..], expected);
    }
}

#[test]
fn hostile_responses_cost_no_memory_and_no_panic() {
    let deep = [b"{\"a\":".to_vec(), b"[".repeat(10_000)].concat();
    let long = [
        b"data: {\"a\":\"".to_vec(),
        b"x".repeat(5 << 20),
        b"\"}\n\n".to_vec(),
    ]
    .concat();
    let usage: &[u8] = b"data: {\"usage\":{\"prompt_tokens\":7}}\n\n";
    let mut reader = ResponseReader::default();
    for body in [deep.as_slice(), &long, &[long.as_slice(), usage].concat()] {
        reader.reset();
        for piece in body.chunks(4096) {
            reader.push(piece, &mut TextBuffer::default());
        }
        reader.finish(&mut TextBuffer::default());
    }
    assert_eq!(reader.usage().prompt, Some(7), "behind a long event");
}
