//! Tests that two bodies with different prompts have different blocks, whichever part of the prompt differs: bodies
//! of each API, each changed at every place in every way, all against all.

use std::collections::HashMap;

use epp_core::prefix::digest::BlockSpec;
use epp_core::request::{Api, BodyReader, Flattening, ReadPlan, TextBuffer};
use serde_json::{json, Map, Value};

use super::meaning::meaning;

/// Small blocks, including partial ones, so that no text is left out.
const SMALL_BLOCKS: BlockSpec = BlockSpec {
    block_bytes: 4,
    max_blocks: None,
    keep_partial: true,
};

/// Returns the blocks of a request's prompts in a layout.
pub fn read(body: &str, api: Api, flattening: Flattening) -> Vec<Vec<u64>> {
    let mut reader = BodyReader::default();
    let plan = ReadPlan {
        flattening,
        blocks: vec![SMALL_BLOCKS],
        ..ReadPlan::default()
    };
    reader.reset(api, plan);
    reader.push(body.as_bytes(), &mut TextBuffer::default());
    reader.finish();
    while let Some(range) = reader.reread() {
        reader.feed_again(
            range.start,
            &body.as_bytes()[range],
            &mut TextBuffer::default(),
        );
    }
    reader.prompts_from(0, 0).map(<[u64]>::to_vec).collect()
}

fn chat() -> Value {
    json!({"model": "m", "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "name": "n", "content": [
            {"type": "text", "text": "Look", "x": 1},
            {"type": "text", "text": "here"},
            {"type": "image_url", "image_url": {"url": "http://x", "detail": "low"}},
            {"type": "image_url", "image_url": "http://y"},
            {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "wav"}},
            {"type": "audio_url", "audio_url": {"url": "http://a"}},
            {"type": "video_url", "video_url": {"url": "http://v"}},
            {"type": "file", "file": {"file_id": "f"}},
            {"type": "input_text", "text": "t"},
            {"type": "refusal", "refusal": "r"},
            {"text": "untyped"},
            {"image_url": {"url": "http://z"}},
            "bare",
        ]},
        {"role": "assistant", "content": null, "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}},
            {"id": "c2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
        ]},
        {"role": "tool", "tool_call_id": "c1", "content": "ok"},
        {"role": "assistant", "reasoning_content": "think", "content": "done", "refusal": null},
        {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "user", "content": "next"},
    ], "tools": [
        {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "n": 1}}},
        {"type": "function", "function": {"name": "g"}},
    ]})
}

fn messages() -> Value {
    json!({"model": "m", "messages": [
        {"role": "user", "content": [
            {"type": "text", "text": "Look", "citations": [1]},
            {"type": "image", "source": {"type": "url", "url": "http://x"}},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBO"}},
            {"type": "image", "source": {"type": "file", "file_id": "f"}},
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "d"}, "title": "t"},
        ]},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "redacted_thinking", "data": "z"},
            {"type": "tool_use", "id": "t1", "name": "f", "input": {"b": 1, "a": "x"}},
            {"type": "server_tool_use", "id": "t2", "name": "g", "input": {}},
        ]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "t1", "is_error": false, "content": [
                {"type": "text", "text": "a", "x": 1},
                {"type": "text", "text": "b"},
                {"type": "image", "source": {"type": "url", "url": "http://y"}},
                {"type": "search_result", "text": "q", "source": "u"},
                "bare",
            ]},
            {"type": "tool_result", "tool_use_id": "t2", "content": "done"},
            {"text": "untyped"},
            7,
        ]},
    ], "system": [
        {"type": "text", "text": "You are.", "x": 1},
        {"type": "text", "text": "Brief."},
        {"type": "image", "text": "t"},
        "bare",
    ], "tools": [
        {"name": "f", "description": "d", "input_schema": {"type": "object"}, "type": "custom"},
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 5},
    ]})
}

