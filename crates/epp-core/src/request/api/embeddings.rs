//! OpenAI embeddings: one text, several texts, the tokens of one prompt, or those of several prompts.
//!
//! Texts are written as the JSON of the Go structure in which the Endpoint Picker stores them.

use super::completions::Frame;
use super::{Field, MODEL, SALT};

/// The fields that are read of a body.
pub const FIELDS: &[(&[u8], Field)] = &[MODEL, SALT, (b"input", Field::Prompt)];

/// The JSON around the texts.
pub const FRAME: Frame = Frame {
    single: (r#"{"Raw":""#, r#"","Strings":null,"TokenIDs":null}"#),
    list: (
        r#"{"Raw":"","Strings":[""#,
        r#"",""#,
        r#""],"TokenIDs":null}"#,
    ),
};
