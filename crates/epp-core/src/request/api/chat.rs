//! OpenAI chat completions: the tools, then the role and the content of each message.

use super::{max_tokens, Field, MODEL, SALT, STREAM};
use crate::request::media::MediaSum;
use crate::request::message::{ContentPart, PART_LEVEL};
use crate::request::prompt::{Draft, PromptSink};
use crate::request::scan::{ValueKind, Want};

/// The fields that are read of a body.
pub const FIELDS: &[(&[u8], Field)] = &[
    MODEL,
    SALT,
    STREAM,
    max_tokens(b"max_tokens", 0),
    max_tokens(b"max_completion_tokens", 1),
    (b"tools", Field::Tools),
    (b"messages", Field::Turns),
];

/// The type of a part of a message's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PartType {
    Text,
    Image,
    Video,
    Audio,
    Other,
}

/// Identifies a value in a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChatNode {
    /// The part.
    Whole,
    /// The part's type.
    Type,
    /// The part's text.
    Text,
    /// The object with the part's image, video or sound.
    Media,
    /// The URL of the media.
    Url,
    /// The data of a sound.
    Data,
    /// The sound's format.
    Format,
}

/// Reads the parts of a message. Text goes to the prompt immediately if the part's type is known, which nearly every client
/// sends first; otherwise it is drafted.
#[derive(Debug, Default)]
pub struct ChatPart {
    name: Draft,
    kind: Option<PartType>,
    text: Draft,
    text_seen: bool,
    /// The type of the part's media, whatever the part's type is.
    media: Option<PartType>,
    sum: MediaSum,
    format: Draft,
}

/// Bytes of a type's name that are compared; the longest known one has 11. Longer names are folded.
const TYPE_BYTES: usize = 16;

impl ChatPart {
    fn begin_member(&mut self, key: &[u8], kind: ValueKind) -> Want<ChatNode> {
        let fits = |kind: PartType| self.kind.is_none_or(|own| own == kind);
        let media = match (key, kind) {
            (b"type", ValueKind::String) if self.kind.is_none() => {
                return Want::Inside(ChatNode::Type)
            }
            (b"text", ValueKind::String) if fits(PartType::Text) && !self.text_seen => {
                self.text_seen = true;
                return Want::Inside(ChatNode::Text);
            }
            (b"image_url", ValueKind::Object) => PartType::Image,
            (b"video_url", ValueKind::Object) => PartType::Video,
            (b"input_audio", ValueKind::Object) => PartType::Audio,
            _ => return Want::Nothing,
        };
        if !fits(media) || self.media.is_some() {
            return Want::Nothing;
        }
        self.media = Some(media);
        Want::Inside(ChatNode::Media)
    }

    /// Writes the member that belongs to the part's type, then the others.
    fn end_part(&mut self, out: &mut PromptSink<'_>) {
        self.sum.update(self.format.bytes());
        if self.media.is_some() && self.media != self.kind {
            let mut sum = std::mem::take(&mut self.sum);
            sum.update(&[self.media.map_or(0, |kind| kind as u8)]);
            out.extra(PART_LEVEL, b"media", &sum.digest().to_le_bytes());
        }
        match self.kind {
            Some(PartType::Text) => return self.text.write_to(out),
            Some(PartType::Image) => out.media(self.sum.as_image()),
            Some(PartType::Video) => out.media(self.sum.as_video()),
            Some(PartType::Audio) => out.media(self.sum.as_audio()),
            Some(PartType::Other) => {}
            None => out.extra(PART_LEVEL, b"", b""),
        }
        if self.text_seen {
            out.begin_extra(PART_LEVEL, b"text", ValueKind::String);
            self.text.write_to(out);
            out.end_extra();
        }
    }
}

impl ContentPart for ChatPart {
    type Node = ChatNode;

    fn start(&mut self) -> ChatNode {
        self.name.clear();
        self.kind = None;
        self.text.clear();
        self.text_seen = false;
        self.media = None;
        self.sum = MediaSum::default();
        self.format.clear();
        ChatNode::Whole
    }

    fn begin(&mut self, parent: ChatNode, key: &[u8], kind: ValueKind) -> Want<ChatNode> {
        match (parent, self.media, key, kind) {
            (ChatNode::Whole, ..) => self.begin_member(key, kind),
            (
                ChatNode::Media,
                Some(PartType::Image | PartType::Video),
                b"url",
                ValueKind::String,
            ) if self.sum.is_empty() => {
                self.sum = MediaSum::url();
                Want::Inside(ChatNode::Url)
            }
            (ChatNode::Media, Some(PartType::Audio), b"data", ValueKind::String)
                if self.sum.is_empty() =>
            {
                Want::Inside(ChatNode::Data)
            }
            (ChatNode::Media, Some(PartType::Audio), b"format", ValueKind::String)
                if self.format.bytes().is_empty() =>
            {
                Want::Inside(ChatNode::Format)
            }
            _ => Want::Nothing,
        }
    }

    fn bytes(&mut self, place: ChatNode, bytes: &[u8], out: &mut PromptSink<'_>) -> bool {
        match place {
            ChatNode::Type => self.name.name(bytes, TYPE_BYTES),
            ChatNode::Text if self.kind == Some(PartType::Text) => out.text(bytes),
            ChatNode::Text => self.text.text(bytes, out.prompts.room()),
            ChatNode::Url | ChatNode::Data => {
                self.sum.update(bytes);
                true
            }
            ChatNode::Format => self.format.text(bytes, out.prompts.room()),
            ChatNode::Whole | ChatNode::Media => false,
        }
    }

    fn end(&mut self, place: ChatNode, out: &mut PromptSink<'_>) {
        match (place, self.kind) {
            (ChatNode::Type, _) => {
                self.kind = Some(match self.name.bytes() {
                    b"text" => PartType::Text,
                    b"image_url" => PartType::Image,
                    b"video_url" => PartType::Video,
                    b"input_audio" | b"audio_url" => PartType::Audio,
                    _ => PartType::Other,
                });
                if self.kind == Some(PartType::Other) {
                    out.extra(PART_LEVEL, b"type", self.name.bytes());
                }
            }
            (ChatNode::Whole, _) => self.end_part(out),
            _ => {}
        }
    }

    fn level(&self, parent: ChatNode) -> u8 {
        PART_LEVEL + u8::from(parent != ChatNode::Whole)
    }

    fn allocated(&self) -> usize {
        let drafts = [&self.name, &self.text, &self.format];
        drafts.into_iter().map(Draft::allocated).sum()
    }
}
