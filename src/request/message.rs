//! A conversation's messages: of each its role, then its content, in whichever order they come.

use super::prompt::{Draft, Out, Prompts};
use super::scan::{Kind, Want};
use super::Flattening;

/// A place in a list of messages; `P` one in a part of a message's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<P> {
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
}

/// Reads the parts of a message's content, one after the other.
pub trait Part: Default {
    /// A place in a part.
    type Place: Copy;

    /// A part begins; this is its place.
    fn start(&mut self) -> Self::Place;

    /// A value in it begins.
    fn begin(&mut self, parent: Self::Place, key: &[u8], kind: Kind) -> Want<Self::Place>;

    /// More of a value in it. Whether more is wanted.
    fn bytes(&mut self, place: Self::Place, bytes: &[u8], out: &mut Out<'_>) -> bool;

    /// A value in it has ended, or the part.
    fn end(&mut self, place: Self::Place, out: &mut Out<'_>);

    /// Returns the bytes of memory that it has allocated.
    fn allocated(&self) -> usize;
}

/// Reads messages. A content that comes before its role is held until the role is known, as far as
/// the window reaches.
#[derive(Debug, Default)]
pub struct Messages<P> {
    flattening: Flattening,
    role: Draft,
    draft: Draft,
    part: P,
    role_state: State,
    content_state: State,
    /// Whether the content goes into the draft.
    drafting: bool,
}

/// How far a member of a message is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Missing,
    /// It was there, but not as a text (or, of a content, as parts).
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
    }

    /// Returns the bytes of memory that it has allocated.
    pub fn allocated(&self) -> usize {
        self.role.allocated() + self.draft.allocated() + self.part.allocated()
    }

    /// A value begins.
    pub fn begin(
        &mut self,
        parent: Place<P::Place>,
        key: &[u8],
        kind: Kind,
        prompts: &mut Prompts,
    ) -> Want<Place<P::Place>> {
        if prompts.is_full() {
            return Want::Nothing;
        }
        match (parent, kind) {
            (Place::List, Kind::Object) => {
                self.role.clear();
                self.draft.clear();
                self.role_state = State::Missing;
                self.content_state = State::Missing;
                self.drafting = false;
                Want::Inside(Place::Message)
            }
            (Place::Message, _) if key == b"role" => self.begin_role(kind),
            (Place::Message, _) if key == b"content" => self.begin_content(kind, prompts),
            (Place::Parts, Kind::Object) => Want::Inside(Place::Part(self.part.start())),
            (Place::Part(parent), _) => match self.part.begin(parent, key, kind) {
                Want::Nothing => Want::Nothing,
                Want::Inside(place) => Want::Inside(Place::Part(place)),
                Want::Raw(place) => Want::Raw(Place::Part(place)),
            },
            _ => Want::Nothing,
        }
    }

    fn begin_role(&mut self, kind: Kind) -> Want<Place<P::Place>> {
        if self.role_state != State::Missing {
            return Want::Nothing;
        }
        self.role_state = State::Odd;
        if kind != Kind::String {
            return Want::Nothing;
        }
        self.role_state = State::Read;
        Want::Inside(Place::Role)
    }

    fn begin_content(&mut self, kind: Kind, prompts: &mut Prompts) -> Want<Place<P::Place>> {
        if self.content_state != State::Missing {
            return Want::Nothing;
        }
        let place = match (kind, self.flattening) {
            (Kind::String, _) => Place::Content,
            (Kind::Array, Flattening::Today) => Place::Parts,
            _ => {
                self.content_state = State::Odd;
                return Want::Nothing;
            }
        };
        self.content_state = State::Read;
        match self.role_state {
            State::Read => self.head(prompts),
            State::Missing => self.drafting = true,
            State::Odd if self.flattening == Flattening::Seed => return Want::Nothing,
            State::Odd => {}
        }
        Want::Inside(place)
    }

    /// More of a value. Whether more is wanted.
    pub fn bytes(&mut self, place: Place<P::Place>, bytes: &[u8], prompts: &mut Prompts) -> bool {
        if let Place::Role = place {
            return self.role.text(bytes, prompts.room());
        }
        let mut out = Out {
            prompts,
            draft: self.drafting.then_some(&mut self.draft),
        };
        match place {
            Place::Content => out.text(bytes),
            Place::Part(place) => self.part.bytes(place, bytes, &mut out),
            Place::List | Place::Message | Place::Role | Place::Parts => false,
        }
    }

    /// A value has ended.
    pub fn end(&mut self, place: Place<P::Place>, prompts: &mut Prompts) {
        match place {
            Place::Part(place) => {
                let draft = self.drafting.then_some(&mut self.draft);
                self.part.end(place, &mut Out { prompts, draft });
            }
            Place::Message => self.end_message(prompts),
            Place::List => prompts.close(),
            Place::Role | Place::Content | Place::Parts => {}
        }
    }

    fn end_message(&mut self, prompts: &mut Prompts) {
        let seed = self.flattening == Flattening::Seed;
        let both = (self.role_state, self.content_state) == (State::Read, State::Read);
        if seed && !both {
            return;
        }
        if self.drafting || self.content_state != State::Read {
            self.head(prompts);
        }
        let draft = None;
        self.draft.give(&mut Out { prompts, draft });
        if seed {
            prompts.text(b"<|im_end|>\n");
        }
    }

    /// What comes before the content.
    fn head(&mut self, prompts: &mut Prompts) {
        let seed = self.flattening == Flattening::Seed;
        if seed {
            prompts.text(b"<|im_start|>");
        }
        let draft = None;
        self.role.give(&mut Out { prompts, draft });
        if seed {
            prompts.text(b"\n");
        }
    }
}
