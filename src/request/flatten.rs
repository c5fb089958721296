//! A request's prompt as one run of bytes, as the Endpoint Picker of each generation lays it out.
//! What it does not know how to lay out it leaves out; no shape of a body is an error here.

use serde_json::Value;
use xxhash_rust::xxh64::xxh64;

use super::reader::Flattening;
use super::Api;

/// One prompt of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prompt {
    /// Text, or what stands for it.
    Text(Vec<u8>),
    /// Tokens as the client sent them.
    Tokens(Vec<u32>),
}

/// Pseudo tokens of an image whose size is not known: 640 × 360 pixels at 1024 a token.
const IMAGE_TOKENS: usize = 225;

/// Frames of a video whose length is not known: 10 s at 2 a second.
const VIDEO_FRAMES: usize = 20;

/// Bytes per pseudo token.
const TOKEN: usize = 4;

/// The prompts of a body.
pub fn prompts(body: &Value, api: Api, flattening: Flattening) -> Vec<Prompt> {
    match (api, flattening) {
        (Api::ChatCompletions, Flattening::Seed) => vec![Prompt::Text(seed_chat(body))],
        (Api::ChatCompletions, Flattening::Today) => vec![Prompt::Text(chat(body))],
        (Api::Completions, Flattening::Seed) => match body.get("prompt") {
            Some(Value::String(text)) => vec![Prompt::Text(text.clone().into_bytes())],
            _ => Vec::new(),
        },
        (Api::Completions, Flattening::Today) => completion(body.get("prompt")),
        (Api::PassThrough, _) => Vec::new(),
    }
}

/// `<|im_start|>{role}\n{content}<|im_end|>\n` for each message whose content is a string.
fn seed_chat(body: &Value) -> Vec<u8> {
    let mut text = Vec::new();
    for message in list(body, "messages") {
        let role = message.get("role").and_then(Value::as_str);
        let content = message.get("content").and_then(Value::as_str);
        if let (Some(role), Some(content)) = (role, content) {
            for part in ["<|im_start|>", role, "\n", content, "<|im_end|>\n"] {
                text.extend_from_slice(part.as_bytes());
            }
        }
    }
    text
}

/// The tools as JSON, then each message's role and content.
fn chat(body: &Value) -> Vec<u8> {
    let mut text = Vec::new();
    if list(body, "tools").next().is_some() {
        let tools = body.get("tools").unwrap_or(&Value::Null);
        text.extend_from_slice(go_json(tools).as_bytes());
    }
    for message in list(body, "messages") {
        if let Some(role) = message.get("role").and_then(Value::as_str) {
            text.extend_from_slice(role.as_bytes());
        }
        match message.get("content") {
            Some(Value::String(content)) => text.extend_from_slice(content.as_bytes()),
            Some(Value::Array(parts)) => parts.iter().for_each(|part| add_part(&mut text, part)),
            _ => {}
        }
    }
    text
}

fn add_part(text: &mut Vec<u8>, part: &Value) {
    let inner = |name: &str, key: &str| part.get(name)?.get(key)?.as_str();
    match part.get("type").and_then(Value::as_str) {
        Some("text") => {
            let own = part.get("text").and_then(Value::as_str).unwrap_or_default();
            text.extend_from_slice(own.as_bytes());
        }
        Some("image_url") => {
            add_media(
                text,
                inner("image_url", "url").unwrap_or_default(),
                IMAGE_TOKENS,
            );
        }
        Some("video_url") => {
            let tokens = VIDEO_FRAMES * IMAGE_TOKENS;
            add_media(text, inner("video_url", "url").unwrap_or_default(), tokens);
        }
        Some("input_audio") => {
            let data = inner("input_audio", "data").unwrap_or_default();
            let format = inner("input_audio", "format").unwrap_or_default();
            add_media(text, &format!("{data}{format}"), data.len().div_ceil(TOKEN));
        }
        Some("audio_url") => {
            let url = inner("audio_url", "url").unwrap_or_default();
            add_media(text, url, url.len().div_ceil(TOKEN));
        }
        _ => {}
    }
}

