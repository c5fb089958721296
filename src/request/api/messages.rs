//! Anthropic messages: tools, the system text, then of each message the role and the content.

use super::block::{Block, Type};
use super::{block, max_tokens, Field, MODEL, SALT, STREAM};
use crate::request::canon::{Member, Shape};
use crate::request::message::Part;
use crate::request::prompt::{Draft, Out};
use crate::request::scan::{Kind, Want};

/// The fields that tell something.
pub const FIELDS: &[(&[u8], Field)] = &[
    MODEL,
    SALT,
    STREAM,
    max_tokens(b"max_tokens", 0),
    (b"tools", Field::Tools),
    (b"system", Field::System),
    (b"messages", Field::Turns),
];

/// The members of a tool, in the order in which Go writes them.
pub const TOOL: Shape = &[
    Member::always(b"name"),
    Member::text(b"description"),
    Member::raw(b"input_schema"),
    Member::any(b"strict"),
    Member::any(b"defer_loading"),
];

/// Claude Code begins its system text with a block that differs from request to request and that
/// no model sees.
const BILLING: &[u8] = b"x-anthropic-billing-header";

/// A place in a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In what all blocks have.
    Block(block::Place),
    /// A tool call's identity.
    Id,
    /// A tool call's name.
    Name,
    /// A tool call's input, which counts as it stands.
    Input,
    /// A tool's result.
    Result,
    /// In a block of a tool's result.
    Inner(block::Place),
}

/// Reads the parts of a message.
#[derive(Debug, Default)]
pub struct MessagesPart {
    block: Block,
    id: Draft,
    name: Draft,
    input: Draft,
    input_seen: bool,
    inner: Block,
    /// A tool's result: its texts, joined by line ends, then its images.
    result: Draft,
    result_seen: bool,
    texts: usize,
    images: Draft,
}

impl MessagesPart {
    fn begin_member(&mut self, key: &[u8], kind: Kind) -> Want<Place> {
        match (key, kind) {
            (b"id", Kind::String) if self.id.bytes().is_empty() => Want::Inside(Place::Id),
            (b"name", Kind::String) if self.name.bytes().is_empty() => Want::Inside(Place::Name),
            (b"input", _) if !self.input_seen => {
                self.input_seen = true;
                Want::Raw(Place::Input)
            }
            (b"content", Kind::String | Kind::Array) if !self.result_seen => {
                self.result_seen = true;
                Want::Inside(Place::Result)
            }
            _ => Want::Nothing,
        }
    }

    /// A block of a tool's result has ended.
    fn end_inner(&mut self, room: usize) {
        match self.inner.kind() {
            Some(Type::Text) => {
                if self.texts > 0 {
                    self.result.text(b"\n", room);
                }
                self.texts += 1;
                self.result.text(self.inner.text().bytes(), room);
            }
            Some(Type::Image) => {
                if let Some(image) = self.inner.image() {
                    self.images.media(image);
                }
            }
            _ => {}
        }
    }

    fn flatten(&mut self, out: &mut Out<'_>) {
        match self.block.kind() {
            Some(Type::Text | Type::Thinking) => self.block.text().give(out),
            Some(Type::Image) => {
                if let Some(media) = self.block.image() {
                    out.media(media);
                }
            }
            Some(Type::ToolUse) => {
                self.id.give(out);
                self.name.give(out);
                self.input.give(out);
            }
            Some(Type::ToolResult) => {
                self.result.give(out);
                self.images.give(out);
            }
            _ => {}
        }
    }
}

impl Part for MessagesPart {
    type Place = Place;

    fn start(&mut self) -> Place {
        self.id.clear();
        self.name.clear();
        self.input.clear();
        self.input_seen = false;
        self.result.clear();
        self.result_seen = false;
        self.texts = 0;
        self.images.clear();
        Place::Block(self.block.start(false))
    }

