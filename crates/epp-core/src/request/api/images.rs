//! OpenAI image generations: a model to route by, and no prompt that a prefix cache could hold.

use super::{Field, MODEL, STREAM};

/// The fields that are read of a body.
pub const FIELDS: &[(&[u8], Field)] = &[MODEL, STREAM];
