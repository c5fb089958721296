//! The reader of request bodies.
//!
//! Settings: path, generation (`seed` or `today`), bytes of a block, blocks that count, and a number
//! that says where to cut the body.

use epp_core::prefix::digest::BlockSpec;
use epp_core::request::{Api, BodyReader, Fact, Flattening, ReadPlan, TextBuffer};
use serde_json::Value;

use super::{json, known, model, number, pieces, settings, within};

/// Longest block tried. Without a bound on the number of blocks one of media is read until 16,384
/// are full.
const MOST_BLOCK: usize = 256;

/// Digests that are kept of a request without a bound: of more the model knows more than the reader.
const MOST_DIGESTS: usize = 1 << 14;

/// Memory for the most digests, while their list grows, and for a body of no length.
const MOST_MEMORY: usize = 1 << 20;

/// Bytes of memory for each of the body, with room to spare: what waits for a part that precedes it
/// in the prompt is held, in buffers that double.
const MEMORY_PER_BYTE: usize = 16;

/// Bytes that are kept of a model's name or a salt.
const MOST_TEXT: usize = 4096;

/// Bytes that are kept of a key.
const MOST_KEY: usize = 1024;

/// What was read of a body.
#[derive(Debug, PartialEq)]
struct Told {
    model: Option<String>,
    salt: Option<String>,
    max_tokens: Option<u64>,
    stream: bool,
    prompts: Vec<Vec<u64>>,
}

/// A body tells the same however it is cut, and what the plain model knows of it.
pub fn request(input: &[u8]) {
    let (mut words, body) = settings(input);
    let api = Api::of_path(words.next().unwrap_or_default().as_bytes());
    let flattening = match words.next() {
        Some("seed") => Flattening::GieV1,
        _ => Flattening::LlmD,
    };
    let today = flattening == Flattening::LlmD;
    let block_bytes = number(&mut words) % MOST_BLOCK + 1;
    let spec = BlockSpec {
        // Today's blocks are of whole tokens.
        block_bytes: if today {
            block_bytes.next_multiple_of(4)
        } else {
            block_bytes
        },
        max_blocks: number(&mut words),
        keep_partial: today,
    };
    let blocks = vec![spec];
    let plan = ReadPlan {
        flattening,
        blocks,
        ..ReadPlan::default()
    };
    let mut random = fastrand::Rng::with_seed(number(&mut words) as u64);
    let longest = 1 << random.u32(..13);

    let mut reader = BodyReader::default();
    let mut read = |length: &mut dyn FnMut() -> usize| {
        reader.reset(api, plan.clone());
        pieces::read(&mut reader, body, length);
        told(&reader)
    };
    let whole = read(&mut || usize::MAX >> 1);
    assert_eq!(whole, read(&mut || random.usize(1..=longest)), "in pieces");
    let one = within(MOST_MEMORY + MEMORY_PER_BYTE * body.len(), || {
        let mut reader = BodyReader::default();
        reader.reset(api, plan.clone());
        body.chunks(1)
            .for_each(|byte| reader.push(byte, &mut TextBuffer::default()));
        finish(&mut reader, body);
        reader
    });
    assert_eq!(whole, told(&one), "byte by byte");

    let value = json::parse(body).filter(Value::is_object);
    if let Some(value) = value.filter(|_| api != Api::PassThrough) {
        check_facts(&value, api, today, &whole);
        check_prompts(&value, api, &plan, &mut reader, &whole);
    }
}

/// Ends a body, reading again what has to be.
fn finish(reader: &mut BodyReader, body: &[u8]) {
    reader.finish();
    while let Some(range) = reader.reread() {
        reader.feed_again(range.start, &body[range], &mut TextBuffer::default());
    }
}

fn told(reader: &BodyReader) -> Told {
    let known = |fact: Fact<&str>| {
        assert_ne!(fact, Fact::Unknown);
        fact.known().map(str::to_owned)
    };
    Told {
        model: known(reader.model()),
        salt: known(reader.salt()),
        max_tokens: reader.max_tokens(),
        stream: reader.stream(),
        prompts: reader.prompts(0).map(<[u64]>::to_vec).collect(),
    }
}

fn check_facts(body: &Value, api: Api, today: bool, told: &Told) {
    let text = |name: &str| {
        let text = body[name].as_str()?;
        let ends = text
            .char_indices()
            .map(|(at, letter)| at + letter.len_utf8());
        let end = ends.take_while(|end| *end <= MOST_TEXT).last();
        Some(&text[..end.unwrap_or_default()])
    };
    let model = text("model").filter(|_| api != Api::SglangGenerate);
    assert_eq!(told.model.as_deref(), model, "model");
    // There it is one of the fields that count by their bytes.
    let seed = !today && matches!(api, Api::ChatCompletions | Api::Completions);
    let salt = match api {
        Api::ImagesGenerations => None,
        Api::SglangGenerate => text("extra_key"),
        _ => text("cache_salt"),
    };
    assert_eq!(told.salt.as_deref(), salt.filter(|_| !seed), "salt");
    // It may stand behind what has to be read.
    assert!(!told.stream || body["stream"] == true, "stream");
}

fn check_prompts(body: &Value, api: Api, plan: &ReadPlan, reader: &mut BodyReader, told: &Told) {
    let spec = &plan.blocks[0];
    if !is_regular(body, api, plan.flattening) {
        return;
    }
    let expected = model::digests(body, api, plan.flattening, spec);
    if expected.iter().map(Vec::len).sum::<usize>() > MOST_DIGESTS {
        return;
    }
    // Parts of Anthropic's bodies count as they are spelt, and the model spells in one way only.
    let spelt = body.to_string();
    reader.reset(api, plan.clone());
    reader.push(spelt.as_bytes(), &mut TextBuffer::default());
    finish(reader, spelt.as_bytes());
    assert_eq!(
        self::told(reader).prompts,
        expected,
        "spelt plainly: {spelt}"
    );
    if api != Api::Messages {
        assert_eq!(told.prompts, expected, "{spelt}");
    }
}

/// Whether the model knows what to make of a body.
fn is_regular(body: &Value, api: Api, flattening: Flattening) -> bool {
    let plain = |value: &Value| match value {
        // Go writes other numbers than serde_json does.
        Value::Number(number) => number.as_i64().is_some_and(|number| number.abs() < 1 << 53),
        // The model does not look into pictures.
        Value::String(text) => !text.starts_with("data:image/"),
        Value::Object(members) => members.keys().all(|key| key.len() <= MOST_KEY),
        _ => true,
    };
    json::all(body, &plain) && known::is_known(body, api, flattening)
}
