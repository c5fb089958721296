//! Reads the bodies in tests/vectors whole, byte by byte and at random splits, with the same result, which the files
//! have.
//!
//! A vector's `prompts` are what the Endpoint Picker hashes (reference §4.5), each a text,
//! `{"tokens": […]}`, or a list of texts and media; `{"media": text, "tokens": n}` represents, on a
//! token boundary, for n times the low half of the text's hash. A fact that is not named is absent.
//! `{"unknown": [level, outer, inner], "key": …, "value": …}` is what the Endpoint Picker leaves out, by
//! its bytes (`digest` instead of `value`: by its hash), and `{"sum": […]}` the sum of such; from there on a last block counts in any case.

use std::fs;
use std::path::Path;

use epp_core::prefix::digest::BlockSpec;
use epp_core::request::{Api, BodyReader, Fact, Flattening, ReadPlan, TextBuffer};
use serde_json::Value;
use xxhash_rust::xxh64::xxh64;

use super::model::{add_media, blocks};

/// Small blocks, which show every difference: in bytes for GIE v1, in tokens for llm-d.
const SPECS: [BlockSpec; 2] = [
    BlockSpec {
        block_bytes: 3,
        max_blocks: None,
        keep_partial: false,
    },
    BlockSpec {
        block_bytes: 8,
        max_blocks: None,
        keep_partial: true,
    },
];

/// The values that were read from a body.
#[derive(Debug, PartialEq)]
struct ReadBody {
    model: Option<String>,
    salt: Option<String>,
    max_tokens: Option<u64>,
    stream: bool,
    prompts: Vec<Vec<u64>>,
}

fn dialect(vector: &Value) -> Flattening {
    match vector["dialect"].as_str().unwrap() {
        "gie-v1" => Flattening::GieV1,
        "llm-d" => Flattening::LlmD,
        other => panic!("unknown dialect {other}"),
    }
}

/// Reads a body in pieces that end at `cuts`.
fn read(vector: &Value, cuts: &[usize]) -> ReadBody {
    let body = vector["body"].as_str().unwrap().as_bytes();
    let path = vector["path"].as_str().unwrap();
    let flattening = dialect(vector);
    let mut reader = BodyReader::default();
    let blocks = vec![SPECS[flattening as usize]];
    let plan = ReadPlan {
        flattening,
        blocks,
        ..ReadPlan::default()
    };
    reader.reset(Api::of_path(path.as_bytes()), plan);
    let mut from = 0;
    for cut in cuts.iter().copied().chain([body.len()]) {
        reader.push(&body[from..cut], &mut TextBuffer::default());
        from = cut;
    }
    reader.finish();
    while let Some(range) = reader.reread() {
        // A host may show fewer bytes than requested.
        let end = range.end.min(range.start + 1 + cuts.len());
        reader.feed_again(
            range.start,
            &body[range.start..end],
            &mut TextBuffer::default(),
        );
    }
    let known = |fact: Fact<&str>| {
        assert_ne!(fact, Fact::Unknown);
        fact.known().map(str::to_owned)
    };
    assert!(!reader.pending().earlier_parts);
    assert!(reader.window_full() && !reader.needs_more() && !reader.may_add_prompts());
    ReadBody {
        model: known(reader.model()),
        salt: known(reader.salt()),
        max_tokens: reader.max_tokens(),
        stream: reader.stream(),
        prompts: reader.prompts_from(0, 0).map(<[u64]>::to_vec).collect(),
    }
}

/// Appends a value that a layout does not know, as it is encoded in a prompt: its place, its key, its bytes.
fn add_unknown(prompt: &mut Vec<u8>, at: [u8; 3], key: &str, value: &Value) {
    prompt.push(0xFF);
    prompt.extend_from_slice(&at);
    spell_unknown(prompt, key, value);
}

fn spell_unknown(prompt: &mut Vec<u8>, key: &str, value: &Value) {
    prompt.extend_from_slice(key.as_bytes());
    match value {
        Value::Object(members) => {
            prompt.push(0xF8);
            for (key, member) in members {
                spell_unknown(prompt, key, member);
            }
        }
        Value::Array(list) => {
            prompt.push(0xF9);
            for element in list {
                spell_unknown(prompt, "", element);
            }
        }
        Value::String(text) => {
            prompt.push(0xFA);
            prompt.extend_from_slice(text.as_bytes());
        }
        plain => {
            prompt.push(0xFB);
            prompt.extend_from_slice(plain.to_string().as_bytes());
        }
    }
    prompt.push(0xFC);
}

