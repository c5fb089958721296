//! OpenAI conversations: the prompt is the items as Go writes them, of each its type, role and
//! content.

use super::{Field, MODEL, SALT};
use crate::request::canon::{Member, Shape};

/// The fields that are read.
pub const FIELDS: &[(&[u8], Field)] = &[MODEL, SALT, (b"items", Field::Json(0))];

/// The members of an item, in this order.
pub const ITEM: Shape = &[
    Member::text(b"type"),
    Member::text(b"role"),
    Member::any(b"content"),
];

/// The prompt is its only part, without anything around it.
pub const FRAMES: &[&str] = &[""];