    fn begin(&mut self, parent: Place, key: &[u8], kind: Kind) -> Want<Place> {
        match (parent, kind) {
            (Place::Block(parent), _) => match self.block.begin(parent, key, kind) {
                Want::Inside(place) => Want::Inside(Place::Block(place)),
                _ if parent == block::Place::Whole => self.begin_member(key, kind),
                _ => Want::Nothing,
            },
            (Place::Result, Kind::Object) => Want::Inside(Place::Inner(self.inner.start(true))),
            (Place::Inner(parent), _) => match self.inner.begin(parent, key, kind) {
                Want::Inside(place) => Want::Inside(Place::Inner(place)),
                _ => Want::Nothing,
            },
            _ => Want::Nothing,
        }
    }

    fn bytes(&mut self, place: Place, bytes: &[u8], out: &mut Out<'_>) -> bool {
        let room = out.prompts.room();
        match place {
            Place::Block(block::Place::Text) if self.block.goes_on_at_once() => out.text(bytes),
            Place::Block(place) => self.block.bytes(place, bytes, room),
            Place::Inner(place) => self.inner.bytes(place, bytes, room),
            Place::Id => self.id.text(bytes, room),
            Place::Name => self.name.text(bytes, room),
            Place::Input => self.input.text(bytes, room),
            Place::Result => self.result.text(bytes, room),
        }
    }

    fn end(&mut self, place: Place, out: &mut Out<'_>) {
        match place {
            Place::Block(block::Place::Whole) => self.flatten(out),
            Place::Block(place) => self.block.end(place),
            Place::Inner(block::Place::Whole) => self.end_inner(out.prompts.room()),
            Place::Inner(place) => self.inner.end(place),
            Place::Id | Place::Name | Place::Input | Place::Result => {}
        }
    }

    fn allocated(&self) -> usize {
        let Self {
            id, name, input, ..
        } = self;
        let drafts = [id, name, input, &self.result, &self.images];
        let drafts: usize = drafts.into_iter().map(Draft::allocated).sum();
        drafts + self.block.allocated() + self.inner.allocated()
    }
}

/// A place in the system field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SystemPlace {
    /// The field.
    Whole,
    /// In one of its blocks.
    Block(block::Place),
}

/// Reads the system field: a text, or blocks of which the texts count.
#[derive(Debug, Default)]
pub struct System {
    block: Block,
}

impl System {
    /// Begins another body.
    pub fn reset(&mut self) {
        self.block.start(false);
    }

    /// Returns the bytes of memory that it has allocated.
    pub fn allocated(&self) -> usize {
        self.block.allocated()
    }

    /// A value in the field begins.
    pub fn begin(&mut self, parent: SystemPlace, key: &[u8], kind: Kind) -> Want<SystemPlace> {
        match (parent, kind) {
            (SystemPlace::Whole, Kind::Object) => {
                Want::Inside(SystemPlace::Block(self.block.start(false)))
            }
            (SystemPlace::Block(parent), _) => match self.block.begin(parent, key, kind) {
                Want::Inside(place) => Want::Inside(SystemPlace::Block(place)),
                _ => Want::Nothing,
            },
            _ => Want::Nothing,
        }
    }

    /// More of a value. Whether more is wanted.
    pub fn bytes(&mut self, place: SystemPlace, bytes: &[u8], out: &mut Out<'_>) -> bool {
        match place {
            SystemPlace::Whole => out.text(bytes),
            SystemPlace::Block(place) => {
                // Else a billing header at the window's end would not be known for one.
                let room = out.prompts.room().max(BILLING.len());
                self.block.bytes(place, bytes, room)
            }
        }
    }

    /// A value has ended.
    pub fn end(&mut self, place: SystemPlace, out: &mut Out<'_>) {
        match place {
            SystemPlace::Whole => {}
            SystemPlace::Block(block::Place::Whole) => {
                let is_text = self.block.kind() == Some(Type::Text);
                let text = self.block.text();
                if is_text && !text.bytes().starts_with(BILLING) {
                    text.give(out);
                }
            }
            SystemPlace::Block(place) => self.block.end(place),
        }
    }
}
