//! Detects bodies that contain only what the reference flattens, for which the simple model returns the prompts.

use epp_core::request::{Api, Flattening};
use serde_json::Value;

/// Returns whether a layout flattens everything in the prompt's fields.
pub fn is_known(body: &Value, api: Api, flattening: Flattening) -> bool {
    let gie_v1 =
        flattening == Flattening::GieV1 && matches!(api, Api::ChatCompletions | Api::Completions);
    let fields: &[&str] = match api {
        Api::ChatCompletions if gie_v1 => &["messages"],
        Api::ChatCompletions => &["messages", "tools", "cache_salt"],
        Api::Completions if gie_v1 => &["prompt"],
        Api::Completions => &["prompt", "cache_salt"],
        Api::Responses => &["instructions", "tools", "input", "cache_salt"],
        Api::Conversations => &["items", "cache_salt"],
        Api::Embeddings => &["input", "cache_salt"],
        Api::Messages => &["tools", "system", "messages", "cache_salt"],
        Api::VllmGenerate => &["token_ids", "cache_salt"],
        Api::SglangGenerate => &["input_ids", "extra_key"],
        _ => return true,
    };
    // No other field that changes the model's input.
    let others = [
        "messages",
        "prompt",
        "input",
        "system",
        "tools",
        "instructions",
        "items",
        "cache_salt",
    ];
    let mut others = others.iter().chain(&[
        "text",
        "suffix",
        "thinking",
        "documents",
        "functions",
        "features",
    ]);
    if others.any(|field| !fields.contains(field) && !body[field].is_null()) {
        return false;
    }
    fields.iter().all(|field| match (*field, &body[field]) {
        (_, Value::Null) => true,
        ("messages", field) => each(field, |message| is_message(message, api)),
        ("tools", field) if api == Api::Messages => each(field, is_tool),
        ("tools", field) => field.is_array() || api == Api::Responses,
        ("system", field) => field.is_string() || each(field, |block| is_block(block, &["text"])),
        ("items", field) => each(field, is_item),
        ("prompt", field) => is_prompt(field),
        ("input", field) => api == Api::Responses || is_prompt(field),
        ("token_ids" | "input_ids", field) => is_prompt(field),
        _ => true,
    })
}

fn each(value: &Value, holds: impl Fn(&Value) -> bool) -> bool {
    value.as_array().is_some_and(|list| list.iter().all(holds))
}

/// Returns whether a value is an object with these members, which are texts; `more` may be anything.
fn only(value: &Value, texts: &[&str], more: &[&str]) -> bool {
    value.as_object().is_some_and(|members| {
        members.iter().all(|(key, member)| match key.as_str() {
            "cache_control" => true,
            key if texts.contains(&key) => member.is_string(),
            key => more.contains(&key),
        })
    })
}

fn is_message(message: &Value, api: Api) -> bool {
    let part = |part: &Value| match api {
        Api::Messages => is_block(
            part,
            &["text", "thinking", "image", "tool_use", "tool_result"],
        ),
        _ => is_part(part),
    };
    only(message, &["role"], &["content"])
        && message["role"] != ""
        && !message["role"].is_null()
        && (message["content"].is_string() || each(&message["content"], part))
}

fn is_part(part: &Value) -> bool {
    match part["type"].as_str() {
        Some("text") => only(part, &["type", "text"], &[]),
        Some(name @ ("image_url" | "video_url")) => {
            only(part, &["type"], &[name]) && only(&part[name], &["url"], &[])
        }
        Some(name @ "input_audio") => {
            only(part, &["type"], &[name]) && only(&part[name], &["data", "format"], &[])
        }
        _ => false,
    }
}

fn is_block(block: &Value, types: &[&str]) -> bool {
    let kind = block["type"].as_str().filter(|kind| types.contains(kind));
    match kind {
        Some(name @ ("text" | "thinking")) => only(block, &["type", name], &[]),
        Some("image") => {
            let source = &block["source"];
            let kind = &source["type"];
            only(block, &["type"], &["source"])
                && only(source, &["url", "type"], &[])
                && (kind.is_null() || kind == "url" || kind == "base64")
                && source["url"] != ""
                && source["url"].is_string()
        }
        Some("tool_use") => {
            only(block, &["type", "id", "name"], &["input"]) && block.get("input").is_some()
        }
        Some("tool_result") => {
            let content = &block["content"];
            only(block, &["type"], &["content"])
                && (content.is_string() || each(content, |inner| is_block(inner, &["text"])))
        }
        _ => false,
    }
}

fn is_tool(tool: &Value) -> bool {
    let flag = |value: &Value| value.is_null() || value.is_boolean();
    only(
        tool,
        &["name"],
        &["description", "input_schema", "strict", "defer_loading"],
    ) && tool["name"].is_string()
        && (tool["description"].is_null() || tool["description"].is_string())
        && flag(&tool["strict"])
        && flag(&tool["defer_loading"])
}

fn is_item(item: &Value) -> bool {
    let text = |value: &Value| value.is_null() || value.is_string();
    only(item, &[], &["type", "role", "content"]) && text(&item["type"]) && text(&item["role"])
}

fn is_prompt(field: &Value) -> bool {
    let is_token = |value: &Value| {
        value
            .as_u64()
            .is_some_and(|token| u32::try_from(token).is_ok())
    };
    let are_tokens = |value: &Value| each(value, is_token);
    field.is_string()
        || each(field, Value::is_string)
        || are_tokens(field)
        || each(field, are_tokens)
}
