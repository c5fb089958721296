//! Reads what a decision needs of a request's body.
//!
//! The reader processes the body as it streams, and finds the model, the cache salt, and the content digests of the
//! prompt's blocks. It never rejects anything: a body that it cannot read is routed with what could be read, and the
//! model server reports the error.
//!
//! Text is copied only if it must wait for a part that precedes it in the prompt, and only as far as the prompt window
//! reaches. `scan` reads the grammar and `text` the strings, `body` the fields, `message` and the files in `api` the
//! parts of a prompt, and `prompt` passes these to the block hashers.
//!
//! Bodies are read differently from the Endpoint Picker's decoder in these points:
//!
//! - Keys are case-sensitive.
//! - Of keys that repeat in one object the first counts, so that a decision before the end of the body equals that at the
//!   end. (The last key counts in re-serialized JSON, as in the Endpoint Picker, and for facts that are read from the
//!   body's end behind a full prompt window.)
//! - A value of the wrong type is an unknown value.
//!
//! Values that the flattening does not read are added as they stand (`extra`): two bodies that differ in their prompts
//! differ in their blocks, whatever the flattening leaves out.

mod api;
mod body;
mod canon;
mod escape;
mod extra;
mod facts;
mod image;
mod json;
mod media;
mod message;
pub(crate) mod number;
mod prompt;
mod reader;
pub(crate) mod scan;
mod section;
mod tail;
mod text;
mod visit;

pub use api::{readable, Api};
pub use prompt::Media;
pub use reader::{BodyReader, Pending};
pub use scan::{Reading, MAX_DEPTH};
pub use tail::TAIL;
pub use text::TextBuffer;

use crate::prefix::digest::BlockSpec;
use crate::prefix::key::Key;

/// The way in which the parts of a prompt are joined to one text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Flattening {
    /// Gateway API Inference Extension v1.0.
    #[default]
    GieV1,
    /// llm-d-router.
    LlmD,
}

/// The parts of a body that are to be read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReadPlan {
    /// How the parts of the prompt are joined.
    pub flattening: Flattening,
    /// How the prompt is cut into blocks: one spec for each prefix producer of the plan. Without specs the prompt is not
    /// read.
    pub blocks: Vec<BlockSpec>,
    /// The key of the blocks' digests.
    pub key: Key,
    /// Length of the anchor in bytes; 0: it is not needed. The anchor is the beginning of the first prompt. Its digest has
    /// no key, so that it is the same in every proxy.
    pub anchor_bytes: usize,
    /// Whether parts behind the turns are assumed to be absent, so that the turns end the prompt.
    pub assume_absent: bool,
}

/// A value that the rest of a body may still bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact<T> {
    /// The value was not read yet.
    Unknown,
    /// The body does not have the value.
    Absent,
    /// The value was read.
    Known(T),
}

impl<T> Fact<T> {
    /// Returns the value, if it is known.
    pub fn known(self) -> Option<T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Unknown | Self::Absent => None,
        }
    }
}
