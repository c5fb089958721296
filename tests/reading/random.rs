//! Compares random bodies, in random spellings and split at random places, with the simple model.

use std::collections::BTreeMap;

use epp_core::prefix::digest::BlockSpec;
use epp_core::request::{Api, BodyReader, Flattening, ReadPlan};
use fastrand::Rng;
use serde_json::{json, Value};

use super::{known, model, pieces};

const APIS: [Api; 6] = [
    Api::ChatCompletions,
    Api::Completions,
    Api::Embeddings,
    Api::Messages,
    Api::Responses,
    Api::VllmGenerate,
];

fn pick<T: Clone>(random: &mut Rng, from: &[T]) -> T {
    from[random.usize(..from.len())].clone()
}

fn text(random: &mut Rng) -> String {
    let longest = pick(random, &[0, 3, 30, 600]);
    let letters = [
        'a', 'b', ' ', '\n', '"', '\\', '<', 'é', '日', '😀', '\u{2028}', '\u{7f}', '\u{1}',
    ];
    let length = random.usize(..=longest);
    (0..length).map(|_| pick(random, &letters)).collect()
}

fn some<T>(random: &mut Rng, most: usize, mut make: impl FnMut(&mut Rng) -> T) -> Vec<T> {
    (0..random.usize(..=most)).map(|_| make(random)).collect()
}

fn tree(random: &mut Rng, depth: usize) -> Value {
    match random.usize(..if depth == 0 { 4 } else { 6 }) {
        0 => json!(random.i32(-1_000..1_000)),
        1 => json!(f64::from(random.i32(..)) + 0.25),
        2 => json!(text(random)),
        3 => pick(random, &[json!(true), json!(false), Value::Null]),
        4 => Value::Array(some(random, 3, |random| tree(random, depth - 1))),
        _ => object(some(random, 3, |random| {
            (text(random), tree(random, depth - 1))
        })),
    }
}

fn object(members: Vec<(String, Value)>) -> Value {
    // Sorted, as in the model, whether or not serde_json keeps an order.
    let members: BTreeMap<String, Value> = members.into_iter().collect();
    Value::Object(members.into_iter().collect())
}

fn role(random: &mut Rng) -> &'static str {
    pick(random, &["user", "assistant", "system"])
}

fn chat_part(random: &mut Rng) -> Value {
    match random.usize(..6) {
        0 => json!({"type": "image_url", "image_url": {"url": text(random)}}),
        1 => json!({"type": "input_audio", "input_audio": {"format": "wav", "data": text(random)}}),
        _ => json!({"type": "text", "text": text(random), "cache_control": tree(random, 2)}),
    }
}

fn anthropic_part(random: &mut Rng) -> Value {
    let block = |random: &mut Rng| json!({"type": "text", "text": text(random)});
    match random.usize(..6) {
        0 => json!({"type": "thinking", "thinking": text(random)}),
        1 => {
            json!({"type": "image", "source": {"type": "url", "url": format!("h{}", text(random))}})
        }
        2 => {
            json!({"type": "tool_use", "id": text(random), "name": text(random), "input": {"x": tree(random, 2)}})
        }
        3 => json!({"type": "tool_result", "content": text(random)}),
        4 => json!({"type": "tool_result", "content": some(random, 3, block)}),
        _ => json!({"type": "text", "text": text(random)}),
    }
}

fn system_block(random: &mut Rng) -> Value {
    json!({"type": "text", "text": text(random)})
}

fn message(random: &mut Rng, part: fn(&mut Rng) -> Value) -> Value {
    let content = match random.usize(..3) {
        0 => json!(some(random, 3, part)),
        _ => json!(text(random)),
    };
    json!({"role": role(random), "content": content, "cache_control": tree(random, 1)})
}

fn list_or_text(random: &mut Rng) -> Value {
    match random.usize(..4) {
        0 => json!(some(random, 4, |random| random.u32(..))),
        3 => json!(some(random, 3, |random| some(random, 4, |random| random.u32(..)))),
        1 => json!(some(random, 4, |random| format!("t{}", text(random)))),
        _ => json!(text(random)),
    }
}

