//! Reads the members that Anthropic's content blocks have in common: a type, a text or thought, an image.
//!
//! Members that do not belong to the block's type are added to the prompt as they stand.

use crate::request::media::MediaSum;
use crate::request::prompt::{Draft, Media, PromptSink};
use crate::request::scan::{ValueKind, Want};

/// The type of a content block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockType {
    /// Text.
    Text,
    /// An image.
    Image,
    /// The reasoning of a model.
    Thinking,
    /// A call of a tool.
    ToolUse,
    /// The result of a tool.
    ToolResult,
    /// Something else.
    Other,
}

/// Identifies a value in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockNode {
    /// The block.
    Whole,
    /// The block's type.
    Type,
    /// The block's text or thought.
    Text,
    /// The source of the block's image.
    Source,
    /// The type of the source.
    SourceType,
    /// The image's media type.
    MediaType,
    /// The image.
    Data,
    /// The image's address.
    Url,
}

/// Bytes of a name that are compared: the longest known type has 11, and media types of images hardly more. Longer names
/// are folded.
const NAME_BYTES: usize = 64;

/// The assumed media type of an image without one.
const DEFAULT_MEDIA_TYPE: &[u8] = b"image/jpeg";

/// Reads a content block.
#[derive(Debug, Default)]
pub struct ContentBlock {
    name: Draft,
    kind: Option<BlockType>,
    text: Draft,
    /// The kind of the text that was read; the block's type may follow it.
    text_kind: Option<BlockType>,
    media_type: Draft,
    source_type: Draft,
    sum: MediaSum,
    has_url: bool,
    /// The hash of an image's data that was replaced by a URL.
    replaced: Option<u64>,
    /// Whether an image's data is hashed as a data URI, as is the case only in tool results.
    as_uri: bool,
}

impl ContentBlock {
    /// Begins a block, and returns its node.
    pub fn start(&mut self, as_uri: bool) -> BlockNode {
        self.name.clear();
        self.kind = None;
        self.text.clear();
        self.text_kind = None;
        self.media_type.clear();
        self.source_type.clear();
        self.sum = MediaSum::default();
        self.has_url = false;
        self.replaced = None;
        self.as_uri = as_uri;
        BlockNode::Whole
    }

    /// Returns the allocated memory in bytes.
    pub fn allocated(&self) -> usize {
        let drafts = [&self.name, &self.text, &self.media_type, &self.source_type];
        drafts.into_iter().map(Draft::allocated).sum()
    }

    /// Returns the block's type, once it was read.
    pub fn kind(&self) -> Option<BlockType> {
        self.kind
    }

    /// Returns the draft of the text, if the text belongs to the block's type.
    pub fn text(&mut self) -> Option<&mut Draft> {
        (self.kind == self.text_kind).then_some(&mut self.text)
    }

    /// Ends the block: writes the members that do not belong to its type. `known`: whether the type is valid in this
    /// container.
    pub fn write_rest(&mut self, known: bool, level: u8, out: &mut PromptSink<'_>) {
        if !known {
            let key: &[u8] = if self.kind.is_some() { b"type" } else { b"" };
            out.extra(level, key, self.name.bytes());
        }
        let kind = self.kind.filter(|_| known);
        if let Some(text) = self.text_kind.filter(|text| kind != Some(*text)) {
            out.begin_extra(level, &[text as u8], ValueKind::String);
            self.text.write_to(out);
            out.end_extra();
        }
        if !self.sum.is_empty() && kind != Some(BlockType::Image) {
            let digest = self.sum.digest();
            out.extra(level, b"source", &digest.to_le_bytes());
        }
        if let Some(digest) = self.replaced {
            out.extra(level, b"data", &digest.to_le_bytes());
        }
        if !matches!(self.source_type.bytes(), b"" | b"base64" | b"url") {
            out.extra(level, b"source_type", self.source_type.bytes());
        }
        let media_type = self.media_type.bytes();
        if !media_type.is_empty() && !media_type.starts_with(b"image/") {
            out.extra(level, b"media_type", media_type);
        }
    }

