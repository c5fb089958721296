//! vLLM's and SGLang's own generation APIs: the prompt comes as tokens.

use super::{max_tokens, Field, MODEL, SALT, STREAM};
use crate::request::facts::FactNode;

/// The fields of vLLM's body that are read.
pub const VLLM_FIELDS: &[(&[u8], Field)] = &[
    MODEL,
    SALT,
    STREAM,
    (
        b"sampling_params",
        Field::Facts(&[max_tokens(b"max_tokens", 0)]),
    ),
    (b"token_ids", Field::Prompt),
];

/// The fields of SGLang's body that are read. It does not name a model: a server has one.
pub const SGLANG_FIELDS: &[(&[u8], Field)] = &[
    (b"extra_key", Field::Fact(FactNode::Salt)),
    STREAM,
    (
        b"sampling_params",
        Field::Facts(&[max_tokens(b"max_new_tokens", 0)]),
    ),
    (b"input_ids", Field::Prompt),
    (b"text", Field::Extra),
    (b"input_embeds", Field::Extra),
    (b"image_data", Field::Extra),
    (b"video_data", Field::Extra),
    (b"audio_data", Field::Extra),
];
