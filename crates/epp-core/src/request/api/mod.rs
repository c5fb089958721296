//! The APIs of requests: how a path selects the API, and the fields of each API's bodies.

mod block;
pub mod chat;
pub mod completions;
pub mod conversations;
pub mod embeddings;
pub mod generate;
pub mod images;
pub mod messages;
pub mod responses;

use super::facts;

/// The API of a request, which decides how its body is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Api {
    /// OpenAI chat completions: `messages`.
    ChatCompletions,
    /// OpenAI completions: `prompt`.
    Completions,
    /// OpenAI responses: `instructions`, `tools`, `input`.
    Responses,
    /// OpenAI conversations: `items`.
    Conversations,
    /// OpenAI embeddings: `input`.
    Embeddings,
    /// OpenAI image generations: nothing but the model.
    ImagesGenerations,
    /// Anthropic messages: `tools`, `system`, `messages`.
    Messages,
    /// vLLM's own: `token_ids`.
    VllmGenerate,
    /// SGLang's own: `input_ids`.
    SglangGenerate,
    /// An API whose bodies are not read.
    #[default]
    PassThrough,
}

/// The meaning of a field of a body's outermost object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// A fact.
    Fact(facts::FactNode),
    /// An object with facts as members.
    Facts(&'static [(&'static [u8], Field)]),
    /// The turns of a conversation: the last part of its prompt.
    Turns,
    /// The system text, which precedes the turns in the prompt.
    System,
    /// The tools, which precede the system text in the prompt.
    Tools,
    /// One or several prompts, as text or tokens.
    Prompt,
    /// A part of a prompt that is JSON, and its position in the prompt.
    Json(u8),
    /// A field that no flattening reads and that still changes what a model reads.
    Extra,
}

const MODEL: (&[u8], Field) = (b"model", Field::Fact(facts::FactNode::Model));
const SALT: (&[u8], Field) = (b"cache_salt", Field::Fact(facts::FactNode::Salt));
const STREAM: (&[u8], Field) = (b"stream", Field::Fact(facts::FactNode::Stream));

/// Fields that are [`Field::Extra`] unless an API reads them otherwise. They change what a model reads, through its chat
/// template or beside its prompt, unlike fields that decide how a response is sampled, limited, formatted or sent.
const EXTRAS: &[&[u8]] = &[
    b"messages",
    b"prompt",
    b"input",
    b"system",
    b"tools",
    b"instructions",
    b"items",
    b"cache_salt",
    b"functions",
    b"documents",
    b"chat_template",
    b"chat_template_kwargs",
    b"add_generation_prompt",
    b"continue_final_message",
    b"add_special_tokens",
    b"truncate_prompt_tokens",
    b"mm_processor_kwargs",
    b"reasoning",
    b"reasoning_effort",
    b"thinking",
    b"prompt_token_ids",
    b"prompt_embeds",
    b"suffix",
    b"previous_response_id",
    b"conversation",
    b"features",
];

/// Returns a field with the maximum number of output tokens. Of several such fields the one with the highest rank counts.
const fn max_tokens(name: &'static [u8], rank: u8) -> (&'static [u8], Field) {
    (name, Field::Fact(facts::FactNode::MaxTokens(rank)))
}

/// Path suffixes, and whether a successful response to a request with a body takes the server's engine. The longest suffix
/// that matches selects the API.
const SUFFIXES: [(&str, Api, bool); 18] = [
    ("/chat/completions", Api::ChatCompletions, true),
    ("/chat/completions/render", Api::ChatCompletions, false),
    ("/completions", Api::Completions, true),
    ("/completions/render", Api::Completions, false),
    ("/responses", Api::Responses, true),
    ("/conversations", Api::Conversations, false),
    ("/embeddings", Api::Embeddings, true),
    ("/images/generations", Api::ImagesGenerations, true),
    ("/messages", Api::Messages, true),
    // This API only counts tokens; the Endpoint Picker does not read its bodies either.
    ("/messages/count_tokens", Api::PassThrough, false),
    ("/inference/v1/generate", Api::VllmGenerate, true),
    ("/generate", Api::SglangGenerate, true),
    ("/rerank", Api::PassThrough, true),
    ("/score", Api::PassThrough, true),
    ("/classify", Api::PassThrough, true),
    ("/pooling", Api::PassThrough, true),
    ("/audio/transcriptions", Api::PassThrough, true),
    ("/audio/translations", Api::PassThrough, true),
];

impl Api {
    /// Returns the API of a `:path`; query and trailing slash do not matter.
    pub fn of_path(path: &[u8]) -> Self {
        Self::look_up(path).0
    }

    /// Returns the API of a `:path`, and whether only an engine can serve it.
    pub fn look_up(path: &[u8]) -> (Self, bool) {
        let path = path.split(|byte| *byte == b'?').next().unwrap_or_default();
        let path = path.strip_suffix(b"/").unwrap_or(path);
        let fits = SUFFIXES
            .iter()
            .filter(|(suffix, ..)| path.ends_with(suffix.as_bytes()));
        let longest = fits.max_by_key(|(suffix, ..)| suffix.len());
        longest.map_or((Self::PassThrough, false), |(_, api, takes)| (*api, *takes))
    }