/// Media stand as so many tokens, all the same: the low half of the hash of what names them.
fn add_media(text: &mut Vec<u8>, name: &str, tokens: usize) {
    text.resize(text.len().next_multiple_of(TOKEN), 0);
    let hash = xxh64(name.as_bytes(), 0) as u32;
    for _ in 0..tokens {
        text.extend_from_slice(&hash.to_le_bytes());
    }
}

fn completion(prompt: Option<&Value>) -> Vec<Prompt> {
    match prompt {
        Some(Value::String(text)) => vec![Prompt::Text(text.clone().into_bytes())],
        Some(Value::Array(entries)) => {
            let tokens: Option<Vec<u32>> = entries.iter().map(token).collect();
            if let Some(tokens) = tokens {
                return vec![Prompt::Tokens(tokens)];
            }
            let texts = entries.iter().filter_map(Value::as_str);
            texts
                .map(|text| Prompt::Text(text.as_bytes().to_vec()))
                .collect()
        }
        _ => Vec::new(),
    }
}

fn token(value: &Value) -> Option<u32> {
    u32::try_from(value.as_u64()?).ok()
}

fn list<'v>(body: &'v Value, name: &str) -> impl Iterator<Item = &'v Value> {
    body.get(name)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

/// JSON as Go's encoder writes it: sorted keys (serde_json's maps are), and what HTML could take
/// for markup escaped.
fn go_json(value: &Value) -> String {
    let mut text = String::new();
    for letter in value.to_string().chars() {
        match letter {
            '<' => text.push_str("\\u003c"),
            '>' => text.push_str("\\u003e"),
            '&' => text.push_str("\\u0026"),
            '\u{2028}' => text.push_str("\\u2028"),
            '\u{2029}' => text.push_str("\\u2029"),
            letter => text.push(letter),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn text(body: &Value, api: Api, flattening: Flattening) -> String {
        match prompts(body, api, flattening).as_slice() {
            [Prompt::Text(text)] => String::from_utf8_lossy(text).into_owned(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_seed_takes_messages_with_text_only() {
        let body = json!({"messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "no"}]},
            {"role": "user", "content": "hi"},
        ]});
        assert_eq!(
            text(&body, Api::ChatCompletions, Flattening::Seed),
            "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n"
        );
    }

    #[test]
    fn today_puts_tools_first_and_joins_roles_and_text() {
        let body = json!({
            "messages": [{"role": "user", "content": [
                {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}],
            "tools": [{"type": "function", "function": {"name": "<f>", "a": 1}}],
        });
        assert_eq!(
            text(&body, Api::ChatCompletions, Flattening::Today),
            r#"[{"function":{"a":1,"name":"\u003cf\u003e"},"type":"function"}]userab"#
        );
    }

    #[test]
    fn an_image_stands_as_its_tokens_on_a_token_boundary() {
        let image = json!({"type": "image_url", "image_url": {"url": "http://x/y.png"}});
        let body = json!({"messages": [{"role": "u", "content": [image]}]});
        let [Prompt::Text(bytes)] = &prompts(&body, Api::ChatCompletions, Flattening::Today)[..]
        else {
            panic!("one text");
        };
        assert_eq!(bytes.len(), 4 + 225 * 4);
        assert_eq!(bytes[4..8], bytes[900..904]);
    }

    #[test]
    fn completions_take_texts_and_tokens() {
        let of = |prompt: Value| {
            prompts(
                &json!({"prompt": prompt}),
                Api::Completions,
                Flattening::Today,
            )
        };
        assert_eq!(of(json!([1, 2])), [Prompt::Tokens(vec![1, 2])]);
        let two = [b"a".to_vec(), b"b".to_vec()].map(Prompt::Text);
        assert_eq!(of(json!(["a", "b"])), two);
        assert_eq!(of(json!(7)), []);
    }
}
