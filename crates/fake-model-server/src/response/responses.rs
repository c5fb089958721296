//! OpenAI's responses.

use serde_json::{json, Value};

use super::{named, with, ApiRequest, ARGUMENTS, TOKEN};
use crate::work::Served;

/// Number of events before that of the first token.
const FIRST_EVENTS: usize = 3;

/// Returns the whole response.
pub fn whole(request: &ApiRequest, served: Served) -> Value {
    let response = response(request, "completed", json!([item(request)]));
    with(response, "usage", usage(request, served))
}

/// Returns the events that begin the response, its one item and the item's one part.
pub fn first_events(request: &ApiRequest) -> String {
    let item = match &request.tool {
        Some(_) => with(item(request), "arguments", ""),
        None => with(item(request), "content", json!([])),
    };
    let response = response(request, "in_progress", json!([]));
    let mut events = event_of("response.created", 0, json!({"response": response}));
    let added = json!({"output_index": 0, "item": item});
    events += &event_of("response.output_item.added", 1, added);
    if request.tool.is_none() {
        let added = with(place(), "part", part(""));
        events += &event_of("response.content_part.added", 2, added);
    }
    events
}

/// Returns the event with a token.
pub fn event(request: &ApiRequest, token: usize) -> String {
    let name = match request.tool {
        Some(_) => "response.function_call_arguments.delta",
        None => "response.output_text.delta",
    };
    let delta = with(place(), "delta", request.token(token));
    event_of(
        name,
        FIRST_EVENTS + token,
        with(delta, "logprobs", json!([])),
    )
}

/// Returns the events that end all of them.
pub fn last_events(request: &ApiRequest, served: Served) -> String {
    let number = FIRST_EVENTS + request.tokens();
    let done = json!({"output_index": 0, "item": item(request)});
    let completed = json!({"response": whole(request, served)});
    event_of("response.output_item.done", number, done)
        + &event_of("response.completed", number + 1, completed)
}

fn event_of(name: &str, number: usize, event: Value) -> String {
    named(name, with(event, "sequence_number", number))
}

/// Returns the fields that locate the text or the call.
fn place() -> Value {
    json!({"item_id": "item-sim", "output_index": 0, "content_index": 0})
}

fn part(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": []})
}

fn item(request: &ApiRequest) -> Value {
    let item = json!({"id": "item-sim", "status": "completed"});
    match &request.tool {
        Some(name) => {
            let call = with(with(item, "type", "function_call"), "call_id", "call-sim");
            with(
                with(call, "name", name.as_str()),
                "arguments",
                ARGUMENTS.concat(),
            )
        }
        None => {
            let message = with(with(item, "type", "message"), "role", "assistant");
            with(
                message,
                "content",
                json!([part(&TOKEN.repeat(request.tokens()))]),
            )
        }
    }
}

fn response(request: &ApiRequest, status: &str, output: Value) -> Value {
    json!({
        "id": "sim",
        "object": "response",
        "created_at": 0,
        "model": request.model,
        "status": status,
        "output": output,
        "parallel_tool_calls": true,
        "tool_choice": "auto",
        "tools": [],
    })
}

fn usage(request: &ApiRequest, served: Served) -> Value {
    json!({
        "input_tokens": served.prompt_tokens,
        "input_tokens_details": {"cached_tokens": served.cached_tokens},
        "output_tokens": request.tokens(),
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": served.prompt_tokens + request.tokens(),
    })
}
