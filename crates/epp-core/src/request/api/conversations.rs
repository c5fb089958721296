//! OpenAI conversations: the prompt consists of the items as Go writes them, each with its type, role and content.

use super::{Field, MODEL, SALT};
use crate::request::canon::{Member, Shape};

/// The fields that are read of a body.
pub const FIELDS: &[(&[u8], Field)] = &[MODEL, SALT, (b"items", Field::Json(0))];

/// The members of an item, in the order in which Go writes them.
pub const ITEM: Shape = &[
    Member::text(b"type"),
    Member::text(b"role"),
    Member::any(b"content"),
];

/// The prompt is its only part, without a frame.
pub const FRAMES: &[&str] = &[""];
