//! The responses of a pod, as JSON or as server-sent events: one file for each API, as vLLM implements it.

mod embeddings;
mod messages;
mod openai;
mod responses;

use serde_json::{json, Value};

use crate::work::{Kv, Served};

/// An API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// OpenAI's chat completions.
    Chat,
    /// OpenAI's completions.
    Completions,
    /// OpenAI's embeddings.
    Embeddings,
    /// Anthropic's messages.
    Messages,
    /// Anthropic's count of the tokens of a prompt.
    CountTokens,
    /// OpenAI's responses.
    Responses,
}

impl Api {
    /// Returns the API at a path without query.
    pub fn of_path(path: &str) -> Option<Self> {
        let known = [
            ("/v1/chat/completions", Self::Chat),
            ("/v1/completions", Self::Completions),
            ("/v1/embeddings", Self::Embeddings),
            ("/v1/messages", Self::Messages),
            ("/v1/messages/count_tokens", Self::CountTokens),
            ("/v1/responses", Self::Responses),
        ];
        let mut known = known.into_iter();
        known
            .find(|(suffix, _)| path.ends_with(suffix))
            .map(|(_, api)| api)
    }

    /// Returns whether responses are generated token by token.
    pub fn generates(self) -> bool {
        !matches!(self, Self::Embeddings | Self::CountTokens)
    }
}

/// The part of a request that a pod reads.
#[derive(Debug)]
pub struct ApiRequest {
    api: Api,
    /// `model`.
    pub model: String,
    /// The whole prompt as text.
    pub prompt: String,
    /// `stream`.
    pub stream: bool,
    /// `kv_transfer_params`.
    pub kv: Kv,
    /// Images and other media in chats that no other pod has encoded.
    pub media: usize,
    /// The cached tokens that the response reports instead of the pod's own.
    pub cached_elsewhere: Option<usize>,
    /// `stream_options.include_usage`.
    include_usage: bool,
    /// The most tokens of the response.
    max_tokens: usize,
    /// Whether the client set that limit.
    limited: bool,
    /// The tool that is called instead of a response: the first one, unless it was called already.
    tool: Option<String>,
    /// Texts to embed.
    inputs: usize,
    /// `encoding_format`.
    base64: bool,
}

/// Tokens of a response if the client sets no limit.
const TOKENS: usize = 8;

/// A token of a text.
const TOKEN: &str = "token ";

/// The arguments of a call, token by token.
const ARGUMENTS: [&str; 2] = ["{", "}"];

impl ApiRequest {
    /// Reads a body. Returns `None` if it is not a JSON object.
    pub fn read(api: Api, body: &[u8]) -> Option<Self> {
        Self::of(api, &serde_json::from_slice(body).ok()?)
    }

    /// Reads a body that is parsed already.
    pub fn of(api: Api, body: &Value) -> Option<Self> {
        body.as_object()?;
        let limits = ["max_completion_tokens", "max_tokens", "max_output_tokens"];
        let limit = limits.into_iter().find_map(|name| body.get(name));
        Some(Self {
            api,
            model: body.get("model").map(text).unwrap_or_default(),
            prompt: prompt(body),
            stream: body.get("stream").and_then(Value::as_bool).unwrap_or(false),
            kv: kv(body),
            media: match body.get("ec_transfer_params") {
                Some(_) => 0,
                None => media(body).count(),
            },
            cached_elsewhere: None,
            include_usage: body.pointer("/stream_options/include_usage")
                == Some(&Value::Bool(true)),
            max_tokens: limit
                .and_then(Value::as_u64)
                .map_or(TOKENS, |limit| limit as usize)
                .min(4096),
            limited: limit.is_some_and(Value::is_u64),
            tool: tool(body),
            inputs: match body.get("input") {
                Some(Value::Array(inputs)) if !inputs.iter().all(Value::is_number) => inputs.len(),
                _ => 1,
            },
            base64: body.get("encoding_format").and_then(Value::as_str) == Some("base64"),
        })
    }

    /// Returns the number of tokens of the response.
    pub fn tokens(&self) -> usize {
        match (self.api, &self.tool) {
            (Api::Embeddings | Api::CountTokens, _) => 0,
            (_, Some(_)) => ARGUMENTS.len(),
            (_, None) => self.max_tokens,
        }
    }

    /// Returns whether the request asks only for the number of tokens.
    pub fn counts_only(&self) -> bool {
        self.api == Api::CountTokens
    }

    /// Returns the counts that the response reports.
    pub fn reported(&self, served: Served) -> Served {
        Served {
            cached_tokens: self.cached_elsewhere.unwrap_or(served.cached_tokens),
            ..served
        }
    }

