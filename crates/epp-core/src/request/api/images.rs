//! OpenAI image generations: a model to be routed by, and nothing that a prefix cache holds.

use super::{Field, MODEL, STREAM};

/// The fields that are read.
pub const FIELDS: &[(&[u8], Field)] = &[MODEL, STREAM];
