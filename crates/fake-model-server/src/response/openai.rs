//! OpenAI's chat completions and completions.

use serde_json::{json, Value};

use super::{data, with, Api, ApiRequest, ARGUMENTS, TOKEN};
use crate::work::Served;

/// Returns the whole response.
pub fn whole(request: &ApiRequest, served: Served) -> Value {
    let text = TOKEN.repeat(request.tokens());
    let choice = match (request.api, &request.tool) {
        (Api::Chat, Some(name)) => {
            let function = json!({"name": name, "arguments": ARGUMENTS.concat()});
            let call = json!({"id": "call-sim", "type": "function", "function": function});
            json!({"role": "assistant", "content": null, "tool_calls": [call]})
        }
        (Api::Chat, None) => json!({"role": "assistant", "content": text, "tool_calls": []}),
        _ => Value::from(text),
    };
    let choices = choices(request, choice, Some(finish(request)), "message");
    let response = envelope(request, "chat.completion", choices);
    with(response, "usage", usage(request, served))
}

/// Returns the event with the assistant's role, and the tool that it calls.
pub fn first_events(request: &ApiRequest) -> String {
    if request.api != Api::Chat {
        return String::new();
    }
    let delta = |delta: Value| data(&chunk(request, choices(request, delta, None, "delta")));
    let role = delta(json!({"role": "assistant", "content": ""}));
    let call = request.tool.as_ref().map(|name| {
        let function = json!({"name": name});
        let call = json!({"id": "call-sim", "type": "function", "index": 0, "function": function});
        delta(json!({"tool_calls": [call]}))
    });
    role + &call.unwrap_or_default()
}

/// Returns the event with a token.
pub fn event(request: &ApiRequest, token: usize) -> String {
    let piece = request.token(token);
    let delta = match (request.api, &request.tool) {
        (Api::Chat, Some(_)) => {
            json!({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
        }
        (Api::Chat, None) => json!({"content": piece}),
        _ => Value::from(piece),
    };
    let finish = request.is_last(token).then(|| finish(request));
    data(&chunk(request, choices(request, delta, finish, "delta")))
}

/// Returns the events with the usage, if it was requested, and the end.
pub fn last_events(request: &ApiRequest, served: Served) -> String {
    let mut events = String::new();
    if request.include_usage {
        let last = with(chunk(request, json!([])), "usage", usage(request, served));
        events = data(&last);
    }
    events + "data: [DONE]\n\n"
}

/// Returns the one choice: a message, or a piece of it under another key, or plain text.
fn choices(request: &ApiRequest, content: Value, finish: Option<&str>, key: &str) -> Value {
    let key = if request.api == Api::Chat {
        key
    } else {
        "text"
    };
    json!([{"index": 0, key: content, "logprobs": null, "finish_reason": finish}])
}

fn chunk(request: &ApiRequest, choices: Value) -> Value {
    envelope(request, "chat.completion.chunk", choices)
}

fn envelope(request: &ApiRequest, chat: &str, choices: Value) -> Value {
    let object = if request.api == Api::Chat {
        chat
    } else {
        "text_completion"
    };
    json!({"id": "sim", "object": object, "created": 0, "model": request.model, "choices": choices})
}

fn finish(request: &ApiRequest) -> &'static str {
    match request.tool {
        Some(_) => "tool_calls",
        None if request.limited => "length",
        None => "stop",
    }
}

fn usage(request: &ApiRequest, served: Served) -> Value {
    json!({
        "prompt_tokens": served.prompt_tokens,
        "total_tokens": served.prompt_tokens + request.tokens(),
        "completion_tokens": request.tokens(),
        "prompt_tokens_details": {"cached_tokens": served.cached_tokens},
    })
}