/// Bodies whose prompts have every part and field, known or unknown.
fn bodies() -> Vec<(Api, Value)> {
    let texts = json!(["one", "two", 3, null, {"a": "b"}, ["c"]]);
    let tokens = json!([1, 2, -3, 4.5, 70_000_000_000_u64, "six"]);
    let lists = json!([[1, 2], [3, "x"], 4, "y"]);
    let both =
        |field: &str, value: &Value| json!({"model": "m", field: value, "tools": [{"a": 1}]});
    let mut bodies = vec![
        (Api::ChatCompletions, chat()),
        (
            Api::ChatCompletions,
            json!({"messages": "text", "tools": {"a": 1}, "system": "s"}),
        ),
        (Api::Messages, messages()),
        (
            Api::Messages,
            json!({"messages": [{"role": "user", "content": "Hi"}], "system": {"a": 1}}),
        ),
        (
            Api::Responses,
            json!({"instructions": "i", "input": [{"role": "user", "content": [
            {"type": "input_text", "text": "Hi"}, {"type": "input_image", "image_url": "u"}]}],
            "tools": [{"type": "function", "name": "f"}]}),
        ),
        (
            Api::Conversations,
            json!({"items": [{"type": "message", "role": "user", "id": "1",
            "content": [{"type": "input_text", "text": "Hi"}]}, {"type": "other", "x": {"y": 1}}]}),
        ),
        (Api::VllmGenerate, both("token_ids", &tokens)),
        (Api::SglangGenerate, both("input_ids", &tokens)),
        (
            Api::SglangGenerate,
            json!({"text": ["a", "b"], "image_data": "u"}),
        ),
    ];
    for value in [json!("text"), json!({"a": 1}), texts, tokens, lists] {
        bodies.push((Api::Completions, both("prompt", &value)));
        bodies.push((Api::Embeddings, both("input", &value)));
    }
    bodies
}

/// The fields of a body that contain its prompt.
const FIELDS: [&str; 10] = [
    "messages",
    "prompt",
    "input",
    "system",
    "tools",
    "instructions",
    "items",
    "token_ids",
    "input_ids",
    "text",
];

/// Returns all values that differ from a value by one change at one place.
fn changed(value: &Value) -> Vec<Value> {
    let mut all = vec![
        json!([value]),
        json!({"text": value}),
        json!("other"),
        json!(8),
        json!(true),
    ];
    match value {
        Value::String(text) => {
            all.extend([
                json!(format!("{text}x")),
                json!(format!("X{text}")),
                json!(""),
            ]);
            all.push(json!([{"type": "text", "text": text}]));
        }
        Value::Number(number) => all.push(json!(number.as_f64().unwrap() + 1.0)),
        Value::Array(list) => all.extend(changed_list(list)),
        Value::Object(members) => all.extend(changed_object(members)),
        Value::Bool(_) | Value::Null => {}
    }
    all
}

fn changed_list(list: &[Value]) -> Vec<Value> {
    let mut all = Vec::new();

    let with = |at: usize, value: Vec<Value>| {
        let mut list = list.to_vec();
        list.splice(at..(at + 1).min(list.len()), value);
        Value::Array(list)
    };
    for (at, element) in list.iter().enumerate() {
        all.push(with(at, Vec::new()));
        all.extend(
            [json!({}), json!([]), json!(9)].map(|new| with(at, vec![new, element.clone()])),
        );
        all.extend(changed(element).into_iter().map(|new| with(at, vec![new])));
    }
    for at in 1..list.len() {
        let mut swapped = list.to_vec();
        swapped.swap(at - 1, at);
        all.push(Value::Array(swapped));
        all.extend(moved(list, at));
    }
    all
}

fn changed_object(members: &Map<String, Value>) -> Vec<Value> {
    let mut all = Vec::new();

    for new in [json!("v"), json!(1), json!({"a": "b"}), json!(["c"])] {
        for key in ["new", "type", "text", "name", "content", "data"] {
            let mut more = members.clone();
            more.entry(key).or_insert(new.clone());
            all.push(Value::Object(more));
        }
    }
    for (key, member) in members {
        let mut without = members.clone();
        without.remove(key);
        all.push(Value::Object(without.clone()));
        without.insert(format!("{key}x"), member.clone());
        all.push(Value::Object(without));
        for new in changed(member) {
            let mut other = members.clone();
            other.insert(key.clone(), new);
            all.push(Value::Object(other));
        }
    }
    all
}

/// Returns the lists in which one member of an element has moved to the element before.
fn moved(list: &[Value], at: usize) -> Vec<Value> {
    let members = |at: usize| list[at].as_object().cloned().unwrap_or_default();
    let (to, from) = (members(at - 1), members(at));
    let keys = from
        .keys()
        .filter(|key| !to.contains_key(*key) && list[at - 1].is_object());
    let move_one = |key: &String| {
        let (mut to, mut from, mut list) = (to.clone(), from.clone(), list.to_vec());
        to.extend(from.remove_entry(key));
        list[at - 1] = Value::Object(to);
        list[at] = Value::Object(from);
        Value::Array(list)
    };
    keys.map(move_one).collect()
}

