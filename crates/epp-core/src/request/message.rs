//! A conversation's messages: of each its role, then its content, in whichever order they come, and
//! whatever else is in it where it stands.

use super::extra::{self, CACHE_CONTROL};
use super::prompt::{Draft, Out, Prompts};
use super::scan::{Kind, Want};
use super::Flattening;

/// A place in a list of messages; `P` one in a part of a message's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageNode<P> {
    /// The list.
    List,
    /// A message.
    Message,
    /// Its role.
    Role,
    /// Its content, if that is a text.
    Content,
    /// Its content, if that is a list of parts.
    Parts,
    /// In a part.
    Part(P),
    /// In a value that the flattening does not read.
    Extra(extra::ExtraNode),
}

/// The levels of what is not known: in the list, in a message, in its content.
const LIST: u8 = 1;
const MESSAGE: u8 = 2;
const PARTS: u8 = 3;

/// The first level of a part's own, see [`Part::level`].
pub const PART: u8 = 4;

/// Reads the parts of a message's content, one after the other.
pub trait Part: Default {
    /// A place in a part.
    type Node: Copy;

    /// A part begins; this is its place.
    fn start(&mut self) -> Self::Node;

    /// A value in it begins. What is not wanted counts by its bytes.
    fn begin(&mut self, parent: Self::Node, key: &[u8], kind: Kind) -> Want<Self::Node>;

    /// Returns a number, at least [`PART`], that is different for each container in it.
    fn level(&self, parent: Self::Node) -> u8;

    /// More of a value in it. Whether more is wanted.
    fn bytes(&mut self, place: Self::Node, bytes: &[u8], out: &mut Out<'_>) -> bool;

    /// A value in it has ended, or the part.
    fn end(&mut self, place: Self::Node, out: &mut Out<'_>);

    /// Returns the bytes of memory that it has allocated.
    fn allocated(&self) -> usize;
}

/// Reads messages. What comes before a message's role is held until that is known, as far as the
/// window reaches.
#[derive(Debug, Default)]
pub struct Messages<P> {
    flattening: Flattening,
    role: Draft,
    draft: Draft,
    part: P,
    role_state: State,
    content_state: State,
    /// Whether what comes before the content is in the prompt.
    headed: bool,
    /// Elements of the list, and parts of the current message's content, so far: they say where
    /// something unknown stands.
    at: [u8; 2],
}

/// How far a member of a message is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Missing,
    /// It was there, but not as a text (or, of a content, as parts), or empty (of a role).
    Odd,
    Read,
}

impl<P: Part> Messages<P> {
    /// Begins another body.
    pub fn reset(&mut self, flattening: Flattening) {
        self.flattening = flattening;
        self.role.clear();
        self.draft.clear();
        self.part.start();
        self.headed = true;
        self.at = [0; 2];
    }

    /// Returns the bytes of memory that it has allocated.
    pub fn allocated(&self) -> usize {
        self.role.allocated() + self.draft.allocated() + self.part.allocated()
    }

    /// A value begins.
    pub fn begin(
        &mut self,
        parent: MessageNode<P::Node>,
        key: &[u8],
        kind: Kind,
        prompts: &mut Prompts,
    ) -> Want<MessageNode<P::Node>> {
        if prompts.is_full() {
            return Want::Nothing;
        }
        let [message, part] = &mut self.at;
        let level = match (parent, kind) {
            (MessageNode::List, _) => {
                *message = message.wrapping_add(1);
                *part = 0;
                if kind == Kind::Object {
                    self.begin_message();
                    return Want::Inside(MessageNode::Message);
                }
                LIST
            }
            (MessageNode::Message, Kind::Null) if matches!(key, b"role" | b"content") => {
                return Want::Nothing;
            }
            (MessageNode::Message, Kind::String)
                if key == b"role" && self.role_state == State::Missing =>
            {
                self.role_state = State::Read;
                return Want::Inside(MessageNode::Role);
            }
            (MessageNode::Message, _) => {
                if key == b"role" && self.role_state == State::Missing {
                    self.role_state = State::Odd;
                }
                self.begin_member(prompts);
                match self.content(key, kind) {
                    Some(place) => return Want::Inside(place),
                    None => MESSAGE,
                }
            }
            (MessageNode::Parts, _) => {
                *part = part.wrapping_add(1);
                if kind == Kind::Object {
                    return Want::Inside(MessageNode::Part(self.part.start()));
                }
                PARTS
            }
            (MessageNode::Part(parent), _) => match self.part.begin(parent, key, kind) {
                Want::Nothing => self.part.level(parent),
                Want::Inside(place) => return Want::Inside(MessageNode::Part(place)),
                Want::Raw(place) => return Want::Raw(MessageNode::Part(place)),
            },
            (MessageNode::Extra(_), _) => {
                let mut out = self.out(prompts);
                let place = extra::begin(key, kind, &mut |bytes| out.text(bytes));
                return Want::Inside(MessageNode::Extra(place));
            }
            (MessageNode::Role | MessageNode::Content, _) => return Want::Nothing,
        };
        if key == CACHE_CONTROL {
            return Want::Nothing;
        }
        let place = self.out(prompts).begin_extra(level, key, kind);
        Want::Inside(MessageNode::Extra(place))
    }

