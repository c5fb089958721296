//! Anthropic messages: tools, the system text, then of each message the role and the content.

use super::block::{Block, Type};
use super::{block, max_tokens, Field, MODEL, SALT, STREAM};
use crate::request::canon::{Member, Shape};
use crate::request::extra::{self, CACHE_CONTROL};
use crate::request::message::{Part, PART};
use crate::request::prompt::{Draft, Out, Prompts};
use crate::request::scan::{Kind, Want};

/// The fields that are read.
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

/// The levels of what is not known: in a block's image, from which on in the blocks of a tool's result,
/// two for each, and from which on in the system field.
const IMAGE: u8 = PART + 1;
const INNER: u8 = PART + 2;
const SYSTEM: u8 = 64;

/// Claude Code begins its system text with a block that differs from request to request and that
/// no model sees.
const BILLING: &[u8] = b"x-anthropic-billing-header";

/// A place in a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentNode {
    /// In what all blocks have.
    Block(block::BlockNode),
    /// A tool call's identity.
    Id,
    /// A tool call's name.
    Name,
    /// A tool call's input, which counts as it stands.
    Input,
    /// A tool's result.
    Result,
    /// In a block of a tool's result.
    Inner(block::BlockNode),
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
    /// Elements of a tool's result so far.
    inners: u8,
    /// A tool's result: its texts, joined by line ends, then its images.
    result: Draft,
    result_seen: bool,
    texts: usize,
    images: Draft,
}

impl MessagesPart {
    fn begin_member(&mut self, key: &[u8], kind: Kind) -> Want<ContentNode> {
        let fits = |kind: Type| self.block.kind().is_none_or(|own| own == kind);
        let (call, result) = (fits(Type::ToolUse), fits(Type::ToolResult));
        match (key, kind) {
            (b"id", Kind::String) if call && self.id.is_empty() => Want::Inside(ContentNode::Id),
            (b"name", Kind::String) if call && self.name.is_empty() => {
                Want::Inside(ContentNode::Name)
            }
            (b"input", _) if call && !self.input_seen => {
                self.input_seen = true;
                Want::Raw(ContentNode::Input)
            }
            (b"content", Kind::String | Kind::Array) if result && !self.result_seen => {
                self.result_seen = true;
                Want::Inside(ContentNode::Result)
            }
            _ => Want::Nothing,
        }
    }

    /// A block of a tool's result has ended.
    fn end_inner(&mut self, out: &mut Out<'_>) {
        let room = out.prompts.room();
        let kind = self.inner.kind();
        match kind {
            Some(Type::Text) => {
                if self.texts > 0 {
                    self.result.text(b"\n", room);
                }
                self.texts += 1;
                let text = self.inner.text().map_or(&[][..], |text| text.bytes());
                self.result.text(text, room);
            }
            Some(Type::Image) => {
                if let Some(image) = self.inner.image() {
                    self.images.media(image);
                }
            }
            _ => {}
        }
        let known = matches!(kind, Some(Type::Text | Type::Image));
        let level = self.level(ContentNode::Inner(block::BlockNode::Whole));
        if kind == Some(Type::Text) && !self.images.is_empty() {
            // Images follow all texts, and only this shows that this one did not come first.
            out.extra(level, b"", b"");
        }
        self.inner.give_rest(known, level, out);
    }

    fn flatten(&mut self, out: &mut Out<'_>) {
        let kind = self.block.kind();
        match kind {
            Some(Type::Text | Type::Thinking) => {
                if let Some(text) = self.block.text() {
                    text.give(out);
                }
            }
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
        let known = kind.is_some_and(|kind| kind != Type::Other);
        self.block.give_rest(known, PART, out);
        // What is left was read before the type was known, which does not ask for it.
        let drafts = [
            &mut self.id,
            &mut self.name,
            &mut self.input,
            &mut self.result,
            &mut self.images,
        ];
        for (number, draft) in (0..).zip(drafts) {
            if !draft.is_empty() {
                out.begin_extra(PART, &[number], Kind::String);
                draft.give(out);
                out.end_extra();
            }
        }
    }
}

impl Part for MessagesPart {
    type Node = ContentNode;

    fn start(&mut self) -> ContentNode {
        self.id.clear();
        self.name.clear();
        self.input.clear();
        self.input_seen = false;
        self.result.clear();
        self.result_seen = false;
        self.texts = 0;
        self.inners = 0;
        self.images.clear();
        ContentNode::Block(self.block.start(false))
    }

    fn begin(&mut self, parent: ContentNode, key: &[u8], kind: Kind) -> Want<ContentNode> {
        match (parent, kind) {
            (ContentNode::Block(parent), _) => match self.block.begin(parent, key, kind) {
                Want::Inside(place) => Want::Inside(ContentNode::Block(place)),
                _ if parent == block::BlockNode::Whole => self.begin_member(key, kind),
                _ => Want::Nothing,
            },
            (ContentNode::Result, _) => {
                self.inners = self.inners.wrapping_add(2);
                match kind {
                    Kind::Object => Want::Inside(ContentNode::Inner(self.inner.start(true))),
                    _ => Want::Nothing,
                }
            }
            (ContentNode::Inner(parent), _) => match self.inner.begin(parent, key, kind) {
                Want::Inside(place) => Want::Inside(ContentNode::Inner(place)),
                _ => Want::Nothing,
            },
            _ => Want::Nothing,
        }
    }

