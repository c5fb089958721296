//! Properties of the reader of request bodies.
//!
//! Settings: path, dialect (`gie` or `llm-d`), bytes per block, maximum blocks, and the random seed of the splits.

use epp_core::prefix::digest::BlockSpec;
use epp_core::request::{Api, BodyReader, Fact, Flattening, ReadPlan, TextBuffer};
use serde_json::Value;

use super::{json, known, model, number, pieces, settings, within};

/// Maximum bytes per block. Without a bound on the number of blocks, media are read until 16,384 blocks are full.
const MAX_BLOCK_BYTES: usize = 256;

/// Maximum digests of a request without a bound of its own. The model has no such maximum.
const MAX_DIGESTS: usize = 1 << 14;

/// Memory for the maximum number of digests while their list grows, and for an empty body.
const BASE_MEMORY: usize = 1 << 20;

/// Memory per byte of the body, generously: text that waits for a part that precedes it in the prompt is stored in buffers
/// that double.
const MEMORY_PER_BYTE: usize = 16;

/// Stored bytes of a model's name or a salt.
const MAX_TEXT_BYTES: usize = 4096;

/// Stored bytes of a key.
const MAX_KEY_BYTES: usize = 1024;

/// The values that were read from a body.
#[derive(Debug, PartialEq)]
struct BodyFacts {
    model: Option<String>,
    salt: Option<String>,
    max_tokens: Option<u64>,
    stream: bool,
    prompts: Vec<Vec<u64>>,
}

/// Asserts that a body gives the same values however it is split, and the same as the simple model.
pub fn request(input: &[u8]) {
    let (mut words, body) = settings(input);
    let api = Api::of_path(words.next().unwrap_or_default().as_bytes());
    let flattening = match words.next() {
        Some("gie") => Flattening::GieV1,
        _ => Flattening::LlmD,
    };
    let llm_d = flattening == Flattening::LlmD;
    let block_bytes = number(&mut words) % MAX_BLOCK_BYTES + 1;
    let spec = BlockSpec {
        // Blocks of llm-d consist of whole tokens.
        block_bytes: if llm_d {
            block_bytes.next_multiple_of(4)
        } else {
            block_bytes
        },
        max_blocks: Some(number(&mut words)).filter(|blocks| *blocks > 0),
        keep_partial: llm_d,
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
        facts(&reader)
    };
    let whole = read(&mut || usize::MAX >> 1);
    assert_eq!(whole, read(&mut || random.usize(1..=longest)), "in pieces");
    let one = within(BASE_MEMORY + MEMORY_PER_BYTE * body.len(), || {
        let mut reader = BodyReader::default();
        reader.reset(api, plan.clone());
        body.chunks(1)
            .for_each(|byte| reader.push(byte, &mut TextBuffer::default()));
        finish(&mut reader, body);
        reader
    });
    assert_eq!(whole, facts(&one), "byte by byte");

    let value = json::parse(body).filter(Value::is_object);
    if let Some(value) = value.filter(|_| api != Api::PassThrough) {
        check_facts(&value, api, llm_d, &whole);
        check_prompts(&value, api, &plan, &mut reader, &whole);
    }
}

/// Ends a body, and rereads the parts that the reader asks for.
fn finish(reader: &mut BodyReader, body: &[u8]) {
    reader.finish();
    while let Some(range) = reader.reread() {
        reader.feed_again(range.start, &body[range], &mut TextBuffer::default());
    }
}

fn facts(reader: &BodyReader) -> BodyFacts {
    let known = |fact: Fact<&str>| {
        assert_ne!(fact, Fact::Unknown);
        fact.known().map(str::to_owned)
    };
    BodyFacts {
        model: known(reader.model()),
        salt: known(reader.salt()),
        max_tokens: reader.max_tokens(),
        stream: reader.stream(),
        prompts: reader.prompts_from(0, 0).map(<[u64]>::to_vec).collect(),
    }
}

fn check_facts(body: &Value, api: Api, llm_d: bool, facts: &BodyFacts) {
    let text = |name: &str| {
        let text = body[name].as_str()?;
        let ends = text
            .char_indices()
            .map(|(at, letter)| at + letter.len_utf8());
        let end = ends.take_while(|end| *end <= MAX_TEXT_BYTES).last();
        Some(&text[..end.unwrap_or_default()])
    };
    let model = text("model").filter(|_| api != Api::SglangGenerate);
    assert_eq!(facts.model.as_deref(), model, "model");
    // GIE v1 has no salt: there it is one of the fields that are added as they stand.
    let gie_v1 = !llm_d && matches!(api, Api::ChatCompletions | Api::Completions);
    let salt = match api {
        Api::ImagesGenerations => None,
        Api::SglangGenerate => text("extra_key"),
        _ => text("cache_salt"),
    };
    assert_eq!(facts.salt.as_deref(), salt.filter(|_| !gie_v1), "salt");
    // The field may stand behind the part that is read.
    assert!(!facts.stream || body["stream"] == true, "stream");
}

fn check_prompts(
    body: &Value,
    api: Api,
    plan: &ReadPlan,
    reader: &mut BodyReader,
    facts: &BodyFacts,
) {
    let spec = &plan.blocks[0];
    if !is_regular(body, api, plan.flattening) {
        return;
    }
    let expected = model::digests(body, api, plan.flattening, spec);
    if expected.iter().map(Vec::len).sum::<usize>() > MAX_DIGESTS {
        return;
    }
    // Parts of Anthropic's bodies are added as they are spelt, and the model has one spelling only.
    let spelt = body.to_string();
    reader.reset(api, plan.clone());
    reader.push(spelt.as_bytes(), &mut TextBuffer::default());
    finish(reader, spelt.as_bytes());
    assert_eq!(
        self::facts(reader).prompts,
        expected,
        "spelt plainly: {spelt}"
    );
    if api != Api::Messages {
        assert_eq!(facts.prompts, expected, "{spelt}");
    }
}

/// Returns whether the model can flatten a body.
fn is_regular(body: &Value, api: Api, flattening: Flattening) -> bool {
    let plain = |value: &Value| match value {
        // Go writes other numbers than serde_json does.
        Value::Number(number) => number.as_i64().is_some_and(|number| number.abs() < 1 << 53),
        // The model does not read pictures.
        Value::String(text) => !text.starts_with("data:image/"),
        Value::Object(members) => members.keys().all(|key| key.len() <= MAX_KEY_BYTES),
        _ => true,
    };
    json::all(body, &plain) && known::is_known(body, api, flattening)
}