    fn begin_message(&mut self) {
        self.role.clear();
        self.draft.clear();
        self.role_state = State::Missing;
        self.content_state = State::Missing;
        self.headed = false;
    }

    /// Something that stands behind the role begins: where that is known, it goes ahead.
    fn begin_member(&mut self, prompts: &mut Prompts) {
        if self.role_state != State::Missing {
            self.head(prompts);
        }
    }

    /// The place of a member of a message, if it is the content.
    fn content(&mut self, key: &[u8], kind: Kind) -> Option<MessageNode<P::Node>> {
        if key != b"content" || self.content_state != State::Missing {
            return None;
        }
        let place = match kind {
            Kind::String => Some(MessageNode::Content),
            Kind::Array => Some(MessageNode::Parts),
            _ => None,
        };
        self.content_state = match place {
            Some(_) => State::Read,
            None => State::Odd,
        };
        place
    }

    /// Where what stands behind a message's role goes.
    fn out<'a>(&'a mut self, prompts: &'a mut Prompts) -> Out<'a> {
        Out {
            prompts,
            draft: (!self.headed).then_some(&mut self.draft),
            at: self.at,
        }
    }

    /// More of a value. Whether more is wanted.
    pub fn bytes(
        &mut self,
        place: MessageNode<P::Node>,
        bytes: &[u8],
        prompts: &mut Prompts,
    ) -> bool {
        if let MessageNode::Role = place {
            return self.role.text(bytes, prompts.room());
        }
        let mut out = Out {
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

    /// A value has ended.
    pub fn end(&mut self, place: MessageNode<P::Node>, prompts: &mut Prompts) {
        match place {
            MessageNode::Part(place) => {
                let mut out = Out {
                    prompts,
                    draft: (!self.headed).then_some(&mut self.draft),
                    at: self.at,
                };
                self.part.end(place, &mut out);
            }
            MessageNode::Extra(_) => self.out(prompts).end_extra(),
            MessageNode::Role if self.role.is_empty() => self.role_state = State::Odd,
            MessageNode::Message => self.end_message(prompts),
            MessageNode::List | MessageNode::Role | MessageNode::Content | MessageNode::Parts => {}
        }
    }

    fn end_message(&mut self, prompts: &mut Prompts) {
        self.head(prompts);
        let states = [self.role_state, self.content_state];
        if states != [State::Read; 2] {
            // Without it the prompt would not show that it is there, or where it ends.
            let states = states.map(|state| state as u8);
            self.out(prompts).extra(MESSAGE, b"", &states);
        }
        if self.flattening == Flattening::Seed {
            prompts.text(b"<|im_end|>\n");
        }
    }

    /// What comes before the content, and what waited for it.
    fn head(&mut self, prompts: &mut Prompts) {
        if std::mem::replace(&mut self.headed, true) {
            return;
        }
        let seed = self.flattening == Flattening::Seed;
        if seed {
            prompts.text(b"<|im_start|>");
        }
        self.role.give(&mut Out::prompt(prompts));
        if seed {
            prompts.text(b"\n");
        }
        self.draft.give(&mut Out::prompt(prompts));
    }
}
