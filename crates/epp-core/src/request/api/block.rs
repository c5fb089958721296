//! What Anthropic's content blocks have in common: a type, a text or thought, an image.
//!
//! What a block holds that its type does not ask for counts by its bytes.

use crate::request::media::MediaSum;
use crate::request::prompt::{Draft, Media, Out};
use crate::request::scan::{Kind, Want};

/// What a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// Text.
    Text,
    /// An image.
    Image,
    /// What a model thought.
    Thinking,
    /// A call of a tool.
    ToolUse,
    /// What a tool answered.
    ToolResult,
    /// Something else.
    Other,
}

/// A place in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockNode {
    /// The block.
    Whole,
    /// Its type.
    Type,
    /// Its text or thought.
    Text,
    /// Where its image comes from.
    Source,
    /// How the image is given.
    SourceType,
    /// The image's media type.
    MediaType,
    /// The image.
    Data,
    /// The image's address.
    Url,
}

/// Bytes of a name that are looked at: the longest type that means anything has 11, a media type
/// of an image hardly more. Longer ones are folded.
const NAME_BYTES: usize = 64;

/// What an image without a media type is taken for.
const USUAL_MEDIA_TYPE: &[u8] = b"image/jpeg";

/// Reads a block.
#[derive(Debug, Default)]
pub struct Block {
    name: Draft,
    kind: Option<Type>,
    text: Draft,
    /// Which of the two texts was there, if its type was not known yet.
    text_kind: Option<Type>,
    media_type: Draft,
    source_type: Draft,
    sum: MediaSum,
    has_url: bool,
    /// The hash of an image's data that an address takes the place of.
    replaced: Option<u64>,
    /// Whether an image's data counts as the data URI made of it. That is so inside tool results,
    /// and not elsewhere.
    as_uri: bool,
}

impl Block {
    /// A block begins; this is its place.
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

    /// Returns the bytes of memory that it has allocated.
    pub fn allocated(&self) -> usize {
        let drafts = [&self.name, &self.text, &self.media_type, &self.source_type];
        drafts.into_iter().map(Draft::allocated).sum()
    }

    /// Its type, once that was read.
    pub fn kind(&self) -> Option<Type> {
        self.kind
    }

    /// Its text, held, if it is of the block's type.
    pub fn text(&mut self) -> Option<&mut Draft> {
        (self.kind == self.text_kind).then_some(&mut self.text)
    }

    /// The block has ended: hands over what its type does not ask for. `known`: whether its type means
    /// anything where it stands.
    pub fn give_rest(&mut self, known: bool, level: u8, out: &mut Out<'_>) {
        if !known {
            let key: &[u8] = if self.kind.is_some() { b"type" } else { b"" };
            out.extra(level, key, self.name.bytes());
        }
        let kind = self.kind.filter(|_| known);
        if let Some(text) = self.text_kind.filter(|text| kind != Some(*text)) {
            out.begin_extra(level, &[text as u8], Kind::String);
            self.text.give(out);
            out.end_extra();
        }
        if !self.sum.is_empty() && kind != Some(Type::Image) {
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

    /// Whether the text that is being read surely counts.
    pub fn goes_on_at_once(&self) -> bool {
        self.kind.is_some() && self.kind == self.text_kind
    }

    /// Its image.
    pub fn image(&self) -> Option<Media> {
        (!self.sum.is_empty()).then(|| self.sum.as_image())
    }

    /// A value begins.
    pub fn begin(&mut self, parent: BlockNode, key: &[u8], kind: Kind) -> Want<BlockNode> {
        let fits = |kind: Type| self.kind.is_none_or(|own| own == kind);
        match (parent, key, kind) {
            (BlockNode::Whole, b"type", Kind::String) if self.kind.is_none() => {
                Want::Inside(BlockNode::Type)
            }
            (BlockNode::Whole, b"text", Kind::String) if fits(Type::Text) => {
                self.begin_text(Type::Text)
            }
            (BlockNode::Whole, b"thinking", Kind::String) if fits(Type::Thinking) => {
                self.begin_text(Type::Thinking)
            }
            (BlockNode::Whole, b"source", Kind::Object)
                if fits(Type::Image) && self.sum.is_empty() =>
            {
                Want::Inside(BlockNode::Source)
            }
            (BlockNode::Source, b"type", Kind::String) if self.source_type.bytes().is_empty() => {
                Want::Inside(BlockNode::SourceType)
            }
            (BlockNode::Source, b"media_type", Kind::String)
                if self.media_type.bytes().is_empty() =>
            {
                Want::Inside(BlockNode::MediaType)
            }
            (BlockNode::Source, b"data", Kind::String) if self.sum.is_empty() => {
                Want::Inside(BlockNode::Data)
            }
            (BlockNode::Source, b"url", Kind::String) if !self.has_url => {
                Want::Inside(BlockNode::Url)
            }
            _ => Want::Nothing,
        }
    }

    fn begin_text(&mut self, kind: Type) -> Want<BlockNode> {
        if self.text_kind.is_some() {
            return Want::Nothing;
        }
        self.text_kind = Some(kind);
        Want::Inside(BlockNode::Text)
    }

    /// More of a value, of which there is room for so much. Whether more is wanted.
    pub fn bytes(&mut self, place: BlockNode, bytes: &[u8], room: usize) -> bool {
        match place {
            BlockNode::Type => self.name.name(bytes, NAME_BYTES),
            BlockNode::SourceType => self.source_type.name(bytes, NAME_BYTES),
            BlockNode::Text => self.text.text(bytes, room),
            BlockNode::MediaType => self.media_type.name(bytes, NAME_BYTES),
            BlockNode::Url => {
                // An address goes before data.
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
            b"" => USUAL_MEDIA_TYPE,
            named => named,
        };
        self.sum = MediaSum::url();
        for piece in [b"data:", media_type, b";base64,"] {
            self.sum.update(piece);
        }
    }

    /// A value has ended.
    pub fn end(&mut self, place: BlockNode) {
        if place == BlockNode::Type {
            self.kind = Some(match self.name.bytes() {
                b"text" => Type::Text,
                b"image" => Type::Image,
                b"thinking" => Type::Thinking,
                b"tool_use" => Type::ToolUse,
                b"tool_result" => Type::ToolResult,
                _ => Type::Other,
            });
        }
    }
}