    /// Returns the whole response of the pod of this name.
    pub fn whole(&self, served: Served, pod: &str) -> String {
        let served = self.reported(served);
        let response = match self.api {
            Api::Chat | Api::Completions => openai::whole(self, served),
            Api::Embeddings => embeddings::whole(self, served),
            Api::Messages => messages::whole(self, served),
            Api::CountTokens => messages::count(served.prompt_tokens),
            Api::Responses => responses::whole(self, served),
        };
        let response = match self.kv {
            Kv::HandedOver => with(response, "kv_transfer_params", where_it_is(pod)),
            Kv::Own | Kv::Fetched => response,
        };
        response.to_string()
    }

    /// Returns the events before the first token.
    pub fn first_events(&self, served: Served) -> String {
        let served = self.reported(served);
        match self.api {
            Api::Messages => messages::first_events(self, served),
            Api::Responses => responses::first_events(self),
            _ => openai::first_events(self),
        }
    }

    /// Returns the event with a token, by its number from 0.
    pub fn event(&self, token: usize) -> String {
        match self.api {
            Api::Messages => messages::event(self, token),
            Api::Responses => responses::event(self, token),
            _ => openai::event(self, token),
        }
    }

    /// Returns the events after the last token.
    pub fn last_events(&self, served: Served) -> String {
        let served = self.reported(served);
        match self.api {
            Api::Messages => messages::last_events(self, served),
            Api::Responses => responses::last_events(self, served),
            _ => openai::last_events(self, served),
        }
    }

    /// Returns a token of the text, or of the call's arguments.
    fn token(&self, number: usize) -> &'static str {
        match self.tool {
            Some(_) => ARGUMENTS.get(number).copied().unwrap_or_default(),
            None => TOKEN,
        }
    }

    fn is_last(&self, token: usize) -> bool {
        token + 1 == self.tokens()
    }
}

/// Returns the parts of the prompt in the order of a chat template.
fn prompt(body: &Value) -> String {
    let parts = ["tools", "system", "instructions", "prompt", "input"];
    let mut prompt: String = parts
        .iter()
        .filter_map(|key| body.get(*key).map(text))
        .collect();
    let messages = body.get("messages").and_then(Value::as_array);
    for message in messages.into_iter().flatten() {
        prompt += &format!("{}\n{}\n", message["role"], message["content"]);
    }
    prompt
}

/// Returns where the KV cache of a prompt comes from.
fn kv(body: &Value) -> Kv {
    let params = &body["kv_transfer_params"];
    match (&params["do_remote_decode"], &params["do_remote_prefill"]) {
        (Value::Bool(true), _) => Kv::HandedOver,
        (_, Value::Bool(true)) => Kv::Fetched,
        _ => Kv::Own,
    }
}

/// Returns the parameters by which another pod finds the KV cache that this pod has computed.
fn where_it_is(pod: &str) -> Value {
    json!({"do_remote_prefill": true, "do_remote_decode": false, "remote_engine_id": pod,
        "remote_block_ids": [0], "remote_host": pod, "remote_port": 5557})
}

/// Returns the images and other media of a chat.
pub fn media(body: &Value) -> impl Iterator<Item = &Value> {
    let messages = body["messages"].as_array().into_iter().flatten();
    let parts = messages.filter_map(|message| message["content"].as_array());
    parts.flatten().filter(|part| {
        let kinds = ["image_url", "audio_url", "video_url", "input_audio"];
        kinds.iter().any(|kind| part["type"] == *kind)
    })
}

/// Returns the name of the first tool, unless the conversation has a tool's result.
fn tool(body: &Value) -> Option<String> {
    let turns = body.get("messages").or(body.get("input"))?;
    let last = turns.as_array().and_then(|turns| turns.last());
    let last = last.unwrap_or(&Value::Null);
    let part = last["content"].pointer("/0/type");
    let result = last["role"] == "tool"
        || last["type"] == "function_call_output"
        || part.is_some_and(|kind| kind == "tool_result");
    let first = body.pointer("/tools/0").filter(|_| !result)?;
    let name = first.pointer("/function/name").or(first.get("name"))?;
    name.as_str().map(str::to_owned)
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// Returns an object with one entry set.
pub fn with(mut object: Value, key: &str, value: impl Into<Value>) -> Value {
    if let Some(fields) = object.as_object_mut() {
        fields.insert(key.to_owned(), value.into());
    }
    object
}

/// Returns an unnamed event.
fn data(event: &Value) -> String {
    format!("data: {event}\n\n")
}

/// Returns an event that has its name in the data as well.
fn named(name: &str, event: Value) -> String {
    let event = with(event, "type", name);
    format!("event: {name}\ndata: {event}\n\n")
}
