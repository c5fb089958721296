//! Reads the messages of a conversation: of each the role, then the content, in whichever order they come, and other
//! members where they stand.

use super::extra::{self, CACHE_CONTROL};
use super::prompt::{Draft, PromptSink, Prompts};
use super::scan::{ValueKind, Want};
use super::Flattening;

/// Identifies a value in a list of messages; `P` identifies one in a part of a message's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageNode<P> {
    /// The list.
    List,
    /// A message.
    Message,
    /// The role of a message.
    Role,
    /// The content of a message, if it is a text.
    Content,
    /// The content of a message, if it is a list of parts.
    Parts,
    /// A value in a part.
    Part(P),
    /// A value that the flattening does not read.
    Extra(extra::ExtraNode),
}

/// Level of unknown values in the list of messages.
const LIST_LEVEL: u8 = 1;
/// Level of unknown values in a message.
const MESSAGE_LEVEL: u8 = 2;
/// Level of unknown values in the list of a message's parts.
const PARTS_LEVEL: u8 = 3;

/// The first level of unknown values in a part, see [`ContentPart::level`].
pub const PART_LEVEL: u8 = 4;

/// Reads the parts of a message's content, one after the other.
pub trait ContentPart: Default {
    /// Identifies a value in a part.
    type Node: Copy;

    /// Begins a part, and returns its node.
    fn start(&mut self) -> Self::Node;

    /// Begins a value in the part. A value that is not wanted is added to the prompt as it stands.
    fn begin(&mut self, parent: Self::Node, key: &[u8], kind: ValueKind) -> Want<Self::Node>;

    /// Returns the level of a container in the part: a distinct number, at least [`PART_LEVEL`].
    fn level(&self, parent: Self::Node) -> u8;

    /// Adds bytes of a value in the part. Returns whether more are wanted.
    fn bytes(&mut self, place: Self::Node, bytes: &[u8], out: &mut PromptSink<'_>) -> bool;

    /// Ends a value in the part, or the part.
    fn end(&mut self, place: Self::Node, out: &mut PromptSink<'_>);

    /// Returns the allocated memory in bytes.
    fn allocated(&self) -> usize;
}

/// Reads messages. Members before a message's role are kept in a draft until the role is known, as far as they fit into
/// the prompt window.
#[derive(Debug, Default)]
pub struct Messages<P> {
    flattening: Flattening,
    role: Draft,
    draft: Draft,
    part: P,
    role_state: MemberState,
    content_state: MemberState,
    /// Whether the role of the current message is in the prompt.
    headed: bool,
    /// The number of the current message and of its current part, which identify the container of unknown values.
    at: [u8; 2],
}

/// Whether a member of a message was read.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum MemberState {
    #[default]
    Missing,
    /// The member has an unexpected kind: it is not a text (or a list of parts for the content), or an empty role.
    Unexpected,
    Read,
}

impl<P: ContentPart> Messages<P> {
    /// Begins another body, and keeps the memory.
    pub fn reset(&mut self, flattening: Flattening) {
        self.flattening = flattening;
        self.role.clear();
        self.draft.clear();
        self.part.start();
        self.headed = true;
        self.at = [0; 2];
    }

    /// Returns the allocated memory in bytes.
    pub fn allocated(&self) -> usize {
        self.role.allocated() + self.draft.allocated() + self.part.allocated()
    }

    /// Begins a value.
    pub fn begin(
        &mut self,
        parent: MessageNode<P::Node>,
        key: &[u8],
        kind: ValueKind,
        prompts: &mut Prompts,
    ) -> Want<MessageNode<P::Node>> {
        if prompts.is_full() {
            return Want::Nothing;
        }
        match parent {
            MessageNode::List => {
                let [message, part] = &mut self.at;
                *message = message.wrapping_add(1);
                *part = 0;
                if kind == ValueKind::Object {
                    self.begin_message();
                    return Want::Inside(MessageNode::Message);
                }
                self.begin_extra(LIST_LEVEL, key, kind, prompts)
            }
            MessageNode::Message => self.begin_member(key, kind, prompts),
            MessageNode::Parts => {
                let [_, part] = &mut self.at;
                *part = part.wrapping_add(1);
                if kind == ValueKind::Object {
                    return Want::Inside(MessageNode::Part(self.part.start()));
                }
                self.begin_extra(PARTS_LEVEL, key, kind, prompts)
            }
            MessageNode::Part(parent) => match self.part.begin(parent, key, kind) {
                Want::Nothing => self.begin_extra(self.part.level(parent), key, kind, prompts),
                Want::Inside(place) => Want::Inside(MessageNode::Part(place)),
                Want::Raw(place) => Want::Raw(MessageNode::Part(place)),
            },
            MessageNode::Extra(_) => {
                let mut out = self.sink(prompts);
                let place = extra::begin(key, kind, &mut |bytes| out.text(bytes));
                Want::Inside(MessageNode::Extra(place))
            }
            MessageNode::Role | MessageNode::Content => Want::Nothing,
        }
    }