    /// Returns whether the current text belongs to the block's type, so that it need not be drafted.
    pub fn is_text_settled(&self) -> bool {
        self.kind.is_some() && self.kind == self.text_kind
    }

    /// Returns the block's image.
    pub fn image(&self) -> Option<Media> {
        (!self.sum.is_empty()).then(|| self.sum.as_image())
    }

    /// Begins a value.
    pub fn begin(&mut self, parent: BlockNode, key: &[u8], kind: ValueKind) -> Want<BlockNode> {
        let fits = |kind: BlockType| self.kind.is_none_or(|own| own == kind);
        match (parent, key, kind) {
            (BlockNode::Whole, b"type", ValueKind::String) if self.kind.is_none() => {
                Want::Inside(BlockNode::Type)
            }
            (BlockNode::Whole, b"text", ValueKind::String) if fits(BlockType::Text) => {
                self.begin_text(BlockType::Text)
            }
            (BlockNode::Whole, b"thinking", ValueKind::String) if fits(BlockType::Thinking) => {
                self.begin_text(BlockType::Thinking)
            }
            (BlockNode::Whole, b"source", ValueKind::Object)
                if fits(BlockType::Image) && self.sum.is_empty() =>
            {
                Want::Inside(BlockNode::Source)
            }
            (BlockNode::Source, b"type", ValueKind::String)
                if self.source_type.bytes().is_empty() =>
            {
                Want::Inside(BlockNode::SourceType)
            }
            (BlockNode::Source, b"media_type", ValueKind::String)
                if self.media_type.bytes().is_empty() =>
            {
                Want::Inside(BlockNode::MediaType)
            }
            (BlockNode::Source, b"data", ValueKind::String) if self.sum.is_empty() => {
                Want::Inside(BlockNode::Data)
            }
            (BlockNode::Source, b"url", ValueKind::String) if !self.has_url => {
                Want::Inside(BlockNode::Url)
            }
            _ => Want::Nothing,
        }
    }

    fn begin_text(&mut self, kind: BlockType) -> Want<BlockNode> {
        if self.text_kind.is_some() {
            return Want::Nothing;
        }
        self.text_kind = Some(kind);
        Want::Inside(BlockNode::Text)
    }

    /// Adds bytes of a value, up to a length of `room`. Returns whether more are wanted.
    pub fn bytes(&mut self, place: BlockNode, bytes: &[u8], room: usize) -> bool {
        match place {
            BlockNode::Type => self.name.name(bytes, NAME_BYTES),
            BlockNode::SourceType => self.source_type.name(bytes, NAME_BYTES),
            BlockNode::Text => self.text.text(bytes, room),
            BlockNode::MediaType => self.media_type.name(bytes, NAME_BYTES),
            BlockNode::Url => {
                // A URL takes precedence over data.
                if !self.has_url {
                    self.has_url = true;
                    self.replaced = (!self.sum.is_empty()).then(|| self.sum.digest());
                    self.sum = MediaSum::url();
                }
                self.sum.update(bytes);
                true
            }
            BlockNode::Data => {
                if self.sum.is_empty() {
                    self.begin_data();
                }
                self.sum.update(bytes);
                true
            }
            BlockNode::Whole | BlockNode::Source => false,
        }
    }

    fn begin_data(&mut self) {
        if !self.as_uri {
            self.sum = MediaSum::base64();
            return;
        }
        let media_type = match self.media_type.bytes() {
            b"" => DEFAULT_MEDIA_TYPE,
            named => named,
        };
        self.sum = MediaSum::url();
        for piece in [b"data:", media_type, b";base64,"] {
            self.sum.update(piece);
        }
    }

    /// Ends a value.
    pub fn end(&mut self, place: BlockNode) {
        if place == BlockNode::Type {
            self.kind = Some(match self.name.bytes() {
                b"text" => BlockType::Text,
                b"image" => BlockType::Image,
                b"thinking" => BlockType::Thinking,
                b"tool_use" => BlockType::ToolUse,
                b"tool_result" => BlockType::ToolResult,
                _ => BlockType::Other,
            });
        }
    }
}
