//! The prompts of a whole body, flattened the plain way: parse, walk the tree, join the texts.
//! Written from the reference (§4.5), as a check on the reader that streams.

use epp_wasm::prefix::digest::BlockSpec;
use epp_wasm::request::{Api, Flattening};
use serde_json::{Map, Value};
use xxhash_rust::xxh64::xxh64;

/// The content digests of a body's prompts.
pub fn digests(body: &Value, api: Api, flattening: Flattening, spec: &BlockSpec) -> Vec<Vec<u64>> {
    let prompts = match flattening {
        Flattening::Seed => seed(body, api),
        Flattening::Today => today(body, api),
    };
    let cut = prompts.into_iter().map(|prompt| blocks(prompt, spec));
    cut.filter(|digests| !digests.is_empty()).collect()
}

/// A prompt's blocks, as far as they count.
pub fn blocks(mut prompt: Vec<u8>, spec: &BlockSpec) -> Vec<u64> {
    let size = spec.block_bytes;
    if spec.keep_partial {
        align(&mut prompt);
    } else {
        prompt.truncate(prompt.len() / size * size);
    }
    let most = if spec.max_blocks == 0 {
        usize::MAX
    } else {
        spec.max_blocks
    };
    let blocks = prompt.chunks(size).take(most);
    blocks.map(|block| xxh64(block, 0)).collect()
}

/// Fills up to a whole token.
fn align(prompt: &mut Vec<u8>) {
    prompt.resize(prompt.len().next_multiple_of(4), 0);
}

/// So many tokens, each the low half of the text's hash, on a token boundary.
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

fn seed(body: &Value, api: Api) -> Vec<Vec<u8>> {
    match api {
        Api::Completions => vec![text(body, "prompt").into()],
        Api::ChatCompletions => {
            let messages = list(body, "messages").iter();
            let whole =
                messages.filter(|one| one["role"].is_string() && one["content"].is_string());
            let framed = whole.map(|one| {
                let (role, content) = (text(one, "role"), text(one, "content"));
                format!("<|im_start|>{role}\n{content}<|im_end|>\n")
            });
            vec![framed.collect::<String>().into_bytes()]
        }
        _ => Vec::new(),
    }
}

fn today(body: &Value, api: Api) -> Vec<Vec<u8>> {
    match api {
        Api::ChatCompletions | Api::Messages => vec![conversation(body, api)],
        Api::Completions => prompts(&body["prompt"]),
        Api::Embeddings => embeddings(&body["input"]),
        Api::VllmGenerate => prompts(&body["token_ids"]),
        // The Endpoint Picker refuses it.
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

fn prompts(field: &Value) -> Vec<Vec<u8>> {
    match field {
        Value::String(text) => vec![text.clone().into_bytes()],
        Value::Array(list) if list.iter().all(Value::is_u64) => {
            let tokens = list.iter().map(|token| token.as_u64().unwrap() as u32);
            vec![tokens.flat_map(u32::to_le_bytes).collect()]
        }
        Value::Array(list) => list
            .iter()
            .map(|text| text.as_str().unwrap().into())
            .collect(),
        _ => Vec::new(),
    }
}

fn embeddings(input: &Value) -> Vec<Vec<u8>> {
    let json = match input {
        Value::String(_) => format!(r#"{{"Raw":{},"Strings":null,"TokenIDs":null}}"#, go(input)),
        Value::Array(list) if list.iter().any(Value::is_string) => {
            format!(r#"{{"Raw":"","Strings":{},"TokenIDs":null}}"#, go(input))
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
    prompt.extend_from_slice(text(body, "system").as_bytes());
    for block in list(body, "system") {
        let own = text(block, "text");
        if text(block, "type") == "text" && !own.starts_with("x-anthropic-billing-header") {
            prompt.extend_from_slice(own.as_bytes());
        }
    }
    for message in list(body, "messages") {
        prompt.extend_from_slice(text(message, "role").as_bytes());
        prompt.extend_from_slice(text(message, "content").as_bytes());
        for part in list(message, "content") {
            add_part(&mut prompt, part);
        }
    }
    prompt
}

/// One of Anthropic's tools, as Go writes its structure.
fn tool(tool: &Value) -> String {
    let mut json = format!(r#"{{"name":{}"#, go(&tool["name"]));
    if !text(tool, "description").is_empty() {
        json += &format!(r#","description":{}"#, go(&tool["description"]));
    }
    if tool.get("input_schema").is_some() {
        json += &format!(r#","input_schema":{}"#, go(&tool["input_schema"]));
    }
    json + "}"
}

fn add_part(prompt: &mut Vec<u8>, part: &Value) {
    match text(part, "type") {
        "text" => prompt.extend_from_slice(text(part, "text").as_bytes()),
        "thinking" => prompt.extend_from_slice(text(part, "thinking").as_bytes()),
        "image_url" => add_media(prompt, text(&part["image_url"], "url"), 225),
        "video_url" => add_media(prompt, text(&part["video_url"], "url"), 4_500),
        "input_audio" => {
            let audio = &part["input_audio"];
            let sound = format!("{}{}", text(audio, "data"), text(audio, "format"));
            add_media(prompt, &sound, sound.len().div_ceil(4).max(1) as u64);
        }
        "image" => add_media(prompt, text(&part["source"], "url"), 225),
        "tool_use" => {
            let input = part["input"].to_string();
            for piece in [text(part, "id"), text(part, "name"), &input] {
                prompt.extend_from_slice(piece.as_bytes());
            }
        }
        "tool_result" => {
            prompt.extend_from_slice(text(part, "content").as_bytes());
            let blocks = list(part, "content").iter();
            let texts = blocks.filter(|block| text(block, "type") == "text");
            let texts: Vec<&str> = texts.map(|block| text(block, "text")).collect();
            prompt.extend_from_slice(texts.join("\n").as_bytes());
        }
        _ => {}
    }
}

/// JSON as Go writes it. serde_json sorts keys and escapes control characters as Go does.
fn go(value: &Value) -> String {
    let mut json = value.to_string();
    for letter in ['<', '>', '&', '\u{2028}', '\u{2029}'] {
        json = json.replace(letter, &format!("\\u{:04x}", u32::from(letter)));
    }
    json
}