    /// Begins a member of a message.
    fn begin_member(
        &mut self,
        key: &[u8],
        kind: ValueKind,
        prompts: &mut Prompts,
    ) -> Want<MessageNode<P::Node>> {
        if kind == ValueKind::Null && matches!(key, b"role" | b"content") {
            return Want::Nothing;
        }
        if key == b"role" && self.role_state == MemberState::Missing {
            if kind == ValueKind::String {
                self.role_state = MemberState::Read;
                return Want::Inside(MessageNode::Role);
            }
            self.role_state = MemberState::Unexpected;
        }
        if self.role_state != MemberState::Missing {
            self.write_head(prompts);
        }
        match self.content(key, kind) {
            Some(place) => Want::Inside(place),
            None => self.begin_extra(MESSAGE_LEVEL, key, kind, prompts),
        }
    }

    /// Begins a value that is read only because it tells prompts apart.
    fn begin_extra(
        &mut self,
        level: u8,
        key: &[u8],
        kind: ValueKind,
        prompts: &mut Prompts,
    ) -> Want<MessageNode<P::Node>> {
        if key == CACHE_CONTROL {
            return Want::Nothing;
        }
        let place = self.sink(prompts).begin_extra(level, key, kind);
        Want::Inside(MessageNode::Extra(place))
    }

    fn begin_message(&mut self) {
        self.role.clear();
        self.draft.clear();
        self.role_state = MemberState::Missing;
        self.content_state = MemberState::Missing;
        self.headed = false;
    }

    /// Returns the node of a member if it is the content.
    fn content(&mut self, key: &[u8], kind: ValueKind) -> Option<MessageNode<P::Node>> {
        if key != b"content" || self.content_state != MemberState::Missing {
            return None;
        }
        let place = match kind {
            ValueKind::String => Some(MessageNode::Content),
            ValueKind::Array => Some(MessageNode::Parts),
            _ => None,
        };
        self.content_state = match place {
            Some(_) => MemberState::Read,
            None => MemberState::Unexpected,
        };
        place
    }

    /// Returns where text behind the role goes: into the prompt, or into the draft until the role is known.
    fn sink<'a>(&'a mut self, prompts: &'a mut Prompts) -> PromptSink<'a> {
        PromptSink {
            prompts,
            draft: (!self.headed).then_some(&mut self.draft),
            at: self.at,
        }
    }

    /// Adds bytes of a value. Returns whether more are wanted.
    pub fn bytes(
        &mut self,
        place: MessageNode<P::Node>,
        bytes: &[u8],
        prompts: &mut Prompts,
    ) -> bool {
        if let MessageNode::Role = place {
            return self.role.text(bytes, prompts.room());
        }
        let mut out = PromptSink {
            prompts,
            draft: (!self.headed).then_some(&mut self.draft),
            at: self.at,
        };
        match place {
            MessageNode::Content | MessageNode::Extra(_) => out.text(bytes),
            MessageNode::Part(place) => self.part.bytes(place, bytes, &mut out),
            MessageNode::List | MessageNode::Message | MessageNode::Role | MessageNode::Parts => {
                false
            }
        }
    }

    /// Ends a value.
    pub fn end(&mut self, place: MessageNode<P::Node>, prompts: &mut Prompts) {
        match place {
            MessageNode::Part(place) => {
                let mut out = PromptSink {
                    prompts,
                    draft: (!self.headed).then_some(&mut self.draft),
                    at: self.at,
                };
                self.part.end(place, &mut out);
            }
            MessageNode::Extra(_) => self.sink(prompts).end_extra(),
            MessageNode::Role if self.role.is_empty() => self.role_state = MemberState::Unexpected,
            MessageNode::Message => self.end_message(prompts),
            MessageNode::List | MessageNode::Role | MessageNode::Content | MessageNode::Parts => {}
        }
    }

    fn end_message(&mut self, prompts: &mut Prompts) {
        self.write_head(prompts);
        let states = [self.role_state, self.content_state];
        if states != [MemberState::Read; 2] {
            // Without this mark the prompt would not show that the message is there, or where it ends.
            let states = states.map(|state| state as u8);
            self.sink(prompts).extra(MESSAGE_LEVEL, b"", &states);
        }
        if self.flattening == Flattening::GieV1 {
            prompts.text(b"<|im_end|>\n");
        }
    }

    /// Writes the role and the draft into the prompt, unless they are there.
    fn write_head(&mut self, prompts: &mut Prompts) {
        if std::mem::replace(&mut self.headed, true) {
            return;
        }
        let gie_v1 = self.flattening == Flattening::GieV1;
        if gie_v1 {
            prompts.text(b"<|im_start|>");
        }
        self.role.write_to(&mut PromptSink::prompt(prompts));
        if gie_v1 {
            prompts.text(b"\n");
        }
        self.draft.write_to(&mut PromptSink::prompt(prompts));
    }
}