    /// Returns the meaning of a field of a body's outermost object, if the field is read.
    pub(super) fn field(self, key: &[u8]) -> Option<Field> {
        let known = self.fields().iter().find(|(name, _)| *name == key);
        let extra = || EXTRAS.contains(&key).then_some(Field::Extra);
        known.map(|(_, field)| *field).or_else(extra)
    }

    /// Returns the fields of a body's outermost object that the API reads.
    pub(super) fn fields(self) -> &'static [(&'static [u8], Field)] {
        match self {
            Self::ChatCompletions => chat::FIELDS,
            Self::Completions => completions::FIELDS,
            Self::Responses => responses::FIELDS,
            Self::Conversations => conversations::FIELDS,
            Self::Embeddings => embeddings::FIELDS,
            Self::ImagesGenerations => images::FIELDS,
            Self::Messages => messages::FIELDS,
            Self::VllmGenerate => generate::VLLM_FIELDS,
            Self::SglangGenerate => generate::SGLANG_FIELDS,
            Self::PassThrough => &[],
        }
    }
}

/// Returns whether a body with this content type and encoding can be read, as uncompressed JSON. A body without a content
/// type is assumed to be JSON.
pub fn readable(content_type: &[u8], content_encoding: &[u8]) -> bool {
    let media = content_type
        .split(|byte| *byte == b';')
        .next()
        .unwrap_or_default();
    let media = media.trim_ascii();
    let json = media.is_empty()
        || media.eq_ignore_ascii_case(b"application/json")
        || media.to_ascii_lowercase().ends_with(b"+json")
        // curl sends this type with -d.
        || media.eq_ignore_ascii_case(b"application/x-www-form-urlencoded");
    let plain = content_encoding.is_empty() || content_encoding.eq_ignore_ascii_case(b"identity");
    json && plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_selects_the_api() {
        for (path, api) in [
            ("/v1/chat/completions", Api::ChatCompletions),
            ("/v1/chat/completions/", Api::ChatCompletions),
            ("/v1/chat/completions/render", Api::ChatCompletions),
            ("/v1/chat/completions?x=/v1/models", Api::ChatCompletions),
            (
                "/openai/deployments/a/chat/completions",
                Api::ChatCompletions,
            ),
            ("/v1/completions", Api::Completions),
            ("/v1/completions/render", Api::Completions),
            ("/v1/responses", Api::Responses),
            ("/v1/responses/resp_1/cancel", Api::PassThrough),
            ("/v1/conversations", Api::Conversations),
            ("/v1/embeddings?a=b", Api::Embeddings),
            ("/v1/images/generations", Api::ImagesGenerations),
            ("/v1/messages", Api::Messages),
            ("/v1/messages/count_tokens", Api::PassThrough),
            ("/inference/v1/generate", Api::VllmGenerate),
            ("/generate", Api::SglangGenerate),
            ("/v1/models", Api::PassThrough),
            ("", Api::PassThrough),
        ] {
            assert_eq!(Api::of_path(path.as_bytes()), api, "{path}");
        }
    }

    /// docs/clients.md lists the fields of bodies that decide something.
    #[test]
    fn the_page_for_clients_has_every_field() {
        let page = include_str!("../../../../../docs/clients.md");
        let (_, table) = page.split_once("<!-- fields -->").unwrap();
        let (table, _) = table.split_once("<!-- end -->").unwrap();
        let rows = table.lines().filter_map(|line| line.split('|').nth(1));
        let listed: Vec<&str> = rows
            .flat_map(|row| row.split('`').skip(1).step_by(2))
            .collect();
        let apis = SUFFIXES.iter().flat_map(|(_, api, _)| api.fields());
        let fields = apis.map(|(name, _)| *name).chain(EXTRAS.iter().copied());
        let mut known = Vec::new();
        for field in fields {
            let field = std::str::from_utf8(field).unwrap();
            assert!(listed.contains(&field), "docs/clients.md lacks {field}");
            known.push(field);
        }
        // In `sampling_params`.
        known.push("max_new_tokens");
        for field in listed {
            assert!(known.contains(&field), "no API has {field}");
        }
    }

    #[test]
    fn only_plain_json_is_read() {
        for (media, encoding, read) in [
            ("application/json", "", true),
            ("application/json; charset=utf-8", "identity", true),
            ("application/vnd.api+json", "", true),
            ("", "", true),
            ("application/json", "gzip", false),
            ("multipart/form-data; boundary=x", "", false),
            ("application/grpc", "", false),
        ] {
            assert_eq!(
                readable(media.as_bytes(), encoding.as_bytes()),
                read,
                "{media} {encoding}"
            );
        }
    }
}
