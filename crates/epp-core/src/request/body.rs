//! A body's outermost object: which of its fields are read, by which reader; and the order of the parts
//! of a prompt that are fields of their own.
//!
//! Tools and system text come first in a prompt and often last in a body. The turns are hashed as
//! they come, as if there were none; a part that turns up after one that it precedes makes the
//! prompt begin again, once nothing else can turn up.

use std::ops::Range;

use super::api::chat::ChatPart;
use super::api::completions::{self, PromptReader};
use super::api::messages::{self, MessagesPart, System, SystemNode};
use super::api::{chat, conversations, embeddings, responses, Api, Field};
use super::canon;
use super::extra::{self, Extras};
use super::facts::{self, Facts};
use super::json::JsonParts;
use super::message::{self, Messages};
use super::prompt::Prompts;
use super::scan::{Kind, Visit, Want};
use super::section::Section;
use super::{Fact, Flattening, ReadPlan};

/// A place in a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyNode {
    /// The outermost object.
    Body,
    /// A fact.
    Fact(facts::FactNode),
    /// An object that holds facts.
    Facts(&'static [(&'static [u8], Field)]),
    /// In a prompt or a list of them.
    Prompt(completions::PromptNode),
    /// In the messages of a chat.
    Chat(message::MessageNode<chat::ChatNode>),
    /// In Anthropic's messages.
    Messages(message::MessageNode<messages::ContentNode>),
    /// In the system text.
    System(SystemNode),
    /// In a part that is re-serialized as JSON.
    Json(canon::CanonNode),
    /// In a field that is in no layout.
    Extra(extra::ExtraNode),
}

/// Reads one body.
#[derive(Debug, Default)]
pub struct Body {
    api: Api,
    flattening: Flattening,
    /// Whether the turns end the prompt.
    assumes: bool,
    extras: Extras,
    facts: Facts,
    prompts: Prompts,
    prompt: PromptReader,
    chat: Messages<ChatPart>,
    messages: Messages<MessagesPart>,
    system_text: System,
    json: JsonParts,
    tools: Section,
    system: Section,
    turns: Section,
    /// Whether nothing more comes.
    finished: bool,
    /// Whether the prompt is being read again.
    again: bool,
    /// Whether there was too much JSON in the prompt.
    given_up: bool,
}

impl Body {
    /// Begins another body.
    pub fn reset(&mut self, api: Api, plan: &ReadPlan) {
        self.api = api;
        self.assumes = plan.assume_absent;
        self.extras.reset(&plan.key);
        let has = |field: Field| api.fields().iter().any(|(_, own)| *own == field);
        // The seed's own layout is of chats and completions; of other APIs there is one only.
        let own = matches!(api, Api::ChatCompletions | Api::Completions);
        self.flattening = match own {
            true => plan.flattening,
            false => Flattening::Today,
        };
        let today = self.flattening == Flattening::Today;
        let salt = today && has(Field::Fact(facts::FactNode::Salt));
        self.facts
            .reset(has(Field::Fact(facts::FactNode::Model)), salt);
        self.prompts.reset(&plan.blocks, &plan.key);
        if api == Api::ImagesGenerations {
            self.prompts.close();
        }
        let prompt = !self.prompts.is_closed();
        self.prompt
            .reset((api == Api::Embeddings).then_some(embeddings::FRAME));
        self.chat.reset(self.flattening);
        self.messages.reset(self.flattening);
        self.system_text.reset();
        self.json.reset();
        self.tools.reset(prompt && today && has(Field::Tools));
        self.system.reset(prompt && today && has(Field::System));
        self.turns.reset(prompt);
        self.finished = false;
        self.again = false;
        self.given_up = false;
    }

    /// What it says besides its prompt.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Which API it speaks.
    pub fn api(&self) -> Api {
        self.api
    }

    /// Takes over what its end told.
    pub fn add_facts(&mut self, facts: Facts) {
        self.facts.add(facts);
    }

    /// Returns the bytes of memory that it has allocated.
    pub fn allocated(&self) -> usize {
        let parts = [
            self.facts.allocated(),
            self.prompts.allocated(),
            self.prompt.allocated(),
            self.chat.allocated(),
            self.messages.allocated(),
            self.system_text.allocated(),
            self.json.canon.allocated(),
        ];
        parts.into_iter().sum()
    }

