//! OpenAI embeddings: a text or several, one prompt's tokens, or several prompts'.
//!
//! Texts count as Go writes the structure that the Endpoint Picker keeps them in.

use super::completions::Frame;
use super::{Field, MODEL, SALT};

/// The fields that are read.
pub const FIELDS: &[(&[u8], Field)] = &[MODEL, SALT, (b"input", Field::Prompt)];

/// What stands around the texts.
pub const FRAME: Frame = Frame {
    alone: (r#"{"Raw":""#, r#"","Strings":null,"TokenIDs":null}"#),
    list: (
        r#"{"Raw":"","Strings":[""#,
        r#"",""#,
        r#""],"TokenIDs":null}"#,
    ),
};
