//! What a pod answers: OpenAI's chat completions and completions, as JSON or as server-sent events.

use serde_json::{json, Value};

use crate::pod::Served;

/// A request, as far as the pod looks into it.
#[derive(Debug, Default)]
pub struct Asked {
    /// `model`.
    pub model: String,
    /// The whole prompt as text.
    pub prompt: String,
    /// `stream`.
    pub stream: bool,
    /// `stream_options.include_usage`.
    pub include_usage: bool,
    /// Tokens to answer with.
    pub max_tokens: usize,
    /// Whether it is a chat completion.
    pub chat: bool,
}

/// Tokens of an answer where the client sets no limit.
const TOKENS: usize = 8;

impl Asked {
    /// From a body; `None` where it is no JSON object.
    pub fn read(path: &str, body: &[u8]) -> Option<Self> {
        let body: Value = serde_json::from_slice(body).ok()?;
        body.as_object()?;
        let limit = body
            .get("max_completion_tokens")
            .or_else(|| body.get("max_tokens"));
        let prompt = match body.get("messages") {
            Some(Value::Array(messages)) => {
                let parts = messages
                    .iter()
                    .map(|message| format!("{}\n{}\n", message["role"], message["content"]));
                parts.collect()
            }
            _ => body.get("prompt").map(text).unwrap_or_default(),
        };
        Some(Self {
            model: body.get("model").map(text).unwrap_or_default(),
            prompt,
            stream: body.get("stream").and_then(Value::as_bool).unwrap_or(false),
            include_usage: body.pointer("/stream_options/include_usage")
                == Some(&Value::Bool(true)),
            max_tokens: limit
                .and_then(Value::as_u64)
                .map_or(TOKENS, |limit| limit as usize)
                .min(4096),
            chat: path.contains("chat"),
        })
    }

    /// The whole answer.
    pub fn whole(&self, served: Served) -> String {
        let content = "token ".repeat(self.max_tokens);
        let choice = if self.chat {
            json!({"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "length"})
        } else {
            json!({"index": 0, "text": content, "finish_reason": "length"})
        };
        let object = if self.chat {
            "chat.completion"
        } else {
            "text_completion"
        };
        json!({"id": "sim", "object": object, "model": self.model, "choices": [choice], "usage": self.usage(served)}).to_string()
    }

    /// One event with one token.
    pub fn event(&self) -> String {
        let choice = if self.chat {
            json!({"index": 0, "delta": {"content": "token "}, "finish_reason": null})
        } else {
            json!({"index": 0, "text": "token ", "finish_reason": null})
        };
        let object = if self.chat {
            "chat.completion.chunk"
        } else {
            "text_completion"
        };
        data(&json!({"id": "sim", "object": object, "model": self.model, "choices": [choice]}))
    }

    /// The last events: usage, where it was asked for, and the end.
    pub fn last_events(&self, served: Served) -> String {
        let usage =
            json!({"id": "sim", "model": self.model, "choices": [], "usage": self.usage(served)});
        let usage = if self.include_usage {
            data(&usage)
        } else {
            String::new()
        };
        format!("{usage}data: [DONE]\n\n")
    }

    fn usage(&self, served: Served) -> Value {
        json!({
            "prompt_tokens": served.prompt_tokens,
            "completion_tokens": self.max_tokens,
            "total_tokens": served.prompt_tokens + self.max_tokens,
            "prompt_tokens_details": {"cached_tokens": served.cached_tokens},
        })
    }
}

fn data(event: &Value) -> String {
    format!("data: {event}\n\n")
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}
