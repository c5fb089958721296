//! The prompts of a whole body, flattened in a simple way: parse, walk the tree, join the texts.
//! Written from the reference (§4.5), as a check of the streaming reader. Parts that the reference's layouts leave
//! out are left out here: the model is used for bodies without such parts (`known`).

use epp_core::prefix::digest::BlockSpec;
use epp_core::request::{Api, Flattening};
use std::collections::BTreeMap;

use serde_json::{Map, Value};
use xxhash_rust::xxh64::xxh64;

/// Returns the content digests of a body's prompts.
pub fn digests(body: &Value, api: Api, flattening: Flattening, spec: &BlockSpec) -> Vec<Vec<u64>> {
    let prompts = match flattening {
        Flattening::GieV1 => gie_v1(body, api),
        Flattening::LlmD => llm_d(body, api),
    };
    let mut left = spec.max_blocks.unwrap_or(usize::MAX);
    let cut = prompts.into_iter().map(|prompt| {
        let mut digests = blocks(prompt, spec);
        // The bound applies to all prompts together.
        digests.truncate(left);
        left -= digests.len();
        digests
    });
    cut.filter(|digests| !digests.is_empty()).collect()
}

/// Returns the blocks of a prompt.
pub fn blocks(mut prompt: Vec<u8>, spec: &BlockSpec) -> Vec<u64> {
    let size = spec.block_bytes;
    let last = prompt.split_off(prompt.len() / size * size);
    let mut digests: Vec<u64> = prompt.chunks(size).map(|block| xxh64(block, 0)).collect();
    if spec.keep_partial && !last.is_empty() {
        let mut last = last;
        align(&mut last);
        digests.push(xxh64(&last, 0));
    }
    digests
}

/// Pads to a whole token.
fn align(prompt: &mut Vec<u8>) {
    prompt.resize(prompt.len().next_multiple_of(4), 0);
}

/// Appends this many tokens on a token boundary, each the low half of the text's hash.
pub fn add_media(prompt: &mut Vec<u8>, text: &str, tokens: u64) {
    align(prompt);
    let token = xxh64(text.as_bytes(), 0) as u32;
    for _ in 0..tokens {
        prompt.extend_from_slice(&token.to_le_bytes());
    }
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_default()
}

fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn gie_v1(body: &Value, api: Api) -> Vec<Vec<u8>> {
    if api != Api::ChatCompletions {
        return llm_d(body, api);
    }
    let mut prompt = Vec::new();
    for message in list(body, "messages") {
        let role = text(message, "role");
        prompt.extend_from_slice(format!("<|im_start|>{role}\n").as_bytes());
        add_content(&mut prompt, message, api);
        prompt.extend_from_slice(b"<|im_end|>\n");
    }
    vec![prompt]
}

fn add_content(prompt: &mut Vec<u8>, message: &Value, api: Api) {
    prompt.extend_from_slice(text(message, "content").as_bytes());
    for part in list(message, "content") {
        add_part(prompt, part, api);
    }
}

fn llm_d(body: &Value, api: Api) -> Vec<Vec<u8>> {
    match api {
        Api::ChatCompletions | Api::Messages => vec![conversation(body, api)],
        Api::Completions => prompts(&body["prompt"]),
        Api::Embeddings => embeddings(&body["input"]),
        Api::VllmGenerate => prompts(&body["token_ids"]),
        Api::SglangGenerate => prompts(&body["input_ids"]),
        Api::Conversations if body["items"].is_null() => Vec::new(),
        Api::Conversations => {
            let items = list(body, "items").iter().map(item);
            vec![format!("[{}]", items.collect::<Vec<_>>().join(",")).into_bytes()]
        }
        // The Endpoint Picker rejects it.
        Api::Responses if body["input"].is_null() => Vec::new(),
        Api::Responses => {
            let parts = ["instructions", "tools", "input"].into_iter();
            let there = parts.filter(|part| !body[part].is_null());
            let framed = there
                .map(|part| Value::Object(Map::from_iter([(part.to_owned(), body[part].clone())])));
            vec![go(&framed.collect()).into_bytes()]
        }
        _ => Vec::new(),
    }
}

/// Returns the prompts of a field. The first element of a list determines its type; elements of other types do not
/// count.
fn prompts(field: &Value) -> Vec<Vec<u8>> {
    match (field, field.get(0)) {
        (Value::String(text), _) => vec![text.clone().into_bytes()],
        (Value::Array(list), Some(Value::Number(_))) => {
            let tokens = list.iter().filter_map(Value::as_u64);
            let tokens = tokens.filter_map(|token| u32::try_from(token).ok());
            vec![tokens.flat_map(u32::to_le_bytes).collect()]
        }
        (Value::Array(lists), Some(Value::Array(_))) => lists.iter().flat_map(prompts).collect(),
        (Value::Array(list), Some(Value::String(_))) => {
            let texts = list.iter().filter_map(Value::as_str);
            texts.map(|text| text.as_bytes().to_vec()).collect()
        }
        _ => Vec::new(),
    }
}