/// Appends such a value that is represented by its hash.
fn add_digest(prompt: &mut Vec<u8>, at: [u8; 3], key: &str, value: &[u8]) {
    prompt.push(0xFF);
    prompt.extend_from_slice(&at);
    prompt.extend_from_slice(key.as_bytes());
    prompt.push(0xFA);
    prompt.extend_from_slice(&xxh64(value, 0).to_le_bytes());
    prompt.push(0xFC);
}

/// Returns the bytes of a prompt in a vector.
fn spelt(prompt: &Value) -> Vec<u8> {
    if let Some(tokens) = prompt["tokens"].as_array() {
        let tokens = tokens.iter().map(|token| token.as_u64().unwrap() as u32);
        return tokens.flat_map(u32::to_le_bytes).collect();
    }
    let mut bytes = Vec::new();
    let alone = std::slice::from_ref(prompt);
    for piece in prompt.as_array().map_or(alone, Vec::as_slice) {
        if let Some(text) = piece.as_str() {
            bytes.extend_from_slice(text.as_bytes());
        } else if let Some(text) = piece["media"].as_str() {
            add_media(&mut bytes, text, piece["tokens"].as_u64().unwrap());
        } else if piece["tokens"].is_array() {
            bytes.extend(spelt(piece));
        } else if piece["sum"].is_array() {
            add_digest(&mut bytes, [0; 3], "", &spelt(&piece["sum"]));
        } else {
            let at = [0, 1, 2].map(|number| piece["unknown"][number].as_u64().unwrap() as u8);
            let key = piece["key"].as_str().unwrap();
            match piece["digest"].as_str() {
                Some(text) => add_digest(&mut bytes, at, key, text.as_bytes()),
                None => add_unknown(&mut bytes, at, key, &piece["value"]),
            }
        }
    }
    bytes
}

/// Returns whether a prompt has a part that its layout does not know.
fn holds_unknown(prompt: &Value) -> bool {
    let mut pieces = prompt.as_array().into_iter().flatten();
    pieces.any(|piece| piece["unknown"].is_array() || piece["sum"].is_array())
}

fn expected(vector: &Value) -> ReadBody {
    let text = |name: &str| vector[name].as_str().map(str::to_owned);
    let prompts = vector["prompts"].as_array().unwrap().iter();
    let mut spec = SPECS[dialect(vector) as usize];
    let prompts = prompts.map(|prompt| {
        spec.keep_partial |= holds_unknown(prompt);
        blocks(spelt(prompt), &spec)
    });
    ReadBody {
        model: text("model"),
        salt: text("salt"),
        max_tokens: vector["max_tokens"].as_u64(),
        stream: vector["stream"].as_bool().unwrap_or_default(),
        prompts: prompts.filter(|prompt| !prompt.is_empty()).collect(),
    }
}

fn vectors() -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    // Folders belong to other tests.
    let files = files.filter(|file| file.file_type().unwrap().is_file());
    let files = files.map(|file| fs::read_to_string(file.path()).unwrap());
    let parsed = files.map(|text| serde_json::from_str::<Value>(&text).unwrap());
    let all = parsed.flat_map(|file| file["vectors"].as_array().unwrap().clone());
    all.collect()
}

#[test]
fn every_body_is_read_alike_however_it_is_split() {
    let vectors = vectors();
    assert!(vectors.len() >= 70, "a file is missing");
    let mut random = fastrand::Rng::with_seed(4);
    let mut wrong = Vec::new();
    for vector in &vectors {
        let expected = expected(vector);
        let length = vector["body"].as_str().unwrap().len();
        let some = |_| {
            let mut cuts: Vec<usize> = (0..4).map(|_| random.usize(0..=length)).collect();
            cuts.sort_unstable();
            cuts
        };
        let mut splits: Vec<Vec<usize>> = (0..20).map(some).collect();
        splits.insert(0, Vec::new());
        splits.insert(1, (0..length).collect());
        for cuts in splits {
            let found = read(vector, &cuts);
            if found != expected {
                let name = format!("{} {}", vector["path"], vector["name"]);
                wrong.push(format!("{name}, cut at {cuts:?}:\n{found:?}\n{expected:?}"));
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
