//! Anthropic's messages.

use serde_json::{json, Value};

use super::{named, with, ApiRequest, TOKEN};
use crate::work::Served;

/// Returns the whole response.
pub fn whole(request: &ApiRequest, served: Served) -> Value {
    let mut block = block(request);
    if request.tool.is_none() {
        block = with(block, "text", TOKEN.repeat(request.tokens()));
    }
    let message = with(message(request), "content", json!([block]));
    let message = with(message, "stop_reason", stop_reason(request));
    with(message, "usage", usage(served, request.tokens()))
}

/// Returns the response to a count of tokens.
pub fn count(tokens: usize) -> Value {
    json!({"input_tokens": tokens})
}

/// Returns the events that begin the message and its one block.
pub fn first_events(request: &ApiRequest, served: Served) -> String {
    let message = with(message(request), "usage", usage(served, 0));
    let start = named("message_start", json!({"message": message}));
    let block = json!({"index": 0, "content_block": block(request)});
    start + &named("content_block_start", block)
}

/// Returns the event with a token.
pub fn event(request: &ApiRequest, token: usize) -> String {
    let piece = request.token(token);
    let delta = match request.tool {
        Some(_) => json!({"type": "input_json_delta", "partial_json": piece}),
        None => json!({"type": "text_delta", "text": piece}),
    };
    named("content_block_delta", json!({"index": 0, "delta": delta}))
}

/// Returns the events that end both.
pub fn last_events(request: &ApiRequest, served: Served) -> String {
    let delta = json!({"stop_reason": stop_reason(request), "stop_sequence": null});
    let usage = usage(served, request.tokens());
    [
        named("content_block_stop", json!({"index": 0})),
        named("message_delta", json!({"delta": delta, "usage": usage})),
        named("message_stop", json!({})),
    ]
    .concat()
}

fn message(request: &ApiRequest) -> Value {
    json!({
        "id": "sim",
        "type": "message",
        "role": "assistant",
        "content": [],
        "model": request.model,
        "stop_reason": null,
        "stop_sequence": null,
    })
}

/// The block before its first token.
fn block(request: &ApiRequest) -> Value {
    match &request.tool {
        Some(name) => json!({"type": "tool_use", "id": "call-sim", "name": name, "input": {}}),
        None => json!({"type": "text", "text": ""}),
    }
}

fn stop_reason(request: &ApiRequest) -> &'static str {
    match request.tool {
        Some(_) => "tool_use",
        None if request.limited => "max_tokens",
        None => "end_turn",
    }
}

/// Returns the usage. In this API the input's tokens do not include the cached ones.
fn usage(served: Served, output: usize) -> Value {
    json!({
        "input_tokens": served.prompt_tokens.saturating_sub(served.cached_tokens),
        "output_tokens": output,
        "cache_read_input_tokens": served.cached_tokens,
    })
}