fn embeddings(input: &Value) -> Vec<Vec<u8>> {
    let json = match input {
        Value::String(_) => format!(r#"{{"Raw":{},"Strings":null,"TokenIDs":null}}"#, go(input)),
        Value::Array(list) if input[0].is_string() => {
            let texts = list.iter().filter(|text| text.is_string());
            let texts = go(&texts.cloned().collect());
            format!(r#"{{"Raw":"","Strings":{texts},"TokenIDs":null}}"#)
        }
        _ => return prompts(input),
    };
    vec![json.into_bytes()]
}

fn conversation(body: &Value, api: Api) -> Vec<u8> {
    let mut prompt = Vec::new();
    let tools = list(body, "tools");
    if !tools.is_empty() {
        let json = match api {
            Api::Messages => tools.iter().map(tool).collect::<Vec<_>>().join(","),
            _ => tools.iter().map(go).collect::<Vec<_>>().join(","),
        };
        prompt.extend_from_slice(format!("[{json}]").as_bytes());
    }
    if api == Api::Messages {
        add_system(&mut prompt, body);
    }
    for message in list(body, "messages") {
        prompt.extend_from_slice(text(message, "role").as_bytes());
        add_content(&mut prompt, message, api);
    }
    prompt
}

/// Appends Anthropic's system text.
fn add_system(prompt: &mut Vec<u8>, body: &Value) {
    prompt.extend_from_slice(text(body, "system").as_bytes());
    for block in list(body, "system") {
        let own = text(block, "text");
        if text(block, "type") == "text" && !own.starts_with("x-anthropic-billing-header") {
            prompt.extend_from_slice(own.as_bytes());
        }
    }
}

/// Returns one of Anthropic's tools, as Go writes its structure.
fn tool(tool: &Value) -> String {
    let mut json = format!(r#"{{"name":{}"#, go(&tool["name"]));
    if !text(tool, "description").is_empty() {
        json += &format!(r#","description":{}"#, go(&tool["description"]));
    }
    if tool.get("input_schema").is_some() {
        json += &format!(r#","input_schema":{}"#, go(&tool["input_schema"]));
    }
    for flag in ["strict", "defer_loading"] {
        if !tool[flag].is_null() {
            json += &format!(r#","{flag}":{}"#, tool[flag]);
        }
    }
    json + "}"
}

/// Returns an item of a conversation, as Go writes its structure.
fn item(item: &Value) -> String {
    let kept = ["type", "role"].map(|name| (name, !text(item, name).is_empty()));
    let kept = kept
        .into_iter()
        .chain([("content", !item["content"].is_null())]);
    let kept = kept.filter(|(_, there)| *there);
    let members = kept.map(|(name, _)| format!(r#""{name}":{}"#, go(&item[name])));
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

fn add_part(prompt: &mut Vec<u8>, part: &Value, api: Api) {
    match (text(part, "type"), api) {
        ("text", _) => prompt.extend_from_slice(text(part, "text").as_bytes()),
        (_, Api::Messages) => add_block(prompt, part),
        ("image_url", _) => add_media(prompt, text(&part["image_url"], "url"), 225),
        ("video_url", _) => add_media(prompt, text(&part["video_url"], "url"), 4_500),
        ("input_audio" | "audio_url", _) => {
            let audio = &part["input_audio"];
            let sound = format!("{}{}", text(audio, "data"), text(audio, "format"));
            add_media(prompt, &sound, sound.len().div_ceil(4).max(1) as u64);
        }
        _ => {}
    }
}

/// Appends one of Anthropic's own content blocks.
fn add_block(prompt: &mut Vec<u8>, block: &Value) {
    match text(block, "type") {
        "thinking" => prompt.extend_from_slice(text(block, "thinking").as_bytes()),
        "image" => add_media(prompt, text(&block["source"], "url"), 225),
        "tool_use" => {
            let input = block["input"].to_string();
            for piece in [text(block, "id"), text(block, "name"), &input] {
                prompt.extend_from_slice(piece.as_bytes());
            }
        }
        "tool_result" => {
            prompt.extend_from_slice(text(block, "content").as_bytes());
            let blocks = list(block, "content").iter();
            let texts = blocks.filter(|block| text(block, "type") == "text");
            let texts: Vec<&str> = texts.map(|block| text(block, "text")).collect();
            prompt.extend_from_slice(texts.join("\n").as_bytes());
        }
        _ => {}
    }
}

/// Returns JSON as Go writes it. serde_json escapes control characters as Go does.
fn go(value: &Value) -> String {
    let mut json = sorted(value).to_string();
    for letter in ['<', '>', '&', '\u{2028}', '\u{2029}'] {
        json = json.replace(letter, &format!("\\u{:04x}", u32::from(letter)));
    }
    json
}

/// Returns the value with sorted keys: whether serde_json keeps their order depends on the features of the workspace.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(list) => list.iter().map(sorted).collect(),
        Value::Object(members) => {
            let members = members.iter().map(|(key, value)| (key, sorted(value)));
            let members: BTreeMap<_, _> = members.collect();
            Value::Object(Map::from_iter(
                members.into_iter().map(|(key, value)| (key.clone(), value)),
            ))
        }
        plain => plain.clone(),
    }
}