    /// Its prompts.
    pub fn prompts(&self) -> &Prompts {
        &self.prompts
    }

    /// Nothing more comes.
    pub fn finish(&mut self) {
        self.facts.finish();
        self.tools.begun = true;
        self.system.begun = true;
        self.finished = true;
        self.give_json();
        self.end_prompt();
    }

    /// Nothing more comes of the prompt.
    fn end_prompt(&mut self) {
        self.extras.give_behind(&mut self.prompts);
        self.prompts.close();
    }

    /// The turns have ended.
    fn end_turns(&mut self) {
        if self.assumes {
            self.prompts.close();
        }
    }

    /// Whether something may still come that precedes what was read in the prompt.
    pub fn may_precede(&self) -> bool {
        let mut sections = [&self.tools, &self.system].into_iter();
        sections.any(|section| !section.begun || section.is_open())
    }

    /// Whether a part came after one that it precedes, so that the prompt must begin again.
    pub fn is_out_of_order(&self) -> bool {
        self.tools.late || self.system.late
    }

    /// Whether no further block counts, if nothing precedes those read.
    pub fn is_full(&self) -> bool {
        self.prompts.is_closed() || self.prompts.is_full()
    }

    /// Whether another prompt may follow.
    pub fn may_add_prompts(&self) -> bool {
        let prompts = self.api.fields().iter();
        let mut prompts = prompts.filter(|(_, field)| *field == Field::Prompt);
        let open = !self.prompts.is_closed() && self.turns.span.is_none();
        prompts.next().is_some() && open && !self.prompt.is_single()
    }

    /// The parts that must be read again, in the prompt's order, because one of them came late.
    /// Empty as long as another may turn up or the last is not over.
    pub fn to_read_again(&self) -> [Option<(BodyNode, Range<usize>)>; 2] {
        let early = self.assumes && !self.may_precede() && self.turns.span.is_some();
        let over = self.finished || early;
        if !self.is_out_of_order() || !over {
            return [None, None];
        }
        let turns = turns_of(self.api);
        let system = BodyNode::System(SystemNode::Whole);
        [
            self.system.span.clone().map(|span| (system, span)),
            self.turns.span.clone().map(|span| (turns, span)),
        ]
    }

    /// The prompt restarts: its parts are read again.
    pub fn begin_again(&mut self) {
        self.again = true;
        self.prompts.restart();
        self.extras.give_front(&mut self.prompts);
        self.prompts.text(self.json.tools());
    }

    /// The parts were read again, as far as they could be.
    pub fn end_again(&mut self) {
        self.again = false;
        self.tools.late = false;
        self.system.late = false;
        self.end_prompt();
    }

    /// Whether the parts are not worth hashing now, because they will be read again.
    fn waits_for_again(&self) -> bool {
        self.is_out_of_order() && !self.again
    }

    /// A field of the outermost object begins.
    fn begin_field(&mut self, key: &[u8], kind: Kind, at: usize) -> Want<BodyNode> {
        let Some(field) = self.api.field(key) else {
            return Want::Nothing;
        };
        let today = self.flattening == Flattening::Today;
        match field {
            Field::Fact(facts::FactNode::Salt) if !today => self.begin_extra(key, kind),
            Field::Fact(place) => place_of(self.facts.begin(place, kind, at), BodyNode::Fact),
            Field::Facts(fields) if kind == Kind::Object => Want::Inside(BodyNode::Facts(fields)),
            Field::Facts(_) => Want::Nothing,
            _ => match self.begin_part(field, kind, at) {
                Want::Nothing => self.begin_extra(key, kind),
                want => want,
            },
        }
    }

