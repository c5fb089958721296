//! OpenAI's embeddings: the same few numbers for every text.

use serde_json::{json, Value};

use super::ApiRequest;
use crate::work::Served;

/// An embedding.
const NUMBERS: [f32; 4] = [0.5, -0.5, 0.25, 1.0];

/// [`NUMBERS`] as little-endian `f32` in base64, which OpenAI's packages request by default.
const BASE64: &str = "AAAAPwAAAL8AAIA+AACAPw==";

/// Returns the whole response.
pub fn whole(request: &ApiRequest, served: Served) -> Value {
    let embedding = || match request.base64 {
        true => json!(BASE64),
        false => json!(NUMBERS),
    };
    let data = (0..request.inputs)
        .map(|index| json!({"index": index, "object": "embedding", "embedding": embedding()}));
    json!({
        "id": "sim",
        "object": "list",
        "created": 0,
        "model": request.model,
        "data": data.collect::<Vec<_>>(),
        "usage": {
            "prompt_tokens": served.prompt_tokens,
            "total_tokens": served.prompt_tokens,
            "completion_tokens": 0,
            "prompt_tokens_details": null,
        },
    })
}
