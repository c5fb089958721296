//! OpenAI's chat completions and completions.

use serde_json::{json, Value};

use super::{data, with, Api, Asked, ARGUMENTS, TOKEN};
use crate::pod::Served;

/// Returns the whole answer.
pub fn whole(asked: &Asked, served: Served) -> Value {
    let text = TOKEN.repeat(asked.tokens());
    let choice = match (asked.api, &asked.tool) {
        (Api::Chat, Some(name)) => {
            let function = json!({"name": name, "arguments": ARGUMENTS.concat()});
            let call = json!({"id": "call-sim", "type": "function", "function": function});
            json!({"role": "assistant", "content": null, "tool_calls": [call]})
        }
        (Api::Chat, None) => json!({"role": "assistant", "content": text, "tool_calls": []}),
        _ => Value::from(text),
    };
    let choices = choices(asked, choice, Some(finish(asked)), "message");
    let answer = envelope(asked, "chat.completion", choices);
    with(answer, "usage", usage(asked, served))
}

/// Returns the event with the assistant's role, and the tool that it calls.
pub fn first_events(asked: &Asked) -> String {
    if asked.api != Api::Chat {
        return String::new();
    }
    let delta = |delta: Value| data(&chunk(asked, choices(asked, delta, None, "delta")));
    let role = delta(json!({"role": "assistant", "content": ""}));
    let call = asked.tool.as_ref().map(|name| {
        let function = json!({"name": name});
        let call = json!({"id": "call-sim", "type": "function", "index": 0, "function": function});
        delta(json!({"tool_calls": [call]}))
    });
    role + &call.unwrap_or_default()
}

/// Returns the event with a token.
pub fn event(asked: &Asked, token: usize) -> String {
    let piece = asked.token(token);
    let delta = match (asked.api, &asked.tool) {
        (Api::Chat, Some(_)) => {
            json!({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
        }
        (Api::Chat, None) => json!({"content": piece}),
        _ => Value::from(piece),
    };
    let finish = asked.is_last(token).then(|| finish(asked));
    data(&chunk(asked, choices(asked, delta, finish, "delta")))
}

/// Returns the events with the usage, if it was requested, and the end.
pub fn last_events(asked: &Asked, served: Served) -> String {
    let mut events = String::new();
    if asked.include_usage {
        let last = with(chunk(asked, json!([])), "usage", usage(asked, served));
        events = data(&last);
    }
    events + "data: [DONE]\n\n"
}

/// Returns the one choice: a message, or a piece of it under another key, or plain text.
fn choices(asked: &Asked, content: Value, finish: Option<&str>, key: &str) -> Value {
    let key = if asked.api == Api::Chat { key } else { "text" };
    json!([{"index": 0, key: content, "logprobs": null, "finish_reason": finish}])
}

fn chunk(asked: &Asked, choices: Value) -> Value {
    envelope(asked, "chat.completion.chunk", choices)
}

fn envelope(asked: &Asked, chat: &str, choices: Value) -> Value {
    let object = if asked.api == Api::Chat {
        chat
    } else {
        "text_completion"
    };
    json!({"id": "sim", "object": object, "created": 0, "model": asked.model, "choices": choices})
}

fn finish(asked: &Asked) -> &'static str {
    match asked.tool {
        Some(_) => "tool_calls",
        None if asked.limited => "length",
        None => "stop",
    }
}

fn usage(asked: &Asked, served: Served) -> Value {
    json!({
        "prompt_tokens": served.prompt_tokens,
        "total_tokens": served.prompt_tokens + asked.tokens(),
        "completion_tokens": asked.tokens(),
        "prompt_tokens_details": {"cached_tokens": served.cached_tokens},
    })
}