/// Returns the body with the members of all its objects in an order.
fn spell(value: &Value, backwards: bool) -> String {
    match value {
        Value::Object(members) => {
            let one = |(key, member): (&String, &Value)| {
                format!("{}:{}", json!(key), spell(member, backwards))
            };
            let mut members: Vec<String> = members.iter().map(one).collect();
            members.sort();
            if backwards {
                members.reverse();
            }
            format!("{{{}}}", members.join(","))
        }
        Value::Array(list) => {
            let list: Vec<String> = list
                .iter()
                .map(|element| spell(element, backwards))
                .collect();
            format!("[{}]", list.join(","))
        }
        plain => plain.to_string(),
    }
}

#[test]
fn bodies_with_different_prompts_never_match_fully() {
    let (mut tried, mut wrong) = (0, Vec::new());
    for (number, (api, body)) in bodies().into_iter().enumerate() {
        let mut all = vec![body.clone()];
        for field in FIELDS.iter().filter(|field| !body[**field].is_null()) {
            all.extend(changed(&body[*field]).into_iter().map(|new| {
                let mut body = body.clone();
                body[*field] = new;
                body
            }));
        }
        for flattening in [Flattening::GieV1, Flattening::LlmD] {
            let mut seen: HashMap<Vec<Vec<u64>>, (Value, String)> = HashMap::new();
            for (body, backwards) in all.iter().flat_map(|body| [(body, false), (body, true)]) {
                let text = spell(body, backwards);
                let digests = read(&text, api, flattening);
                tried += 1;
                // A body without blocks does not match any other.
                if digests.is_empty() {
                    continue;
                }
                let meaning = meaning(body, api);
                let (other, own) = seen
                    .entry(digests)
                    .or_insert((meaning.clone(), text.clone()));
                if *other != meaning {
                    wrong.push(format!("{number}, {api:?}, {flattening:?}:\n{own}\n{text}"));
                }
            }
        }
    }
    println!("{tried} bodies");
    assert!(tried > 10_000, "{tried}");
    let first: Vec<String> = wrong.iter().take(3).cloned().collect();
    assert!(
        wrong.is_empty(),
        "{} such as\n{}",
        wrong.len(),
        first.join("\n")
    );
}

/// Returns an object with one member.
fn member(key: &str, value: Value) -> Value {
    Value::Object(Map::from_iter([(key.to_owned(), value)]))
}

#[test]
fn a_list_of_text_parts_is_the_same_text() {
    for flattening in [Flattening::GieV1, Flattening::LlmD] {
        for (api, content) in [
            (Api::ChatCompletions, "content"),
            (Api::Messages, "content"),
        ] {
            let body = |value: Value| {
                let mut message = member(content, value);
                message["role"] = json!("user");
                spell(
                    &json!({"model": "m", "messages": [{"role": "system", "content": "s"}, message]}),
                    false,
                )
            };
            let text = read(&body(json!("one two")), api, flattening);
            for parts in [
                json!([{"type": "text", "text": "one two"}]),
                json!([{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]),
                json!([{"type": "text", "text": "one two", "cache_control": {"type": "ephemeral"}}]),
            ] {
                assert_eq!(
                    read(&body(parts.clone()), api, flattening),
                    text,
                    "{api:?} {flattening:?} {parts}"
                );
            }
        }
    }
}

#[test]
fn bodies_match_up_to_where_they_differ() {
    // A member that differs, and one after it that is the same.
    let message = |extra: &str, text: &str| {
        format!(
            r#"{{"model":"m","messages":[{{"role":"system","content":"Be brief."}},{{"role":"assistant",{extra}:"{text}","content":"and so on"}},{{"role":"user","content":"go on"}}]}}"#
        )
    };
    for flattening in [Flattening::GieV1, Flattening::LlmD] {
        for key in [
            r#""reasoning_content""#,
            r#""tool_calls""#,
            r#""content""#,
            r#""x""#,
        ] {
            let one = read(
                &message(key, "same then one"),
                Api::ChatCompletions,
                flattening,
            )
            .concat();
            let two = read(
                &message(key, "same then two"),
                Api::ChatCompletions,
                flattening,
            )
            .concat();
            let matched = one
                .iter()
                .zip(&two)
                .take_while(|(one, two)| one == two)
                .count();
            let all = one.len();
            assert!(matched >= 8, "{key}: {matched} of {all}");
            assert!(matched < all - 4, "{key}: {matched} of {all}");
        }
    }
}
