//! What a decision needs of a request's body: bytes in, facts out.
//!
//! The reader takes in the body as it streams and finds the model, the cache salt, and the content
//! digests of the prompt's blocks. It never refuses anything: a body that it cannot read is routed
//! with what could be read, and the model server says what is wrong with it.
//!
//! Nothing is copied that does not have to wait for something that precedes it in the prompt, and
//! that only as far as the prompt window reaches: `scan` reads the grammar and `text` the
//! strings, `body` the fields, `message` and the files in `api` the parts of a prompt, and
//! `prompt` hands these to the block hashers.
//!
//! Where a body is not what the Endpoint Picker's decoder makes of it: keys are told apart by case;
//! of keys that repeat in one object the first counts, so that a decision before the end is the
//! one at the end (in JSON that is re-serialized the last one does, as there; behind a full prompt
//! window, of what is read from the body's end, the last does, too); a value of the wrong type
//! is an unknown one.
//!
//! What a flattening does not read counts by its bytes (`extra`): two bodies that differ in their
//! prompts differ in their blocks, whatever part of it a layout leaves out.

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
pub use reader::{BodyReader, Pending};
pub use scan::{Reading, MAX_DEPTH};
pub use tail::TAIL;
pub use text::TextBuffer;

use crate::prefix::digest::BlockSpec;
use crate::prefix::key::Key;

/// Whose layout of a prompt is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Flattening {
    /// Gateway API Inference Extension v1.0.
    #[default]
    Seed,
    /// llm-d-router.
    Today,
}

/// What to read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReadPlan {
    /// How the prompt is laid out.
    pub flattening: Flattening,
    /// How it is cut: one entry for each prefix producer of the plan. Without any the prompt is not
    /// read.
    pub blocks: Vec<BlockSpec>,
    /// How its blocks are digested.
    pub key: Key,
    /// Whether what follows the turns is taken to be absent, so that they end the prompt.
    pub assume_absent: bool,
}

/// Something that the rest of a body may still bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact<T> {
    /// Not read yet.
    Unknown,
    /// It is not there.
    Absent,
    /// It is this.
    Known(T),
}

impl<T> Fact<T> {
    /// The fact, if it is known.
    pub fn known(self) -> Option<T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Unknown | Self::Absent => None,
        }
    }
}