    /// A field begins that may be a part of the prompt.
    fn begin_part(&mut self, field: Field, kind: Kind, at: usize) -> Want<BodyNode> {
        let list = kind == Kind::Array;
        match field {
            Field::Prompt if self.turns.begin(at) => {
                let want = self.prompt.begin_field(kind, &mut self.prompts);
                if want == Want::Nothing {
                    self.turns.end(at);
                }
                place_of(want, BodyNode::Prompt)
            }
            Field::Turns if self.turns.begin(at) && list => {
                self.turns.counts = true;
                Want::Inside(turns_of(self.api))
            }
            Field::System if self.system.begin(at) && (list || kind == Kind::String) => {
                self.system.counts = true;
                self.system.late = self.turns.counts;
                Want::Inside(BodyNode::System(SystemNode::Whole))
            }
            Field::Tools if self.tools.begin(at) && list => {
                self.tools.late = self.turns.counts || self.system.counts;
                let shape = (self.api == Api::Messages).then_some(messages::TOOL);
                place_of(self.json.begin(0, kind, shape), BodyNode::Json)
            }
            Field::Json(part) if !self.prompts.is_closed() => {
                let shape = (self.api == Api::Conversations).then_some(conversations::ITEM);
                place_of(self.json.begin(part.into(), kind, shape), BodyNode::Json)
            }
            _ => Want::Nothing,
        }
    }

    /// A field begins that is in no layout, or has an unexpected kind.
    fn begin_extra(&mut self, key: &[u8], kind: Kind) -> Want<BodyNode> {
        let over = self.prompts.is_full();
        if over || kind == Kind::Null {
            return Want::Nothing;
        }
        self.prompts.keep_partial();
        self.extras.is_behind = self.turns.begun || !self.json_frames().is_empty();
        let (extras, prompts) = (&mut self.extras, &mut self.prompts);
        let mut put = |bytes: &[u8]| extras.put(bytes, prompts);
        extra::mark([0; 3], &mut put);
        Want::Inside(BodyNode::Extra(extra::begin(key, kind, &mut put)))
    }

    fn end_json(&mut self, place: canon::CanonNode) {
        let whole = self.json.end(place);
        self.give_up_overflown();
        if !whole {
            return;
        }
        if self
            .api
            .fields()
            .iter()
            .any(|(_, field)| *field == Field::Tools)
        {
            self.end_tools();
        } else if self.json.is_whole(self.json_frames().len()) {
            self.give_json();
        }
    }

    fn end_tools(&mut self) {
        // Only that they have ended matters: what they say is held.
        self.tools.end(self.tools.start);
        if self.json.tools().is_empty() {
            self.tools.late = false;
        } else if !self.tools.late {
            self.prompts.text(self.json.tools());
        }
    }

    /// Gives the prompt up where there was too much JSON in it: nothing is known of what it begins
    /// with. What was read of it is freed at once, and not waited for.
    fn give_up_overflown(&mut self) {
        if self.json.overflown() && !self.given_up {
            self.given_up = true;
            self.tools.late = false;
            self.system.late = false;
            self.prompts.restart();
            self.prompts.close();
        }
    }

    /// What stands before each part of a prompt that is JSON.
    fn json_frames(&self) -> &'static [&'static str] {
        match self.api {
            Api::Responses => responses::FRAMES,
            Api::Conversations => conversations::FRAMES,
            _ => &[],
        }
    }

    /// Hands over a prompt that is JSON.
    fn give_json(&mut self) {
        let frames = self.json_frames();
        if !frames.is_empty() && self.turns.begin(0) {
            self.json.give(frames, &mut self.prompts);
            self.end_turns();
        }
    }
}

/// The place of the turns of a conversation.
fn turns_of(api: Api) -> BodyNode {
    match api {
        Api::Messages => BodyNode::Messages(message::MessageNode::List),
        _ => BodyNode::Chat(message::MessageNode::List),
    }
}

/// Names a place in a part of the body as one in the body.
fn place_of<P>(want: Want<P>, name: impl Fn(P) -> BodyNode) -> Want<BodyNode> {
    match want {
        Want::Nothing => Want::Nothing,
        Want::Inside(place) => Want::Inside(name(place)),
        Want::Raw(place) => Want::Raw(name(place)),
    }
}

impl Visit for Body {
    type Node = BodyNode;

