//! The meaning of a body to a model: only bodies with the same meaning may have the same blocks.

use epp_core::request::Api;
use serde_json::{json, Value};

/// Returns the body without the parts that no model sees, and with equivalent parts in one form.
pub fn meaning(body: &Value, api: Api) -> Value {
    let mut body = plain(body);
    let fields = body.as_object_mut().unwrap();
    for field in ["prompt", "input", "token_ids", "input_ids"] {
        if let Some(value) = fields.get_mut(field).filter(|_| api != Api::Responses) {
            *value = prompts(value);
        }
    }
    match api {
        Api::ChatCompletions | Api::Messages => {
            if let Some(Value::Array(messages)) = fields.get_mut("messages") {
                messages.iter_mut().for_each(|one| message(one, api));
            }
            if let Some(system) = fields.get_mut("system").filter(|_| api == Api::Messages) {
                *system = content(system, api);
            }
            fields.retain(|field, value| field != "tools" || *value != json!([]));
            if let Some(tools) = fields.get_mut("tools").filter(|_| api == Api::Messages) {
                without_empty(tools, &["description"]);
            }
        }
        Api::Conversations => without_empty(&mut fields["items"], &["type", "role"]),
        _ => {}
    }
    body
}

/// Returns a value without null members, which count as absent, and without `cache_control`, which no model reads.
fn plain(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let members = members.iter().filter(|(key, _)| *key != "cache_control");
            Value::Object(
                members
                    .map(|(key, member)| (key.clone(), plain(member)))
                    .collect(),
            )
        }
        Value::Array(list) => list.iter().map(plain).collect(),
        plain => plain.clone(),
    }
}

/// Removes empty members that Go leaves out.
fn without_empty(list: &mut Value, names: &[&str]) {
    let objects = list.as_array_mut().into_iter().flatten();
    for members in objects.filter_map(Value::as_object_mut) {
        members.retain(|key, value| !names.contains(&key.as_str()) || *value != json!(""));
    }
}

fn prompts(value: &Value) -> Value {
    match value.as_array().map(Vec::as_slice) {
        // A list of one prompt is equivalent to the prompt, and an empty prompt to none.
        Some([one]) if one.is_string() || one.is_array() => prompts(one),
        Some(list)
            if list
                .first()
                .is_some_and(|first| first.is_string() || first.is_array()) =>
        {
            let empty = |one: &&Value| **one != json!("") && **one != json!([]);
            list.iter().filter(empty).cloned().collect()
        }
        _ => value.clone(),
    }
}

fn message(message: &mut Value, api: Api) {
    if let Some(members) = message.as_object_mut() {
        members.retain(|key, value| !(key == "content" || key == "role") || !value.is_null());
        if let Some(value) = members.get_mut("content") {
            *value = content(value, api);
        }
    }
}

/// Returns the content with adjacent text parts joined.
fn content(value: &Value, api: Api) -> Value {
    let Value::Array(parts) = value else {
        return value.clone();
    };
    let mut joined: Vec<Value> = Vec::new();
    for part in parts {
        let part = self::part(part, api);
        match (
            text_of(&part),
            joined
                .last_mut()
                .and_then(|last| last["text only"].as_str()),
        ) {
            (Some(text), Some(before)) => {
                let both = format!("{before}{text}");
                *joined.last_mut().unwrap() = json!({"text only": both});
            }
            (Some(text), None) => joined.push(json!({"text only": text})),
            _ => joined.push(part),
        }
    }
    joined.retain(|part| part["text only"] != "");
    match joined.as_slice() {
        [] => json!(""),
        [one] if one["text only"].is_string() => one["text only"].clone(),
        _ => Value::Array(joined),
    }
}

/// Returns the text of a part that has only text.
fn text_of(part: &Value) -> Option<&str> {
    let members = part.as_object()?;
    let only = members.keys().all(|key| key == "type" || key == "text");
    match (part["type"].as_str(), members.get("text")) {
        (Some("text"), None) if only => Some(""),
        (Some("text"), Some(Value::String(text))) if only => Some(text),
        _ => None,
    }
}

/// Returns a part without members that are equivalent to none, such as empty texts.
fn part(part: &Value, api: Api) -> Value {
    let mut part = part.clone();
    let Some(members) = part.as_object_mut() else {
        return part;
    };
    members.retain(|key, value| !matches!(key.as_str(), "id" | "name") || *value != json!(""));
    let kind = members.get("type").and_then(Value::as_str);
    let kind = kind.unwrap_or_default().to_owned();
    for media in ["image_url", "video_url", "input_audio", "source"] {
        let Some(Value::Object(own)) = members.get_mut(media) else {
            continue;
        };
        let image = |kind: &str| kind.is_empty() || kind.starts_with("image/");
        own.retain(|key, value| match (key.as_str(), value.as_str()) {
            ("url" | "data" | "format", Some(text)) => !text.is_empty(),
            ("type", Some(kind)) => media != "source" || !matches!(kind, "" | "base64" | "url"),
            ("media_type", Some(kind)) => !image(kind),
            _ => true,
        });
        if own.is_empty() && (media == kind || media == "source") {
            members.remove(media);
        }
    }
    match (kind.as_str(), api) {
        ("text", _) => members.entry("text").or_insert(json!("")),
        ("thinking", Api::Messages) => members.entry("thinking").or_insert(json!("")),
        ("tool_result", Api::Messages) => {
            let text = members.get("content").map(result);
            *members.entry("content").or_insert(json!("")) = text.unwrap_or(json!(""));
            return part;
        }
        _ => return part,
    };
    part
}

/// Returns a tool's result: its texts joined by line breaks, if it has only texts.
fn result(content: &Value) -> Value {
    let Value::Array(blocks) = content else {
        return content.clone();
    };
    let blocks: Vec<Value> = blocks
        .iter()
        .map(|block| part(block, Api::Messages))
        .collect();
    let texts: Option<Vec<&str>> = blocks.iter().map(text_of).collect();
    match texts {
        Some(texts) => json!(texts.join("\n")),
        None => Value::Array(blocks),
    }
}
