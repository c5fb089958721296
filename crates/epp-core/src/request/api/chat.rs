//! OpenAI chat completions: tools, then of each message the role and the content.

use super::{max_tokens, Field, MODEL, SALT, STREAM};
use crate::request::media::MediaSum;
use crate::request::message::{Part, PART};
use crate::request::prompt::{Draft, Out};
use crate::request::scan::{Kind, Want};

/// The fields that are read.
pub const FIELDS: &[(&[u8], Field)] = &[
    MODEL,
    SALT,
    STREAM,
    max_tokens(b"max_tokens", 0),
    max_tokens(b"max_completion_tokens", 1),
    (b"tools", Field::Tools),
    (b"messages", Field::Turns),
];

/// What a part of a message's content is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Text,
    Image,
    Video,
    Audio,
    Other,
}

/// A place in a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChatNode {
    /// The part.
    Whole,
    /// Its type.
    Type,
    /// Its text.
    Text,
    /// The object that holds its image, video or sound.
    Media,
    /// The URL in there.
    Url,
    /// The sound in there.
    Data,
    /// The sound's format.
    Format,
}

/// Reads the parts of a message. Text goes on at once if the type is known, which comes first
/// from nearly every client; else it is held.
#[derive(Debug, Default)]
pub struct ChatPart {
    name: Draft,
    kind: Option<Type>,
    text: Draft,
    text_seen: bool,
    /// What kind of media there is in the part, whatever its type says.
    media: Option<Type>,
    sum: MediaSum,
    format: Draft,
}

/// Bytes of a type's name that are looked at; the longest that means anything has 11. Longer ones are
/// folded.
const TYPE_BYTES: usize = 16;

impl ChatPart {
    fn begin_member(&mut self, key: &[u8], kind: Kind) -> Want<ChatNode> {
        let fits = |kind: Type| self.kind.is_none_or(|own| own == kind);
        let media = match (key, kind) {
            (b"type", Kind::String) if self.kind.is_none() => return Want::Inside(ChatNode::Type),
            (b"text", Kind::String) if fits(Type::Text) && !self.text_seen => {
                self.text_seen = true;
                return Want::Inside(ChatNode::Text);
            }
            (b"image_url", Kind::Object) => Type::Image,
            (b"video_url", Kind::Object) => Type::Video,
            (b"input_audio", Kind::Object) => Type::Audio,
            _ => return Want::Nothing,
        };
        if !fits(media) || self.media.is_some() {
            return Want::Nothing;
        }
        self.media = Some(media);
        Want::Inside(ChatNode::Media)
    }

    /// The part as its type asks for it, then what is in it besides.
    fn end_part(&mut self, out: &mut Out<'_>) {
        self.sum.update(self.format.bytes());
        if self.media.is_some() && self.media != self.kind {
            let mut sum = std::mem::take(&mut self.sum);
            sum.update(&[self.media.map_or(0, |kind| kind as u8)]);
            out.extra(PART, b"media", &sum.digest().to_le_bytes());
        }
        match self.kind {
            Some(Type::Text) => return self.text.give(out),
            Some(Type::Image) => out.media(self.sum.as_image()),
            Some(Type::Video) => out.media(self.sum.as_video()),
            Some(Type::Audio) => out.media(self.sum.as_audio()),
            Some(Type::Other) => {}
            None => out.extra(PART, b"", b""),
        }
        if self.text_seen {
            out.begin_extra(PART, b"text", Kind::String);
            self.text.give(out);
            out.end_extra();
        }
    }
}

impl Part for ChatPart {
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

    fn begin(&mut self, parent: ChatNode, key: &[u8], kind: Kind) -> Want<ChatNode> {
        match (parent, self.media, key, kind) {
            (ChatNode::Whole, ..) => self.begin_member(key, kind),
            (ChatNode::Media, Some(Type::Image | Type::Video), b"url", Kind::String)
                if self.sum.is_empty() =>
            {
                self.sum = MediaSum::url();
                Want::Inside(ChatNode::Url)
            }
            (ChatNode::Media, Some(Type::Audio), b"data", Kind::String) if self.sum.is_empty() => {
                Want::Inside(ChatNode::Data)
            }
            (ChatNode::Media, Some(Type::Audio), b"format", Kind::String)
                if self.format.bytes().is_empty() =>
            {
                Want::Inside(ChatNode::Format)
            }
            _ => Want::Nothing,
        }
    }

    fn bytes(&mut self, place: ChatNode, bytes: &[u8], out: &mut Out<'_>) -> bool {
        match place {
            ChatNode::Type => self.name.name(bytes, TYPE_BYTES),
            ChatNode::Text if self.kind == Some(Type::Text) => out.text(bytes),
            ChatNode::Text => self.text.text(bytes, out.prompts.room()),
            ChatNode::Url | ChatNode::Data => {
                self.sum.update(bytes);
                true
            }
            ChatNode::Format => self.format.text(bytes, out.prompts.room()),
            ChatNode::Whole | ChatNode::Media => false,
        }
    }

    fn end(&mut self, place: ChatNode, out: &mut Out<'_>) {
        match (place, self.kind) {
            (ChatNode::Type, _) => {
                self.kind = Some(match self.name.bytes() {
                    b"text" => Type::Text,
                    b"image_url" => Type::Image,
                    b"video_url" => Type::Video,
                    b"input_audio" | b"audio_url" => Type::Audio,
                    _ => Type::Other,
                });
                if self.kind == Some(Type::Other) {
                    out.extra(PART, b"type", self.name.bytes());
                }
            }
            (ChatNode::Whole, _) => self.end_part(out),
            _ => {}
        }
    }

    fn level(&self, parent: ChatNode) -> u8 {
        PART + u8::from(parent != ChatNode::Whole)
    }

    fn allocated(&self) -> usize {
        let drafts = [&self.name, &self.text, &self.format];
        drafts.into_iter().map(Draft::allocated).sum()
    }
}