/// Returns a random body.
fn body(random: &mut Rng, api: Api) -> Value {
    let mut body = match api {
        Api::ChatCompletions => json!({
            "messages": some(random, 4, |random| message(random, chat_part)),
            "tools": some(random, 2, |random| tree(random, 3)),
        }),
        Api::Messages => json!({
            "messages": some(random, 4, |random| message(random, anthropic_part)),
            "system": if random.bool() { json!(text(random)) } else { json!(some(random, 2, system_block)) },
            "tools": some(random, 2, |random| json!({
                "name": text(random), "description": text(random), "input_schema": tree(random, 2), "cache_control": 1,
            })),
        }),
        Api::Completions => json!({"prompt": list_or_text(random)}),
        Api::Embeddings => json!({"input": list_or_text(random)}),
        Api::VllmGenerate => json!({"token_ids": some(random, 9, |random| random.u32(..))}),
        _ => {
            json!({"instructions": text(random), "tools": [tree(random, 2)], "input": tree(random, 3)})
        }
    };
    body["model"] = json!(text(random));
    body["cache_salt"] = json!(text(random));
    body["unknown"] = tree(random, 3);
    let fields = body.as_object_mut().unwrap();
    fields.retain(|name, _| random.u8(..) < 200 || name == "input");
    body
}

/// Returns a random spelling of a value.
fn spell(random: &mut Rng, value: &Value, raw: bool, out: &mut String) {
    let space = |random: &mut Rng, out: &mut String| {
        if !raw && random.u8(..) < 30 {
            out.push_str(pick(random, &[" ", "\n\t", "\r\n"]));
        }
    };
    space(random, out);
    match value {
        Value::String(text) if !raw => spell_text(random, text, out),
        Value::Array(list) => {
            out.push('[');
            for (position, element) in list.iter().enumerate() {
                out.push_str(if position > 0 { "," } else { "" });
                spell(random, element, raw, out);
            }
            space(random, out);
            out.push(']');
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            if !raw {
                random.shuffle(&mut members);
            }
            out.push('{');
            for (position, (key, member)) in members.into_iter().enumerate() {
                out.push_str(if position > 0 { "," } else { "" });
                space(random, out);
                if raw {
                    out.push_str(&json!(key).to_string());
                } else {
                    spell_text(random, key, out);
                }
                space(random, out);
                out.push(':');
                // Values that are hashed by their bytes have the model's spelling.
                let raw = raw || key == "input_schema" || key == "input" && member.is_object();
                spell(random, member, raw, out);
            }
            space(random, out);
            out.push('}');
        }
        other => out.push_str(&other.to_string()),
    }
    space(random, out);
}

fn spell_text(random: &mut Rng, text: &str, out: &mut String) {
    out.push('"');
    for letter in text.chars() {
        if random.u8(..) < 20 {
            for unit in letter.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            let quoted = json!(letter.to_string()).to_string();
            out.push_str(&quoted[1..quoted.len() - 1]);
        }
    }
    out.push('"');
}

#[test]
fn random_bodies_are_read_as_by_the_plain_model() {
    let mut reader = BodyReader::default();
    let (mut blocks_seen, mut restarts) = (0, 0);
    for seed in 0..6_000 {
        let random = &mut Rng::with_seed(seed);
        let api = pick(random, &APIS);
        let flattening = pick(
            random,
            &[Flattening::GieV1, Flattening::LlmD, Flattening::LlmD],
        );
        let llm_d = flattening == Flattening::LlmD;
        let spec = BlockSpec {
            block_bytes: if llm_d {
                4 * random.usize(1..20)
            } else {
                random.usize(1..70)
            },
            max_blocks: Some(random.usize(..12)).filter(|blocks| *blocks > 0),
            keep_partial: llm_d,
        };
        let mut body = body(random, api);
        // GIE v1 reads neither tools nor salt in chats and completions.
        if !known::is_known(&body, api, flattening) {
            let fields = body.as_object_mut().unwrap();
            fields.retain(|field, _| field != "tools" && field != "cache_salt");
        }
        assert!(
            known::is_known(&body, api, flattening),
            "seed {seed}: {body}"
        );
        let mut text = String::new();
        spell(random, &body, false, &mut text);
        let blocks = vec![spec];
        let plan = ReadPlan {
            flattening,
            blocks,
            ..ReadPlan::default()
        };
        reader.reset(api, plan);
        let longest = pick(random, &[1, 7, 100, 10_000]);
        pieces::read(&mut reader, text.as_bytes(), || random.usize(1..=longest));
        let prompts: Vec<Vec<u64>> = reader.prompts_from(0, 0).map(<[u64]>::to_vec).collect();
        let expected = model::digests(&body, api, flattening, &spec);
        blocks_seen += expected.concat().len();
        restarts += reader.restarts();
        assert_eq!(
            prompts, expected,
            "seed {seed}, {api:?} {flattening:?} {spec:?}\n{text}"
        );
        assert_eq!(
            reader.model().known(),
            body["model"].as_str(),
            "seed {seed}\n{text}"
        );
        let salt = body["cache_salt"].as_str();
        assert_eq!(reader.salt().known(), salt, "seed {seed}\n{text}");
    }
    println!("{blocks_seen} blocks, {restarts} prompts read again");
    assert!(
        blocks_seen > 10_000 && restarts > 100,
        "the bodies say little"
    );
}
