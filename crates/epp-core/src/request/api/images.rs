//! OpenAI image generations: a model to be routed by, and nothing that a prefix cache would know.

use super::{Field, MODEL, STREAM};

/// The fields that tell something.
pub const FIELDS: &[(&[u8], Field)] = &[MODEL, STREAM];
