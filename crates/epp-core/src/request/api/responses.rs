//! OpenAI responses: the prompt is
//! `[{"instructions":…},{"tools":…},{"input":…}]` as Go writes it, without missing parts.

use super::{max_tokens, Field, MODEL, SALT, STREAM};

/// The fields that are read of a body.
pub const FIELDS: &[(&[u8], Field)] = &[
    MODEL,
    SALT,
    STREAM,
    max_tokens(b"max_output_tokens", 0),
    (b"instructions", Field::Json(0)),
    (b"tools", Field::Json(1)),
    (b"input", Field::Json(2)),
];

/// The text before each part of the prompt.
pub const FRAMES: &[&str] = &["{\"instructions\":", "{\"tools\":", "{\"input\":"];