    fn level(&self, parent: ContentNode) -> u8 {
        let inner = INNER.wrapping_add(self.inners);
        match parent {
            ContentNode::Block(block::BlockNode::Source) => IMAGE,
            ContentNode::Inner(block::BlockNode::Source) => inner.wrapping_add(1),
            ContentNode::Inner(_) | ContentNode::Result => inner,
            _ => PART,
        }
    }

    fn bytes(&mut self, place: ContentNode, bytes: &[u8], out: &mut Out<'_>) -> bool {
        let room = out.prompts.room();
        match place {
            ContentNode::Block(block::BlockNode::Text) if self.block.goes_on_at_once() => {
                out.text(bytes)
            }
            ContentNode::Block(place) => self.block.bytes(place, bytes, room),
            ContentNode::Inner(place) => self.inner.bytes(place, bytes, room),
            ContentNode::Id => self.id.text(bytes, room),
            ContentNode::Name => self.name.text(bytes, room),
            ContentNode::Input => self.input.text(bytes, room),
            ContentNode::Result => self.result.text(bytes, room),
        }
    }

    fn end(&mut self, place: ContentNode, out: &mut Out<'_>) {
        match place {
            ContentNode::Block(block::BlockNode::Whole) => self.flatten(out),
            ContentNode::Block(place) => self.block.end(place),
            ContentNode::Inner(block::BlockNode::Whole) => self.end_inner(out),
            ContentNode::Inner(place) => self.inner.end(place),
            ContentNode::Id | ContentNode::Name | ContentNode::Input | ContentNode::Result => {}
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
pub enum SystemNode {
    /// The field.
    Whole,
    /// In one of its blocks.
    Block(block::BlockNode),
    /// In a value that the flattening does not read.
    Extra(extra::ExtraNode),
}

/// Reads the system field: a text, or blocks.
#[derive(Debug, Default)]
pub struct System {
    block: Block,
    /// Elements of the list so far.
    blocks: u8,
}

impl System {
    /// Begins another body.
    pub fn reset(&mut self) {
        self.block.start(false);
        self.blocks = 0;
    }

    /// Returns the bytes of memory that it has allocated.
    pub fn allocated(&self) -> usize {
        self.block.allocated()
    }

    /// A value in the field begins.
    pub fn begin(
        &mut self,
        parent: SystemNode,
        key: &[u8],
        kind: Kind,
        prompts: &mut Prompts,
    ) -> Want<SystemNode> {
        let level = match (parent, kind) {
            (SystemNode::Whole, _) => {
                self.blocks = self.blocks.wrapping_add(1);
                if kind == Kind::Object {
                    return Want::Inside(SystemNode::Block(self.block.start(false)));
                }
                SYSTEM
            }
            (SystemNode::Block(parent), _) => match self.block.begin(parent, key, kind) {
                Want::Inside(place) => return Want::Inside(SystemNode::Block(place)),
                _ if key == CACHE_CONTROL => return Want::Nothing,
                _ => SYSTEM + 1 + u8::from(parent == block::BlockNode::Source),
            },
            (SystemNode::Extra(_), _) => {
                let place = extra::begin(key, kind, &mut |bytes| prompts.text(bytes));
                return Want::Inside(SystemNode::Extra(place));
            }
        };
        let place = self.out(prompts).begin_extra(level, key, kind);
        Want::Inside(SystemNode::Extra(place))
    }

    fn out<'a>(&self, prompts: &'a mut Prompts) -> Out<'a> {
        let (draft, at) = (None, [self.blocks, 0]);
        Out { prompts, draft, at }
    }

    /// More of a value. Whether more is wanted.
    pub fn bytes(&mut self, place: SystemNode, bytes: &[u8], prompts: &mut Prompts) -> bool {
        match place {
            SystemNode::Whole | SystemNode::Extra(_) => prompts.text(bytes),
            SystemNode::Block(place) => {
                // Else a billing header at the window's end would not be known for one.
                let room = prompts.room().max(BILLING.len());
                self.block.bytes(place, bytes, room)
            }
        }
    }

    /// A value has ended.
    pub fn end(&mut self, place: SystemNode, prompts: &mut Prompts) {
        let mut out = self.out(prompts);
        match place {
            SystemNode::Whole => {}
            SystemNode::Extra(_) => out.end_extra(),
            SystemNode::Block(block::BlockNode::Whole) => {
                let is_text = self.block.kind() == Some(Type::Text);
                let text = self.block.text().filter(|_| is_text);
                if let Some(text) = text.filter(|text| !text.bytes().starts_with(BILLING)) {
                    text.give(&mut out);
                }
                self.block.give_rest(is_text, SYSTEM + 1, &mut out);
            }
            SystemNode::Block(place) => self.block.end(place),
        }
    }
}
