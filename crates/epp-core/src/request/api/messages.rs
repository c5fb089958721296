//! Anthropic messages: the tools, the system text, then the role and the content of each message.

use super::block::{BlockType, ContentBlock};
use super::{block, max_tokens, Field, MODEL, SALT, STREAM};
use crate::request::canon::{Member, Shape};
use crate::request::extra::{self, CACHE_CONTROL};
use crate::request::message::{ContentPart, PART_LEVEL};
use crate::request::prompt::{Draft, PromptSink, Prompts};
use crate::request::scan::{ValueKind, Want};

/// The fields that are read of a body.
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

/// Level of unknown values in a block's image.
const IMAGE_LEVEL: u8 = PART_LEVEL + 1;
/// First level of unknown values in the blocks of a tool's result, which have two levels each.
const INNER_LEVEL: u8 = PART_LEVEL + 2;
/// First level of unknown values in the system field.
const SYSTEM_LEVEL: u8 = 64;

/// Claude Code begins its system text with a block that differs in every request and that no model sees. The block begins
/// with this.
const BILLING: &[u8] = b"x-anthropic-billing-header";

/// Identifies a value in a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentNode {
    /// A member that all blocks have.
    Block(block::BlockNode),
    /// The identifier of a tool call.
    Id,
    /// The name of the called tool.
    Name,
    /// The input of a tool call, which is added as it stands.
    Input,
    /// The result of a tool.
    Result,
    /// A value in a block of a tool's result.
    Inner(block::BlockNode),
}

/// Reads the parts of a message.
#[derive(Debug, Default)]
pub struct MessagesPart {
    block: ContentBlock,
    id: Draft,
    name: Draft,
    input: Draft,
    input_seen: bool,
    inner: ContentBlock,
    /// Twice the number of the current block of a tool's result.
    inners: u8,
    /// The texts of a tool's result, joined by line breaks. Its images follow them.
    result: Draft,
    result_seen: bool,
    texts: usize,
    images: Draft,
}

impl MessagesPart {
    fn begin_member(&mut self, key: &[u8], kind: ValueKind) -> Want<ContentNode> {
        let fits = |kind: BlockType| self.block.kind().is_none_or(|own| own == kind);
        let (call, result) = (fits(BlockType::ToolUse), fits(BlockType::ToolResult));
        match (key, kind) {
            (b"id", ValueKind::String) if call && self.id.is_empty() => {
                Want::Inside(ContentNode::Id)
            }
            (b"name", ValueKind::String) if call && self.name.is_empty() => {
                Want::Inside(ContentNode::Name)
            }
            (b"input", _) if call && !self.input_seen => {
                self.input_seen = true;
                Want::Raw(ContentNode::Input)
            }
            (b"content", ValueKind::String | ValueKind::Array) if result && !self.result_seen => {
                self.result_seen = true;
                Want::Inside(ContentNode::Result)
            }
            _ => Want::Nothing,
        }
    }

    /// Ends a block of a tool's result.
    fn end_inner(&mut self, out: &mut PromptSink<'_>) {
        let room = out.prompts.room();
        let kind = self.inner.kind();
        match kind {
            Some(BlockType::Text) => {
                if self.texts > 0 {
                    self.result.text(b"\n", room);
                }
                self.texts += 1;
                let text = self.inner.text().map_or(&[][..], |text| text.bytes());
                self.result.text(text, room);
            }
            Some(BlockType::Image) => {
                if let Some(image) = self.inner.image() {
                    self.images.media(image);
                }
            }
            _ => {}
        }
        let known = matches!(kind, Some(BlockType::Text | BlockType::Image));
        let level = self.level(ContentNode::Inner(block::BlockNode::Whole));
        if kind == Some(BlockType::Text) && !self.images.is_empty() {
            // Images follow all texts, so that only this mark shows that an image preceded the text.
            out.extra(level, b"", b"");
        }
        self.inner.write_rest(known, level, out);
    }

    fn flatten(&mut self, out: &mut PromptSink<'_>) {
        let kind = self.block.kind();
        match kind {
            Some(BlockType::Text | BlockType::Thinking) => {
                if let Some(text) = self.block.text() {
                    text.write_to(out);
                }
            }
            Some(BlockType::Image) => {
                if let Some(media) = self.block.image() {
                    out.media(media);
                }
            }
            Some(BlockType::ToolUse) => {
                self.id.write_to(out);
                self.name.write_to(out);
                self.input.write_to(out);
            }
            Some(BlockType::ToolResult) => {
                self.result.write_to(out);
                self.images.write_to(out);
            }
            _ => {}
        }
        let known = kind.is_some_and(|kind| kind != BlockType::Other);
        self.block.write_rest(known, PART_LEVEL, out);
        // The remaining drafts were read before the type was known and do not belong to it.
        let drafts = [
            &mut self.id,
            &mut self.name,
            &mut self.input,
            &mut self.result,
            &mut self.images,
        ];
        for (number, draft) in (0..).zip(drafts) {
            if !draft.is_empty() {
                out.begin_extra(PART_LEVEL, &[number], ValueKind::String);
                draft.write_to(out);
                out.end_extra();
            }
        }
    }
}