    fn begin(&mut self, parent: BodyNode, key: &[u8], kind: Kind, at: usize) -> Want<BodyNode> {
        let waits = self.waits_for_again();
        let prompts = &mut self.prompts;
        match parent {
            BodyNode::Body => self.begin_field(key, kind, at),
            BodyNode::Facts(fields) => match fields.iter().find(|(name, _)| *name == key) {
                Some((_, Field::Fact(place))) => {
                    place_of(self.facts.begin(*place, kind, at), BodyNode::Fact)
                }
                _ => Want::Nothing,
            },
            BodyNode::Prompt(parent) => {
                let want = self.prompt.begin(parent, key, kind, prompts);
                place_of(want, BodyNode::Prompt)
            }
            BodyNode::Chat(_) | BodyNode::Messages(_) | BodyNode::System(_) if waits => {
                Want::Nothing
            }
            BodyNode::Chat(parent) => {
                place_of(self.chat.begin(parent, key, kind, prompts), BodyNode::Chat)
            }
            BodyNode::Messages(parent) => {
                let want = self.messages.begin(parent, key, kind, prompts);
                place_of(want, BodyNode::Messages)
            }
            BodyNode::System(_) if prompts.is_full() => Want::Nothing,
            BodyNode::System(parent) => {
                let want = self.system_text.begin(parent, key, kind, prompts);
                place_of(want, BodyNode::System)
            }
            BodyNode::Extra(_) if self.extras.is_over(prompts) => Want::Nothing,
            BodyNode::Extra(_) => {
                let extras = &mut self.extras;
                let place = extra::begin(key, kind, &mut |bytes| extras.put(bytes, prompts));
                Want::Inside(BodyNode::Extra(place))
            }
            BodyNode::Json(_) => {
                let want = place_of(self.json.canon.begin(key, kind), BodyNode::Json);
                self.give_up_overflown();
                want
            }
            BodyNode::Fact(_) => Want::Nothing,
        }
    }

    fn bytes(&mut self, place: BodyNode, bytes: &[u8]) -> bool {
        let waits = self.waits_for_again();
        let prompts = &mut self.prompts;
        match place {
            BodyNode::Prompt(place) => self.prompt.bytes(place, bytes, prompts),
            BodyNode::Chat(place) => self.chat.bytes(place, bytes, prompts),
            BodyNode::Messages(place) => self.messages.bytes(place, bytes, prompts),
            BodyNode::System(_) if waits => false,
            BodyNode::System(place) => self.system_text.bytes(place, bytes, prompts),
            BodyNode::Extra(_) => self.extras.put(bytes, prompts),
            BodyNode::Json(place) => {
                let more = self.json.canon.bytes(place, bytes);
                self.give_up_overflown();
                more
            }
            BodyNode::Fact(place) => self.facts.bytes(place, bytes),
            BodyNode::Body | BodyNode::Facts(_) => false,
        }
    }

    fn end(&mut self, place: BodyNode, at: usize) {
        let prompts = &mut self.prompts;
        match place {
            BodyNode::Prompt(place) => self.prompt.end(place, prompts),
            BodyNode::Chat(place) => self.chat.end(place, prompts),
            BodyNode::Messages(place) => self.messages.end(place, prompts),
            BodyNode::System(place) => self.system_text.end(place, prompts),
            BodyNode::Extra(_) => extra::end(&mut |bytes| self.extras.put(bytes, prompts)),
            BodyNode::Json(place) => self.end_json(place),
            BodyNode::Fact(place) => self.facts.end(place, at),
            BodyNode::Body | BodyNode::Facts(_) => {}
        }
        if self.again {
            return;
        }
        match place {
            BodyNode::Chat(message::MessageNode::List)
            | BodyNode::Messages(message::MessageNode::List)
            | BodyNode::Prompt(completions::PromptNode::Whole) => {
                self.turns.end(at);
                self.end_turns();
            }
            BodyNode::System(SystemNode::Whole) => self.system.end(at),
            _ => {}
        }
    }

    fn is_done(&self) -> bool {
        let known = |fact: Fact<&str>| fact != Fact::Unknown;
        let prompt = if self.waits_for_again() {
            self.assumes && self.turns.span.is_some()
        } else {
            self.is_full()
        };
        prompt && !self.may_precede() && known(self.facts.model()) && known(self.facts.salt())
    }
}
