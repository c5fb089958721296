//! Which API a request speaks, by its path, and what that API's bodies hold.

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

/// How a body is read.
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
    /// Not at all.
    #[default]
    PassThrough,
}

/// What a field of a body's outermost object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// A fact.
    Fact(facts::FactNode),
    /// An object with such facts.
    Facts(&'static [(&'static [u8], Field)]),
    /// The turns of a conversation: the last part of its prompt.
    Turns,
    /// Text that comes before them.
    System,
    /// Tools that come before that.
    Tools,
    /// A prompt or several: text or tokens.
    Prompt,
    /// A part of a prompt that is JSON, and its place in it.
    Json(u8),
    /// What is in no layout and yet changes what a model reads.
    Extra,
}

const MODEL: (&[u8], Field) = (b"model", Field::Fact(facts::FactNode::Model));
const SALT: (&[u8], Field) = (b"cache_salt", Field::Fact(facts::FactNode::Salt));
const STREAM: (&[u8], Field) = (b"stream", Field::Fact(facts::FactNode::Stream));

/// Fields that are [`Field::Extra`] where an API does not read them otherwise: they change what a model
/// reads, through its chat template or beside its prompt. How an answer is sampled, limited, formed or
/// sent does not.
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

/// The field of the most output tokens: if several are there, that of the highest rank counts.
const fn max_tokens(name: &'static [u8], rank: u8) -> (&'static [u8], Field) {
    (name, Field::Fact(facts::FactNode::MaxTokens(rank)))
}

/// Path suffixes; the longest that fits decides.
const SUFFIXES: [(&str, Api); 12] = [
    ("/chat/completions", Api::ChatCompletions),
    ("/chat/completions/render", Api::ChatCompletions),
    ("/completions", Api::Completions),
    ("/completions/render", Api::Completions),
    ("/responses", Api::Responses),
    ("/conversations", Api::Conversations),
    ("/embeddings", Api::Embeddings),
    ("/images/generations", Api::ImagesGenerations),
    ("/messages", Api::Messages),
    // Only counts: the Endpoint Picker does not look into it either.
    ("/messages/count_tokens", Api::PassThrough),
    ("/inference/v1/generate", Api::VllmGenerate),
    ("/generate", Api::SglangGenerate),
];

impl Api {
    /// The API of a `:path`; query and trailing slash do not matter.
    pub fn of_path(path: &[u8]) -> Self {
        let path = path.split(|byte| *byte == b'?').next().unwrap_or_default();
        let path = path.strip_suffix(b"/").unwrap_or(path);
        let fits = SUFFIXES
            .iter()
            .filter(|(suffix, _)| path.ends_with(suffix.as_bytes()));
        let longest = fits.max_by_key(|(suffix, _)| suffix.len());
        longest.map_or(Self::PassThrough, |(_, api)| *api)
    }

    /// Returns what a field of a body's outermost object is, if it is read.
    pub(super) fn field(self, key: &[u8]) -> Option<Field> {
        let known = self.fields().iter().find(|(name, _)| *name == key);
        let extra = || EXTRAS.contains(&key).then_some(Field::Extra);
        known.map(|(_, field)| *field).or_else(extra)
    }

    /// The fields of a body's outermost object that are in its layout.
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

/// Whether a body of this content type and encoding can be read: JSON, uncompressed. A client that
/// does not say what it sends is taken to send JSON.
pub fn readable(content_type: &[u8], content_encoding: &[u8]) -> bool {
    let media = content_type
        .split(|byte| *byte == b';')
        .next()
        .unwrap_or_default();
    let media = media.trim_ascii();
    let json = media.is_empty()
        || media.eq_ignore_ascii_case(b"application/json")
        || media.to_ascii_lowercase().ends_with(b"+json")
        // What curl sends with -d.
        || media.eq_ignore_ascii_case(b"application/x-www-form-urlencoded");
    let plain = content_encoding.is_empty() || content_encoding.eq_ignore_ascii_case(b"identity");
    json && plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_tells_the_api() {
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