impl ContentPart for MessagesPart {
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

    fn begin(&mut self, parent: ContentNode, key: &[u8], kind: ValueKind) -> Want<ContentNode> {
        match (parent, kind) {
            (ContentNode::Block(parent), _) => match self.block.begin(parent, key, kind) {
                Want::Inside(place) => Want::Inside(ContentNode::Block(place)),
                _ if parent == block::BlockNode::Whole => self.begin_member(key, kind),
                _ => Want::Nothing,
            },
            (ContentNode::Result, _) => {
                self.inners = self.inners.wrapping_add(2);
                match kind {
                    ValueKind::Object => Want::Inside(ContentNode::Inner(self.inner.start(true))),
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
        let inner = INNER_LEVEL.wrapping_add(self.inners);
        match parent {
            ContentNode::Block(block::BlockNode::Source) => IMAGE_LEVEL,
            ContentNode::Inner(block::BlockNode::Source) => inner.wrapping_add(1),
            ContentNode::Inner(_) | ContentNode::Result => inner,
            _ => PART_LEVEL,
        }
    }

    fn bytes(&mut self, place: ContentNode, bytes: &[u8], out: &mut PromptSink<'_>) -> bool {
        let room = out.prompts.room();
        match place {
            ContentNode::Block(block::BlockNode::Text) if self.block.is_text_settled() => {
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

    fn end(&mut self, place: ContentNode, out: &mut PromptSink<'_>) {
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

/// Identifies a value in the system field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SystemNode {
    /// The field.
    Whole,
    /// A value in one of the field's blocks.
    Block(block::BlockNode),
    /// A value that the flattening does not read.
    Extra(extra::ExtraNode),
}

/// Reads the system field: a text, or blocks.
#[derive(Debug, Default)]
pub struct System {
    block: ContentBlock,
    /// The number of the current block.
    blocks: u8,
}

impl System {
    /// Begins another body, and keeps the memory.
    pub fn reset(&mut self) {
        self.block.start(false);
        self.blocks = 0;
    }

    /// Returns the allocated memory in bytes.
    pub fn allocated(&self) -> usize {
        self.block.allocated()
    }

    /// Begins a value in the field.
    pub fn begin(
        &mut self,
        parent: SystemNode,
        key: &[u8],
        kind: ValueKind,
        prompts: &mut Prompts,
    ) -> Want<SystemNode> {
        let level = match (parent, kind) {
            (SystemNode::Whole, _) => {
                self.blocks = self.blocks.wrapping_add(1);
                if kind == ValueKind::Object {
                    return Want::Inside(SystemNode::Block(self.block.start(false)));
                }
                SYSTEM_LEVEL
            }
            (SystemNode::Block(parent), _) => match self.block.begin(parent, key, kind) {
                Want::Inside(place) => return Want::Inside(SystemNode::Block(place)),
                _ if key == CACHE_CONTROL => return Want::Nothing,
                _ => SYSTEM_LEVEL + 1 + u8::from(parent == block::BlockNode::Source),
            },
            (SystemNode::Extra(_), _) => {
                let place = extra::begin(key, kind, &mut |bytes| prompts.text(bytes));
                return Want::Inside(SystemNode::Extra(place));
            }
        };
        let place = self.out(prompts).begin_extra(level, key, kind);
        Want::Inside(SystemNode::Extra(place))
    }

    fn out<'a>(&self, prompts: &'a mut Prompts) -> PromptSink<'a> {
        let (draft, at) = (None, [self.blocks, 0]);
        PromptSink { prompts, draft, at }
    }

    /// Adds bytes of a value. Returns whether more are wanted.
    pub fn bytes(&mut self, place: SystemNode, bytes: &[u8], prompts: &mut Prompts) -> bool {
        match place {
            SystemNode::Whole | SystemNode::Extra(_) => prompts.text(bytes),
            SystemNode::Block(place) => {
                // Otherwise a billing header at the window's end would not be recognised.
                let room = prompts.room().max(BILLING.len());
                self.block.bytes(place, bytes, room)
            }
        }
    }

    /// Ends a value.
    pub fn end(&mut self, place: SystemNode, prompts: &mut Prompts) {
        let mut out = self.out(prompts);
        match place {
            SystemNode::Whole => {}
            SystemNode::Extra(_) => out.end_extra(),
            SystemNode::Block(block::BlockNode::Whole) => {
                let is_text = self.block.kind() == Some(BlockType::Text);
                let text = self.block.text().filter(|_| is_text);
                if let Some(text) = text.filter(|text| !text.bytes().starts_with(BILLING)) {
                    text.write_to(&mut out);
                }
                self.block.write_rest(is_text, SYSTEM_LEVEL + 1, &mut out);
            }
            SystemNode::Block(place) => self.block.end(place),
        }
    }
}
